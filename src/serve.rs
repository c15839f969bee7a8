use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::builder::BoolishValueParser;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failure;
use super::door::DoorArgs;
use super::listen::{ListenArgs, Listeners};
use super::numbers::share;
use super::reloads::{ReloadArgs, until_stopped};
use super::signals::Signals;
use super::target::{MOST_EXECUTORS, TargetArgs, cores};
use super::traces::TraceArgs;
use canet_api::{self, Admin, Connections};
use canet_domain::BatchBy;
use canet_model::checkpoint::ModelDirectory;
use canet_serving::{Limits, Loader, Policy, Recommender, ReloadError, Reloader, Unready};

/// Longest that the last spans hold up the end of the process.
const SPANS_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest that refusals hold up the end of a process whose model cannot be run any more: nothing else is left to say.
const LAST_REFUSALS: Duration = Duration::from_secs(2);

/// Serves a model over HTTP and gRPC.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Directory of the model, which holds its versions
    #[arg(long, env = "CANET_MODEL", value_name = "DIR")]
    model: PathBuf,
    /// Version to serve instead of the highest
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Batches that run at a time on the CPU, each with its share of --threads [default: native one a thread, libtorch 1]
    #[arg(long, env = "CANET_EXECUTORS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_EXECUTORS)))]
    executors: Option<u16>,
    /// Most requests that run in one batch [default: 64, on a GPU 256]
    #[arg(long, env = "CANET_MAX_BATCH", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_batch: Option<u16>,
    /// Most milliseconds of predicted work that waits for the device; a request beyond is refused with 429
    // As long as the lanes' patience: in a longer queue every request would be past it.
    #[arg(long, env = "CANET_QUEUE_LIMIT_MS", value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    queue_limit_ms: u32,
    /// Run cheaper routes under pressure, and say so in the answer, before requests are refused
    #[arg(long, env = "CANET_DEGRADE", value_parser = BoolishValueParser::new())]
    degrade: bool,
    /// Which requests may share a batch: `width`, those whose routes have one width, `route`, those of one route, or `all`,
    /// which suits the native backend on a GPU
    #[arg(long, env = "CANET_BATCH_BY", value_name = "WHAT", default_value = "width")]
    batch_by: BatchBy,
    /// Share of the full model's FLOPs to spend, where the checkpoint is calibrated for budgets; between those it is
    /// interpolated, outside them the nearest one holds
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = 0.30, value_parser = share)]
    flops_budget: f64,
    /// Seconds to serve on after a signal to stop, while /readyz says 503
    #[arg(long, env = "CANET_DRAIN_DELAY", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    drain_delay: Duration,
    /// Seconds that open requests have after that
    #[arg(long, env = "CANET_DRAIN_TIMEOUT", value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    drain_timeout: Duration,
    #[command(flatten)]
    door: DoorArgs,
    #[command(flatten)]
    reloads: ReloadArgs,
    /// Share of the answered requests to run through the full model too, while nothing else is to do
    #[arg(long, env = "CANET_SHADOW", value_name = "SHARE", value_parser = share)]
    shadow: Option<f64>,
    #[command(flatten)]
    traces: TraceArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| seconds.as_secs() <= 3600).ok_or_else(|| "from 0 to 3600 seconds".to_owned())
}

