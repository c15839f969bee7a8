use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use clap::builder::BoolishValueParser;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::access::AccessArgs;
use super::feedback::FeedbackArgs;
use super::listen::{ListenArgs, Listeners, Servers};
use super::model_address::{CacheArgs, ModelAddress};
use super::numbers::{DEFAULT_BUDGET, bytes, seconds_within, share, share_or_zero};
use super::reloads::{ReloadArgs, until_stopped};
use super::secret::Secret;
use super::signals::Signals;
use super::target::{MOST_EXECUTORS, TargetArgs, cores};
use super::telemetry::TelemetryArgs;
use super::{Cli, Failure, variables};
use canet_api::{Access, Admin, Connections, Heartbeat};
use canet_domain::BatchBy;
use canet_model::checkpoint::Fault;
use canet_serving::{
    CatalogueFile, Limits, LoadError, Loader, Policy, Recommender, RecommenderOptions, ReloadError, Reloader, Start,
    Unready,
};

/// Longest time that the process waits at its end to send the last spans.
const SPANS_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that the process waits at its end to write the last answers to the log.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Longest drain after the executors died. Only refusals are left to send then.
const LAST_REFUSALS: Duration = Duration::from_secs(2);

/// Serves a model over HTTP and gRPC.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Directory of the model, with its versions, or s3://BUCKET/PREFIX
    #[arg(long, env = "CANET_MODEL", value_name = "DIR|S3")]
    model: ModelAddress,
    #[command(flatten)]
    cache: CacheArgs,
    /// Version to serve instead of the highest that is not the candidate
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// How many batches run at one time on the CPU. They share --threads [default: native one for each thread, libtorch 1]
    #[arg(long, env = "CANET_EXECUTORS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_EXECUTORS)))]
    executors: Option<u16>,
    /// Largest number of requests in one batch [default: 64, on a GPU 256]
    #[arg(long, env = "CANET_MAX_BATCH", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_batch: Option<u16>,
    /// Memory for what was computed for users' histories, as 256MB. A user who returns with a longer history then costs only
    /// the new items, and answers stay the same to the bit. 0 keeps nothing. It needs the native backend on a CPU and a
    /// model whose positions do not count from the newest item
    #[arg(long, env = "CANET_HISTORY_CACHE", value_name = "SIZE", default_value = "256MB", value_parser = bytes)]
    history_cache: usize,
    /// Longest queue, in milliseconds of predicted work. The server refuses requests beyond it with 429
    // As long as a request may wait behind other lanes: in a longer queue every request would exceed that.
    #[arg(long, env = "CANET_QUEUE_LIMIT_MS", value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    queue_limit_ms: u32,
    /// Under load, run cheaper routes before refusing requests. The answer says so
    #[arg(long, env = "CANET_DEGRADE", value_parser = BoolishValueParser::new())]
    degrade: bool,
    /// Which requests may share a batch: those with routes of the same `width`, with the same `route`, or `all`, which
    /// suits the native backend on a GPU
    #[arg(long, env = "CANET_BATCH_BY", value_name = "WHAT", default_value = "width")]
    batch_by: BatchBy,
    /// Share of the full model's FLOPs to spend, if the checkpoint is calibrated. The server interpolates between calibrated
    /// budgets of the router; beyond them it takes the nearest one
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = DEFAULT_BUDGET, value_parser = share)]
    flops_budget: f64,
    /// Run this route for every request that names none: full, smallest or a route's name. The router does not run. A
    /// version without this route is not loaded
    #[arg(long, env = "CANET_ROUTE", value_name = "NAME", value_parser = pinned_route, conflicts_with_all = ["flops_budget", "degrade"])]
    route: Option<String>,
    /// After a signal to stop, seconds to go on serving while /readyz answers 503
    #[arg(long, env = "CANET_DRAIN_DELAY", value_name = "SECONDS", default_value = "1", value_parser = seconds_within(0.0..=3600.0))]
    drain_delay: Duration,
    /// After that, seconds to finish open requests
    #[arg(long, env = "CANET_DRAIN_TIMEOUT", value_name = "SECONDS", default_value = "15", value_parser = seconds_within(0.0..=3600.0))]
    drain_timeout: Duration,
    /// File with the catalogue: an `id` a line, perhaps `title` and `hidden`, and further columns that requests filter by. CSV
    /// with a header, JSON lines or Parquet. The server follows changes of the file
    #[arg(long, env = "CANET_CATALOGUE", value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Refuse a changed --catalogue that lacks more than this share of the items of the file before, as an export that broke off
    /// does. 1 takes every file
    #[arg(long, env = "CANET_CATALOGUE_MAX_LOSS", value_name = "SHARE", default_value_t = 0.1, value_parser = share_or_zero)]
    catalogue_max_loss: f64,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    reloads: ReloadArgs,
    /// Share of answered requests to run through the full model too, while the device is idle
    #[arg(long, env = "CANET_SHADOW", value_name = "SHARE", value_parser = share)]
    shadow: Option<f64>,
    #[command(flatten)]
    feedback: FeedbackArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// The name of a route to pin. Only a loaded model knows its routes.
