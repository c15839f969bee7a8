use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::admission::Admission;
use super::computed::{Computed, Part};
use super::cost::Ran;
use super::degrade::{Degrade, Relief};
use super::generation::GenerationId;
use super::lanes::Batch;
use super::life::Life;
use super::queue::Queue;
use super::replies::Outcome;
use super::row::{Answer, Reply, Routing, Row, Times};
use super::{Generation, Refusal};
use crate::metrics::Metrics;
use canet_domain::{History, Route};
use canet_model::{ForwardError, Query};

/// The loop that owns the device, or on a CPU one of several that share it: each runs batches of its own out of one
/// queue.
///
/// It never sleeps on a timer: when the device is free it takes in everything that has arrived, routes it, and runs
/// one batch of the most urgent lane. Batches form because the device was busy.
///
/// Whatever becomes of a row, its client hears of it: a row that is dropped on the way, even by a panic that ends the
/// loop, closes its reply, which answers as [`Refusal::Internal`].
pub(crate) struct Executor {
    pub(crate) queue: Arc<Queue<Row, LaneKey, Routed>>,
    pub(crate) admission: Admission<LaneKey>,
    /// Where rows may be moved to cheaper routes under pressure; all executors share it.
    pub(crate) degrade: Option<Arc<Mutex<Degrade>>>,
    pub(crate) max_batch: usize,
    /// How long the batch before took.
    pub(crate) last_batch: Duration,
    pub(crate) metrics: Arc<Metrics>,
    /// Outcomes leave for the runtime, a batch at a time: waking the waiting tasks is not the device's business.
    pub(crate) outcomes: UnboundedSender<Vec<Outcome>>,
    pub(crate) life: Arc<Life>,
}

/// Rows that may share a batch: one lane of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    generation: GenerationId,
    /// Its place among the generation's lanes.
    lane: usize,
}

impl LaneKey {
    /// The lane of a route.
    pub(crate) fn of(generation: &Generation, route: Route) -> LaneKey {
        LaneKey { generation: generation.id, lane: generation.lane(route) }
    }

    /// The lanes of both generations that have one name, the old one's first.
    pub(crate) fn counterparts(old: &Generation, new: &Generation) -> Vec<(LaneKey, LaneKey)> {
        let names = |generation: &Generation| generation.batch_by.lanes(generation.model.space());
        let places: HashMap<String, usize> = names(new).into_iter().zip(0..).collect();
        let pair = |(name, lane): (String, usize)| {
            let counterpart = LaneKey { generation: new.id, lane: *places.get(&name)? };
            Some((LaneKey { generation: old.id, lane }, counterpart))
        };
        names(old).into_iter().zip(0..).filter_map(pair).collect()
    }
}

/// A row whose route is known.
pub(crate) struct Routed {
    row: Row,
    routing: Routing,
    /// The time of the router's micro-batch that it was in.
    router: Duration,
    /// Its part of that time.
    router_share: Duration,
}

/// Lets nothing more into a queue of executors, and drops what waits: closed replies tell their clients.
pub(crate) fn give_up(queue: &Queue<Row, LaneKey, Routed>) {
    for Routed { row, routing, .. } in queue.abandon() {
        row.generation.series.lane(row.generation.lane(routing.route)).left(1);
    }
}

impl Executor {
    /// Runs until the queue is closed and every row in it is dealt with.
    pub(crate) fn run(mut self) {
        while let Some(arrived) = self.queue.take_in() {
            self.route(arrived);
            if let Some(batch) = self.queue.take(Instant::now(), self.max_batch, |routed| routed.row.is_gone()) {
                let started = Instant::now();
                self.execute(batch);
                self.last_batch = started.elapsed();
            }
        }
    }

    /// Puts every row into its lane, those that name no route by the router's choice.
    fn route(&mut self, arrived: Vec<Row>) {
        let now = Instant::now();
        let mut undecided: Vec<Row> = Vec::new();
        let mut late = Vec::new();
        for row in arrived {
            if row.is_gone() {
                continue;
            }
            if row.request.due.deadline <= now {
                late.push(row);
            } else if let Some(route) = row.request.route {
                let routing = Routing::new(&row.generation, &row.request, route, None);
                self.enqueue(Routed { row, routing, router: Duration::ZERO, router_share: Duration::ZERO });
            } else {
                undecided.push(row);
            }
        }
        self.drop_late(late.into_iter());
        let mut rest = undecided.into_iter().peekable();
        while let Some(first) = rest.next() {
            // A micro-batch has one generation and is bounded like every batch.
            let generation = Arc::clone(&first.generation);
            let mut batch = vec![first];
            while batch.len() < self.max_batch
                && let Some(row) = rest.next_if(|row| row.generation.id == generation.id)
            {
                batch.push(row);
            }
            self.ask_router(&generation, batch);
        }
    }

