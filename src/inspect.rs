use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use serde_json::{Value, json};

use canet_domain::{Flops, Route};
use canet_model::checkpoint::{Checkpoint, ModelDirectory};

use super::Failure;
use super::exit::say;
use super::printable::printable_lines;

/// Shows a checkpoint's routes, FLOPs, parameters and metrics. Reading it checks it.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Directory of the model, as models/NAME
    #[arg(long, env = "CANET_MODEL", value_name = "DIR")]
    model: PathBuf,
    /// Version to show instead of the highest
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    /// One JSON document instead of a table
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// Prints the table or the JSON document.
pub(crate) fn run(args: InspectArgs) -> Result<(), Failure> {
    let directory = ModelDirectory::open(&args.model).map_err(Failure::data)?;
    let checkpoint = directory.load(args.version).map_err(Failure::data)?;
    if let Some(fault) = &checkpoint.titles_fault {
        say(fault);
    }
    let text = if args.json { format!("{:#}\n", document(&checkpoint)) } else { printable_lines(&table(&checkpoint)) };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// Each route's cost of a request of `max_len` items, including the router, and its share of the full slice's cost.
fn costs(checkpoint: &Checkpoint) -> impl Iterator<Item = (Route, Flops, f64)> {
    let (shape, space, length) = (checkpoint.config.shape(), &checkpoint.space, checkpoint.config.max_len);
    space.routes().map(move |route| {
        let cost = shape.request_flops(space, route, length);
        let flops = cost.slice + cost.router;
        (route, flops, flops as f64 / cost.full as f64)
    })
}

fn document(checkpoint: &Checkpoint) -> Value {
    let routes: Vec<Value> = costs(checkpoint)
        .map(|(route, flops, share)| {
            let slice = checkpoint.space.slice(route);
            json!({
                "route": checkpoint.space.name(route),
                "hidden": slice.hidden,
                "layers": slice.layers,
                "embedding": slice.embedding,
                "flops": flops,
                "share": share,
            })
        })
        .collect();
    let manifest = &checkpoint.manifest;
    json!({
        "name": checkpoint.name,
        "version": checkpoint.version,
        "digest": checkpoint.digest,
        "created": manifest.created,
        "config": manifest.config,
        "parameters": checkpoint.weights.parameters(),
        "data": manifest.data,
        "metrics": manifest.metrics,
        "flops": manifest.flops,
        "calibration": manifest.calibration.as_ref().map(|calibration| json!({ "points": calibration.reachable() })),
        "exclude_seen": manifest.exclude_seen,
        "training": manifest.training,
        "routes": routes,
    })
}

/// The value's name on the command line and in the manifest.
fn name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// The metrics of each run, a line each, as `auto: mrr 0.0949 ±0.0068, ndcg@10 0.1069 ±0.0079`. Their names are `RUN.METRIC`, and
/// `RUN.METRIC.se` is a standard error.
fn runs(metrics: &BTreeMap<String, f64>) -> Vec<String> {
    let mut runs: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, value) in metrics.iter().filter(|(name, _)| !name.ends_with(".se")) {
        let (run, metric) = name.split_once('.').unwrap_or(("", name));
        let error = metrics.get(&format!("{name}.se")).map_or(String::new(), |error| format!(" ±{error:.4}"));
        let words = format!("{metric} {value:.4}{error}");
        match runs.last_mut() {
            Some((last, listed)) if *last == run => listed.push(words),
            _ => runs.push((run, vec![words])),
        }
    }
    let line = |(run, listed): (&str, Vec<String>)| match run {
        "" => listed.join(", "),
        run => format!("{run}: {}", listed.join(", ")),
    };
    runs.into_iter().map(line).collect()
}

/// A list in lines of at most 100 characters. A longer entry has a line of its own.
fn wrapped(entries: impl Iterator<Item = String>) -> Vec<String> {
    const WIDTH: usize = 100;
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

fn table(checkpoint: &Checkpoint) -> String {
    let (manifest, config) = (&checkpoint.manifest, &checkpoint.config);
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12} {value}");
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
            for options in wrapped(training.options.iter().map(|(name, value)| format!("{name} {value}"))) {
                line("", options);
            }
        }
    }
    line("parameters", checkpoint.weights.parameters().to_string());
    let stride = match config.history_stride {
        1 => String::new(),
        stride => format!(" from multiples of {stride} on"),
    };
    line("sizes", format!("{} items, histories of {}{stride}, {} heads", config.items, config.max_len, config.heads));
    line("rules", format!("attention_scale {}, ffn_inner {}", name(&config.attention_scale), name(&config.ffn_inner)));
    let norm = if config.embedding_norm { "yes" } else { "no" };
    line("", format!("positions {}, embedding_norm {norm}, norm_eps {:e}", name(&config.positions), config.norm_eps));
    if manifest.training.as_ref().is_some_and(|training| training.everything) {
        line("learnt", "every interaction, after what follows was measured".to_owned());
    }
    for (split, metrics) in [("validation", &manifest.metrics.validation), ("test", &manifest.metrics.test)] {
        let runs = metrics.as_ref().map(runs).unwrap_or_default();
        if runs.is_empty() {
            line(split, "not measured".to_owned());
        }
        for (place, run) in runs.into_iter().enumerate() {
            line(if place == 0 { split } else { "" }, run);
        }
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
    for (route, flops, share) in costs(checkpoint) {
        let name = checkpoint.space.name(route);
        let _ = writeln!(text, "{name:<16} {:>12.3} {:>8.1}%", flops as f64 / 1e6, 100.0 * share);
    }
    let _ = writeln!(text, "\nA request of {} items, the router included.", config.max_len);
    text
}
