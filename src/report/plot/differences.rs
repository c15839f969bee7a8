use super::super::findings::{Findings, PairedDifferences, Value};
use super::super::format::{difference, percent, signed};
use super::axis::{Axis, range};
use super::legend::{Symbol, legend};
use super::svg::{Anchor, Svg};
use canet_evaluation::Shown;

const LEFT: f64 = 54.0;
const TITLE: f64 = 26.0;
const PANEL: f64 = 170.0;
const BELOW: f64 = 44.0;

/// The plot of one comparison.
struct Panel {
    title: &'static str,
    of: fn(&PairedDifferences) -> &Value,
}

const PANELS: [Panel; 4] = [
    Panel { title: "routed − best static mixture, equal FLOPs", of: |over| &over.hull },
    Panel { title: "routed − full route", of: |over| &over.full },
    Panel { title: "routed − strongest slice", of: |over| &over.strongest },
    Panel { title: "routed − random, same shares", of: |over| &over.matched },
];

/// Plots the router's paired differences from the baselines at each budget, with 95 % intervals. All panels have one scale.
pub(in crate::report) fn differences(found: &Findings, width: f64) -> Svg {
    let mut svg = Svg::new(width, "Paired differences in NDCG@10 by budget, with 95 % intervals");
    let entries = [
        (Symbol::Dotted("better-bar", "routed-dot"), "better"),
        (Symbol::Dotted("open-bar", "open-dot"), "no difference shown"),
        (Symbol::Dotted("worse-bar", "worse-dot"), "worse"),
    ];
    let top = legend(&mut svg, &entries) + 4.0;
    let columns = if width > 600.0 { 2 } else { 1 };
    let span = width / columns as f64;
    let all = found.points.iter().flat_map(|point| {
        PANELS.iter().flat_map(|panel| {
            let value = (panel.of)(&point.over);
            value.interval.unwrap_or([value.mean; 2])
        })
    });
    let values = range(all.chain([0.0]));
    for (place, panel) in PANELS.iter().enumerate() {
        let left = (place % columns) as f64 * span;
        let y = top + (place / columns) as f64 * (TITLE + PANEL + BELOW);
        let up = Axis::padded(values, 0.06, [y + TITLE + PANEL, y + TITLE]);
        svg.text("strong", Anchor::Start, [left + 2.0, y + 14.0], panel.title);
        panel.draw(&mut svg, found, [left, left + span - 14.0], &up);
        svg.reach(y + TITLE + PANEL + BELOW);
    }
    svg
}

impl Panel {
    fn draw(&self, svg: &mut Svg, found: &Findings, [left, right]: [f64; 2], up: &Axis) {
        for value in up.ticks(5) {
            let y = up.at(value);
            svg.line("grid", [left + LEFT, y, right, y]);
            svg.text("small", Anchor::End, [left + LEFT - 6.0, y + 4.0], &signed(value));
        }
        svg.line("zero", [left + LEFT, up.at(0.0), right, up.at(0.0)]);
        let count = found.points.len() as f64;
        let across = Axis::new([-0.6, count - 0.4], [left + LEFT, right]);
        let bottom = up.at(up.low());
        for (place, point) in found.points.iter().enumerate() {
            let (x, value) = (across.at(place as f64), (self.of)(&point.over));
            let (dot, bar) = match value.shown() {
                Shown::Better => ("routed-dot", "better-bar"),
                Shown::Worse => ("worse-dot", "worse-bar"),
                Shown::Open => ("open-dot", "open-bar"),
            };
            if let Some([low, high]) = value.interval {
                svg.line(bar, [x, up.at(low), x, up.at(high)]);
            }
            let name = point.budget.map_or_else(|| "router".to_owned(), percent);
            svg.disc(dot, [x, up.at(value.mean)], 4.0, &format!("{name}: {}", difference(value)));
            svg.text("small", Anchor::Middle, [x, bottom + 16.0], &name.replace('\u{a0}', ""));
        }
        svg.text(
            "small",
            Anchor::Middle,
            [f64::midpoint(left + LEFT, right), bottom + 32.0],
            "budget, share of the full FLOPs",
        );
    }
}
