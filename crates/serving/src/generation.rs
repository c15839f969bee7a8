use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CatalogueView, CurrentView, Timings};
use crate::metrics::{Judgements, Metrics, Series};
use canet_domain::{BatchBy, Route, RoutePolicy, TextSizes};
use canet_model::Model;
use canet_model::checkpoint::Calibration;

/// One opened checkpoint and the policy under which it serves.
///
/// A row holds the generation that validated it until the row is answered. A reload in between therefore never mixes
/// the router, the slice and the catalogue of two checkpoints.
pub struct Generation {
    /// Tells generations apart, even two of the same version.
    pub id: GenerationId,
    /// The checkpoint, with its weights on the device.
    pub model: Model,
    /// Share of the full model's FLOPs that a request spends unless it names a budget of its own.
    pub budget: f64,
    /// The router's bias for `budget`, one value a route.
    pub bias: Vec<f32>,
    /// What decides routes under `budget`.
    pub route_policy: RoutePolicy,
    /// The route of every request that names none, whatever its budget. The router then does not run.
    pub fixed_route: Option<Route>,
    /// Which rows share a batch.
    pub batch_by: BatchBy,
    /// The metrics of its routes and lanes.
    pub series: Series,
    /// The metrics of its live accuracy.
    pub judgements: Arc<Judgements>,
    /// Bounds of the bytes that its ids and titles take in an answer.
    pub text_sizes: TextSizes,
    /// Batches that were timed before it serves. `None` if none were: costs are then learnt from live batches alone.
    pub timings: Option<Timings>,
    /// The catalogue file over its items, if the server has one.
    pub catalogue_view: CurrentView,
}

/// How a checkpoint is served.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Share of the full model's FLOPs to spend. Without a calibration it has no effect.
    pub budget: f64,
    /// Which rows share a batch.
    pub batch_by: BatchBy,
}

/// Identity of a generation within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GenerationId(u64);

impl Generation {
    /// A generation without timings and without a fixed route.
    pub fn new(model: Model, policy: Policy, metrics: &Metrics) -> Generation {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Generation {
            id: GenerationId(NEXT.fetch_add(1, Ordering::Relaxed)),
            series: Series::new(metrics, model.version(), model.space(), policy.batch_by),
            judgements: metrics.judgements(model.space(), model.version()),
            budget: policy.budget,
            bias: model.bias(policy.budget),
            route_policy: model.policy(policy.budget),
            fixed_route: None,
            batch_by: policy.batch_by,
            text_sizes: TextSizes::of(model.catalogue()),
            timings: None,
            catalogue_view: CurrentView::default(),
            model,
        }
    }

    /// The route of requests that name none under a request's budget, or under the server's if the request names none. `None`
    /// if the router decides.
    pub fn fixed_route_for(&self, budget: Option<f64>) -> Option<Route> {
        match (self.fixed_route, budget, self.calibration()) {
            (Some(route), ..) => Some(route),
            (None, Some(budget), Some(calibration)) => calibration.fixed_route(self.model.space(), budget),
            (None, ..) => self.route_policy.fixed(),
        }
    }

    /// The bias of a request's budget, or of the server's if the request names none.
    pub fn bias_for(&self, budget: Option<f64>) -> Cow<'_, [f32]> {
        budget.map_or(Cow::Borrowed(&self.bias), |budget| self.model.bias(budget).into())
    }

    /// The newest state of the catalogue file. A request reads it once, when it is validated, and its answer follows it.
    pub fn catalogue_view(&self) -> Option<Arc<CatalogueView>> {
        self.catalogue_view.get()
    }

    pub(crate) fn set_catalogue_view(&self, view: Arc<CatalogueView>) {
        self.catalogue_view.set(view);
    }

    /// The checkpoint's calibrated budgets, if it has any.
    pub(crate) fn calibration(&self) -> Option<&Calibration> {
        self.model.manifest().calibration.as_ref()
    }

    /// The index of a route's lane.
    pub fn lane(&self, route: Route) -> usize {
        self.batch_by.lane(self.model.space(), route)
    }

    /// Counts what the forward's history cache has done.
    pub(crate) fn observe_history_cache(&self) {
        if let Some(cache) = self.model.forward().history_cache() {
            self.series.history_cache().observe(|| cache.stats());
        }
    }

    /// Frees the history cache, because another generation serves. Rows that still run on this one are computed whole.
    pub(crate) fn close_history_cache(&self) {
        if let Some(cache) = self.model.forward().history_cache() {
            cache.close();
        }
        self.observe_history_cache();
    }

    /// Length of the longest history that the model reads.
    pub fn max_len(&self) -> usize {
        self.model.config().max_len
    }
}
