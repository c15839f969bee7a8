use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Counter, Histogram, IntCounter, IntGauge};

use super::cache_series::CacheSeries;
use super::labels::Rejected;
use super::registry::{Counted, Metrics};
use super::traffic::Traffic;
use crate::batch_cost::RouteCost;
use canet_domain::{BatchBy, Reason, Route, RouteSpace};
use parking_lot::Mutex;
use strum::VariantArray;

/// The series of every route and lane of one model. They are resolved once, so that no request looks up a label.
#[derive(Debug)]
pub struct Series {
    routes: Vec<RouteSeries>,
    lanes: Vec<LaneSeries>,
    padding: Histogram,
    history_cache: CacheSeries,
    /// By [`Rejected`], in its order.
    rejected: Vec<IntCounter>,
    labels: HashSet<String>,
    version: String,
    since: SystemTime,
}

/// The series of one route.
#[derive(Debug)]
pub struct RouteSeries {
    /// In the order of [`Reason::ROUTED`].
    by_reason: [IntCounter; Reason::ROUTED.len()],
    latency: Histogram,
    forward: Histogram,
    executed_flops: IntCounter,
    reused_flops: IntCounter,
    full_flops: IntCounter,
    overlap: Histogram,
    full_seconds: Counter,
    executed_seconds: Counter,
    saved: Counter,
    /// Held while the three seconds change, because two generations may share them.
    saving: Arc<Mutex<()>>,
}

/// Seconds of the device for one route's rows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceSeconds {
    /// The time that the full model would have taken, 0 or more.
    pub full: f64,
    /// The time taken, the rows' share of the router's time included, 0 or more.
    pub executed: f64,
}

/// The series of one lane.
#[derive(Debug)]
pub struct LaneSeries {
    batch_size: Histogram,
    depth: IntGauge,
    wait: Histogram,
}

impl Series {
    /// Creates the series of every route and lane of `space`, for a version of the model.
    pub fn new(metrics: &Metrics, version: u64, space: &RouteSpace, batch_by: BatchBy) -> Series {
        let version = version.to_string();
        let since = metrics.counted_since(&version);
        Series {
            routes: space.routes().map(|route| RouteSeries::new(metrics, &version, space.name(route))).collect(),
            rejected: Rejected::VARIANTS
                .iter()
                .map(|reason| metrics.version_rejected_total.with_label_values(&[&version, reason.as_ref()]))
                .collect(),
            lanes: batch_by.lanes(space).iter().map(|name| LaneSeries::new(metrics, name)).collect(),
            padding: metrics.batch_padding_ratio.clone(),
            history_cache: CacheSeries::new(metrics),
            labels: space.routes().map(|route| space.name(route).to_owned()).chain(batch_by.lanes(space)).collect(),
            version,
            since,
        }
    }

    /// The names of every route and every lane.
    pub fn labels(&self) -> &HashSet<String> {
        &self.labels
    }

    /// The version, as the series name it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// When the rows of this version were first counted.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Counts a row that this version was to answer and did not.
    pub(crate) fn rejected(&self, reason: Rejected) {
        self.rejected[reason as usize].inc();
    }

    /// The series of a route.
    pub fn route(&self, route: Route) -> &RouteSeries {
        &self.routes[route.index()]
    }

    /// The series of a lane, by its index among the model's lanes.
    pub fn lane(&self, lane: usize) -> &LaneSeries {
        &self.lanes[lane]
    }

    /// The series of the history cache.
    pub(crate) fn history_cache(&self) -> &CacheSeries {
        &self.history_cache
    }

    /// Counts the share of a batch that was padding.
    pub fn padded(&self, ratio: f64) {
        self.padding.observe(ratio);
    }
}

impl RouteSeries {
    fn new(metrics: &Metrics, version: &str, route: &str) -> RouteSeries {
        let reason = |reason: Reason| metrics.route_requests_total.with_label_values(&[route, reason.name(), version]);
        RouteSeries {
            by_reason: Reason::ROUTED.map(reason),
            latency: metrics.route_latency_seconds.with_label_values(&[route, version]),
            forward: metrics.route_forward_seconds.with_label_values(&[route]),
            executed_flops: metrics.executed_flops_total.with_label_values(&[route]),
            reused_flops: metrics.reused_flops_total.with_label_values(&[route]),
            full_flops: metrics.full_flops_total.with_label_values(&[route]),
            overlap: metrics.shadow_overlap.with_label_values(&[route]),
            full_seconds: metrics.full_seconds_total.with_label_values(&[route]),
            executed_seconds: metrics.executed_seconds_total.with_label_values(&[route]),
            saved: metrics.saved_seconds_total.with_label_values(&[route]),
            saving: Arc::clone(&metrics.saving),
        }
    }

    /// Counts a row that this route answered `latency` after its arrival.
    pub fn answered(&self, reason: Reason, latency: Duration) {
        let Some(place) = reason.routed_index() else { return };
        self.by_reason[place].inc();
        self.latency.observe(latency.as_secs_f64());
    }

    /// The rows of this version that [`answered`](RouteSeries::answered) has counted.
    pub fn traffic(&self) -> Traffic {
        Traffic::of(&self.latency)
    }

    /// Counts a comparison with the full model: the share of the full model's best items that the route found.
    pub fn overlapped(&self, share: f64) {
        self.overlap.observe(share);
    }

    /// Counts the device seconds of this route's rows of a batch, and the time saved. A batch that took longer than the
    /// full model would have is a loss. A counter cannot fall, so later savings count only after they exceed the loss.
    pub fn spent(&self, DeviceSeconds { full, executed }: DeviceSeconds) {
        let _saving = self.saving.lock();
        self.full_seconds.inc_by(full);
        self.executed_seconds.inc_by(executed);
        // Computed from the counters, which outlive this generation: a loss of an earlier generation counts too.
        let gain = self.full_seconds.get() - self.executed_seconds.get() - self.saved.get();
        if gain > 0.0 {
            self.saved.inc_by(gain);
        }
    }

    /// Counts a batch with rows of this route: the batch's time, and what the rows cost.
    pub(crate) fn ran(&self, took: Duration, cost: &RouteCost) {
        self.forward.observe(took.as_secs_f64());
        self.executed_flops.inc_by(cost.executed);
        self.reused_flops.inc_by(cost.reused);
        self.full_flops.inc_by(cost.full);
    }
}

impl LaneSeries {
    fn new(metrics: &Metrics, lane: &str) -> LaneSeries {
        LaneSeries {
            batch_size: metrics.batch_size.with_label_values(&[lane]),
            depth: metrics.queue_depth.with_label_values(&[lane]),
            wait: metrics.queue_wait_seconds.with_label_values(&[lane]),
        }
    }

    /// Counts a batch of `rows`.
    pub fn batch(&self, rows: usize) {
        self.batch_size.observe(rows as f64);
    }

    /// Counts a row in the lane's depth until the guard drops.
    pub(crate) fn enter(&self) -> Counted {
        Counted::new(&self.depth)
    }

    /// Counts a row's wait for the device.
    pub fn waited(&self, wait: Duration) {
        self.wait.observe(wait.as_secs_f64());
    }
}
