use std::collections::BTreeMap;

use serde::Serialize;

use super::Report;
use canet_domain::RouteSpace;
use canet_evaluation::{Comparison, Estimate, Run};

/// The report as one JSON document. A baseline without a network has `null` for its cost, and a mean over one user
/// `null` for its standard error.
///
/// # Errors
/// Where the document cannot be written as JSON.
pub(super) fn document(report: &Report<'_>) -> Result<String, serde_json::Error> {
    let document = Document {
        users: report.runs.first().map_or(0, Run::users),
        split: report.split,
        holdout: report.holdout,
        positions: report.runs.first().map_or(0, Run::cases),
        warning: report.warning,
        repeated_targets: report.repeated,
        runs: report.runs.iter().map(|run| RunRecord::new(run, report.space)).collect(),
        comparisons: report.comparisons.iter().map(ComparisonRecord::new).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[derive(Serialize)]
struct Document<'a> {
    users: usize,
    split: &'static str,
    /// Positions a user that are scored, at most.
    holdout: u32,
    /// Positions scored.
    positions: usize,
    /// What a reader has to know of the positions.
    warning: Option<&'static str>,
    /// Positions whose target is in the user's own history, which count as misses.
    repeated_targets: usize,
    runs: Vec<RunRecord<'a>>,
    comparisons: Vec<ComparisonRecord<'a>>,
}

#[derive(Serialize)]
struct RunRecord<'a> {
    route: &'a str,
    /// `ndcg@10` and the like.
    #[serde(flatten)]
    metrics: BTreeMap<String, EstimateRecord>,
    flops: Option<f64>,
    full_flops: f64,
    saved: Option<f64>,
    shares: BTreeMap<&'a str, f64>,
    per_route: BTreeMap<&'a str, RouteRecord>,
}

#[derive(Serialize)]
struct RouteRecord {
    #[serde(rename = "ndcg@10")]
    ndcg: EstimateRecord,
    #[serde(rename = "hr@10")]
    hr: EstimateRecord,
    flops: f64,
}

#[derive(Serialize)]
struct ComparisonRecord<'a> {
    a: &'a str,
    b: &'a str,
    metric: String,
    difference: EstimateRecord,
    interval: [f64; 2],
    p: f64,
}

#[derive(Serialize)]
struct EstimateRecord {
    mean: f64,
    se: Option<f64>,
}

impl<'a> RunRecord<'a> {
    fn new(run: &'a Run, space: &'a RouteSpace) -> RunRecord<'a> {
        let shares = run.shares(space);
        let per_route = shares.iter().map(|share| {
            let record = RouteRecord { ndcg: share.ndcg.into(), hr: share.hr.into(), flops: share.flops };
            (space.name(share.route), record)
        });
        RunRecord {
            route: &run.name,
            metrics: run.metrics().iter().map(|(metric, found)| (metric.to_string(), found.into())).collect(),
            flops: run.flops(),
            full_flops: run.full_flops(),
            saved: run.saved(),
            per_route: per_route.collect(),
            shares: shares.iter().map(|share| (space.name(share.route), share.share)).collect(),
        }
    }
}

impl<'a> ComparisonRecord<'a> {
    fn new(found: &'a Comparison) -> ComparisonRecord<'a> {
        ComparisonRecord {
            a: &found.a,
            b: &found.b,
            metric: found.metric.to_string(),
            difference: found.difference.into(),
            interval: found.interval,
            p: found.p,
        }
    }
}

impl From<Estimate> for EstimateRecord {
    fn from(Estimate { mean, se }: Estimate) -> EstimateRecord {
        EstimateRecord { mean, se }
    }
}
