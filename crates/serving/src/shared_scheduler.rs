use std::hash::Hash;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::scheduler::{Arrival, Cancellable, DegradeLevel, Due, Limits, RejectedRow, Scheduler, SharesRouter, Work};

/// A [`Scheduler`] that threads share: the one lock of the queue, and a way to wait for work.
///
/// All executors share one, so that rows of a lane batch together whichever executor runs them. The lock is held to
/// move rows, never to run a model or to drop rows.
pub struct SharedScheduler<L, U, R> {
    scheduler: Mutex<Scheduler<L, U, R>>,
    /// Notified when a waiting executor may find work.
    changed: Condvar,
    /// Whether rows are degraded under pressure.
    degrades: bool,
}

impl<L: Copy + Eq + Hash, U: SharesRouter, R: Cancellable> SharedScheduler<L, U, R> {
    /// An empty queue.
    pub fn new(limits: Limits) -> SharedScheduler<L, U, R> {
        let scheduler = Mutex::new(Scheduler::new(limits, Instant::now()));
        SharedScheduler { scheduler, changed: Condvar::new(), degrades: limits.degrade }
    }

    /// How far rows whose route needs no router are degraded now.
    pub fn degrade_level(&self) -> DegradeLevel {
        if self.degrades { self.lock().degrade_level(Instant::now()) } else { DegradeLevel::NONE }
    }

    /// Takes a row into the queue, as [`Scheduler::admit`].
    ///
    /// # Errors
    /// [`RejectedRow`] with the row.
    pub fn admit(&self, due: Due, arrival: Arrival<L, U, R>) -> Result<(), RejectedRow<L, U, R>> {
        self.lock().admit(due, arrival)?;
        self.changed.notify_one();
        Ok(())
    }

    /// What the executor does next, as [`Scheduler::next`]: waits if no row does. `None` once the queue is closed and
    /// empty.
    pub fn next(&self, executor: usize) -> Option<Work<L, U, R>> {
        let mut scheduler = self.lock();
        let work = loop {
            match scheduler.next(executor, Instant::now()) {
                Some(work) => break work,
                None if scheduler.is_closed() => return None,
                None => self.changed.wait(&mut scheduler),
            }
        };
        let work_left = scheduler.has_work();
        drop(scheduler);
        // `routed` notifies nobody: the executor that routed the rows calls `next` afterwards, and this line wakes another one.
        if work_left {
            self.changed.notify_one();
        }
        Some(work)
    }

    /// Admits no further row. The rows that wait still run.
    pub fn close(&self) {
        self.lock().close();
        self.changed.notify_all();
    }

    /// Admits no further row and hands out those that wait, as [`Scheduler::abandon`].
    pub fn abandon(&self) -> (Vec<U>, Vec<R>) {
        let rows = self.lock().abandon();
        self.changed.notify_all();
        rows
    }

    /// The scheduler, for calls that bring no executor new work.
    pub fn lock(&self) -> MutexGuard<'_, Scheduler<L, U, R>> {
        self.scheduler.lock()
    }
}
