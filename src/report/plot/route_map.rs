use super::super::findings::{Findings, GroupFinding, Grouping};
use super::super::format::percent;
use super::svg::{Anchor, Svg, shortened, text_width};

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
            let lines = lines(name, label - 10.0, 2);
            let first = if lines.len() > 1 { y + 11.0 } else { y + 17.0 };
            for (place, line) in lines.iter().enumerate() {
                svg.text("", Anchor::Start, [2.0, first + 13.0 * place as f64], line);
            }
        } else {
            // Above the cells there is room for each title.
            for line in lines(name, width - 4.0, usize::MAX) {
                svg.text("", Anchor::Start, [2.0, y + 13.0], &line);
                y += 15.0;
            }
            y += 4.0;
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

/// A group's name in at most `most` lines that fit `room`. It breaks between titles. What is still wider is shortened.
fn lines(name: &str, room: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for title in name.split(", ") {
        let full = lines.len() == most;
        match lines.last_mut() {
            Some(line) if full || text_width(line) + text_width(", ") + text_width(title) <= room => {
                line.push_str(", ");
                line.push_str(title);
            }
            _ => lines.push(title.to_owned()),
        }
    }
    lines.iter().map(|line| shortened(line, room)).collect()
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

#[cfg(test)]
mod tests {
    use super::{lines, text_width};

    #[test]
    fn names_break_between_titles() {
        let name = "Star Wars (1977), Fargo (1996), Contact (1997)";
        let room = text_width("Star Wars (1977), Fargo (1996)") + 1.0;
        assert_eq!(lines(name, room, 2), ["Star Wars (1977), Fargo (1996)", "Contact (1997)"]);
        assert_eq!(lines(name, text_width(name) + 1.0, 2), [name]);
        let cut = lines(name, room, 1);
        assert!(cut.len() == 1 && cut[0].starts_with("Star Wars (1977), Fargo") && cut[0].ends_with('…'), "{cut:?}");
    }
}
