use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::freed_memory::return_freed_memory;
use super::priority::Priority;
use super::retired::{Retired, RetiredGuard};
use super::watch::{LookLog, Reserved, WatchNotes};
use super::{Conflict, Generation, LoadError, Loader, Recommender, ReloadError, Stamp, Start, Unready};
use crate::metrics::{Metrics, Reloaded};
use canet_model::OpenError;
use canet_model::checkpoint::{CheckpointError, Listing, ModelDirectory};
use parking_lot::Mutex;

/// How often the thread of a reload checks whether the last row of the old generation is answered.
const FREE_POLL: Duration = Duration::from_millis(5);

/// Changes which generations serve: it replaces the live one, and it starts, promotes and withdraws a candidate.
///
/// One version is loaded at a time. Every load has a thread of its own. The thread opens and warms up the checkpoint beside
/// those that serve, swaps it in, waits until no row holds the generation that it replaced, and frees that. A load that fails
/// changes nothing. Promoting and withdrawing load nothing.
///
/// A load begins when every generation that no longer serves is freed. So memory holds at most two generations, or three while
/// there is a candidate: the live one, the candidate, and one that is being loaded or has just been replaced.
pub struct Reloader {
    loader: Loader,
    /// Weak: the last handle's drop ends the executors, and a reload must not delay that.
    recommender: Weak<Recommender>,
    /// Set from the start of a load to its swap.
    building: Arc<AtomicBool>,
    retired: Retired,
    /// Held while a generation has its metric series and does not serve yet.
    series_lock: Mutex<()>,
    /// Those that load, and those that free a generation.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What the watch learns of the loads that it did not ask for.
    notes: WatchNotes,
    look_log: LookLog,
}

/// A version that becomes the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// The version. `None` means the highest.
    pub version: Option<u64>,
    /// The share of the users whom it answers, above 0 and at most 1.
    pub share: f64,
}

impl Offer {
    /// The share of a candidate for which nobody names one.
    pub const SHARE: f64 = 0.05;
}

/// A checkpoint that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingVersion {
    /// The model's name.
    pub name: String,
    /// The checkpoint's version.
    pub version: u64,
    /// The checkpoint's digest.
    pub digest: String,
}

/// What a thread loads.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The first generations.
    Start(Start),
    /// A live generation, which an operator asked for. `None` means the highest version that is neither the candidate nor
    /// reserved for it.
    Replace(Option<u64>),
    /// What a watch found: a live generation, or the reserved candidate.
    Watched(u64),
    /// A candidate.
    Offer(Offer),
}

impl Reloader {
    /// Reloads the model of `recommender` from the directory of `loader`.
    pub fn new(loader: Loader, recommender: &Arc<Recommender>) -> Arc<Reloader> {
        Arc::new(Reloader {
            loader,
            recommender: Arc::downgrade(recommender),
            building: Arc::default(),
            retired: Retired::default(),
            series_lock: Mutex::default(),
            threads: Mutex::default(),
            notes: WatchNotes::default(),
            look_log: LookLog::default(),
        })
    }

    /// The model's versions.
    pub fn directory(&self) -> &ModelDirectory {
        &self.loader.directory
    }

    /// What the watch learns of the loads that it did not ask for.
    pub(crate) fn notes(&self) -> &WatchNotes {
        &self.notes
    }

    /// Logs what looks at the versions find.
    pub(crate) fn look_log(&self) -> &LookLog {
        &self.look_log
    }

