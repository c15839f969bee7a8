use std::fmt::Write as _;

use super::super::findings::{Cost, Findings, OperatingPoint, Value};
use super::super::format::{escaped, mega, percent, plain, range, signed, time, value};
use super::super::plot::grouping_title;
use super::summary::class;
use crate::verdict::COLUMNS;

/// A table under construction. Its first column has the names of the rows.
struct Table {
    html: String,
}

struct Cell {
    text: String,
    /// Small print below the text.
    small: String,
    class: &'static str,
}

impl Table {
    fn new(name: &str, header: &[&str]) -> Table {
        let mut html = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\"><table>\n<thead><tr>",
            name = escaped(name)
        );
        header.iter().for_each(|title| html += &format!("<th scope=\"col\">{}</th>", escaped(title)));
        html += "</tr></thead>\n<tbody>\n";
        Table { html }
    }

    fn row(&mut self, name: &str, cells: &[Cell]) {
        // The class sets a minimum width, so a long name does not break at every word.
        let class = if name.len() > 16 { " class=\"long\"" } else { "" };
        let _ = write!(self.html, "<tr><th scope=\"row\"{class}>{}</th>", escaped(name));
        for Cell { text, small, class } in cells {
            let small = if small.is_empty() { String::new() } else { format!("<small>{}</small>", escaped(small)) };
            let _ = write!(self.html, "<td class=\"{class}\">{}{small}</td>", escaped(text));
        }
        self.html += "</tr>\n";
    }

    fn section(&mut self, name: &str, columns: usize) {
        let _ = writeln!(
            self.html,
            "<tr class=\"section\"><th colspan=\"{columns}\" scope=\"rowgroup\">{}</th></tr>",
            escaped(name)
        );
    }

    fn end(self) -> String {
        self.html + "</tbody></table></div>\n"
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), small: String::new(), class: "" }
}

/// A difference with its interval below, coloured by the verdict.
fn judged(value: &Value) -> Cell {
    let small = value.interval.map(range).unwrap_or_default();
    Cell { text: signed(value.mean), small, class: class(value) }
}

/// The name of a point's row: its budget.
fn budget(point: &OperatingPoint) -> String {
    point.budget.map_or_else(|| "own choice".to_owned(), percent)
}

