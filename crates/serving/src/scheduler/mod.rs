//! Decides what an executor does next: the queue, admission, predicted costs, lanes and degradation in one state machine.
//!
//! A [`Scheduler`] starts no thread, waits for nothing and reads no clock: every method takes the time as an argument.
//! Its driver owns the device. An executor is one of the driver's threads. It asks for the [`next`](Scheduler::next) work,
//! does it, and reports how long it took:
//!
//! ```text
//! admit ──> rows without a route ── next: Route ──> the router ── routed ──┐
//!   │                                                                      v
//!   └─────> rows that name their route ────────────────────────────────> lanes ── next: Run ──> a slice ── completed
//! ```
//!
//! The server's executors drive it with real time, `canet bench` drives it without a server, and the overload
//! simulation drives it with a made-up clock.

mod answers;
mod backlog;
mod cost;
mod degrade;
mod lanes;
#[cfg(test)]
mod tests;
mod wait_quantile;
mod work;

pub use cost::BatchTiming;
pub use degrade::{Curve, DegradeLevel, DegradedRouter};
pub use lanes::Due;
pub use work::{
    Arrival, Batch, Cancellable, Limits, QueueFull, RejectReason, RejectedRow, Routed, RouterBatch, SharesRouter,
    Started, Work,
};

use std::collections::VecDeque;
use std::hash::Hash;
use std::mem;
use std::time::{Duration, Instant};

use self::answers::AnswerQueue;
use self::backlog::{Backlog, Demand, duration};
use self::cost::CostModel;
use self::degrade::Degrade;
use self::lanes::Lanes;
use self::wait_quantile::WaitQuantile;
use canet_domain::Flops;

/// The starvation bound: a row that is older runs before every row that arrives later, whatever their deadlines.
const PATIENCE: Duration = Duration::from_millis(250);

/// How many arrivals a micro-batch of the router looks at for each row that it may have. With a candidate that answers a
/// quarter of the users or more, both generations fill their micro-batches.
const LOOKS_PER_ROW: usize = 4;

/// Rows that wait for executors, and the order in which these run them.
///
/// - `L: Copy + Eq + Hash` names a lane, the rows that may share a batch.
/// - `U: SharesRouter` is a row without a route.
/// - `R: Cancellable` is a row with a route.
///
/// Methods name an executor by its index, below [`Limits::executors`].
///
/// - **Admission.** A row enters while the predicted time of all that waits, the row included, is within the limit. An
///   idle device refuses no row, so that a wrong prediction cannot shut the queue for good.
/// - **Order.** A free executor routes everything that has arrived, then runs one batch of the lane with the earliest
///   deadline. It never waits for a batch to fill: batches form while the device is busy.
/// - **Deadlines.** A row is dropped before it runs if its client left, if it is late, or if it cannot be in time.
/// - **Degradation.** Under pressure the router may spend less.
/// - **Large answers.** Building one takes the runtime longer than most rows take the device. Large answers together may
///   take half of the limit, and none enters behind rows that fill the limit. Rows do not wait for answers, so their own
///   admission does not count them.
///
/// A row's predicted time counts as waiting until a batch takes the row or the scheduler drops it. The scheduler drops a
/// cancelled row at its turn, because an earlier search for it would delay every other row.
pub struct Scheduler<L, U, R> {
    limits: Limits,
    /// In the order of arrival.
    unrouted: VecDeque<Unrouted<U>>,
    lanes: Lanes<L, Waiting<R>>,
    backlog: Backlog<L>,
    answers: AnswerQueue,
    costs: CostModel<L>,
    wait_quantile: WaitQuantile,
    degrade: Option<Degrade>,
    executors: Vec<ExecutorState<L>>,
    closed: bool,
}

/// A row that waits for the router.
struct Unrouted<T> {
    row: T,
    due: Due,
    router_flops: Flops,
    full_flops: Flops,
    /// Predicted seconds of the work that the row found when it arrived.
    ahead: f64,
}

/// A row that waits in a lane.
struct Waiting<R> {
    row: R,
    due: Due,
    flops: Flops,
    /// Predicted seconds of the work that the row found when it arrived.
    ahead: f64,
    /// The time of the router's micro-batch.
    router: Duration,
}

impl<T> Unrouted<T> {
    fn demand<L>(&self) -> Demand<L> {
        Demand::Router { flops: self.router_flops, full_flops: self.full_flops }
    }
}

/// The scheduler's knowledge of an executor.
struct ExecutorState<L> {
    /// How many arrivals it still has to route before it runs a batch; `None` before it has looked.
    to_route: Option<usize>,
    /// The rows in its router's micro-batch, which their driver holds.
    routing: Vec<Unrouted<()>>,
    /// Lane and cost of the batch that it runs.
    running: Option<(L, Flops)>,
    /// How long its last batch took.
    last_batch: Duration,
}