fn pinned_route(text: &str) -> Result<String, String> {
    match text {
        "" | "auto" => Err("name one route: full, smallest or a name that `canet inspect` lists. Without --route the \
                            router chooses"
            .to_owned()),
        name => Ok(name.to_owned()),
    }
}

impl ServeArgs {
    /// Whether log lines are JSON.
    pub(crate) fn logs_json(&self) -> bool {
        self.telemetry.is_json()
    }
}

/// Threads for work that would keep connections waiting: two for bodies, two for searches, and one each for TLS files, the
/// catalogue file and the model's directory.
const BLOCKING_THREADS: usize = 7;

const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Starts all threads for work that blocks, and the runtime keeps them. Otherwise a request may need a new one, and tokio panics
/// if the system has none to give.
fn start_blocking_threads(runtime: &Runtime) {
    let (started, starts) = mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    for _ in 0..BLOCKING_THREADS {
        let (started, gate) = (started.clone(), Arc::clone(&gate));
        drop(runtime.spawn_blocking(move || {
            let _ = started.send(());
            // None of them takes the work of another one.
            drop(gate.lock());
        }));
    }
    let all_start = (0..BLOCKING_THREADS).all(|_| starts.recv_timeout(Duration::from_secs(1)).is_ok());
    drop(closed);
    if !all_start {
        tracing::warn!("the system is short of threads: some work may fail");
    }
}

/// Serves until a signal to stop, then drains. If the executors die, the process ends with 69, so that its supervisor
/// restarts it.
///
/// The order matters. Signals are caught before anything takes time. Ports are bound before the model loads, so that a
/// port in use fails at once and probes get answers during the load.
pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::resources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(cores().div_ceil(2)))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(A_YEAR)
        .enable_all()
        .build()
        .map_err(Failure::resources)?;
    let telemetry = args.telemetry.install(&runtime)?;
    start_blocking_threads(&runtime);
    variables::warn_of_unknown(&Cli::command());
    // Executors and runtime share the cores.
    let (backend, executors) = args.target.open_beside_runtime(args.executors, args.history_cache)?;
    if args.history_cache > 0 && backend.history_cache() == 0 {
        tracing::info!("--history-cache has no effect: only the native backend on a CPU keeps histories");
    }
    let start = args.reloads.start(args.version)?;
    let max_batch = args.max_batch.unwrap_or(backend.max_batch()).into();
    let directory = args.model.open(&args.cache)?;
    let listeners = args.listen.bind()?;
    let metrics = Arc::new(canet_api::metrics().map_err(Failure::unavailable)?);
    let feedback = args.feedback.options(&metrics)?;
    let catalogue =
        args.catalogue.as_deref().map(|path| CatalogueFile::open(path, args.catalogue_max_loss, Arc::clone(&metrics)));
    let catalogue = catalogue.transpose().map_err(Failure::data)?;
    let options = RecommenderOptions { shadow_share: args.shadow, catalogue, ..feedback };
    let loader = Loader {
        directory,
        backend,
        policy: Policy { budget: args.flops_budget, batch_by: args.batch_by },
        fixed_route: args.route.clone(),
        max_batch,
        gate: args.reloads.gate(),
        metrics,
    };
    let limits = Limits {
        executors: executors.into(),
        max_batch,
        queue_limit: Duration::from_millis(args.queue_limit_ms.into()),
        degrade: args.degrade,
    };
    let startup = Startup { listeners, limits, options, loader, start };
    let outcome = runtime.block_on(serve(&args, startup, &mut signals));
    telemetry.finish(SPANS_TIMEOUT);
    // The remaining tasks are idle or out of time.
    runtime.shutdown_background();
    outcome
}

/// Everything that exists before the first asynchronous step.
struct Startup {
    listeners: Listeners,
    limits: Limits,
    options: RecommenderOptions,
    loader: Loader,
    start: Start,
}

/// What runs until the drain.
struct Running {
    servers: Servers,
    recommender: Arc<Recommender>,
    reloader: Arc<Reloader>,
    executors: Vec<JoinHandle<()>>,
}

