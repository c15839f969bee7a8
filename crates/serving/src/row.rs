use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::admission::{Need, Permit};
use super::executor::LaneKey;
use super::lanes::Due;
use super::{Generation, Refusal};
use canet_domain::{Candidates, Flops, History, Item, Ranked, Reason, RequestFlops, Route, Selection};
use canet_model::Query;

/// A validated request for one ranking: nothing behind it checks again.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the model reads.
    pub history: History,
    /// At most this many items, 1 to N.
    pub k: usize,
    /// Items that must not appear.
    pub excluded: HashSet<Item>,
    /// The items to choose from; `None` is the whole catalogue.
    pub candidates: Option<Box<[Item]>>,
    /// A route to run instead of the router's choice.
    pub route: Option<Route>,
    /// Share of the full model's FLOPs to spend, above 0 and at most 1; `None` is the server's.
    pub budget: Option<f64>,
    /// When it came and when it is due.
    pub due: Due,
}

impl Request {
    /// What it asks of the device.
    pub(crate) fn need(&self, generation: &Generation) -> Need<LaneKey> {
        let model = &generation.model;
        let cost = |route| model.cost(route, self.history.len());
        match self.route {
            Some(route) => Need::Lane { lane: LaneKey::of(generation, route), flops: cost(route).slice },
            None => {
                let RequestFlops { router, full, .. } = cost(model.space().full());
                Need::Router { flops: router, full_flops: full }
            }
        }
    }

    /// What the forward needs of it.
    pub(crate) fn query(&self) -> Query<'_> {
        Query {
            history: &self.history,
            selection: Selection {
                k: self.k,
                excluded: &self.excluded,
                candidates: self.candidates.as_deref().map_or(Candidates::All, Candidates::Only),
            },
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The items, best first.
    pub ranked: Vec<Ranked>,
    /// What ran.
    pub routing: Routing,
    /// Where the time went.
    pub times: Times,
}

/// Which route a row takes, why, and what that costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// The route.
    pub route: Route,
    /// Why this one.
    pub reason: Reason,
    /// The router's probability of it; `None` where the router did not run.
    pub confidence: Option<f32>,
    /// The slice's cost.
    pub slice_flops: Flops,
    /// The router's cost, 0 where it did not run.
    pub router_flops: Flops,
    /// The full slice's cost for the same history.
    pub full_flops: Flops,
}

impl Routing {
    /// The cost of `route` for a request, and of the router where it ran, that is where it has a `confidence`.
    pub(crate) fn new(generation: &Generation, request: &Request, route: Route, confidence: Option<f32>) -> Routing {
        let RequestFlops { slice, router, full } = generation.model.cost(route, request.history.len());
        Routing {
            route,
            reason: if confidence.is_some() { Reason::Router } else { Reason::Override },
            confidence,
            slice_flops: slice,
            router_flops: if confidence.is_some() { router } else { 0 },
            full_flops: full,
        }
    }
}

/// Where a row's time went. Router and forward are the times of the batches it was in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Waiting for the device.
    pub queue: Duration,
    /// The router's micro-batch.
    pub router: Duration,
    /// The batch of its route.
    pub forward: Duration,
}

/// A request on its way through the executor.
pub(crate) struct Row {
    pub(crate) request: Request,
    pub(crate) generation: Arc<Generation>,
    pub(crate) reply: Reply,
    /// Given back when the row enters a batch: what runs does not wait.
    pub(crate) permit: Permit<LaneKey>,
}

impl Row {
    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Where a row's outcome goes: to the task that answers its client.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Refusal>>;