    fn ask_router(&mut self, generation: &Generation, rows: Vec<Row>) {
        let started = Instant::now();
        let histories: Vec<&History> = rows.iter().map(|row| &row.request.history).collect();
        let logits = match generation.model.forward().router_logits(&histories) {
            Ok(logits) => logits,
            Err(error) => return self.fail(&error, generation, "router", rows.into_iter().map(|row| row.reply)),
        };
        let router = started.elapsed();
        let router_share = router / u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let pressure = self.admission.pressure();
        let relief = self.degrade.as_deref().map_or(Relief::NONE, |degrade| {
            let mut degrade = degrade.lock().unwrap_or_else(PoisonError::into_inner);
            degrade.relief(Instant::now(), pressure)
        });
        let mut flops = 0;
        for (mut row, logits) in rows.into_iter().zip(logits.iter()) {
            let (space, shape) = (generation.model.space(), generation.model.shape());
            let length = row.request.history.len();
            let budget = row.request.budget;
            let bias = generation.bias_for(budget);
            let eased = relief.ease(budget.unwrap_or(generation.budget), generation.calibration());
            let cost = |route| shape.route_flops(space, route, length);
            let (choice, reason) = eased.choose(space, (logits, &bias), cost);
            let routing = Routing::new(generation, &row.request, choice.route, Some(choice.confidence));
            let routing = Routing { reason, ..routing };
            self.metrics.router_flops(routing.router_flops);
            flops += routing.router_flops;
            row.permit.choose(LaneKey::of(generation, routing.route), routing.slice_flops);
            self.enqueue(Routed { row, routing, router, router_share });
        }
        self.admission.routed(Ran { flops, took: router });
    }

    /// Puts a row into its lane, but for one that cannot be in time: half of what it alone is predicted to take is
    /// more than what is left. An idle device tries it all the same, and so learns where a prediction is wrong.
    fn enqueue(&mut self, routed: Routed) {
        let (generation, due) = (&routed.row.generation, routed.row.request.due);
        let lane = LaneKey::of(generation, routed.routing.route);
        let left = due.deadline.saturating_duration_since(Instant::now());
        if left < self.admission.batch(lane, routed.routing.slice_flops) / 2 && self.queue.has_rows() {
            return self.drop_late(iter::once(routed.row));
        }
        generation.series.lane(lane.lane).entered(1);
        self.queue.enqueue(lane, due, routed);
    }

    /// Runs one batch; a failure is that batch's alone.
    fn execute(&mut self, batch: Batch<LaneKey, Routed>) {
        let Batch { lane, rows, late, gone } = batch;
        let Some(any) = rows.iter().chain(&late).chain(&gone).next() else { return };
        let generation = Arc::clone(&any.row.generation);
        let series = generation.series.lane(lane.lane);
        series.left(rows.len() + late.len() + gone.len());
        self.drop_late(late.into_iter().map(|late| late.row));
        if rows.is_empty() {
            return;
        }
        self.metrics.batch_release(rows.len() == self.max_batch);
        series.batch(rows.len());
        self.forward(&generation, lane, rows);
    }

    fn forward(&self, generation: &Generation, lane: LaneKey, rows: Vec<Routed>) {
        let started = Instant::now();
        let (mut requests, mut waiting) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let mut parts = Vec::with_capacity(rows.len());
        for Routed { row, routing, router, router_share } in rows {
            let queue = started.saturating_duration_since(row.request.due.arrived).saturating_sub(router);
            parts.push(Part { routing, length: row.request.history.len(), router: router_share });
            waiting.push((row.reply, routing, Times { queue, router, forward: Duration::ZERO }));
            requests.push(row.request);
            self.admission.begin(row.permit, queue, self.last_batch);
        }
        let routings = || waiting.iter().map(|(_, routing, _)| *routing);
        let queries: Vec<(Route, Query<'_>)> =
            routings().zip(&requests).map(|(routing, request)| (routing.route, request.query())).collect();
        let ranked = match generation.model.forward().rank_mixed(&queries) {
            Ok(ranked) => ranked,
            Err(error) => return self.fail(&error, generation, "slices", waiting.into_iter().map(|row| row.0)),
        };
        let forward = started.elapsed();
        self.life.ran();
        // Admission predicts from what rows cost alone, so that is what it learns from: a lane's padding shows in its fit.
        self.admission.ran(lane, Ran { flops: routings().map(|routing| routing.slice_flops).sum(), took: forward });
        let computed = Computed::of(generation, &parts);
        let full = self.admission.batch(LaneKey::of(generation, generation.model.space().full()), computed.full());
        for (route, share) in &computed.routes {
            let series = generation.series.route(*route);
            series.ran(forward, share.executed, share.full);
            series.spent(computed.seconds(share, forward, full));
        }
        generation.series.padded(computed.padding_ratio());
        let answers = waiting.into_iter().zip(ranked);
        self.finish(answers.map(|((reply, routing, times), ranked)| {
            (reply, Ok(Answer { ranked, routing, times: Times { forward, ..times } }))
        }));
    }

    fn drop_late(&self, rows: impl Iterator<Item = Row>) {
        self.finish(rows.map(|row| (row.reply, Err(Refusal::DeadlineExceeded))));
    }

    /// Answers a batch that the device failed on. The loop lives on, unless too many did one after the other: a device
    /// that is lost answers nobody, and a server that stood there all the same would go on being asked.
    fn fail(
        &self,
        error: &ForwardError,
        generation: &Generation,
        stage: &str,
        replies: impl ExactSizeIterator<Item = Reply>,
    ) {
        tracing::error!(%error, stage, rows = replies.len(), version = generation.model.version(), "a batch failed");
        if self.life.failed() {
            tracing::error!("no batch has run for too many in a row: restart the server");
            give_up(&self.queue);
        }
        self.finish(replies.map(|reply| (reply, Err(Refusal::Internal))));
    }

    fn finish(&self, outcomes: impl Iterator<Item = Outcome>) {
        let outcomes: Vec<Outcome> = outcomes.collect();
        if !outcomes.is_empty() {
            // Where the receiver is gone the runtime is, and with it everyone who waited.
            let _ = self.outcomes.send(outcomes);
        }
    }
}
