use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::exploration::Draw;
use super::scheduler::{Arrival, Cancellable, Curve, DegradeLevel, Due, Routed, SharesRouter};
use super::{Generation, GenerationId, Refusal};
use crate::metrics::Counted;
use canet_catalogue::Restriction;
use canet_domain::{Flops, History, Item, Ranked, Reason, RequestFlops, Route};

/// A validated request for one ranking: no later step checks it again.
#[derive(Clone, Debug)]
pub struct Request {
    /// The items that the model reads.
    pub history: History,
    /// The number of items to return, 1 to N.
    pub k: usize,
    /// Items that must not appear.
    pub excluded: HashSet<Item>,
    /// The items to choose from; `None` is the whole catalogue.
    pub candidates: Option<Box<[Item]>>,
    /// What the catalogue file allows, and the request's filter and quotas; `None` if they allow everything. The candidates are
    /// within it already.
    pub restriction: Option<Restriction>,
    /// A route to run instead of the server's choice.
    pub route: Option<Route>,
    /// The share of the full model's FLOPs to spend, above 0 and at most 1; `None` is the server's.
    pub budget: Option<f64>,
    /// When the request arrived and when it is due.
    pub due: Due,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The items, best first.
    pub ranked: Vec<Ranked>,
    /// The route that ran.
    pub routing: Routing,
    /// The part of the slice's cost that was not computed, because the history cache had it.
    pub reused: Flops,
    /// The slice's cost again if the row ran a second time to fill its quotas, else 0.
    pub second_run: Flops,
    /// How long each stage took.
    pub times: Times,
}

/// The route that a row takes, the reason, and the cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// The route.
    pub route: Route,
    /// Why the row takes it.
    pub reason: Reason,
    /// The router's probability of the route; `None` if the router did not run.
    pub confidence: Option<f32>,
    /// The slice's cost.
    pub slice_flops: Flops,
    /// The router's cost, 0 if it did not run.
    pub router_flops: Flops,
    /// The full slice's cost for the same history.
    pub full_flops: Flops,
}

/// How long a row spent in each stage. `router` and `forward` are the times of the batches that it was in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Waiting for the device.
    pub queue: Duration,
    /// The router's micro-batch.
    pub router: Duration,
    /// The batch of its route.
    pub forward: Duration,
}

/// Rows that may share a batch: one lane of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    pub(crate) generation: GenerationId,
    /// Its index among the generation's lanes.
    pub(crate) lane: usize,
}

impl LaneKey {
    /// The lane of a route.
    pub(crate) fn of(generation: &Generation, route: Route) -> LaneKey {
        LaneKey { generation: generation.id, lane: generation.lane(route) }
    }

    /// The pairs of lanes, the old generation's first, that have one name in both generations.
    pub(crate) fn counterparts(old: &Generation, new: &Generation) -> Vec<(LaneKey, LaneKey)> {
        let names = |generation: &Generation| generation.batch_by.lanes(generation.model.space());
        let indices: HashMap<String, usize> = names(new).into_iter().zip(0..).collect();
        let pair = |(name, lane): (String, usize)| {
            let counterpart = LaneKey { generation: new.id, lane: *indices.get(&name)? };
            Some((LaneKey { generation: old.id, lane }, counterpart))
        };
        names(old).into_iter().zip(0..).filter_map(pair).collect()
    }
}

/// A request in the queue.
pub(crate) struct Row {
    pub(crate) request: Request,
    /// The generation that it was validated against, and runs on.
    pub(crate) generation: Arc<Generation>,
    /// Set if chance chooses the row's route.
    pub(crate) explores: Option<Draw>,
    /// Dropping it tells the waiting task that the row will have no answer.
    pub(crate) reply: Reply,
}

/// A row whose route is known.
pub(crate) struct RoutedRow {
    pub(crate) request: Request,
    /// The generation that it was validated against, and runs on.
    pub(crate) generation: Arc<Generation>,
    /// As [`Row::reply`].
    pub(crate) reply: Reply,
    pub(crate) routing: Routing,
    /// The time of the router's micro-batch that it was in.
    pub(crate) router: Duration,
    /// Its share of that time.
    pub(crate) router_share: Duration,
    /// Its place in the lane's queue depth.
    pub(crate) in_lane: Counted,
}

/// Sends a row's outcome to the task that answers its client.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Refusal>>;

impl Row {
    /// The row as the scheduler takes it in. `level` says how far rows are degraded, and is asked for only if it matters.
    pub(crate) fn arrive(self, level: impl FnOnce() -> DegradeLevel) -> Arrival<LaneKey, Row, RoutedRow> {
        let named = self.request.route.map(|route| (route, Reason::Override));
        if let Some((route, reason)) = named.or_else(|| self.without_router(level)) {
            let routing = self.routing(route, reason, None);
            return Arrival::Routed(self.routed(routing, Duration::ZERO, Duration::ZERO));
        }
        let RequestFlops { router, full, .. } = self.cost(self.generation.model.space().full());
        Arrival::Unrouted { row: self, router_flops: router, full_flops: full }
    }

    /// The route of a row that names none and does not need the router.
    fn without_router(&self, level: impl FnOnce() -> DegradeLevel) -> Option<(Route, Reason)> {
        let (generation, budget) = (&self.generation, self.request.budget);
        if let Some(route) = generation.fixed_route {
            return Some((route, Reason::Fixed));
        }
        let route = generation.fixed_route_for(budget)?;
        let (level, space) = (level(), generation.model.space());
        if let Some(draw) = self.explores.filter(|_| level == DegradeLevel::NONE) {
            return Some((draw.route(space), Reason::Explored));
        }
        let budget = budget.unwrap_or(generation.budget);
        let curve = generation.calibration().map(|calibration| Curve { calibration, space });
        Some(level.fixed(route, budget, curve, |route| self.cost(route).slice))
    }

    /// The routing of this row on `route`; there is a `confidence` if the router ran.
    pub(crate) fn routing(&self, route: Route, reason: Reason, confidence: Option<f32>) -> Routing {
        let RequestFlops { slice, router, full } = self.cost(route);
        Routing {
            route,
            reason,
            confidence,
            slice_flops: slice,
            router_flops: if confidence.is_some() { router } else { 0 },
            full_flops: full,
        }
    }

    fn cost(&self, route: Route) -> RequestFlops {
        self.generation.model.cost(route, self.request.history.len())
    }

    /// The row in the lane of its route.
    pub(crate) fn routed(
        self,
        routing: Routing,
        router: Duration,
        router_share: Duration,
    ) -> Routed<LaneKey, RoutedRow> {
        let lane = LaneKey::of(&self.generation, routing.route);
        let in_lane = self.generation.series.lane(lane.lane).enter();
        // A guess: another row may change the cache before this one runs.
        let forward = self.generation.model.forward();
        let reusable = forward.history_cache().map(|cache| cache.reusable(routing.route, &self.request.history));
        let flops = routing.slice_flops.saturating_sub(reusable.unwrap_or_default());
        let Row { request, generation, reply, explores: _ } = self;
        let row = RoutedRow { request, generation, reply, routing, router, router_share, in_lane };
        Routed { row, lane, flops }
    }
}

impl Cancellable for Row {
    fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }
}

impl SharesRouter for Row {
    fn shares_router(&self, other: &Row) -> bool {
        self.generation.id == other.generation.id
    }
}

impl Cancellable for RoutedRow {
    fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }
}