/// Loads the model, serves, and drains.
async fn serve(args: &ServeArgs, startup: Startup, signals: &mut Signals) -> Result<(), Failure> {
    let Startup { listeners, limits, options, loader, start } = startup;
    let connections = Connections { metrics: Some(Arc::clone(&loader.metrics)), ..args.access.connections()? };
    let mut servers = Servers::new(listeners.fit(connections));
    let catalogue = options.catalogue.clone();
    let (recommender, executors) =
        Recommender::start(limits, options, Arc::clone(&loader.metrics)).map_err(Failure::resources)?;
    let reloader = Reloader::new(loader, &recommender);
    // Begins before an operator could ask for a reload.
    let loading = reloader.start(start);
    let token = args.reloads.token()?;
    let admin = Admin::new(Arc::clone(&reloader), token.as_ref().map(Secret::reveal))
        .with_candidate_share(args.reloads.candidate_share);
    let access = args.access.access(admin)?;
    listen(listeners, &mut servers, &recommender, access)?;

    let running = Running { servers, recommender, reloader, executors };
    let outcome = tokio::select! {
        signal = signals.stop() => {
            tracing::info!(signal, "stopping before the model was loaded");
            Ok(())
        }
        outcome = loading => {
            outcome.map_err(refused)?;
            tracing::info!("ready");
            // Dropping the set ends the watch.
            let mut watching = JoinSet::new();
            if let Some(file) = catalogue {
                watching.spawn(file.watch(Arc::downgrade(&running.recommender)));
            }
            running.serve_loaded(args, signals).await
        }
    };
    let is_dead = outcome.is_err();
    let timeout = if is_dead { args.drain_timeout.min(LAST_REFUSALS) } else { args.drain_timeout };
    running.drain(timeout).await;
    outcome
}

impl Running {
    /// Serves a loaded model until a signal to stop and the time for which the server still serves then.
    ///
    /// # Errors
    /// [`Failure`] if the executors die.
    async fn serve_loaded(&self, args: &ServeArgs, signals: &mut Signals) -> Result<(), Failure> {
        let watch = args.reloads.watch(args.model.is_remote());
        tokio::select! {
            signal = until_stopped(signals, &self.reloader, watch) => {
                let delay_ms = args.drain_delay.as_millis();
                tracing::info!(signal, delay_ms, "draining: not ready any more, still serving");
                self.recommender.drain();
                tokio::time::sleep(args.drain_delay).await;
                Ok(())
            }
            () = self.recommender.died() => {
                tracing::error!("stopping: the model cannot be run any more");
                Err(Failure::unavailable(Unready::Dead))
            }
        }
    }

    /// Finishes open requests and ends all threads, for at most `timeout`.
    async fn drain(self, timeout: Duration) {
        let Running { servers, recommender, reloader, executors } = self;
        // Ends the calls that would last as long as the server.
        recommender.drain();
        let deadline = Instant::now() + timeout;
        let all_stopped = servers.stop_by(deadline).await;
        if let Some(log) = recommender.answer_log() {
            log.finish(LAST_ANSWERS);
        }
        if !all_stopped {
            tracing::warn!("the drain timeout passed while requests were still open");
            return;
        }
        // This is the last handle. The executors end once their queue is empty.
        drop(recommender);
        join_by(deadline, reloader.threads().into_iter().chain(executors).collect()).await;
        tracing::info!("stopped");
    }
}

/// Serves on every listener.
fn listen(
    Listeners { http, grpc, probes }: Listeners,
    servers: &mut Servers,
    recommender: &Arc<Recommender>,
    access: Access,
) -> Result<(), Failure> {
    let secured = if servers.follow_certificates() { "s" } else { "" };
    // gRPC first: a script that waits for the HTTP line then finds both.
    if let Some(grpc) = grpc {
        let hosts = grpc.hosts(&access.hosts);
        let app = canet_api::grpc::app(recommender, &access.keys, &hosts).map_err(Failure::unavailable)?;
        let address = servers.serve(grpc, app)?;
        tracing::info!("listening on grpc{secured}://{address}");
    }
    let access = Access { hosts: http.hosts(&access.hosts), ..access };
    let address = servers.serve(http, canet_api::app(recommender, access))?;
    tracing::info!("listening on http{secured}://{address}");
    if let Some(probes) = probes {
        let address = servers.serve_apart(probes, canet_api::probes(recommender, Heartbeat::start()))?;
        tracing::info!("answering probes on http://{address}");
    }
    Ok(())
}

/// A route that the checkpoint lacks is a wrong flag. A wrong checkpoint is bad data. A device that fails on a good one is unavailable.
fn refused(error: ReloadError) -> Failure {
    match &error {
        ReloadError::Load(LoadError::NoRoute { .. }) => Failure::usage(error),
        ReloadError::Load(load) => match load.fault() {
            Fault::Missing | Fault::Incomplete | Fault::Rejected => Failure::data(error),
            Fault::StoreUnavailable | Fault::Server => Failure::unavailable(error),
        },
        _ => Failure::unavailable(error),
    }
}

/// Waits until `deadline` for threads to end. A thread that hangs in the device dies with the process.
async fn join_by(deadline: Instant, threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(|| {
        for thread in threads {
            // The panic hook reported a panic already.
            let _ = thread.join();
        }
    });
    if tokio::time::timeout_at(deadline.into(), joined).await.is_err() {
        tracing::warn!("the drain timeout passed while the device ran a batch or a version was being loaded");
    }
}