impl<L: Copy + Eq + Hash, U: SharesRouter, R: Cancellable> Scheduler<L, U, R> {
    /// An empty queue, as of `now`.
    pub fn new(limits: Limits, now: Instant) -> Scheduler<L, U, R> {
        let limits = Limits { executors: limits.executors.max(1), max_batch: limits.max_batch.max(1), ..limits };
        let idle = || ExecutorState { to_route: None, routing: Vec::new(), running: None, last_batch: Duration::ZERO };
        Scheduler {
            limits,
            unrouted: VecDeque::new(),
            lanes: Lanes::new(PATIENCE),
            backlog: Backlog::default(),
            answers: AnswerQueue::default(),
            costs: CostModel::default(),
            wait_quantile: WaitQuantile::default(),
            degrade: limits.degrade.then(|| Degrade::new(now)),
            executors: (0..limits.executors).map(|_| idle()).collect(),
            closed: false,
        }
    }

    /// Takes a row into the queue.
    ///
    /// # Errors
    /// [`RejectedRow`] with the row if the queue is closed, or if other rows wait and their work and this row's are
    /// predicted to exceed the limit.
    pub fn admit(&mut self, due: Due, arrival: Arrival<L, U, R>) -> Result<(), RejectedRow<L, U, R>> {
        if self.closed {
            return Err(RejectedRow { arrival, reason: RejectReason::Closed });
        }
        let demand = match &arrival {
            Arrival::Unrouted { router_flops, full_flops, .. } => {
                Demand::Router { flops: *router_flops, full_flops: *full_flops }
            }
            Arrival::Routed(Routed { lane, flops, .. }) => Demand::Slice { lane: *lane, flops: *flops },
        };
        let ahead = self.backlog_seconds();
        self.backlog.add(demand);
        let factor = self.wait_quantile.factor();
        if self.backlog.rows() > 1 && self.backlog_seconds() * factor > self.limits.queue_limit.as_secs_f64() {
            self.backlog.remove(demand);
            let full = QueueFull { backlog: duration(ahead * factor), limit: self.limits.queue_limit };
            return Err(RejectedRow { arrival, reason: RejectReason::Full(full) });
        }
        match arrival {
            Arrival::Unrouted { row, router_flops, full_flops } => {
                self.unrouted.push_back(Unrouted { row, due, router_flops, full_flops, ahead });
            }
            Arrival::Routed(Routed { row, lane, flops }) => {
                self.lanes.push(lane, due, Waiting { row, due, flops, ahead, router: Duration::ZERO });
            }
        }
        Ok(())
    }

    /// Takes the building of a large answer into the queue and returns its predicted time. The driver gives that time back
    /// with [`built`](Scheduler::built), whatever becomes of the answer.
    ///
    /// # Errors
    /// [`QueueFull`] if other large answers wait and all together are predicted to take more than half of the limit, or if
    /// the rows and the large answers that wait are predicted to take more than the limit. An idle server refuses none, so
    /// that a wrong prediction cannot shut large answers out for good.
    pub fn admit_answer(&mut self, bytes: usize) -> Result<Duration, QueueFull> {
        let (limit, waiting) = (self.limits.queue_limit, self.answers.predicted());
        let time = self.answers.time(bytes);
        let backlog = duration(self.backlog_seconds() * self.wait_quantile.factor()).saturating_add(waiting);
        if !self.answers.is_empty() && waiting + time > limit / 2 {
            return Err(QueueFull { backlog: waiting, limit: limit / 2 });
        }
        if self.backlog.rows() > 1 && backlog > limit {
            return Err(QueueFull { backlog, limit });
        }
        self.answers.add(time);
        Ok(time)
    }

    /// An answer that was predicted to take `time` waits no longer. `took` is its size in bytes and the time that building
    /// it took, if it was built.
    pub fn built(&mut self, time: Duration, took: Option<(usize, Duration)>) {
        self.answers.remove(time);
        if let Some((bytes, took)) = took {
            self.answers.observe(bytes, took);
        }
    }

    /// What the executor does next; `None` if no row waits.
    ///
    /// It first routes everything that had arrived when it became free, one micro-batch a call, then runs one batch.
    pub fn next(&mut self, executor: usize, now: Instant) -> Option<Work<L, U, R>> {
        loop {
            let arrived = self.unrouted.len();
            let to_route = *self.executors[executor].to_route.get_or_insert(arrived);
            if to_route.min(arrived) > 0 {
                return Some(Work::Route(self.router_batch(executor, now, to_route)));
            }
            self.executors[executor].to_route = None;
            if let Some(batch) = self.batch(executor, now) {
                return Some(Work::Run(batch));
            }
            if arrived == 0 {
                return None;
            }
        }
    }

