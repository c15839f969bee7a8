use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::batch_cost::{BatchCost, RowCost};
use super::health::Health;
use super::ranking::{RankedRow, rank_requests};
use super::row::{Answer, LaneKey, Reply, RoutedRow, Routing, Row, Times};
use super::scheduler::{Batch, DegradeLevel, RouterBatch, Started, Work};
use super::shared_scheduler::SharedScheduler;
use super::{Generation, Refusal};
use crate::metrics::{Metrics, Released};
use canet_catalogue::SetPool;
use canet_domain::{History, Reason, choose_route_among};
use canet_model::ForwardError;

/// The queue of a server's rows.
pub(crate) type RowScheduler = SharedScheduler<LaneKey, Row, RoutedRow>;

/// A row's reply and the outcome to send there.
pub(crate) type Outcome = (Reply, Result<Answer, Refusal>);

/// A thread that owns the device, or on a CPU one of several that share it.
///
/// The scheduler decides what it runs. Every row ends with an outcome: a row that is dropped, even by a panic that
/// ends the thread, closes its reply, and the waiting task answers with [`Refusal::Internal`].
pub(crate) struct Executor {
    /// Its number among the scheduler's executors.
    pub(crate) index: usize,
    pub(crate) scheduler: Arc<RowScheduler>,
    pub(crate) max_batch: usize,
    pub(crate) metrics: Arc<Metrics>,
    /// Sends outcomes to the runtime, a batch at a time: waking the waiting tasks would keep the device idle.
    pub(crate) outcomes: UnboundedSender<Vec<Outcome>>,
    pub(crate) health: Arc<Health>,
}

/// Hands outcomes to the tasks that wait for them, on the runtime. Those tasks build the bodies.
///
/// Ends when the executors have ended and everything that they sent is handed over.
pub(crate) async fn deliver(mut outcomes: UnboundedReceiver<Vec<Outcome>>) {
    while let Some(batch) = outcomes.recv().await {
        for (reply, outcome) in batch {
            // A closed reply means that the client left while its row ran.
            let _ = reply.send(outcome);
        }
    }
}

/// A row of the batch that runs, without its request.
struct RunningRow {
    reply: Reply,
    times: Times,
    cost: RowCost,
}

impl Executor {
    /// Runs until the scheduler is closed and every row in it is dealt with.
    pub(crate) fn run(self) {
        let mut sets = SetPool::default();
        while let Some(work) = self.scheduler.next(self.index) {
            match work {
                Work::Route(batch) => self.route(batch),
                Work::Run(batch) => self.execute(batch, &mut sets),
            }
        }
    }

    /// Chooses a route for every row of a micro-batch.
    fn route(&self, batch: RouterBatch<Row>) {
        let RouterBatch { rows, level, late, cancelled } = batch;
        drop(cancelled);
        self.refuse_late(late.into_iter().map(|row| row.reply));
        let Some(first) = rows.first() else { return };
        let generation = Arc::clone(&first.generation);
        let started = Instant::now();
        let histories: Vec<&History> = rows.iter().map(|row| &row.request.history).collect();
        let logits = match generation.model.forward().router_logits(&histories) {
            Ok(logits) => logits,
            Err(error) => {
                self.scheduler.lock().unroutable(self.index);
                return self.fail(&error, &generation, "router", rows.into_iter().map(|row| row.reply));
            }
        };
        let took = started.elapsed();
        let share = took / u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let routed = rows.into_iter().zip(logits.iter()).map(|(row, logits)| {
            let (space, shape) = (generation.model.space(), generation.model.shape());
            let (length, own_budget) = (row.request.history.len(), row.request.budget);
            let router = level.router(own_budget.unwrap_or(generation.budget), generation.calibration());
            let cost = |route| shape.route_flops(space, route, length);
            let bias = generation.bias_for(own_budget);
            let (choice, reason) = match row.explores {
                // Under pressure no route runs that may cost more than the router's choice.
                Some(draw) if level == DegradeLevel::NONE => {
                    let drawn = draw.route(space);
                    (choose_route_among(space, logits, &bias, |route| route == drawn), Reason::Explored)
                }
                _ => router.choose(space, logits, &bias, cost),
            };
            let routing = row.routing(choice.route, reason, Some(choice.confidence));
            self.metrics.router_flops(routing.router_flops);
            row.routed(routing, took, share)
        });
        let routed = routed.collect();
        self.scheduler.lock().routed(self.index, took, routed);
    }

    /// Runs one batch; a failure affects only that batch.
    fn execute(&self, batch: Batch<LaneKey, RoutedRow>, sets: &mut SetPool) {
        let Batch { lane, rows, late, cancelled } = batch;
        drop(cancelled);
        self.refuse_late(late.into_iter().map(|row| row.reply));
        let Some(first) = rows.first() else { return };
        let generation = Arc::clone(&first.row.generation);
        let released = if rows.len() == self.max_batch { Released::Full } else { Released::Drained };
        self.metrics.batch_release(released);
        generation.series.lane(lane.lane).batch(rows.len());
        self.forward(&generation, rows, sets);
    }

