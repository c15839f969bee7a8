use super::super::findings::{Cost, Findings, OperatingPoint, Value};
use super::super::format::{mega, percent, plain, time};
use super::axis::{Axis, range};
use super::labels::Labels;
use super::legend::{Symbol, legend};
use super::svg::{Anchor, Svg};

/// The cost on the horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum CostKind {
    Flops,
    Time,
}

impl CostKind {
    fn of(self, cost: Cost) -> f64 {
        match self {
            CostKind::Flops => cost.flops,
            CostKind::Time => cost.seconds,
        }
    }

    fn name(self) -> &'static str {
        match self {
            CostKind::Flops => "MFLOPs per request",
            CostKind::Time => "measured milliseconds per request, alone",
        }
    }

    /// The label of a tick.
    fn tick(self, cost: f64) -> String {
        match self {
            CostKind::Flops => format!("{}", (cost / 1e4).round() / 100.0),
            CostKind::Time => format!("{}", (cost * 1e5).round() / 100.0),
        }
    }

    /// The cost in a tooltip.
    fn text(self, cost: f64) -> String {
        match self {
            CostKind::Flops => format!("{} MFLOPs", mega(cost)),
            CostKind::Time => time(cost),
        }
    }
}

/// Lines of the grid, about.
const TICKS: usize = 6;

const RIGHT: f64 = 14.0;
/// Height of a line of notes above the plot.
const NOTE: f64 = 14.0;
const LEFT: f64 = 50.0;

/// Plots accuracy over cost: every static route, the hull of their mixtures, the router at each budget, and random routes
/// with its frequencies.
///
/// A bar of the router is the 95 % interval of its paired difference from the hull. So a bar that crosses the hull shows
/// no difference.
pub(in crate::report) fn accuracy_over_cost(found: &Findings, kind: CostKind, width: f64) -> Svg {
    let mut svg =
        Svg::new(width, format!("NDCG@10 against {}: slices, their best static mixtures, and the router", kind.name()));
    let mut entries = vec![
        (Symbol::Dotted("routed", "routed-dot"), "the router at its budgets"),
        (Symbol::Dotted("hull", "corner"), "best static mixture"),
        (Symbol::Dot("static-dot"), "a slice for every user"),
        (Symbol::Line("matched"), "random, the router's shares"),
        (Symbol::Dot("random-dot"), "random, uniform"),
    ];
    if !found.trained_alone.is_empty() {
        entries.push((Symbol::Diamond("alone-dot"), "trained alone"));
    }
    let limits = limits(found, kind);
    let (drawn, notes) = references(found, limits);
    let top = legend(&mut svg, &entries) + NOTE * notes.len() as f64 + 12.0;
    let bottom = top + if width > 600.0 { 380.0 } else { 300.0 };
    let right = width - RIGHT;
    for (place, note) in notes.iter().rev().enumerate() {
        svg.text("small", Anchor::End, [right, top - 8.0 - NOTE * place as f64], note);
    }
    let hull = match kind {
        CostKind::Flops => &found.hull,
        CostKind::Time => &found.hull_by_time,
    };

    let costs = found.routes.iter().map(|route| route.cost).chain(found.points.iter().map(|point| point.cost));
    let [_, dearest] = range(costs.chain(found.trained_alone.iter().map(|alone| alone.cost)).map(|cost| kind.of(cost)));
    let across = Axis::new([0.0, 1.04 * dearest], [LEFT, right]);
    let up = Axis::new(limits, [bottom, top]);
    frame(&mut svg, kind, &across, &up, [top, bottom]);
    let place = |cost: f64, value: f64| [across.at(cost), up.at(value)];
    let mut labels = Labels::new([LEFT, top, right, bottom]);
    for y in up.ticks(TICKS).into_iter().map(|value| up.at(value)) {
        labels.avoid_grid([[LEFT, y], [right, y]]);
    }
    for (_, value) in &drawn {
        let y = up.at(*value);
        svg.line("zero", [LEFT, y, right, y]);
        labels.avoid_line([[LEFT, y], [right, y]]);
    }
    for route in &found.routes {
        let at = place(kind.of(route.cost), route.test.mean);
        let tip = format!("{}: {}, {}", route.name, plain(route.test.mean), kind.text(kind.of(route.cost)));
        svg.disc("static-dot", at, 3.5, &tip);
        labels.reserve(at, 4.0);
    }
    let vertices: Vec<[f64; 2]> = hull.iter().map(|[cost, value]| place(*cost, *value)).collect();
    svg.path("hull", &vertices);
    vertices.windows(2).for_each(|pair| labels.avoid_line([pair[0], pair[1]]));
    if let Some([x, y]) = vertices.last() {
        let end = [across.at(dearest), *y];
        svg.path("beyond", &[[*x, *y], end]);
        labels.avoid_line([[*x, *y], end]);
    }
    let of_points =
        |of: &dyn Fn(&OperatingPoint) -> [f64; 2]| -> Vec<[f64; 2]> { found.points.iter().map(of).collect() };
    let matched = of_points(&|point| place(kind.of(point.matched.cost), point.matched.test.mean));
    svg.path("matched", &matched);
    matched.windows(2).for_each(|pair| labels.avoid_line([pair[0], pair[1]]));
    let tip = format!("uniformly random: {}", plain(found.random.test.mean));
    svg.disc("random-dot", place(kind.of(found.random.cost), found.random.test.mean), 4.0, &tip);
    let routed = of_points(&|point| place(kind.of(point.cost), point.test.mean));
    for (point, at) in found.points.iter().zip(&routed) {
        if let Some([low, high]) = bar(point, kind) {
            svg.line("bar", [at[0], up.at(low), at[0], up.at(high)]);
            labels.avoid_line([[at[0], up.at(low)], [at[0], up.at(high)]]);
        }
    }
    svg.path("routed", &routed);
    for alone in &found.trained_alone {
        let at = place(kind.of(alone.cost), alone.test.mean);
        svg.diamond("alone-dot", at, 5.5, &format!("{} alone: {}", alone.slice, plain(alone.test.mean)));
        labels.reserve(at, 6.0);
    }
    for (point, at) in found.points.iter().zip(&routed) {
        let budget =
            point.budget.map_or_else(|| "the router".to_owned(), |budget| format!("budget {}", percent(budget)));
        let tip = format!("{budget}: {}, {}", plain(point.test.mean), kind.text(kind.of(point.cost)));
        svg.disc("routed-dot", *at, 4.0, &tip);
        labels.reserve(*at, 5.0);
    }
    routed.windows(2).for_each(|pair| labels.avoid_line([pair[0], pair[1]]));
    for vertex in &vertices {
        svg.disc("corner", *vertex, 4.0, "a slice of the best static mixtures");
    }
    for (name, value) in &drawn {
        labels.draw(&mut svg, "small", [right - 2.0, up.at(*value)], &format!("{name} {}", plain(*value)));
    }
    if let Some((point, at)) = found.points.get(found.map.point).zip(routed.get(found.map.point)) {
        let name = point.budget.map_or_else(|| "routed".to_owned(), |budget| format!("routed, {}", percent(budget)));
        labels.draw(&mut svg, "routed-name", *at, &name);
    }
    let named = found
        .routes
        .iter()
        .enumerate()
        .filter(|(index, route)| route.on_hulls > 0 || *index == 0 || index + 1 == found.routes.len());
    for (index, route) in named {
        let at = place(kind.of(route.cost), route.test.mean);
        let full = if index + 1 == found.routes.len() { " (full)" } else { "" };
        labels.draw(&mut svg, "small", at, &format!("{}{full}", route.name));
    }
    svg.reach(bottom + 44.0);
    svg
}

