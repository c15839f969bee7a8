use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::pace::{Pace, return_freed_memory};
use super::{Generation, LoadError, Loader, Recommender, Unready};
use crate::metrics::Reloaded;
use canet_model::checkpoint::{Listing, ModelDirectory, VERSION_NAMES};

/// How often the thread of a reload checks whether the last row of the old generation is answered.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// The most names of ignored directories that are logged.
const MOST_LOGGED: usize = 100;

/// Replaces the generation that serves, one reload at a time.
///
/// Every reload has a thread of its own. The thread opens and warms up the new checkpoint beside the live one, swaps it
/// in, waits until no row holds the old one, and frees that. The next reload waits until then, so that memory never
/// holds more than two generations' weights. A reload that fails changes nothing.
pub struct Reloader {
    loader: Loader,
    /// Weak: the last handle's drop ends the executors, and a reload must not delay that.
    recommender: Weak<Recommender>,
    /// Set from the start of a reload to its swap.
    building: Arc<AtomicBool>,
    /// Held from the start of a reload until the generation that it replaced is freed.
    draining: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Names that were logged by [`log_ignored`](Reloader::log_ignored).
    logged: Mutex<HashSet<String>>,
}

/// The checkpoint that serves after a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The model's name.
    pub name: String,
    /// The checkpoint's version.
    pub version: u64,
    /// The checkpoint's digest.
    pub digest: String,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Another reload is running.
    #[error("a model is being loaded already: try again when it serves")]
    InProgress,
    /// The checkpoint could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server is stopping or its executors have died.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// No thread could be started.
    #[error("cannot start a thread for the reload: {0}")]
    Thread(#[from] io::Error),
    /// The thread panicked; standard error has the message.
    #[error("the reload failed by a panic")]
    BrokeOff,
}

impl Reloader {
    /// Reloads the model of `recommender` from the directory of `loader`.
    pub fn new(loader: Loader, recommender: &Arc<Recommender>) -> Arc<Reloader> {
        Arc::new(Reloader {
            loader,
            recommender: Arc::downgrade(recommender),
            building: Arc::default(),
            draining: Mutex::default(),
            thread: Mutex::default(),
            logged: Mutex::default(),
        })
    }

    /// The model's versions.
    pub fn directory(&self) -> &ModelDirectory {
        &self.loader.directory
    }