/// The points in their order. Neighbours at which the router chooses alike are one group.
fn groups_of_equal(points: &[OperatingPoint]) -> Vec<Vec<&OperatingPoint>> {
    let mut groups: Vec<Vec<&OperatingPoint>> = Vec::new();
    for point in points {
        let same = |group: &&mut Vec<&OperatingPoint>| {
            group[0].cost.flops == point.cost.flops && group[0].test.by_model == point.test.by_model
        };
        match groups.last_mut().filter(same) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    groups
}

/// The name of the row of a group.
fn budgets_of(points: &[&OperatingPoint]) -> String {
    match points {
        [first, .., last] => format!("{} to {}", budget(first), budget(last)),
        [only] => budget(only),
        [] => String::new(),
    }
}

/// What the verdict compares.
pub(super) fn verdict(found: &Findings) -> String {
    let mut table = Table::new("The verdict", &COLUMNS);
    for [name, rest @ ..] in found.verdict.rows() {
        table.row(&name, &rest.map(text));
    }
    table.end()
}

/// The router at each budget, with its paired differences.
pub(super) fn budgets(found: &Findings) -> String {
    let header = [
        "budget",
        "NDCG@10",
        "FLOPs saved",
        "− static mixture, equal FLOPs",
        "− static mixture, equal time",
        "− static mixture, chosen on other users",
        "− full",
        "− strongest slice",
        "− random, same shares",
        "routes in use",
    ];
    let mut table = Table::new("The router at each budget", &header);
    for points in groups_of_equal(&found.points) {
        let point = points[0];
        let over = &point.over;
        table.row(
            &budgets_of(&points),
            &[
                text(value(&point.test)),
                Cell { small: format!("time {}", percent(point.seconds_saved)), ..text(percent(point.saved)) },
                judged(&over.hull),
                judged(&over.hull_by_time),
                judged(&over.hull_cross_fitted),
                judged(&over.full),
                judged(&over.strongest),
                judged(&over.matched),
                text(format!("{}", (10.0 * point.routes_in_use).round() / 10.0)),
            ],
        );
    }
    table.end()
}

/// The permutation test at each budget.
pub(super) fn permutation_test(found: &Findings) -> String {
    let header = ["budget", "gain of the router", "mean gain of permutations", "middle 95 % of permutations", "p"];
    let mut table = Table::new("Permutation test", &header);
    for points in groups_of_equal(&found.points) {
        let permuted = &points[0].permuted;
        table.row(
            &budgets_of(&points),
            &[
                text(signed(permuted.own)),
                text(signed(permuted.mean)),
                text(range(permuted.interval)),
                text(format!("{:.3}", permuted.p)),
            ],
        );
    }
    table.end()
}

/// The baselines: fixed slices, random routes, the oracle and baselines without a network.
pub(super) fn baselines(found: &Findings) -> String {
    let mut table = Table::new("Baselines", &["run", "NDCG@10", "MFLOPs", "saved", "time per request"]);
    let mut row = |name: &str, test: &Value, flops: Option<f64>, seconds: Option<f64>| {
        let of =
            |number: Option<f64>, format: &dyn Fn(f64) -> String| text(number.map_or_else(|| "–".to_owned(), format));
        let saved = |flops: f64| percent(1.0 - flops / found.full_flops);
        table.row(name, &[text(value(test)), of(flops, &mega), of(flops, &saved), of(seconds, &time)]);
    };
    let routes = [("full", found.routes.last()), ("smallest", found.routes.first())];
    for (name, route) in routes {
        let Some(route) = route else { continue };
        row(&format!("{name}: {}", route.name), &route.test, Some(route.cost.flops), Some(route.cost.seconds));
    }
    let strongest = &found.strongest;
    let Cost { flops, seconds } = strongest.cost;
    let name = format!("strongest slice on validation: {}", found.strongest_names());
    row(&name, &strongest.test, Some(flops), Some(seconds));
    let random = &found.random;
    row("random, uniform", &random.test, Some(random.cost.flops), Some(random.cost.seconds));
    if let Some(point) = found.points.get(found.map.point) {
        let budget = point.budget.map_or_else(String::new, |budget| format!(" at {}", percent(budget)));
        let Cost { flops, seconds } = point.matched.cost;
        let name = format!("random, the router's shares{budget}");
        row(&name, &point.matched.test, Some(flops), Some(seconds));
    }
    row("oracle in hindsight (upper bound, mostly noise)", &found.oracle.test, Some(found.oracle.flops), None);
    row("Markov chain", &found.markov, None, None);
    row("popularity", &found.popularity, None, None);
    table.end()
}

/// Models without routing.
pub(super) fn standalone(found: &Findings) -> String {
    let header = [
        "trained alone",
        "slice",
        "NDCG@10",
        "MFLOPs",
        "time per request",
        "same slice − alone",
        "strongest slice − alone",
        "router at budget",
        "routed − alone",
    ];
    let mut table = Table::new("Models trained alone", &header);
    for model in &found.trained_alone {
        let point = found.points.get(model.point).map(budget).unwrap_or_default();
        table.row(
            &format!("{}, version {}", model.name, model.version),
            &[
                text(&*model.slice),
                text(value(&model.test)),
                text(mega(model.cost.flops)),
                text(time(model.cost.seconds)),
                model.same_slice_over.as_ref().map_or_else(|| text("no such slice"), judged),
                judged(&model.strongest_over),
                text(point),
                judged(&model.routed_over),
            ],
        );
    }
    table.end()
}

/// Every route for every user.
pub(super) fn routes(found: &Findings) -> String {
    let header =
        ["route", "NDCG@10", "validation", "− full", "MFLOPs", "saved", "time per request", "rounds", "on the hull"];
    let mut table = Table::new("Every route for every user", &header);
    for route in &found.routes {
        let [fast, slow] = route.rounds;
        let hull = match (route.on_hulls, found.models.len()) {
            (0, _) => String::new(),
            (_, 1) => "yes".to_owned(),
            (on, all) => format!("{on} of {all}"),
        };
        table.row(
            &route.name,
            &[
                text(value(&route.test)),
                text(plain(route.validation)),
                judged(&route.over_full),
                text(mega(route.cost.flops)),
                text(percent(route.saved)),
                text(time(route.cost.seconds)),
                text(format!("{fast:.2} to {slow:.2}")),
                text(hull),
            ],
        );
    }
    table.end()
}

/// The groups of the route map.
pub(super) fn groups(found: &Findings) -> String {
    let header = ["group", "users", "saved", "NDCG@10", "− random, same shares", "− static mixture, equal FLOPs"];
    let mut table = Table::new("Groups of users", &header);
    let mut section = None;
    for group in &found.map.groups {
        if section != Some(group.kind) {
            section = Some(group.kind);
            table.section(grouping_title(group.kind), header.len());
        }
        table.row(
            &group.label,
            &[
                text(group.users.to_string()),
                text(percent(group.saved)),
                text(value(&group.test)),
                judged(&group.over_matched),
                judged(&group.over_hull),
            ],
        );
    }
    table.end()
}
