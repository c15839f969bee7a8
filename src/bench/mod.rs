mod closed_loop;
mod report;
mod sessions;
mod workload;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::closed_loop::ClosedLoop;
use self::report::{Measured, Report};
use self::sessions::SessionMix;
use self::workload::Workload;
use super::Failure;
use super::exit::say;
use super::interactions::FormatArgs;
use super::model::ModelArgs;
use super::numbers::{DEFAULT_BUDGET, bytes, seconds, share, share_or_zero};
use super::target::TargetArgs;
use canet_domain::{BatchBy, History, Item};
use canet_model::Model;

/// How many random histories are drawn if no file is given.
const RANDOM_HISTORIES: usize = 4096;

/// How long each peak is measured.
const PEAK: Duration = Duration::from_millis(300);

/// Times the model without HTTP, at several numbers of requests in flight
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Workloads, separated by commas: own (the router's choices), full, smallest, uniform (all routes equally often), zipf
    /// (the n-th route of a shuffled list 1/n as often as the first), sessions (the router's choices for users who return with
    /// one to three new items, and the history cache), the name of a route, or router, which runs no route
    #[arg(
        long,
        env = "CANET_WORKLOAD",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "own,full,smallest,uniform"
    )]
    workload: Vec<String>,
    /// Numbers of requests in flight, separated by commas
    #[arg(long, env = "CANET_BATCH", value_name = "N", value_delimiter = ',', default_value = "1,8,32,64", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: Vec<u16>,
    /// Batches that run at a time, each with its share of --threads
    #[arg(long, env = "CANET_EXECUTORS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    executors: u16,
    #[command(flatten)]
    target: TargetArgs,
    /// Share of the requests of `sessions` that are of users who return
    #[arg(long, env = "CANET_RETURNING", value_name = "SHARE", default_value_t = 0.8, value_parser = share_or_zero)]
    returning: f64,
    /// Memory of the history cache, which `sessions` uses, as for serve. 0 keeps nothing
    #[arg(long, env = "CANET_HISTORY_CACHE", value_name = "SIZE", default_value = "256MB", value_parser = bytes)]
    history_cache: usize,
    /// Requests that may share a batch: those whose routes have the same width (`width`), those of the same route (`route`),
    /// or all of them (`all`, which suits the native backend on a GPU)
    #[arg(long, env = "CANET_BATCH_BY", value_name = "WHAT", default_value = "width")]
    batch_by: BatchBy,
    /// Share of the full model's FLOPs that the router may spend. It has no effect if the checkpoint is not calibrated
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = DEFAULT_BUDGET, value_parser = share)]
    flops_budget: f64,
    /// Interactions in any format that `train` takes; each user's whole sequence is a history [default: random items, as
    /// many as the model reads]
    #[arg(long, env = "CANET_HISTORIES", value_name = "FILE")]
    histories: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    /// Seconds to time each workload at each number of requests in flight
    #[arg(long, env = "CANET_SECONDS", value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Seed of random histories and routes
    #[arg(long, env = "CANET_SEED", default_value_t = 0)]
    seed: u64,
    /// Print one JSON document instead of a table
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// Measures every workload and prints the report.
pub(super) fn run(args: BenchArgs) -> Result<(), Failure> {
    let backend = args.target.open_for(args.executors, args.history_cache)?;
    let model = args.model.open(&*backend)?;
    let parse = |name: &String| Workload::parse(model.space(), name, args.seed).map_err(Failure::usage);
    let workloads: Vec<Workload> = args.workload.iter().map(parse).collect::<Result<_, _>>()?;
    let sequences = sequences(&args, &model)?;
    let window = model.config().window();
    let history = |sequence: &Vec<Item>| History::in_window(sequence, window, 0).map(Arc::new).map_err(Failure::data);
    // No sequence is empty, and a model reads at least one item.
    let histories: Vec<Arc<History>> = sequences.iter().map(history).collect::<Result<_, _>>()?;
    let items = u32::try_from(model.catalogue().len()).map_err(Failure::data)?;
    // Random sequences are too short for a user who returns.
    let own = args.histories.as_ref().map_or(&[][..], |_| &sequences);

    let mut report = Report {
        model: model.to_string(),
        histories: match &args.histories {
            Some(file) => format!("{} of {}", histories.len(), file.display()),
            None => format!("{} random ones of {} items", histories.len(), model.config().max_len),
        },
        gemm: args.target.gemm_peak(&*backend, PEAK).map_err(Failure::unavailable)?,
        fma: args.target.fma_peak(&*backend, PEAK),
        fixed: model.policy(args.flops_budget).fixed().map(|route| model.space().name(route).to_owned()),
        single_route: model.space().len() == 1,
        results: Vec::new(),
    };
    let closed_loop = ClosedLoop {
        model: &model,
        budget: args.flops_budget,
        histories: &histories,
        session_mix: SessionMix { returning: args.returning, window, items },
        sequences: own,
        batch_by: args.batch_by,
        executors: args.executors.into(),
        max_batch: backend.max_batch().into(),
        warm_up: backend.warm_up(),
        seed: args.seed,
    };
    for workload in &workloads {
        for batch in &args.batch {
            let timed = closed_loop.time(workload, usize::from(*batch), args.seconds);
            report.results.push(Measured {
                workload: workload.name().to_owned(),
                batch: *batch,
                executors: args.executors,
                threads: backend.threads(),
                backend: model.forward().backend(),
                precision: backend.precision(),
                timed: timed.map_err(Failure::unavailable)?,
            });
            if !args.json {
                // The table comes at the end; until then these lines show progress.
                say(format_args!("{}, {batch} in flight: done", workload.name()));
            }
        }
    }
    let text = if args.json { report.document() } else { report.table() };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// What the histories of the requests are taken from: whole sequences of a file, or random items.
fn sequences(args: &BenchArgs, model: &Model) -> Result<Vec<Vec<Item>>, Failure> {
    let max_len = model.config().max_len;
    match &args.histories {
        Some(file) => Ok(args.format.read_known(std::slice::from_ref(file), model)?.sequences),
        None => {
            let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
            let items = u32::try_from(model.catalogue().len()).map_err(Failure::data)?;
            let mut sequence = || (0..max_len).filter_map(|_| Item::new(rng.gen_range(1..=items))).collect();
            Ok((0..RANDOM_HISTORIES).map(|_| sequence()).collect())
        }
    }
}
