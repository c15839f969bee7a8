use std::time::Duration;

use super::degrade::DegradeLevel;
use canet_domain::Flops;

/// Bounds of the executors and of their queue.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Batches that run at a time, at least 1.
    pub executors: usize,
    /// The most rows of a batch, at least 1.
    pub max_batch: usize,
    /// The most predicted time of the work that waits.
    pub queue_limit: Duration,
    /// Whether rows move to cheaper routes under pressure, before any row is refused.
    pub degrade: bool,
}

/// A row whose client may leave.
pub trait Cancellable {
    /// Whether nobody waits for the answer any more.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A row whose route the router will choose, perhaps together with those of other rows.
pub trait SharesRouter: Cancellable {
    /// Whether one router serves both rows, so that they may share a micro-batch.
    fn shares_router(&self, _other: &Self) -> bool {
        true
    }
}

/// A row that asks for a place in the queue.
#[derive(Debug)]
pub enum Arrival<L, U, R> {
    /// The router will choose its route.
    Unrouted {
        /// The row.
        row: U,
        /// The router's cost.
        router_flops: Flops,
        /// What the full slice would cost.
        full_flops: Flops,
    },
    /// The row names its route.
    Routed(Routed<L, R>),
}

/// A row with a route.
#[derive(Debug)]
pub struct Routed<L, R> {
    /// The row.
    pub row: R,
    /// The lane of its route.
    pub lane: L,
    /// What the slice is predicted to compute: its cost, less what a history cache has.
    pub flops: Flops,
}

/// A row that found no place; dropping it is left to the driver.
#[derive(Debug)]
pub struct RejectedRow<L, U, R> {
    /// The row.
    pub arrival: Arrival<L, U, R>,
    /// Why it found none.
    pub reason: RejectReason,
}

/// Why a row found no place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The work that waits is at its limit.
    Full(QueueFull),
    /// The scheduler is closed.
    Closed,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the work that waits would take {:.1} ms, and with this request more than the {} ms that may wait: try again later",
    backlog.as_secs_f64() * 1e3, limit.as_millis()
)]
pub struct QueueFull {
    /// The predicted time of the work that waits.
    pub backlog: Duration,
    /// The most predicted time that may wait.
    pub limit: Duration,
}

/// What an executor does next.
#[derive(Debug)]
pub enum Work<L, U, R> {
    /// Ask the router, then report [`routed`](super::Scheduler::routed) or [`unroutable`](super::Scheduler::unroutable).
    Route(RouterBatch<U>),
    /// Run the slices, then report [`completed`](super::Scheduler::completed) or [`failed`](super::Scheduler::failed).
    Run(Batch<L, R>),
}

/// A micro-batch of the router. Without `rows` there is nothing to report.
#[derive(Debug)]
pub struct RouterBatch<U> {
    /// The rows to route, of one router.
    pub rows: Vec<U>,
    /// How much the router may spend on them.
    pub level: DegradeLevel,
    /// Rows that must not run because of their deadlines.
    pub late: Vec<U>,
    /// Rows that must not run because nobody waits for them.
    pub cancelled: Vec<U>,
}

/// A batch of one lane. Without `rows` there is nothing to report.
#[derive(Debug)]
pub struct Batch<L, R> {
    /// The lane.
    pub lane: L,
    /// The rows to run, the most urgent first.
    pub rows: Vec<Started<R>>,
    /// Rows that must not run because of their deadlines.
    pub late: Vec<R>,
    /// Rows that must not run because nobody waits for them.
    pub cancelled: Vec<R>,
}

/// A row that is about to run.
#[derive(Debug)]
pub struct Started<R> {
    /// The row.
    pub row: R,
    /// How long it waited for the device, without the router's time.
    pub waited: Duration,
}

impl QueueFull {
    /// The whole seconds, at least 1, after which the work that waits now will have run.
    pub fn retry_after(&self) -> u64 {
        (self.backlog.as_secs() + u64::from(self.backlog.subsec_nanos() > 0)).max(1)
    }
}