fn frame(svg: &mut Svg, kind: CostKind, across: &Axis, up: &Axis, [top, bottom]: [f64; 2]) {
    let right = svg.width() - RIGHT;
    for value in up.ticks(TICKS) {
        let y = up.at(value);
        svg.line("grid", [LEFT, y, right, y]);
        svg.text("", Anchor::End, [LEFT - 6.0, y + 4.0], &plain(value));
    }
    for cost in across.ticks(if svg.width() > 600.0 { 9 } else { 5 }) {
        let x = across.at(cost);
        svg.line("axis", [x, bottom, x, bottom + 4.0]);
        svg.text("", Anchor::Middle, [x, bottom + 18.0], &kind.tick(cost));
    }
    svg.line("axis", [LEFT, bottom, right, bottom]);
    svg.text("", Anchor::Middle, [f64::midpoint(LEFT, right), bottom + 38.0], kind.name());
    svg.text("", Anchor::Start, [2.0, top - 8.0], "NDCG@10");
}

/// The 95 % interval of the router's difference from the static mixture of equal cost, shifted to the mixture's value.
fn bar(point: &OperatingPoint, kind: CostKind) -> Option<[f64; 2]> {
    let over: &Value = match kind {
        CostKind::Flops => &point.over.hull,
        CostKind::Time => &point.over.hull_by_time,
    };
    let static_value = point.test.mean - over.mean;
    over.interval.map(|[low, high]| [static_value + low, static_value + high])
}

/// The range of the vertical axis.
fn limits(found: &Findings, kind: CostKind) -> [f64; 2] {
    let routed = found.points.iter().flat_map(|point| [point.test.mean, point.matched.test.mean]);
    let others = found.routes.iter().map(|route| route.test.mean).chain([found.random.test.mean]);
    let bars = found.points.iter().filter_map(|point| bar(point, kind)).flatten();
    let alone = found.trained_alone.iter().map(|alone| alone.test.mean);
    let [low, high] = range(routed.chain(others).chain(bars).chain(alone));
    let room = 0.07 * (high - low);
    [low - room, high + room]
}

/// Horizontal reference lines within the axis, and notes on those outside it.
fn references(found: &Findings, [low, high]: [f64; 2]) -> (Vec<(&'static str, f64)>, Vec<String>) {
    let all = [
        ("oracle in hindsight, mostly noise", found.oracle.test.mean),
        ("Markov chain", found.markov.mean),
        ("popularity", found.popularity.mean),
    ];
    let (drawn, outside): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, value)| (low..=high).contains(value));
    let note = |(name, value): (&str, f64)| format!("{} {name} {}", if value > high { "↑" } else { "↓" }, plain(value));
    (drawn, outside.into_iter().map(note).collect())
}
