use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cost::{BatchCost, CostModel, Ran};
use super::stretch::Stretch;
use canet_domain::Flops;

/// Share of the full model's cost that a row is expected to run before any was routed.
const EXPECTED_SHARE: f64 = 0.5;

/// Weight of one routed row in the expected share.
const SHARE_RATE: f64 = 0.02;

/// Bounds what waits for the device, in predicted time: one row is one unit of work, whether it came alone or in a
/// batch.
///
/// The backlog is the predicted time of the batches that the waiting rows will make, lane by lane, times the
/// [`Stretch`]. A row whose route the router will choose counts with the share of the full model's cost that rows
/// have run lately, and with the router's own cost, until its lane is known. On an idle device a row is never refused,
/// so that no limit, and no prediction that has gone wrong, can shut the door for good.
#[derive(Debug)]
pub struct Admission<K: Copy + Eq + Hash> {
    limit: Duration,
    max_batch: usize,
    state: Arc<Mutex<State<K>>>,
}

/// What a row is known to need when it asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<K> {
    /// The row names its route.
    Lane {
        /// The lane that it will wait in.
        lane: K,
        /// The slice's cost.
        flops: Flops,
    },
    /// The router will choose.
    Router {
        /// The router's cost.
        flops: Flops,
        /// What the full slice would cost.
        full_flops: Flops,
    },
}

/// A place in the queue; dropping it frees the place, however the row ended.
#[derive(Debug)]
pub struct Permit<K: Copy + Eq + Hash> {
    state: Arc<Mutex<State<K>>>,
    held: Need<K>,
    /// Predicted seconds of the work that was there before.
    ahead: f64,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the work that waits is predicted to take {} ms, and at most {} ms may wait: try again later",
    backlog.as_millis(), limit.as_millis()
)]
pub struct QueueFull {
    /// Predicted time of the work that waits.
    pub backlog: Duration,
    /// Predicted time that may wait.
    pub limit: Duration,
}

impl QueueFull {
    /// Whole seconds after which what waits now will have run, at least 1.
    pub fn retry_after(&self) -> u64 {
        (self.backlog.as_secs() + u64::from(self.backlog.subsec_nanos() > 0)).max(1)
    }
}

#[derive(Debug)]
struct State<K> {
    rows: usize,
    lanes: HashMap<K, Load>,
    /// Rows that no lane has yet: the router's work on them, and what their slices would cost in full.
    undecided: Load,
    undecided_full: Flops,
    costs: CostModel<K>,
    router: BatchCost,
    share: f64,
    /// Batches that run at a time.
    executors: f64,
    stretch: Stretch,
}

/// The rows that wait in one place.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    rows: usize,
    flops: Flops,
}

impl Load {
    fn seconds(self, cost: BatchCost, max_batch: usize) -> f64 {
        cost.seconds(self.rows.div_ceil(max_batch), self.flops)
    }

    fn add(&mut self, flops: Flops) {
        self.rows += 1;
        self.flops += flops;
    }

    fn subtract(&mut self, flops: Flops) {
        self.rows -= 1;
        self.flops -= flops;
    }
}

impl<K: Copy + Eq + Hash> Admission<K> {
    /// At most `limit` of predicted work waits for a device that runs up to `max_batch` rows in one batch.
    pub fn new(limit: Duration, max_batch: usize) -> Admission<K> {
        let state = State {
            rows: 0,
            lanes: HashMap::new(),
            undecided: Load::default(),
            undecided_full: 0,
            costs: CostModel::default(),
            router: BatchCost::default(),
            share: EXPECTED_SHARE,
            executors: 1.0,
            stretch: Stretch::default(),
        };
        Admission { limit, max_batch: max_batch.max(1), state: Arc::new(Mutex::new(state)) }
    }

    /// The same where `executors` batches run at a time: what waits takes so much less.
    pub fn shared_by(self, executors: usize) -> Admission<K> {
        lock(&self.state).executors = executors.max(1) as f64;
        self
    }

    /// A place for one row.
    ///
    /// # Errors
    /// [`QueueFull`] where other rows wait and their work and this row's are predicted to exceed the limit.
    pub fn admit(&self, need: Need<K>) -> Result<Permit<K>, QueueFull> {
        let mut state = lock(&self.state);
        let ahead = state.seconds(self.max_batch);
        state.enter(need);
        let with_it = state.seconds(self.max_batch) * state.stretch.factor();
        if state.rows > 1 && with_it > self.limit.as_secs_f64() {
            state.leave(need);
            let backlog = duration(ahead * state.stretch.factor());
            return Err(QueueFull { backlog, limit: self.limit });
        }
        drop(state);
        Ok(Permit { state: Arc::clone(&self.state), held: need, ahead })
    }

