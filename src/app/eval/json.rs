use serde_json::{Map, Value, json};

use super::Report;
use crate::domain::RouteSpace;
use crate::evaluation::{Comparison, Estimate, Run};

/// The report as one JSON document. A baseline without a network has `null` for its cost, and a mean over one user
/// `null` for its standard error.
pub(super) fn document(report: &Report<'_>) -> String {
    let document = json!({
        "users": report.runs.first().map_or(0, Run::users),
        "split": report.split,
        "runs": report.runs.iter().map(|run| run_value(run, report.space)).collect::<Vec<_>>(),
        "comparisons": report.comparisons.iter().map(comparison).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn run_value(run: &Run, space: &RouteSpace) -> Value {
    let mut value = Map::from_iter([("route".to_owned(), json!(run.name))]);
    value.extend(run.metrics().iter().map(|(metric, found)| (metric.to_string(), estimate(found))));
    value.insert("flops".to_owned(), json!(run.flops()));
    value.insert("full_flops".to_owned(), json!(run.full_flops()));
    value.insert("saved".to_owned(), json!(run.saved()));
    let shares = run.shares(space);
    let by_name = |of: &dyn Fn(&crate::evaluation::Share) -> Value| -> Value {
        shares.iter().map(|share| (space.name(share.route).to_owned(), of(share))).collect::<Map<_, _>>().into()
    };
    value.insert("shares".to_owned(), by_name(&|share| json!(share.share)));
    let detail =
        by_name(&|share| json!({ "ndcg@10": estimate(share.ndcg), "hr@10": estimate(share.hr), "flops": share.flops }));
    value.insert("per_route".to_owned(), detail);
    value.into()
}

fn estimate(Estimate { mean, se }: Estimate) -> Value {
    json!({ "mean": mean, "se": se })
}

fn comparison(found: &Comparison) -> Value {
    json!({
        "a": found.a,
        "b": found.b,
        "metric": found.metric.to_string(),
        "difference": estimate(found.difference),
        "interval": found.interval,
        "p": found.p,
    })
}