    /// Logs the directories that are no versions although their names have digits, each once.
    pub(crate) fn log_ignored(&self, listing: &Listing) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &listing.ignored {
            if logged.len() < MOST_LOGGED && logged.insert(name.clone()) {
                tracing::warn!(name, "the directory is ignored: {VERSION_NAMES}");
            }
        }
    }

    /// Starts to load a version (`None`: the highest; for the first load the highest complete one). The future is ready once the version serves. Dropping the future
    /// does not stop the reload.
    ///
    /// # Errors
    /// [`ReloadError`]. The generation that served before then still does.
    pub fn reload(self: &Arc<Self>, version: Option<u64>) -> impl Future<Output = Outcome> + Send + use<> {
        let begun = self.start(version).inspect_err(|error| self.count(Err(error), Duration::ZERO));
        async { begun?.await.unwrap_or(Err(ReloadError::BrokeOff)) }
    }

    /// The thread of the last reload, which the server joins when it stops.
    pub fn last_thread(&self) -> Option<JoinHandle<()>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn start(self: &Arc<Self>, version: Option<u64>) -> Result<oneshot::Receiver<Outcome>, ReloadError> {
        let building = Building::begin(&self.building).ok_or(ReloadError::InProgress)?;
        let (done, outcome) = oneshot::channel();
        let reloader = Arc::clone(self);
        let run = move || reloader.run(version, building, done);
        let thread = thread::Builder::new().name("reload".to_owned()).spawn(run)?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(outcome)
    }

    fn run(&self, version: Option<u64>, building: Building, done: oneshot::Sender<Outcome>) {
        // Memory has no room for a third generation.
        let _draining = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(listing) = self.directory().list() {
            self.log_ignored(&listing);
        }
        let started = Instant::now();
        let outcome = self.replace(version);
        let (outcome, old) = match outcome {
            Ok((reload, old)) => (Ok(reload), old),
            Err(error) => (Err(error), None),
        };
        // This order lets a client that learns of the end start the next reload.
        drop(building);
        self.count(outcome.as_ref(), started.elapsed());
        // A closed channel means that the client has left.
        let _ = done.send(outcome);
        match old {
            Some(old) => self.free(old),
            // A failed load has freed what it had read.
            None => return_freed_memory(),
        }
    }

    /// Loads a version and swaps it in. Returns the generation that served before.
    fn replace(&self, version: Option<u64>) -> Result<(Reload, Option<Arc<Generation>>), ReloadError> {
        let first = self.open_recommender()?.current().is_none();
        let generation = match version {
            None if first => self.loader.load_newest_complete(Pace::Alone)?,
            _ => self.loader.load(version, if first { Pace::Alone } else { Pace::BesideLive })?,
        };
        let recommender = self.open_recommender()?;
        let model = &generation.model;
        let reload =
            Reload { name: model.name().to_owned(), version: model.version(), digest: model.digest().to_owned() };
        Ok((reload, recommender.serve(generation)))
    }

    /// The recommender, if it can still use a new generation.
    fn open_recommender(&self) -> Result<Arc<Recommender>, Unready> {
        let recommender = self.recommender.upgrade().ok_or(Unready::Draining)?;
        if recommender.is_draining() {
            return Err(Unready::Draining);
        }
        if recommender.is_alive() { Ok(recommender) } else { Err(Unready::Dead) }
    }

    /// Waits until no row holds the replaced generation, then frees it on this thread, where that delays no request.
    ///
    /// Rows have deadlines, so the wait ends.
    fn free(&self, old: Arc<Generation>) {
        let version = old.model.version();
        while Arc::strong_count(&old) > 1 {
            thread::sleep(DRAIN_POLL);
        }
        drop(old);
        return_freed_memory();
        if let Some(live) = self.recommender.upgrade().and_then(|recommender| recommender.current()) {
            self.loader.metrics.keep_series(live.series.labels());
        }
        tracing::debug!(version, "the replaced generation is freed");
    }

    /// Counts and logs how a reload ended.
    fn count(&self, outcome: Result<&Reload, &ReloadError>, took: Duration) {
        let reload_ms = took.as_millis();
        match outcome {
            Ok(Reload { name, version, digest }) => {
                tracing::info!(name, version, digest, reload_ms, "the model serves");
            }
            Err(error) if error.counted() == Reloaded::Incomplete => {
                tracing::info!(%error, reload_ms, "the version is incomplete: the server keeps the model that it has");
            }
            Err(error) => {
                tracing::warn!(%error, reload_ms, "no model was loaded: the server keeps the model that it has");
            }
        }
        self.loader.metrics.reloaded(outcome.map_or_else(ReloadError::counted, |_| Reloaded::Served), took);
    }
}

impl ReloadError {
    /// The outcome that `reload_total` counts.
    fn counted(&self) -> Reloaded {
        match self {
            ReloadError::InProgress => Reloaded::Busy,
            ReloadError::Load(error) if error.is_missing() => Reloaded::Missing,
            ReloadError::Load(error) if error.is_incomplete() => Reloaded::Incomplete,
            ReloadError::Load(error) if error.checkpoint_at_fault() => Reloaded::Rejected,
            ReloadError::Load(_) | ReloadError::Unready(_) | ReloadError::Thread(_) | ReloadError::BrokeOff => {
                Reloaded::Failed
            }
        }
    }
}

/// How a reload ended.
type Outcome = Result<Reload, ReloadError>;

/// Marks the reload between its start and its swap, of which there is at most one. Dropping it ends the mark, also in a
/// panic.
struct Building(Arc<AtomicBool>);

impl Building {
    fn begin(building: &Arc<AtomicBool>) -> Option<Building> {
        (!building.swap(true, Ordering::AcqRel)).then(|| Building(Arc::clone(building)))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