    /// The metrics that count the loads.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.loader.metrics
    }

    /// Starts to load the first generations. The future is ready once they serve. Dropping it does not stop the load.
    ///
    /// A candidate that cannot be loaded keeps no server from starting: the live generation then answers everybody. Its version
    /// stays reserved: a watch loads it as the candidate once it can, and no reload without a version takes it.
    ///
    /// # Errors
    /// [`ReloadError`] of the live version.
    pub fn start(self: &Arc<Self>, start: Start) -> impl Future<Output = Outcome> + Send + use<> {
        self.carry_out(Order::Start(start))
    }

    /// Starts to load a version in place of the live one. `None` means the highest that is neither the candidate nor reserved
    /// for it. The future is ready once the version serves. Dropping the future does not stop the reload. A named version need
    /// not pass the gate, because somebody asked for it.
    ///
    /// # Errors
    /// [`ReloadError`]. The generation that served before then still does.
    pub fn reload(self: &Arc<Self>, version: Option<u64>) -> impl Future<Output = Outcome> + Send + use<> {
        self.carry_out(Order::Replace(version))
    }

    /// Like [`reload`](Reloader::reload) for a version that nobody asked for: it must pass the gate. The version that is reserved
    /// for the candidate becomes the candidate instead.
    ///
    /// # Errors
    /// [`ReloadError`]. The generation that served before then still does.
    pub(crate) fn reload_watched(self: &Arc<Self>, version: u64) -> impl Future<Output = Outcome> + Send + use<> {
        self.carry_out(Order::Watched(version))
    }

    /// The threads that load or free generations, which the server joins when it stops.
    pub fn threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock())
    }

    fn carry_out(self: &Arc<Self>, order: Order) -> impl Future<Output = Outcome> + Send + use<> {
        let started = self.start_thread(order).inspect_err(|error| self.refused(error, Duration::ZERO));
        async { started?.await.unwrap_or(Err(ReloadError::BrokeOff)) }
    }

    fn start_thread(self: &Arc<Self>, order: Order) -> Result<oneshot::Receiver<Outcome>, ReloadError> {
        let building = Building::begin(&self.building).ok_or(ReloadError::InProgress)?;
        let (done, outcome) = oneshot::channel();
        let reloader = Arc::clone(self);
        self.spawn(move || reloader.run(order, building, done))?;
        Ok(outcome)
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name("reload".to_owned()).spawn(run)?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    fn run(&self, order: Order, building: Building, done: oneshot::Sender<Outcome>) {
        // Memory has no room for a further generation.
        self.retired.wait();
        let listing = self.directory().list().ok();
        listing.iter().for_each(|listing| self.look_log.log_ignored(listing));
        let started = Instant::now();
        let series_lock = self.series_lock.lock();
        // A panic is a failed load like any other: it is counted, and the client learns of it.
        let loaded = panic::catch_unwind(AssertUnwindSafe(|| self.load(order, listing.as_ref())));
        let (outcome, old) = match loaded.unwrap_or(Err(ReloadError::BrokeOff)) {
            Ok((reload, old)) => (Ok(reload), old),
            Err(error) => (Err(error), None),
        };
        if let Ok(served) = &outcome {
            self.notes.note_served(served);
        }
        let old = old.map(|old| (self.retired.enter(), old));
        drop(series_lock);
        // This order lets a client that learns of the end start the next reload.
        drop(building);
        self.count(order, outcome.as_ref(), started.elapsed());
        // A closed channel means that the client has left.
        let _ = done.send(outcome);
        match old {
            Some((guard, old)) => self.free(old, guard),
            // A failed load has freed what it had read.
            None => return_freed_memory(),
        }
    }

    /// Loads what an order asks for and swaps it in. Returns the generation that no longer serves. Without `listing` the versions
    /// could not be listed.
    fn load(&self, order: Order, listing: Option<&Listing>) -> Result<Loaded, ReloadError> {
        match order {
            Order::Start(start) => self.load_first(start, listing).map(|served| (served, None)),
            Order::Replace(asked) => self.load_ordered(asked, listing),
            Order::Watched(version) => self.load_watched(version, listing),
            Order::Offer(offer) => self.load_candidate(offer, listing).map(|served| (served, None)),
        }
    }

    /// Loads a live generation that an operator asked for.
    fn load_ordered(&self, asked: Option<u64>, listing: Option<&Listing>) -> Result<Loaded, ReloadError> {
        let version = self.version_to_replace(asked)?;
        if asked.is_none()
            && let Some(serving) = self.open_recommender()?.current()
        {
            self.loader.check_gate(version, &serving.live)?;
        }
        let stamp = self.stamp(version, listing);
        let generation = self.load_beside(version)?;
        // Before it serves, so that the watch does not load it once more.
        self.notes.note_order(version, stamp);
        self.replace(generation)
    }

    /// Loads what a watch found: the reserved candidate, or a live generation.
    fn load_watched(&self, version: u64, listing: Option<&Listing>) -> Result<Loaded, ReloadError> {
        // A candidate or an order may have come since the watch looked. The watch asks again.
        if self.candidate().is_some() || self.notes.is_ordered(version) {
            return Err(ReloadError::InProgress);
        }
        if let Some(Reserved { share, is_withdrawn, .. }) =
            self.notes.reserved().filter(|reserved| reserved.version == version)
        {
            // Since the watch looked.
            if is_withdrawn {
                return Err(ReloadError::InProgress);
            }
            let offer = Offer { version: Some(version), share };
            return self.load_candidate(offer, listing).map(|served| (served, None));
        }
        if let Some(serving) = self.open_recommender()?.current() {
            let digest = self.directory().digest(version).map_err(opening)?;
            if serving.live.model.version() != version && self.notes.has_served(version, &digest) {
                return Err(ReloadError::Left { version });
            }
            self.loader.check_gate(version, &serving.live)?;
        }
        self.replace(self.load_beside(version)?)
    }

    /// The state of a version before it is loaded, for the watch: what changes later is new. `None` if its files cannot be
    /// listed, so that the watch takes it for new.
    fn stamp(&self, version: u64, listing: Option<&Listing>) -> Option<Stamp> {
        let listing = listing.filter(|listing| listing.versions.contains(&version))?;
        Stamp::of_version(self.directory(), listing, version).ok()
    }

    /// The version that an operator's order means.
    fn version_to_replace(&self, asked: Option<u64>) -> Result<u64, ReloadError> {
        let candidate = self.candidate();
        match asked {
            Some(version) if candidate == Some(version) => Err(Conflict::IsCandidate { version }.into()),
            Some(version) => Ok(version),
            None => self.highest_for_everybody(candidate),
        }
    }

    /// The highest version that is neither the candidate nor reserved for it.
    fn highest_for_everybody(&self, candidate: Option<u64>) -> Result<u64, ReloadError> {
        let kept = [candidate, self.notes.reserved().map(|reserved| reserved.version)];
        let versions = self.directory().versions().map_err(opening)?;
        match (versions.iter().rfind(|version| !kept.contains(&Some(**version))), versions.last()) {
            (Some(version), _) => Ok(*version),
            (None, Some(&candidate)) => Err(LoadError::NoOther { path: self.directory().address(), candidate }.into()),
            // There is none: this is the error that says so.
            (None, None) => Ok(self.directory().latest().map_err(opening)?),
        }
    }

    /// Loads a version that is to replace the live one, if there is one.
    fn load_beside(&self, version: u64) -> Result<Generation, ReloadError> {
        let first = self.open_recommender()?.current().is_none();
        let priority = if first { Priority::WholeMachine } else { Priority::BesideLive };
        Ok(self.loader.load(Some(version), priority)?)
    }

    /// Swaps a generation in. Returns the one that was live before.
    fn replace(&self, generation: Generation) -> Result<Loaded, ReloadError> {
        let recommender = self.open_recommender()?;
        let served = ServingVersion::of(&generation);
        Ok((served, recommender.serve(generation)))
    }

    /// The recommender, if it can still use a new generation.
    fn open_recommender(&self) -> Result<Arc<Recommender>, Unready> {
        let recommender = self.recommender.upgrade().ok_or(Unready::Draining)?;
        if recommender.is_draining() {
            return Err(Unready::Draining);
        }
        if recommender.is_alive() { Ok(recommender) } else { Err(Unready::Dead) }
    }

    /// Frees a generation that no longer serves, on a thread of its own.
    fn retire(self: &Arc<Self>, old: Arc<Generation>, guard: RetiredGuard) {
        let reloader = Arc::clone(self);
        if let Err(error) = self.spawn(move || reloader.free(old, guard)) {
            // Its last row frees it then.
            tracing::warn!(%error, "no thread can be started to free a generation");
        }
    }

    /// Waits until no row holds the replaced generation, then frees it on this thread, where that delays no request.
    ///
    /// Rows have deadlines, so the wait ends.
    fn free(&self, old: Arc<Generation>, guard: RetiredGuard) {
        let version = old.model.version();
        while Arc::strong_count(&old) > 1 {
            thread::sleep(FREE_POLL);
        }
        drop(old);
        return_freed_memory();
        drop(guard);
        let _series_lock = self.series_lock.lock();
        // Rows of another replaced generation still count. The last one cleans up for all. One that is replaced after this
        // look at what serves keeps its series, because it served then.
        if let Some(serving) = self.recommender.upgrade().and_then(|recommender| recommender.current())
            && self.retired.is_empty()
        {
            let labels = serving.generations().flat_map(|generation| generation.series.labels().iter().cloned());
            self.loader.metrics.keep_series(&labels.collect());
            let versions = serving.generations().map(|generation| generation.series.version().to_owned());
            self.loader.metrics.keep_versions(&versions.collect());
        }
        tracing::debug!(version, "the replaced generation is freed");
    }

    /// Counts and logs how a load ended.
    fn count(&self, order: Order, outcome: Result<&ServingVersion, &ReloadError>, took: Duration) {
        let ServingVersion { name, version, digest } = match (outcome, order) {
            (Ok(served), _) => served,
            // Whoever starts the server says why it does not start.
            (Err(error), Order::Start(_)) => return self.loader.metrics.reloaded(error.counted(), took),
            (Err(error), _) => return self.refused(error, took),
        };
        let reload_ms = took.as_millis();
        // Whoever reads the line finds it counted.
        self.loader.metrics.reloaded(Reloaded::Served, took);
        match self.candidate_share(Some(*version)) {
            Some(share) => {
                tracing::info!(name, version, digest, share, reload_ms, "the candidate answers its share of the users");
            }
            None => tracing::info!(name, version, digest, reload_ms, "the model serves"),
        }
    }

    /// Counts and logs an order that changed nothing.
    fn refused(&self, error: &ReloadError, took: Duration) {
        let (counted, reload_ms) = (error.counted(), took.as_millis());
        // Whoever reads the line finds it counted.
        self.loader.metrics.reloaded(counted, took);
        match counted {
            Reloaded::Incomplete => {
                tracing::info!(%error, reload_ms, "the version is incomplete: the server keeps the model that it has");
            }
            Reloaded::Regression => {
                tracing::warn!(%error, "the version is refused: the server keeps the model that it has");
            }
            Reloaded::Unchanged => tracing::info!(%error, "the server keeps the model that it has"),
            Reloaded::Busy => tracing::warn!(%error, "the call is refused: it changes nothing"),
            _ => tracing::warn!(%error, reload_ms, "no model was loaded: the server keeps the model that it has"),
        }
    }
}

impl ServingVersion {
    fn of(generation: &Generation) -> ServingVersion {
        let model = &generation.model;
        ServingVersion { name: model.name().to_owned(), version: model.version(), digest: model.digest().to_owned() }
    }
}

fn opening(error: CheckpointError) -> LoadError {
    LoadError::Open(OpenError::from(error))
}

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

/// How a reload ended.
type Outcome = Result<ServingVersion, ReloadError>;

/// What was loaded, and the generation that no longer serves.
type Loaded = (ServingVersion, Option<Arc<Generation>>);

mod candidate;
mod start;
#[cfg(test)]
mod tests;
