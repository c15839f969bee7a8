use super::report::Report;
use crate::caveats;
use crate::columns::{aligned, wrapped};
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
    for length in [5, 20] {
        text += &format!("\nThe {length} best items\n");
        text += &at_length(&report.runs, length);
    }
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
            .map(|caveat| format!("\n{}\n", wrapped(&caveat)))
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
        warning += &format!("{}\n", wrapped(&caveat));
    }
    let ranked = match report.seen {
        SeenItems::Excluded => "all items outside the user's own history",
        SeenItems::Included => "all items, with those of the user's own history",
    };
    let protocol = format!(
        "{users} users, {} split{scored}. Each target is ranked among {ranked}. ± is a standard error{clustered}.",
        report.split
    );
    format!("{}\n{warning}\n", wrapped(&protocol))
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

fn at_length(runs: &[EvalRun], length: u32) -> String {
    let metrics = [Metric::Ndcg(length), Metric::Hr(length), Metric::MrrAt(length)];
    let row = |run: &EvalRun| {
        let cells = metrics.map(|metric| estimate(run.estimate(metric)));
        std::iter::once(run.name.clone()).chain(cells).collect()
    };
    let [ndcg, hr, mrr] = metrics.map(|metric| metric.to_string().to_uppercase());
    aligned(&["run", &ndcg, &hr, &mrr], runs.iter().map(row))
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