    /// Starts from timed batches of the lanes and of the router, and forgets the lanes of before.
    pub fn calibrate(&self, lanes: &[(K, Ran)], router: &[Ran]) {
        let mut state = lock(&self.state);
        state.costs.calibrate(lanes);
        state.router.calibrate(router);
    }

    /// Takes new lanes for old ones, `(old, new)`, which still run what they hold; forgets the lanes of before.
    pub fn adopt(&self, pairs: &[(K, K)]) {
        lock(&self.state).costs.adopt(pairs);
    }

    /// Learns from a batch of a lane.
    pub fn ran(&self, lane: K, ran: Ran) {
        lock(&self.state).costs.observe(lane, ran);
    }

    /// Learns from a micro-batch of the router.
    pub fn routed(&self, ran: Ran) {
        lock(&self.state).router.observe(ran);
    }

    /// Learns how long a row has waited that is about to run, and frees its place. `unforeseen` is the part that it
    /// waited for the batch that ran when it came: admission counts what waits, not what runs.
    pub fn begin(&self, permit: Permit<K>, waited: Duration, unforeseen: Duration) {
        let waited = waited.saturating_sub(unforeseen).as_secs_f64();
        // Behind less, the wait says more about the machine than about the queue.
        if permit.ahead > self.limit.as_secs_f64() / 8.0 {
            lock(&self.state).stretch.observe(waited / permit.ahead);
        }
    }

    /// The predicted time of one batch of the lane that computes `flops`.
    pub fn batch(&self, lane: K, flops: Flops) -> Duration {
        duration(lock(&self.state).costs.lane(lane).seconds(1, flops))
    }

    /// How many rows of `flops` each, at least 1, are predicted to take half of the limit: whoever has no more of them
    /// in the queue at a time is not refused for its own.
    pub fn fitting(&self, flops: Flops) -> usize {
        let state = lock(&self.state);
        // As if none shared a batch, which errs on the side of fewer.
        let row = state.costs.any().seconds(1, flops) * state.stretch.factor() / state.executors;
        ((self.limit.as_secs_f64() / 2.0 / row) as usize).max(1)
    }

    /// The predicted backlog as a share of the limit.
    pub fn pressure(&self) -> f64 {
        let state = lock(&self.state);
        state.seconds(self.max_batch) * state.stretch.factor() / self.limit.as_secs_f64()
    }

    /// Rows that wait.
    pub fn queued(&self) -> usize {
        lock(&self.state).rows
    }
}

impl<K: Copy + Eq + Hash> Clone for Admission<K> {
    /// Another handle to the same queue.
    fn clone(&self) -> Admission<K> {
        Admission { state: Arc::clone(&self.state), ..*self }
    }
}

impl<K: Copy + Eq + Hash> Permit<K> {
    /// The router has chosen: from here on the row counts with what it will run.
    pub fn choose(&mut self, lane: K, flops: Flops) {
        let mut state = lock(&self.state);
        if let Need::Router { full_flops, .. } = self.held
            && full_flops > 0
        {
            state.share += SHARE_RATE * (flops as f64 / full_flops as f64 - state.share);
        }
        state.leave(self.held);
        self.held = Need::Lane { lane, flops };
        state.enter(self.held);
    }
}

impl<K: Copy + Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        lock(&self.state).leave(self.held);
    }
}

impl<K: Copy + Eq + Hash> State<K> {
    fn enter(&mut self, need: Need<K>) {
        self.rows += 1;
        match need {
            Need::Lane { lane, flops } => self.lanes.entry(lane).or_default().add(flops),
            Need::Router { flops, full_flops } => {
                self.undecided.add(flops);
                self.undecided_full += full_flops;
            }
        }
    }

    fn leave(&mut self, need: Need<K>) {
        self.rows -= 1;
        match need {
            Need::Lane { lane, flops } => {
                let Some(load) = self.lanes.get_mut(&lane) else { return };
                load.subtract(flops);
                if load.rows == 0 {
                    self.lanes.remove(&lane);
                }
            }
            Need::Router { flops, full_flops } => {
                self.undecided.subtract(flops);
                self.undecided_full -= full_flops;
            }
        }
    }

    /// The predicted seconds of everything that waits.
    fn seconds(&self, max_batch: usize) -> f64 {
        let lanes: f64 = self.lanes.iter().map(|(lane, load)| load.seconds(self.costs.lane(*lane), max_batch)).sum();
        let expected = Load { flops: (self.undecided_full as f64 * self.share) as Flops, ..self.undecided };
        let routing = self.undecided.seconds(self.router, max_batch);
        (lanes + routing + expected.seconds(self.costs.any(), max_batch)) / self.executors
    }
}

/// No code panics while it holds the lock.
fn lock<K>(state: &Mutex<State<K>>) -> MutexGuard<'_, State<K>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
