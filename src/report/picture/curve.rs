use super::super::findings::{Cost, Findings, Point};
use super::super::words::{mega, percent, plain, time};
use super::axis::{Axis, range};
use super::labels::Labels;
use super::svg::{Anchor, Svg};
use super::{Key, legend};

/// What the pictures' cost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum By {
    Flops,
    Time,
}

impl By {
    fn cost(self, cost: Cost) -> f64 {
        match self {
            By::Flops => cost.flops,
            By::Time => cost.seconds,
        }
    }

    fn name(self) -> &'static str {
        match self {
            By::Flops => "MFLOPs a request",
            By::Time => "milliseconds a request, alone, measured here",
        }
    }

    /// The number on the axis.
    fn tick(self, cost: f64) -> String {
        match self {
            By::Flops => format!("{}", (cost / 1e4).round() / 100.0),
            By::Time => format!("{}", (cost * 1e5).round() / 100.0),
        }
    }

    fn tell(self, cost: f64) -> String {
        match self {
            By::Flops => format!("{} MFLOPs", mega(cost)),
            By::Time => time(cost),
        }
    }
}

const RIGHT: f64 = 14.0;
/// A line of notes above the plot.
const NOTE: f64 = 14.0;
const LEFT: f64 = 50.0;

/// Accuracy over cost: every static route, the hull of their mixtures, the router along the budgets, and random routes of
/// its frequencies. The router's bars are the 95 % intervals of its paired difference from the hull, so a bar that
/// crosses the hull's value shows no difference.
pub(in crate::report) fn curve(found: &Findings, by: By, width: f64) -> Svg {
    let mut svg = Svg::new(width, format!("NDCG@10 against {}: static routes, their hull, and the router", by.name()));
    let mut entries = vec![
        (Key::Dotted("routed", "routed-dot"), "the router at its budgets"),
        (Key::Dotted("hull", "corner"), "best static mixture"),
        (Key::Dot("static-dot"), "a route for everybody"),
        (Key::Line("matched"), "random, the router's shares"),
        (Key::Dot("random-dot"), "random, all routes alike"),
    ];
    if !found.trained_alone.is_empty() {
        entries.push((Key::Diamond("alone-dot"), "trained alone"));
    }
    let limits = limits(found, by);
    let (drawn, notes) = references(found, limits);
    let top = legend(&mut svg, &entries) + NOTE * notes.len() as f64 + 12.0;
    let bottom = top + if width > 600.0 { 380.0 } else { 300.0 };
    let right = width - RIGHT;
    for (place, note) in notes.iter().rev().enumerate() {
        svg.text("small", Anchor::End, [right, top - 8.0 - NOTE * place as f64], note);
    }
    let hull = if by == By::Flops { &found.hull } else { &found.hull_by_time };

    let costs = found.routes.iter().map(|route| route.cost).chain(found.points.iter().map(|point| point.cost));
    let [_, dearest] = range(costs.chain(found.trained_alone.iter().map(|alone| alone.cost)).map(|cost| by.cost(cost)));
    let across = Axis::new([0.0, 1.04 * dearest], [LEFT, right]);
    let up = Axis::new(limits, [bottom, top]);
    frame(&mut svg, by, &across, &up, [top, bottom]);
    let place = |cost: f64, value: f64| [across.at(cost), up.at(value)];
    let mut labels = Labels::new([LEFT, top, right, bottom]);
    for (_, value) in &drawn {
        let y = up.at(*value);
        svg.line("zero", [LEFT, y, right, y]);
        labels.keep_line([[LEFT, y], [right, y]]);
    }
    for route in &found.routes {
        let at = place(by.cost(route.cost), route.test.mean);
        let tip = format!("{}: {}, {}", route.name, plain(route.test.mean), by.tell(by.cost(route.cost)));
        svg.disc("static-dot", at, 3.5, &tip);
        labels.keep(at, 4.0);
    }
    let corners: Vec<[f64; 2]> = hull.iter().map(|[cost, value]| place(*cost, *value)).collect();
    svg.path("hull", &corners);
    corners.windows(2).for_each(|pair| labels.keep_line([pair[0], pair[1]]));
    if let Some([x, y]) = corners.last() {
        let end = [across.at(dearest), *y];
        svg.path("beyond", &[[*x, *y], end]);
        labels.keep_line([[*x, *y], end]);
    }
    let of_points = |of: &dyn Fn(&Point) -> [f64; 2]| -> Vec<[f64; 2]> { found.points.iter().map(of).collect() };
    let matched = of_points(&|point| place(by.cost(point.matched.cost), point.matched.test.mean));
    svg.path("matched", &matched);
    matched.windows(2).for_each(|pair| labels.keep_line([pair[0], pair[1]]));
    let tip = format!("all routes alike: {}", plain(found.random.test.mean));
    svg.disc("random-dot", place(by.cost(found.random.cost), found.random.test.mean), 4.0, &tip);
    let routed = of_points(&|point| place(by.cost(point.cost), point.test.mean));
    for (point, at) in found.points.iter().zip(&routed) {
        if let Some([low, high]) = bar(point, by) {
            svg.line("bar", [at[0], up.at(low), at[0], up.at(high)]);
            labels.keep_line([[at[0], up.at(low)], [at[0], up.at(high)]]);
        }
    }
    svg.path("routed", &routed);
    for alone in &found.trained_alone {
        let at = place(by.cost(alone.cost), alone.test.mean);
        svg.diamond("alone-dot", at, 5.5, &format!("{} alone: {}", alone.slice, plain(alone.test.mean)));
        labels.keep(at, 6.0);
    }
    for (point, at) in found.points.iter().zip(&routed) {
        let budget =
            point.budget.map_or_else(|| "the router".to_owned(), |budget| format!("budget {}", percent(budget)));
        let tip = format!("{budget}: {}, {}", plain(point.test.mean), by.tell(by.cost(point.cost)));
        svg.disc("routed-dot", *at, 4.0, &tip);
        labels.keep(*at, 5.0);
    }
    routed.windows(2).for_each(|pair| labels.keep_line([pair[0], pair[1]]));
    for corner in &corners {
        svg.disc("corner", *corner, 4.0, "a corner of the best static mixtures");
    }
    for (name, value) in &drawn {
        labels.name(&mut svg, "small", [right - 2.0, up.at(*value)], &format!("{name} {}", plain(*value)));
    }
    if let Some((point, at)) = found.points.get(found.map.point).zip(routed.get(found.map.point)) {
        let name = point.budget.map_or_else(|| "routed".to_owned(), |budget| format!("routed, {}", percent(budget)));
        labels.name(&mut svg, "routed-name", *at, &name);
    }
    let named = found
        .routes
        .iter()
        .enumerate()
        .filter(|(index, route)| route.on_hulls > 0 || *index == 0 || index + 1 == found.routes.len());
    for (index, route) in named {
        let at = place(by.cost(route.cost), route.test.mean);
        let full = if index + 1 == found.routes.len() { " (full)" } else { "" };
        labels.name(&mut svg, "small", at, &format!("{}{full}", route.name));
    }
    svg.reach(bottom + 44.0);
    svg
}

