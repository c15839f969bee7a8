use std::collections::BTreeMap;

use serde::Serialize;

use super::report::Report;
use canet_domain::RouteSpace;
use canet_evaluation::{Comparison, Estimate, EvalRun, Metric, SeenItems};

use crate::verdict::Words;

/// The report as one JSON document.
///
/// The cost of a baseline without a network is `null`, and so is the standard error over one user.
///
/// # Errors
/// [`serde_json::Error`] if a value has no JSON form.
pub(super) fn document(report: &Report<'_>) -> Result<String, serde_json::Error> {
    let document = Document {
        users: report.runs.first().map_or(0, EvalRun::users),
        split: report.split,
        holdout: report.holdout,
        positions: report.runs.first().map_or(0, EvalRun::cases),
        warning: report.warning,
        repeated_targets: report.repeated,
        seen_items: report.seen,
        verdict: report.verdict.as_ref(),
        runs: report.runs.iter().map(|run| RunRecord::new(run, report.space)).collect(),
        comparisons: report.comparisons.iter().map(ComparisonRecord::new).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[derive(Serialize)]
struct Document<'a> {
    users: usize,
    split: &'static str,
    /// Largest number of targets per user.
    holdout: u32,
    /// Number of targets.
    positions: usize,
    /// What is unfair about the targets.
    warning: Option<&'static str>,
    /// Number of targets in their user's own history. They count as misses if `seen_items` is `excluded`.
    repeated_targets: usize,
    /// Whether items of the user's own history are ranked.
    seen_items: SeenItems,
    /// The conclusion; `null` for chosen runs and on the validation split.
    verdict: Option<&'a Words>,
    runs: Vec<RunRecord<'a>>,
    comparisons: Vec<ComparisonRecord<'a>>,
}

#[derive(Serialize)]
struct RunRecord<'a> {
    route: &'a str,
    /// By name, as `ndcg@10`.
    #[serde(flatten)]
    metrics: BTreeMap<String, Estimate>,
    flops: Option<f64>,
    full_flops: f64,
    saved: Option<f64>,
    shares: BTreeMap<&'a str, f64>,
    per_route: BTreeMap<&'a str, RouteRecord>,
}

#[derive(Serialize)]
struct RouteRecord {
    #[serde(rename = "ndcg@10")]
    ndcg: Estimate,
    #[serde(rename = "hr@10")]
    hr: Estimate,
    flops: f64,
}

#[derive(Serialize)]
struct ComparisonRecord<'a> {
    a: &'a str,
    b: &'a str,
    metric: String,
    difference: Estimate,
    interval: [f64; 2],
    p: f64,
}

impl<'a> RunRecord<'a> {
    fn new(run: &'a EvalRun, space: &'a RouteSpace) -> RunRecord<'a> {
        let usage = run.route_usage(space);
        let per_route = usage.iter().map(|usage| {
            let record = RouteRecord { ndcg: usage.ndcg, hr: usage.hr, flops: usage.flops };
            (space.name(usage.route), record)
        });
        let metric = |metric: Metric| (metric.to_string(), run.estimate(metric));
        RunRecord {
            route: &run.name,
            metrics: Metric::all().map(metric).collect(),
            flops: run.flops(),
            full_flops: run.full_flops(),
            saved: run.saved(),
            per_route: per_route.collect(),
            shares: usage.iter().map(|usage| (space.name(usage.route), usage.share)).collect(),
        }
    }
}

impl<'a> ComparisonRecord<'a> {
    fn new(found: &'a Comparison) -> ComparisonRecord<'a> {
        ComparisonRecord {
            a: &found.a,
            b: &found.b,
            metric: found.metric.to_string(),
            difference: found.difference,
            interval: found.interval,
            p: found.p,
        }
    }
}