    /// The rows without a route that share the router of the row that arrived first, in the order of their arrival.
    ///
    /// Rows of another generation keep their places and wait for a micro-batch of their own. Otherwise each change between
    /// the generations would end a micro-batch. A look behind them goes only so far, because it holds the queue's lock.
    fn router_batch(&mut self, executor: usize, now: Instant, mut to_route: usize) -> RouterBatch<U> {
        let most = to_route.min(self.unrouted.len()).min(self.limits.max_batch);
        let (mut late, mut cancelled) = (Vec::new(), Vec::new());
        let mut rows: Vec<U> = Vec::with_capacity(most);
        let mut others: Vec<Unrouted<U>> = Vec::new();
        let mut routing = mem::take(&mut self.executors[executor].routing);
        let mut looks = to_route.min(self.limits.max_batch * LOOKS_PER_ROW);
        while rows.len() < most
            && looks > 0
            && let Some(waiting) = self.unrouted.pop_front()
        {
            looks -= 1;
            if rows.first().is_some_and(|first| !first.shares_router(&waiting.row)) {
                others.push(waiting);
                continue;
            }
            to_route -= 1;
            if waiting.row.is_cancelled() {
                self.backlog.remove(waiting.demand());
                cancelled.push(waiting.row);
            } else if waiting.due.deadline <= now {
                self.backlog.remove(waiting.demand());
                late.push(waiting.row);
            } else {
                let Unrouted { row, due, router_flops, full_flops, ahead } = waiting;
                routing.push(Unrouted { row: (), due, router_flops, full_flops, ahead });
                rows.push(row);
            }
        }
        others.into_iter().rev().for_each(|other| self.unrouted.push_front(other));
        self.executors[executor].to_route = Some(to_route);
        self.executors[executor].routing = routing;
        RouterBatch { rows, level: self.degrade_level(now), late, cancelled }
    }

    /// How far rows are degraded at `now`.
    pub fn degrade_level(&mut self, now: Instant) -> DegradeLevel {
        let pressure = self.pressure();
        self.degrade.as_mut().map_or(DegradeLevel::NONE, |degrade| degrade.level(now, pressure))
    }

    /// The executor's router has run for `took`. `rows` come in the order in which they were handed out.
    pub fn routed(&mut self, executor: usize, took: Duration, rows: Vec<Routed<L, R>>) {
        let mut routing = mem::take(&mut self.executors[executor].routing);
        debug_assert_eq!(routing.len(), rows.len(), "every row of the micro-batch is routed");
        let router_flops = routing.iter().map(|unrouted| unrouted.router_flops).sum();
        self.costs.observe_router(BatchTiming { flops: router_flops, took });
        for (unrouted, Routed { row, lane, flops }) in routing.drain(..).zip(rows) {
            self.backlog.route(unrouted.demand(), lane, flops);
            let Unrouted { due, ahead, .. } = unrouted;
            self.lanes.push(lane, due, Waiting { row, due, flops, ahead, router: took });
        }
        self.executors[executor].routing = routing;
    }

    /// The rows of the executor's micro-batch go into no lane, for example because the router failed.
    pub fn unroutable(&mut self, executor: usize) {
        for unrouted in self.executors[executor].routing.drain(..) {
            self.backlog.remove(unrouted.demand());
        }
    }

    /// A batch of the most urgent lane.
    ///
    /// A row cannot be in time if even half of the time that it is predicted to take alone exceeds the time left. Such
    /// a row runs all the same if no other row waits: so an idle device learns that a prediction was wrong.
    ///
    /// The batch ends before a row with which it would take longer than the time left to one of its rows, because all answers
    /// come at its end. It may always take twice the time of one row alone: where sharing costs little, it saves more.
    fn batch(&mut self, executor: usize, now: Instant) -> Option<Batch<L, R>> {
        let lane = self.lanes.most_urgent()?;
        let cost = self.costs.lane(lane);
        let unforeseen = self.executors[executor].last_batch;
        let rows = Vec::with_capacity(self.lanes.len(lane).min(self.limits.max_batch));
        let mut batch = Batch { lane, rows, late: Vec::new(), cancelled: Vec::new() };
        let (mut batch_flops, mut room) = (0, f64::INFINITY);
        while batch.rows.len() < self.limits.max_batch
            && let Some(next) = self.lanes.peek(lane)
        {
            let left = next.due.deadline.saturating_duration_since(now);
            let alone = cost.seconds(1, next.flops);
            let hopeless = left.as_secs_f64() < alone / 2.0;
            let with_next = room.min(left.as_secs_f64().max(2.0 * alone));
            let runs = !next.row.is_cancelled() && !left.is_zero() && !hopeless;
            if runs && !batch.rows.is_empty() && cost.seconds(1, batch_flops + next.flops) > with_next {
                break;
            }
            let Some(Waiting { row, due, flops, ahead, router }) = self.lanes.pop(lane) else { break };
            self.backlog.remove(Demand::Slice { lane, flops });
            if row.is_cancelled() {
                batch.cancelled.push(row);
            } else if left.is_zero() || (hopeless && !(batch.rows.is_empty() && self.lanes.is_empty())) {
                batch.late.push(row);
            } else {
                room = with_next;
                let waited = now.saturating_duration_since(due.arrived).saturating_sub(router);
                self.learn_wait(ahead, waited.saturating_sub(unforeseen));
                batch_flops += flops;
                batch.rows.push(Started { row, waited });
            }
        }
        self.executors[executor].running = (!batch.rows.is_empty()).then_some((lane, batch_flops));
        Some(batch)
    }

