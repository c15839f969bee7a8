use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use canet_cpu::CpuBackend;
use canet_domain::{Route, RouteSpace};
use canet_model::OpenError;
use canet_model::checkpoint::Checkpoint;
use clap::builder::BoolishValueParser;
use serde_json::Value;

use super::Failure;
use super::columns::{self, aligned, wrapped};
use super::exit::say;
use super::model::ModelArgs;
use super::printable::{printable_lines, value_name};
use super::verdict;

/// Shows a checkpoint's routes, FLOPs, parameters and metrics. First it checks every file and replays the recorded answers on a CPU
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON document instead of a table
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// Prints the table or the JSON document.
pub(crate) fn run(args: InspectArgs) -> Result<(), Failure> {
    let checkpoint = args.model.load()?;
    match checkpoint.replay_probes(&CpuBackend::single_threaded()) {
        Err(OpenError::Load(error)) => say(format_args!("the recorded answers were not checked: {error}")),
        replayed => replayed.map_err(|error| Failure::opening(&error))?,
    }
    if let Some(fault) = &checkpoint.titles_fault {
        say(fault);
    }
    let text = if args.json {
        format!("{:#}\n", checkpoint.description().to_json())
    } else {
        printable_lines(&table(&checkpoint))
    };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// Characters of a line's label.
const LABEL: usize = 12;

/// `.0901 ±.0070`, if the metric was measured. Metrics are named `RUN.METRIC`, and their standard errors `RUN.METRIC.se`.
fn measured(metrics: &BTreeMap<String, f64>, name: &str) -> Option<String> {
    let digits = |value: f64| format!("{value:.4}").trim_start_matches('0').to_owned();
    let value = metrics.get(name)?;
    let error = metrics.get(&format!("{name}.se"));
    Some(error.map_or_else(|| digits(*value), |error| format!("{} ±{}", digits(*value), digits(*error))))
}

/// What the model is and how good, in a sentence or two.
fn answer(checkpoint: &Checkpoint) -> String {
    let (name, version) = (&checkpoint.name, checkpoint.version);
    let routes = match checkpoint.space.len() {
        1 => "one slice".to_owned(),
        routes => format!("{routes} slices"),
    };
    let metrics = &checkpoint.manifest.metrics;
    let splits = [("test", &metrics.test), ("validation", &metrics.validation)];
    let known = splits.into_iter().find_map(|(split, metrics)| {
        let metrics = metrics.as_ref()?;
        let routed = measured(metrics, "auto.ndcg@10")?;
        let full = measured(metrics, "full.ndcg@10").map(|full| format!(", the full model {full}")).unwrap_or_default();
        let saving = metrics.get("auto.saved").map(|saved| saving(&checkpoint.space, fixed_route(checkpoint), *saved));
        Some(format!("NDCG@10 is {routed} on the {split} split{full}.{}", saving.unwrap_or_default()))
    });
    let known = known.unwrap_or_else(|| "Its accuracy was not measured.".to_owned());
    format!("{name}, version {version}, passes every check and has {routes}. {known}")
}

/// The route of every request under the budget of the training, at which the metrics were measured; `None` if the
/// router decides.
fn fixed_route(checkpoint: &Checkpoint) -> Option<Route> {
    let budget = checkpoint.manifest.training.as_ref()?.options.get("flops_budget")?.as_f64()?;
    checkpoint.manifest.policy(&checkpoint.space, budget).fixed()
}

/// What is saved of the full model's compute, and by what: a sentence behind another. It is empty for a model of one
/// slice.
fn saving(space: &RouteSpace, fixed: Option<Route>, saved: f64) -> String {
    if space.len() == 1 {
        return String::new();
    }
    let what =
        fixed.map_or_else(|| "Routing".to_owned(), |route| format!("{} serves everybody and", space.name(route)));
    match (100.0 * saved).round() {
        // The sum has no negative zero.
        percent if percent >= 0.0 => format!(" {what} saves {:.0} % of the compute.", percent + 0.0),
        percent => format!(" {what} spends {:.0} % more compute than the full model.", -percent),
    }
}

/// A table of the metrics of one split, a row for each run.
fn metrics(split: &str, metrics: &BTreeMap<String, f64>) -> String {
    let names = |part: fn((&str, &str)) -> String| -> Vec<String> {
        let named = metrics.keys().filter(|name| !name.ends_with(".se")).filter_map(|name| name.split_once('.'));
        let mut names: Vec<String> = named.map(part).collect();
        names.sort();
        names.dedup();
        names
    };
    let columns = names(|(_, metric)| metric.to_owned());
    let rows = names(|(run, _)| run.to_owned()).into_iter().map(|run| {
        let cells = columns.iter().map(|metric| {
            let name = format!("{run}.{metric}");
            match (metric.as_str(), metrics.get(&name)) {
                ("saved", Some(saved)) => format!("{:.1} %", 100.0 * saved),
                _ => measured(metrics, &name).unwrap_or_else(|| "-".to_owned()),
            }
        });
        std::iter::once(run.clone()).chain(cells).collect()
    });
    let titles: Vec<String> =
        columns.iter().map(|metric| metric.replace("ndcg", "NDCG").replace("hr", "HR").replace("mrr", "MRR")).collect();
    let header: Vec<&str> = std::iter::once(split).chain(titles.iter().map(String::as_str)).collect();
    aligned(&header, rows)
}

/// A list in lines that fit behind a label. A longer entry has a line of its own.
fn listed(entries: impl Iterator<Item = String>) -> Vec<String> {
    const WIDTH: usize = columns::WIDTH - LABEL - 1;
    let mut lines: Vec<String> = Vec::new();
    for entry in entries {
        match lines.last_mut() {
            Some(line) if line.len() + 2 + entry.len() <= WIDTH => {
                line.push_str(", ");
                line.push_str(&entry);
            }
            _ => lines.push(entry),
        }
    }
    lines
}

/// An option of a training, or those within it: `seed 1`, `settle.epochs 3`.
fn options(name: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(within) => {
            within.iter().flat_map(|(key, value)| options(&format!("{name}.{key}"), value)).collect()
        }
        value => vec![format!("{name} {value}")],
    }
}

