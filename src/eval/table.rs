use super::report::Report;
use crate::caveats;
use crate::columns::aligned;
use canet_evaluation::{Estimate, EvalRun, Metric, RESAMPLES, SeenItems};

/// The report as text tables.
pub(super) fn tables(report: &Report<'_>) -> String {
    let mut text = report.caution();
    if let Some(words) = &report.verdict {
        text += &words.text();
        text += "\n";
    }
    text += &heading(report);
    text += &runs(&report.runs);
    text += "\nOther list lengths\n";
    text += &other_lengths(&report.runs);
    if let Some(auto) = report.runs.iter().find(|run| run.name == "auto") {
        text += "\nRoutes that auto chose\n";
        text += &routes(auto, report);
    }
    if !report.comparisons.is_empty() {
        let metric = report.metric;
        text += &format!("\nDifferences in {metric} over the same users (paired bootstrap, {RESAMPLES} resamples)\n");
        text += &comparisons(report);
        let users = report.runs.first().map_or(0, EvalRun::users);
        text += &caveats::multiple_comparisons("comparisons", report.comparisons.len(), users)
            .map(|caveat| format!("\n{caveat}\n"))
            .unwrap_or_default();
    }
    text
}

fn heading(report: &Report<'_>) -> String {
    let (users, targets) = report.runs.first().map_or((0, 0), |run| (run.users(), run.cases()));
    let scored = match report.holdout {
        1 => String::new(),
        holdout => format!(" ({targets} targets, up to {holdout} of each user)"),
    };
    let clustered = if report.holdout > 1 { " over users, each with the mean over their targets" } else { "" };
    let mut warning = String::new();
    if let Some(caveat) = caveats::repeated_targets(report.repeated, targets, report.seen) {
        warning += &format!("{caveat}\n");
    }
    let ranked = match report.seen {
        SeenItems::Excluded => "all items outside the user's own history",
        SeenItems::Included => "all items, with those of the user's own history",
    };
    format!(
        "{users} users, {} split{scored}. Each target is ranked among {ranked}. ± is a standard error{clustered}.\n\
         {warning}\n",
        report.split
    )
}

fn runs(runs: &[EvalRun]) -> String {
    let metrics = [Metric::Ndcg(10), Metric::Hr(10), Metric::MrrAt(10), Metric::Mrr];
    let row = |run: &EvalRun| {
        let mut row = vec![run.name.clone()];
        row.extend(metrics.map(|metric| estimate(run.estimate(metric))));
        row.push(run.flops().map_or_else(|| "-".to_owned(), mega));
        row.push(run.saved().map_or_else(|| "-".to_owned(), percent));
        row
    };
    aligned(&["run", "NDCG@10", "HR@10", "MRR@10", "MRR", "MFLOPs", "saved"], runs.iter().map(row))
}

fn other_lengths(runs: &[EvalRun]) -> String {
    let metrics =
        [Metric::Ndcg(5), Metric::Hr(5), Metric::MrrAt(5), Metric::Ndcg(20), Metric::Hr(20), Metric::MrrAt(20)];
    let row = |run: &EvalRun| {
        let cells = metrics.map(|metric| estimate(run.estimate(metric)));
        std::iter::once(run.name.clone()).chain(cells).collect()
    };
    aligned(&["run", "NDCG@5", "HR@5", "MRR@5", "NDCG@20", "HR@20", "MRR@20"], runs.iter().map(row))
}

fn routes(run: &EvalRun, report: &Report<'_>) -> String {
    let usage = run.route_usage(report.space);
    let rows = usage.iter().map(|usage| {
        let name = report.space.name(usage.route).to_owned();
        vec![name, percent(usage.share), estimate(usage.ndcg), estimate(usage.hr), mega(usage.flops)]
    });
    aligned(&["route", "users", "NDCG@10", "HR@10", "MFLOPs"], rows)
}

fn comparisons(report: &Report<'_>) -> String {
    let rows = report.comparisons.iter().map(|found| {
        let [low, high] = found.interval;
        let difference = match found.difference.se {
            Some(se) => format!("{:+.4} ±{se:.4}", found.difference.mean),
            None => format!("{:+.4}", found.difference.mean),
        };
        let name = format!("{} - {}", found.a, found.b);
        vec![name, difference, format!("{low:+.4} to {high:+.4}"), format!("{:.4}", found.p)]
    });
    aligned(&["runs", "difference", "95 % interval", "p"], rows)
}

fn estimate(Estimate { mean, se }: Estimate) -> String {
    se.map_or_else(|| format!("{mean:.4}"), |se| format!("{mean:.4} ±{se:.4}"))
}

fn mega(flops: f64) -> String {
    format!("{:.3}", flops / 1e6)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
