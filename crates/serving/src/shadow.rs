use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Generation;
use super::priority::Priority;
use super::row::Request;
use crate::metrics::Metrics;
use canet_catalogue::SetPool;
use canet_domain::{Item, Ranked, Route};
use canet_model::ForwardError;

/// How many of the best items are compared.
const TOP: usize = 10;

/// The most requests that wait for a comparison; further ones are dropped.
const BACKLOG: usize = 64;

/// How often the thread checks whether the server is idle while requests wait for a comparison.
const IDLE_POLL: Duration = Duration::from_millis(1);

/// Compares a sample of answered requests with the full model while the server is idle.
///
/// A thread of its own starts a comparison only while no row is in the server. It computes on one CPU thread of low
/// priority. It delays no reload: a request whose generation was replaced is not compared.
pub(crate) struct Shadow {
    share: f64,
    answered: AtomicU64,
    comparisons: Option<SyncSender<Comparison>>,
    live: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<()>>,
}

/// An answered request that waits for its comparison.
struct Comparison {
    request: Request,
    route: Route,
    generation: Weak<Generation>,
}

/// Counts a row as in the server until it drops.
pub(crate) struct LiveRow(Arc<AtomicUsize>);

impl Shadow {
    /// Compares `share` of the requests.
    ///
    /// # Errors
    /// [`io::Error`] if no thread can be started.
    pub(crate) fn start(share: f64, metrics: Arc<Metrics>) -> io::Result<Shadow> {
        let (sender, comparisons) = sync_channel(BACKLOG);
        let (live, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let idle = Idle { live: Arc::clone(&live), stop: Arc::clone(&stop) };
        let thread =
            thread::Builder::new().name("shadow".to_owned()).spawn(move || compare_all(&comparisons, &idle))?;
        Ok(Shadow {
            share,
            answered: AtomicU64::new(0),
            comparisons: Some(sender),
            live,
            stop,
            metrics,
            thread: Some(thread),
        })
    }

    /// Counts a row as in the server until the guard drops.
    pub(crate) fn live(&self) -> LiveRow {
        self.live.fetch_add(1, Ordering::AcqRel);
        LiveRow(Arc::clone(&self.live))
    }

    /// Whether the next request is in the sample, which is spread evenly.
    pub(crate) fn samples(&self) -> bool {
        let before = self.answered.fetch_add(1, Ordering::Relaxed) as f64;
        (before * self.share).floor() != ((before + 1.0) * self.share).floor()
    }

    /// Compares a request later, or drops it if too many wait.
    pub(crate) fn compare(&self, request: Request, route: Route, generation: &Arc<Generation>) {
        let comparison = Comparison { request, route, generation: Arc::downgrade(generation) };
        let Some(comparisons) = &self.comparisons else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = comparisons.try_send(comparison) {
            self.metrics.shadow_dropped();
        }
    }
}

impl Drop for Shadow {
    /// Ends the thread after at most one comparison, because nothing may compute while the process exits.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(self.comparisons.take());
        if let Some(thread) = self.thread.take() {
            // The panic of a thread is already reported.
            let _ = thread.join();
        }
    }
}

impl Drop for LiveRow {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The conditions that the thread waits for.
struct Idle {
    live: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Idle {
    /// Waits until no row is in the server. Returns false if the thread should end.
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

fn compare_all(comparisons: &Receiver<Comparison>, idle: &Idle) {
    Priority::BesideLive.apply_to_thread();
    for comparison in comparisons {
        if !idle.wait() {
            return;
        }
        let Some(generation) = comparison.generation.upgrade() else { continue };
        match comparison.overlap(&generation) {
            Ok(Some(share)) => generation.series.route(comparison.route).overlapped(share),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a request could not be compared with the full model"),
        }
    }
}

impl Comparison {
    /// The share of the full model's best items that the route found; `None` if no item is allowed.
    fn overlap(&self, generation: &Generation) -> Result<Option<f64>, ForwardError> {
        let allowed = self.request.allowed(&mut SetPool::default());
        let best = |route| -> Result<HashSet<Item>, ForwardError> {
            // Quotas hide which items a route finds, so they are left out.
            let mut query = self.request.query(allowed.as_deref());
            query.selection.k = TOP;
            let ranked: Vec<Vec<Ranked>> = generation.model.forward().rank(&[(route, query)])?;
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