    /// A row waited behind `ahead` seconds of predicted work. `waited` leaves out the batch that may have run when the
    /// row arrived: admission counts the work that waits, not the work that runs.
    fn learn_wait(&mut self, ahead: f64, waited: Duration) {
        // Behind less work, the wait depends on the machine more than on the queue.
        if ahead > self.limits.queue_limit.as_secs_f64() / 8.0 {
            self.wait_quantile.observe(waited.as_secs_f64() / ahead);
        }
    }

    /// The executor's batch has run. It computed what its rows were predicted to cost, or what the driver found: a history
    /// cache may save more than predicted, or less.
    ///
    /// Padding does not count: admission predicts without it, so a lane's padding shows in its fit.
    pub fn completed(&mut self, executor: usize, took: Duration, computed: Option<Flops>) {
        let executor = &mut self.executors[executor];
        executor.last_batch = took;
        if let Some((lane, predicted)) = executor.running.take() {
            self.costs.observe(lane, BatchTiming { flops: computed.unwrap_or(predicted), took });
        }
    }

    /// The executor's batch has failed after `took`, which says nothing about costs.
    pub fn failed(&mut self, executor: usize, took: Duration) {
        let executor = &mut self.executors[executor];
        executor.last_batch = took;
        executor.running = None;
    }

    /// Starts the predictions from timed batches of the lanes and of the router, and forgets earlier lanes.
    pub fn calibrate(&mut self, lanes: &[(L, BatchTiming)], router: &[BatchTiming]) {
        self.costs.calibrate(lanes, router);
    }

    /// Gives new lanes the costs of old ones, as pairs `(old, new)`, and forgets the costs of all lanes that are not to be
    /// kept.
    pub fn adopt(&mut self, pairs: &[(L, L)], keep: impl Fn(L) -> bool) {
        self.costs.adopt(pairs, keep);
    }

    /// The predicted time of one batch of a lane that computes `flops`.
    pub fn predicted(&self, lane: L, flops: Flops) -> Duration {
        duration(self.costs.lane(lane).seconds(1, flops))
    }

    /// How many rows of `flops` each, at least 1, are predicted to take half of the limit. A client that has no more of
    /// them in the queue at a time is not refused because of its own rows.
    pub fn fitting(&self, flops: Flops) -> usize {
        // As if no two shared a batch, which underestimates the number.
        let row = self.costs.any().seconds(1, flops) * self.wait_quantile.factor() / self.limits.executors as f64;
        ((self.limits.queue_limit.as_secs_f64() / 2.0 / row) as usize).max(1)
    }

    /// The predicted backlog as a share of the limit.
    pub fn pressure(&self) -> f64 {
        self.backlog_seconds() * self.wait_quantile.factor() / self.limits.queue_limit.as_secs_f64()
    }

    /// How many rows wait, in the router's micro-batches too.
    pub fn queued(&self) -> usize {
        self.backlog.rows()
    }

    /// Whether an executor would find work.
    pub fn has_work(&self) -> bool {
        !self.unrouted.is_empty() || !self.lanes.is_empty()
    }

    /// Admits no further row. The rows that wait still run.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether no further row is admitted.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Admits no further row and hands out those that wait, which will not run.
    pub fn abandon(&mut self) -> (Vec<U>, Vec<R>) {
        self.closed = true;
        let (unrouted, lanes, backlog) = (&mut self.unrouted, &mut self.lanes, &mut self.backlog);
        let unrouted = unrouted.drain(..).map(|unrouted| {
            backlog.remove(unrouted.demand());
            unrouted.row
        });
        let unrouted = unrouted.collect();
        let routed = lanes.drain().map(|(lane, waiting)| {
            backlog.remove(Demand::Slice { lane, flops: waiting.flops });
            waiting.row
        });
        (unrouted, routed.collect())
    }

    fn backlog_seconds(&self) -> f64 {
        self.backlog.seconds(&self.costs, self.limits.max_batch) / self.limits.executors as f64
    }
}
