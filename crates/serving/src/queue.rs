use std::hash::Hash;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::{Batch, Due, Lanes};

/// Everything that waits for an executor: what has arrived, and behind it the lanes of what is routed.
///
/// All executors share one, so that rows of a lane batch together whoever runs them. The lock is held to move rows,
/// never to compute; the rows that are given up are dropped outside it.
pub struct Queue<A, K, T> {
    state: Mutex<State<A, K, T>>,
    /// Told when an executor that waits may have something to do.
    changed: Condvar,
}

struct State<A, K, T> {
    arrived: Vec<A>,
    lanes: Lanes<K, T>,
    closed: bool,
}

impl<A, K: Copy + Eq + Hash, T> Queue<A, K, T> {
    /// An empty queue; `patience` is that of [`Lanes`].
    pub fn new(patience: Duration) -> Queue<A, K, T> {
        let state = State { arrived: Vec::new(), lanes: Lanes::new(patience), closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds an arrival.
    ///
    /// # Errors
    /// The arrival, where the queue is closed.
    pub fn send(&self, arrival: A) -> Result<(), A> {
        let mut state = self.lock();
        if state.closed {
            return Err(arrival);
        }
        state.arrived.push(arrival);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Everything that has arrived; waits only where no row waits in a lane either. `None` once the queue is closed
    /// and empty.
    pub fn take_in(&self) -> Option<Vec<A>> {
        let mut state = self.lock();
        while state.arrived.is_empty() && state.lanes.is_empty() {
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some(mem::take(&mut state.arrived))
    }

    /// Adds a routed row to its lane. Who does that takes a batch afterwards, and so tells the others what is left.
    pub fn enqueue(&self, lane: K, due: Due, row: T) {
        self.lock().lanes.push(lane, due, row);
    }

    /// Whether rows wait in lanes.
    pub fn has_rows(&self) -> bool {
        !self.lock().lanes.is_empty()
    }

    /// A batch, as [`Lanes::take`]; another executor is told where rows are left.
    pub fn take(&self, now: Instant, max: usize, gone: impl Fn(&T) -> bool) -> Option<Batch<K, T>> {
        let mut state = self.lock();
        let batch = state.lanes.take(now, max, gone);
        let left = !state.lanes.is_empty();
        drop(state);
        if left {
            self.changed.notify_one();
        }
        batch
    }

    /// Lets nothing more in; what is in it is still run.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Lets nothing more in and drops what has arrived; what waits in lanes is handed out to be given up.
    pub(crate) fn abandon(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        let arrived = mem::take(&mut state.arrived);
        let lanes = state.lanes.clear();
        drop(state);
        self.changed.notify_all();
        drop(arrived);
        lanes
    }

    /// A panic elsewhere leaves nothing half done here.
    fn lock(&self) -> MutexGuard<'_, State<A, K, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