    /// Runs the slices of a batch and sends its rows their answers.
    fn forward(&self, generation: &Generation, rows: Vec<Started<RoutedRow>>, sets: &mut SetPool) {
        let started = Instant::now();
        let (mut requests, mut running) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for Started { row, waited } in rows {
            let RoutedRow { request, reply, routing, router, router_share, in_lane, generation: _ } = row;
            drop(in_lane);
            let cost =
                RowCost { routing, length: request.history.len(), reused: 0, second_run: 0, router: router_share };
            let times = Times { queue: waited, router, forward: Duration::ZERO };
            running.push(RunningRow { reply, times, cost });
            requests.push(request);
        }
        let (model, routes) = (&generation.model, running.iter().map(|row| row.cost.routing.route));
        let ranked = rank_requests(&**model.forward(), model.catalogue().len(), routes.zip(&requests), sets);
        let forward = started.elapsed();
        let ranked = match ranked {
            Ok(ranked) => ranked,
            Err(error) => {
                self.scheduler.lock().failed(self.index, forward);
                return self.fail(&error, generation, "slices", running.into_iter().map(|row| row.reply));
            }
        };
        self.health.ran();
        for (RunningRow { cost, .. }, RankedRow { reused, ran_twice, .. }) in running.iter_mut().zip(&ranked) {
            cost.reused = *reused;
            if *ran_twice {
                cost.second_run = cost.routing.slice_flops;
                self.metrics.ranked_twice();
            }
        }
        self.observe(generation, &running, forward);
        let mut bad_rows = 0;
        self.send(running.into_iter().zip(ranked).map(|(RunningRow { reply, times, cost }, row)| {
            let RowCost { routing, reused, second_run, .. } = cost;
            let Some(ranked) = row.ranked.filter(|_| is_finite(&routing)) else {
                bad_rows += 1;
                return (reply, Err(Refusal::NotFinite));
            };
            (reply, Ok(Answer { ranked, routing, reused, second_run, times: Times { forward, ..times } }))
        }));
        if bad_rows > 0 {
            let version = generation.model.version();
            tracing::error!(rows = bad_rows, version, "the model computed NaN or infinity: serve another version");
        }
    }

    /// Tells the scheduler and the metrics what a batch cost, which ran for `forward`.
    fn observe(&self, generation: &Generation, rows: &[RunningRow], forward: Duration) {
        generation.observe_history_cache();
        let cost = BatchCost::new(generation, rows.iter().map(|row| &row.cost));
        let full = {
            let mut scheduler = self.scheduler.lock();
            scheduler.completed(self.index, forward, Some(cost.computed()));
            scheduler.predicted(LaneKey::of(generation, generation.model.space().full()), cost.full())
        };
        for (route, share) in &cost.routes {
            let series = generation.series.route(*route);
            series.ran(forward, share);
            series.spent(cost.seconds(share, forward, full));
        }
        generation.series.padded(cost.padding_ratio());
    }

    fn refuse_late(&self, replies: impl Iterator<Item = Reply>) {
        self.send(replies.map(|reply| (reply, Err(Refusal::DeadlineExceeded))));
    }

    /// Answers a batch that the device failed on. The thread goes on, unless too many batches failed in a row: a lost
    /// device answers no request, and a server that kept running would still be sent some.
    fn fail(
        &self,
        error: &ForwardError,
        generation: &Generation,
        stage: &str,
        replies: impl ExactSizeIterator<Item = Reply>,
    ) {
        tracing::error!(%error, stage, rows = replies.len(), version = generation.model.version(), "a batch failed");
        if self.health.failed() {
            tracing::error!("too many batches failed in a row: restart the server");
            // Closed replies tell the clients.
            drop(self.scheduler.abandon());
        }
        self.send(replies.map(|reply| (reply, Err(Refusal::Internal))));
    }

    fn send(&self, outcomes: impl Iterator<Item = Outcome>) {
        let outcomes: Vec<Outcome> = outcomes.collect();
        if !outcomes.is_empty() {
            // If the receiver is gone, so is the runtime with every waiting task.
            let _ = self.outcomes.send(outcomes);
        }
    }
}

/// Whether a row's route is based on finite numbers.
///
/// A row whose router logits are NaN runs the smallest route, because [`choose_route`](canet_domain::choose_route) ends
/// there, and is refused here. Another route would be a guess: the full model may exceed the budget of every row, and a
/// cheap route hides a broken checkpoint behind worse answers. A client that wants an answer all the same can name a route.
fn is_finite(routing: &Routing) -> bool {
    routing.confidence.is_none_or(f32::is_finite)
}