/// Serves until a signal, then drains; or until the model cannot be run any more, which ends the process with 69, for
/// whatever supervises it to start it anew.
///
/// The order matters: signals are caught before anything takes time; the ports are bound before the model loads, so
/// that one in use fails at once, and probes are answered meanwhile.
pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::unavailable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(cores().div_ceil(2)))
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(Failure::unavailable)?;
    let export = args.traces.install(&runtime)?;
    // The executors compute while the runtime parses and answers: they share the cores.
    let (backend, executors) = args.target.open_beside_runtime(args.executors)?;
    let max_batch = args.max_batch.unwrap_or(backend.max_batch()).into();
    let directory = ModelDirectory::open(&args.model).map_err(Failure::data)?;
    let listeners = args.listen.bind()?;
    let metrics = canet_api::metrics().map_err(Failure::unavailable)?;
    let loader = Loader {
        directory,
        backend,
        policy: Policy { budget: args.flops_budget, batch_by: args.batch_by },
        max_batch,
        metrics: Arc::new(metrics),
    };
    let limits = Limits {
        executors: executors.into(),
        max_batch,
        queue_limit: Duration::from_millis(args.queue_limit_ms.into()),
        degrade: args.degrade,
    };
    let outcome = runtime.block_on(serve(&args, listeners, limits, loader, &mut signals));
    if let Some(export) = export {
        export.finish(SPANS_TIMEOUT);
    }
    // What is left is idle or past its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    args: &ServeArgs,
    Listeners { http, grpc, probes }: Listeners,
    limits: Limits,
    loader: Loader,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let connections = args.door.connections()?;
    let (recommender, executors) =
        Recommender::start(limits, Arc::clone(&loader.metrics)).map_err(Failure::unavailable)?;

    if let Some(share) = args.shadow {
        recommender.compare_with_full(share).map_err(Failure::unavailable)?;
    }
    let watch = args.reloads.watch(&loader.directory);
    let reloader = Reloader::new(loader, &recommender);
    // Begins here, before an operator's request could.
    let loading = reloader.reload(args.version);

    let (stop, stopped) = watch::channel(());
    let mut servers = JoinSet::new();
    let admin = Admin::new(Arc::clone(&reloader), args.reloads.token());
    let access = args.door.access(admin)?;
    if let Some(tls) = connections.tls.clone() {
        tokio::spawn(tls.follow());
    }
    let secured = if connections.tls.is_some() { "s" } else { "" };
    // gRPC first: who waits for the line about HTTP finds both.
    if let Some(grpc) = grpc {
        let router = canet_api::grpc::router(&recommender, &access.keys).map_err(Failure::unavailable)?;
        let address = grpc.serve(router, connections.clone(), stopped.clone(), &mut servers)?;
        tracing::info!("listening on grpc{secured}://{address}");
    }
    let router = canet_api::router(&recommender, access);
    let address = http.serve(router, connections.clone(), stopped.clone(), &mut servers)?;
    tracing::info!("listening on http{secured}://{address}");
    if let Some(probes) = probes {
        let plain = Connections { tls: None, ..connections };
        let address = probes.serve(canet_api::probes(&recommender), plain, stopped, &mut servers)?;
        tracing::info!("answering probes on http://{address}");
    }

    let mut drain_timeout = args.drain_timeout;
    let outcome = tokio::select! {
        signal = signals.stop() => {
            tracing::info!(signal, "stopping before the model was loaded");
            // Calls that last as long as the server end with this.
            recommender.drain();
            Ok(())
        }
        outcome = loading => {
            outcome.map_err(refused)?;
            tracing::info!("ready");
            tokio::select! {
                signal = until_stopped(signals, &reloader, watch) => {
                    let delay_ms = args.drain_delay.as_millis();
                    tracing::info!(signal, delay_ms, "draining: not ready any more, still serving");
                    recommender.drain();
                    tokio::time::sleep(args.drain_delay).await;
                    Ok(())
                }
                () = recommender.died() => {
                    tracing::error!("stopping: the model cannot be run any more");
                    recommender.drain();
                    drain_timeout = drain_timeout.min(LAST_REFUSALS);
                    Err(Failure::unavailable(Unready::Dead))
                }
            }
        }
    };

    // No new connection from here; open ones end with the answer that they wait for.
    drop(stop);
    let deadline = Instant::now() + drain_timeout;
    let closed = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline.into(), closed).await.is_err() {
        tracing::warn!("the drain timeout passed while requests were still open");
        return outcome;
    }
    // The server is gone and this is the last handle: the executors end when their queue is empty.
    drop(recommender);
    join_by(deadline, reloader.last_thread().into_iter().chain(executors).collect()).await;
    tracing::info!("stopped");
    outcome
}

/// A checkpoint at fault is bad data; a device that fails on a good one is not to be had.
fn refused(error: ReloadError) -> Failure {
    match &error {
        ReloadError::Load(load) if load.checkpoint_at_fault() => Failure::data(error),
        _ => Failure::unavailable(error),
    }
}

/// Waits for threads that are about to end, but not for ever: one that hangs in the device dies with the process.
async fn join_by(deadline: Instant, threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(|| {
        for thread in threads {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    });
    if tokio::time::timeout_at(deadline.into(), joined).await.is_err() {
        tracing::warn!("the drain timeout passed while the device was still busy");
    }
}