fn frame(svg: &mut Svg, by: By, across: &Axis, up: &Axis, [top, bottom]: [f64; 2]) {
    let right = svg.width() - RIGHT;
    for value in up.ticks(6) {
        let y = up.at(value);
        svg.line("grid", [LEFT, y, right, y]);
        svg.text("", Anchor::End, [LEFT - 6.0, y + 4.0], &plain(value));
    }
    for cost in across.ticks(if svg.width() > 600.0 { 9 } else { 5 }) {
        let x = across.at(cost);
        svg.line("axis", [x, bottom, x, bottom + 4.0]);
        svg.text("", Anchor::Middle, [x, bottom + 18.0], &by.tick(cost));
    }
    svg.line("axis", [LEFT, bottom, right, bottom]);
    svg.text("", Anchor::Middle, [f64::midpoint(LEFT, right), bottom + 38.0], by.name());
    svg.text("", Anchor::Start, [2.0, top - 8.0], "NDCG@10");
}

/// The 95 % interval of the router's value around the static one of equal cost.
fn bar(point: &Point, by: By) -> Option<[f64; 2]> {
    let over = if by == By::Flops { &point.over.hull } else { &point.over.hull_by_time };
    let static_value = point.test.mean - over.mean;
    over.interval.map(|[low, high]| [static_value + low, static_value + high])
}

/// What the picture shows to scale, with some room.
fn limits(found: &Findings, by: By) -> [f64; 2] {
    let routed = found.points.iter().flat_map(|point| [point.test.mean, point.matched.test.mean]);
    let others = found.routes.iter().map(|route| route.test.mean).chain([found.random.test.mean]);
    let bars = found.points.iter().filter_map(|point| bar(point, by)).flatten();
    let alone = found.trained_alone.iter().map(|alone| alone.test.mean);
    let [low, high] = range(routed.chain(others).chain(bars).chain(alone));
    let room = 0.07 * (high - low);
    [low - room, high + room]
}

/// References that have no cost, or that nobody can run: those to be drawn, and notes on those beyond the scale.
fn references(found: &Findings, [low, high]: [f64; 2]) -> (Vec<(&'static str, f64)>, Vec<String>) {
    let all = [
        ("oracle in hindsight, mostly noise", found.oracle.test.mean),
        ("Markov chain", found.markov.mean),
        ("popularity", found.popularity.mean),
    ];
    let (drawn, beyond): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, value)| (low..=high).contains(value));
    let note = |(name, value): (&str, f64)| format!("{} {name} {}", if value > high { "↑" } else { "↓" }, plain(value));
    (drawn, beyond.into_iter().map(note).collect())
}
