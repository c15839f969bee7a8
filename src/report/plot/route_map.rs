use super::super::findings::{Findings, GroupFinding, Grouping};
use super::super::format::percent;
use super::svg::{Anchor, Svg, shortened};

const ROW: f64 = 26.0;
const HEAD: f64 = 46.0;
const SECTION: f64 = 28.0;
/// Widths of the columns "users" and "saved".
const USERS: f64 = 48.0;
const SAVED: f64 = 48.0;
/// Smallest width of a route's column.
const MIN_COLUMN: f64 = 38.0;

/// Plots the share of each group of users on each route, one row per group.
pub(in crate::report) fn route_map(found: &Findings, width: f64) -> Svg {
    let map = &found.map;
    let mut svg = Svg::new(width, "Share of the users of each group by route");
    let wide = width > 600.0;
    // A wide plot has the groups' names to the left of the cells, a narrow one above them.
    let least = if wide { 300.0 } else { 0.0 };
    let room = width - least - USERS - SAVED;
    let shown = shown(&map.groups, map.routes.len(), (room / MIN_COLUMN) as usize);
    let rest = map.routes.len() > shown.len();
    let columns = shown.len() + 1;
    let column = (room / columns as f64).min(64.0);
    let label = if wide { width - USERS - SAVED - column * columns as f64 } else { 0.0 };
    let [users, saved] = [width - SAVED - 2.0, width - 2.0];
    let x = |place: usize| label + place as f64 * column;

    for (place, route) in shown.iter().enumerate() {
        for (line, part) in map.routes[*route].split('-').enumerate() {
            let at = [x(place) + column / 2.0, 12.0 + 14.0 * line as f64];
            svg.text("small", Anchor::Middle, at, part);
        }
    }
    let others = if rest { "others" } else { "< 2 %" };
    svg.text("small", Anchor::Middle, [x(columns - 1) + column / 2.0, 26.0], others);
    svg.text("small", Anchor::End, [users, 26.0], "users");
    svg.text("small", Anchor::End, [saved, 26.0], "saved");

    let mut y = HEAD;
    let mut section = None;
    for group in &map.groups {
        if section != Some(group.kind) {
            section = Some(group.kind);
            svg.text("strong", Anchor::Start, [2.0, y + SECTION - 10.0], grouping_title(group.kind));
            y += SECTION;
        }
        let name = &group.label;
        if wide {
            svg.text("", Anchor::Start, [2.0, y + 17.0], &shortened(name, label - 10.0));
        } else {
            svg.text("", Anchor::Start, [2.0, y + 13.0], &shortened(name, width));
            y += 19.0;
        }
        let mut left = 1.0;
        for (place, route) in shown.iter().enumerate() {
            let share = group.shares[*route];
            left -= share;
            cell(
                &mut svg,
                [x(place), y, column],
                share,
                &format!("{name}: {} on {}", percent(share), map.routes[*route]),
            );
        }
        let left = left.max(0.0);
        cell(&mut svg, [x(columns - 1), y, column], left, &format!("{name}: {} on {others}", percent(left)));
        svg.text("", Anchor::End, [users, y + 17.0], &group.users.to_string());
        svg.text("", Anchor::End, [saved, y + 17.0], &percent(group.saved));
        y += ROW;
    }
    svg.reach(y + 4.0);
    svg
}

fn cell(svg: &mut Svg, [x, y, column]: [f64; 3], share: f64, tip: &str) {
    // At most half opaque, so that the number stays readable.
    svg.cell([x + 1.0, y + 1.0, column - 2.0, ROW - 2.0], 0.5 * share.sqrt(), tip);
    if share >= 0.005 {
        svg.text("cell", Anchor::Middle, [x + column / 2.0, y + 17.0], &format!("{:.0}", 100.0 * share));
    }
}

/// The most used routes that fit beside the column "others", in the order of the routes.
fn shown(groups: &[GroupFinding], routes: usize, room: usize) -> Vec<usize> {
    let users = |route: &usize| -> f64 { groups.iter().map(|group| group.shares[*route] * group.users as f64).sum() };
    let mut order: Vec<usize> = (0..routes).collect();
    order.sort_by(|a, b| users(b).total_cmp(&users(a)));
    order.truncate(room.saturating_sub(1));
    order.sort_unstable();
    order
}

pub(in crate::report) fn grouping_title(kind: Grouping) -> &'static str {
    match kind {
        Grouping::Taste => "By taste: over-represented titles",
        Grouping::Length => "By length of the history",
        Grouping::Popularity => "By popularity of its items",
    }
}