fn table(checkpoint: &Checkpoint) -> String {
    let (manifest, config) = (&checkpoint.manifest, &checkpoint.config);
    let mut text = format!("{}\n\n", wrapped(&answer(checkpoint)));
    for (split, measured) in [("test", &manifest.metrics.test), ("validation", &manifest.metrics.validation)] {
        if let Some(measured) = measured {
            text += &format!("{}\n", metrics(split, measured));
        }
    }
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<LABEL$} {value}");
    };
    let known = |count: Option<u64>| count.map_or("unknown".to_owned(), |count| count.to_string());
    line("model", format!("{}, version {}, of {}", checkpoint.name, checkpoint.version, manifest.created));
    line("digest", checkpoint.digest.clone());
    line("data", format!("{}, sha256 {}", manifest.data.name, manifest.data.sha256));
    if let Some(parsed) = &manifest.data.parsed_sha256 {
        line("", format!("parsed sha256 {parsed}"));
    }
    let (users, interactions) = (known(manifest.data.users), known(manifest.data.interactions));
    line("", format!("users {users}, items {}, interactions {interactions}", manifest.data.items));
    match &manifest.training {
        None => line("training", "unknown".to_owned()),
        Some(training) => {
            line("training", format!("canet {}", training.program));
            for options in listed(training.options.iter().flat_map(|(name, value)| options(name, value))) {
                line("", options);
            }
        }
    }
    line("parameters", checkpoint.description().parameters().to_string());
    let stride = match config.history_stride {
        1 => String::new(),
        stride => format!(" from multiples of {stride} on"),
    };
    line("sizes", format!("{} items, histories of {}{stride}, {} heads", config.items, config.max_len, config.heads));
    line(
        "rules",
        format!("attention_scale {}, ffn_inner {}", value_name(&config.attention_scale), value_name(&config.ffn_inner)),
    );
    let norm = if config.embedding_norm { "yes" } else { "no" };
    line(
        "",
        format!("positions {}, embedding_norm {norm}, norm_eps {:e}", value_name(&config.positions), config.norm_eps),
    );
    if manifest.training.as_ref().is_some_and(|training| training.everything) {
        line("learnt", "every interaction, after the accuracy was measured".to_owned());
    }
    if manifest.started_from_everything() {
        line(
            "started",
            "from weights that had learnt every interaction of their data: accuracy may be too good".to_owned(),
        );
    }
    if let Some(epochs) = manifest.cut_short_after() {
        line("cut short", verdict::cut_short(epochs));
    }
    if !manifest.exclude_seen {
        line("seen items", "recommended unless a request excludes them, and counted in the metrics".to_owned());
    }
    match &manifest.calibration {
        None => line("budgets", "not calibrated: the router's own choice".to_owned()),
        Some(calibration) => {
            for point in calibration.reachable() {
                let decides =
                    point.route.as_deref().map(|route| format!(": {route} for every request")).unwrap_or_default();
                let spent = format!("{:.3} of full, spent {:.3} on validation{decides}", point.budget, point.spent);
                line("budget", spent);
            }
            if calibration.reachable().len() < calibration.points.len() {
                line("", "greater budgets spend no more".to_owned());
            }
        }
    }
    let _ = writeln!(text, "\n{:<16} {:>12} {:>9}", "route", "MFLOPs", "of full");
    for (route, flops, share) in checkpoint.description().costs() {
        let name = checkpoint.space.name(route);
        let _ = writeln!(text, "{name:<16} {:>12.3} {:>8.1}%", flops as f64 / 1e6, 100.0 * share);
    }
    let _ = writeln!(text, "\nA request of {} items with the router. A fixed route runs without it.", config.max_len);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_saves_the_compute_is_named() {
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4]).unwrap();
        let small = Some(space.smallest());
        assert_eq!(saving(&space, None, 0.808), " Routing saves 81 % of the compute.");
        assert_eq!(saving(&space, None, -0.001), " Routing saves 0 % of the compute.");
        assert_eq!(saving(&space, None, -0.012), " Routing spends 1 % more compute than the full model.");
        assert_eq!(saving(&space, small, 0.99), " h4-l1-e4 serves everybody and saves 99 % of the compute.");
        let single = RouteSpace::new(vec![4], vec![1], vec![4]).unwrap();
        assert_eq!(saving(&single, Some(single.full()), 0.0), "");
    }
}
