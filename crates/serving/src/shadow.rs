use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Generation;
use super::pace::Pace;
use super::row::Request;
use crate::metrics::Metrics;
use canet_domain::{Item, Ranked, Route};
use canet_model::ForwardError;

/// Items that are compared.
const TOP: usize = 10;

/// Requests that wait to be compared; what comes on top is dropped.
const BACKLOG: usize = 64;

/// How often the thread looks whether the device is idle, while it has something to compare.
const IDLE_POLL: Duration = Duration::from_millis(1);

/// Compares a sample of answered requests with the full model, when nothing else is to do.
///
/// A thread of its own begins a comparison only while no row is in the server, computes on one CPU thread and gives
/// way to the live ones. It holds no generation back: a request whose generation was replaced is not compared.
pub(crate) struct Shadow {
    share: f64,
    answered: AtomicU64,
    checks: Option<SyncSender<Check>>,
    live: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<()>>,
}

/// An answered request that waits for its comparison.
pub(crate) struct Check {
    request: Request,
    route: Route,
    generation: Weak<Generation>,
}

/// A row that is in the server until this drops.
pub(crate) struct Live(Arc<AtomicUsize>);

impl Shadow {
    /// Compares `share` of the requests.
    ///
    /// # Errors
    /// [`io::Error`] where no thread can be started.
    pub(crate) fn start(share: f64, metrics: Arc<Metrics>) -> io::Result<Shadow> {
        let (sender, checks) = sync_channel(BACKLOG);
        let (live, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let idle = Idle { live: Arc::clone(&live), stop: Arc::clone(&stop) };
        let thread = thread::Builder::new().name("shadow".to_owned()).spawn(move || compare_all(&checks, &idle))?;
        Ok(Shadow {
            share,
            answered: AtomicU64::new(0),
            checks: Some(sender),
            live,
            stop,
            metrics,
            thread: Some(thread),
        })
    }

    /// Counts a row as live until the guard drops.
    pub(crate) fn live(&self) -> Live {
        self.live.fetch_add(1, Ordering::AcqRel);
        Live(Arc::clone(&self.live))
    }

    /// Whether the next request is one of the sample, which is spread evenly.
    pub(crate) fn samples(&self) -> bool {
        let before = self.answered.fetch_add(1, Ordering::Relaxed) as f64;
        (before * self.share).floor() != ((before + 1.0) * self.share).floor()
    }

    /// Compares a request later; drops it where too many wait.
    pub(crate) fn compare(&self, request: Request, route: Route, generation: &Arc<Generation>) {
        let check = Check { request, route, generation: Arc::downgrade(generation) };
        let Some(checks) = &self.checks else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = checks.try_send(check) {
            self.metrics.shadow_dropped();
        }
    }
}

impl Drop for Shadow {
    /// Ends the thread, which is at most in one comparison: nothing may compute while the process exits.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(self.checks.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the thread waits for.
struct Idle {
    live: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Idle {
    /// Waits until no row is in the server; whether to go on at all.
    fn wait(&self) -> bool {
        while !self.stop.load(Ordering::Acquire) {
            if self.live.load(Ordering::Acquire) == 0 {
                return true;
            }
            thread::sleep(IDLE_POLL);
        }
        false
    }
}

fn compare_all(checks: &Receiver<Check>, idle: &Idle) {
    Pace::BesideLive.keep();
    for check in checks {
        if !idle.wait() {
            return;
        }
        let Some(generation) = check.generation.upgrade() else { continue };
        match check.overlap(&generation) {
            Ok(Some(share)) => generation.series.route(check.route).overlapped(share),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a request could not be compared with the full model"),
        }
    }
}

impl Check {
    /// The share of the full model's best items that the route found; `None` where no item is allowed.
    fn overlap(&self, generation: &Generation) -> Result<Option<f64>, ForwardError> {
        let best = |route| -> Result<HashSet<Item>, ForwardError> {
            let mut query = self.request.query();
            query.selection.k = TOP;
            let ranked: Vec<Vec<Ranked>> = generation.model.forward().rank(route, &[query])?;
            Ok(ranked.into_iter().flatten().map(|ranked| ranked.item).collect())
        };
        let full = best(generation.model.space().full())?;
        if full.is_empty() {
            return Ok(None);
        }
        let found = best(self.route)?;
        Ok(Some(full.intersection(&found).count() as f64 / full.len() as f64))
    }
}
