use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder,
};

use super::family::{Stale, families, remove_series};
use super::labels::{AnswerLogged, CacheMiss, CatalogueReloaded, Disconnect, Rejected, Released, Reloaded, Stage};
use crate::CatalogueView;
use strum::VariantArray;

/// 100 µs to 10 s, with finer steps around the times of answers.
const SECONDS: [f64; 17] =
    [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1, 2e-1, 5e-1, 1.0, 3.0, 10.0];

/// Shares of ten items.
const TENTHS: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Reciprocal ranks of the first ten places, and 0 for a miss.
const RECIPROCAL_RANKS: [f64; 11] = [0.0, 0.1, 1.0 / 9.0, 0.125, 1.0 / 7.0, 1.0 / 6.0, 0.2, 0.25, 1.0 / 3.0, 0.5, 1.0];

/// Times of reading, checking and warming up a model: 10 ms to minutes.
const RELOAD_SECONDS: [f64; 10] = [1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// Rows of a batch: powers of two.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Shares of a batch that are padding: at most a quarter on the smallest default route.
const SHARES: [f64; 9] = [0.0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

families! {
    /// Every series of one server; the fields' documentation is the help text.
    ///
    /// A route has 40 series and 49 for each version that serves, a lane has 33, an endpoint has up to 36, and everything else
    /// together has fewer than 170. The paper's space of 36 routes makes about 4,300 series with a lane for each width.
    #[derive(Debug)]
    pub struct Metrics {
        // `families!` adds the fields that are no family: `registry`, `since`, `saving`, `judgements` and `versions`.
        /// Calls answered, by transport, by endpoint and by HTTP status or gRPC code. An endpoint is the template of a path,
        /// or * for an unknown one. Health checks, pages and scrapes are not counted, but the inference protocol's checks over
        /// gRPC are.
        requests_total: IntCounterVec, labels ["transport", "endpoint", "code"];
        /// Seconds from a call's arrival to its answer, by transport and endpoint.
        request_duration_seconds: HistogramVec, labels ["transport", "endpoint"], buckets SECONDS;
        /// Calls that the server is answering now.
        requests_in_flight: IntGauge;
        /// Open connections of all listeners.
        connections: IntGauge;
        /// Connections that the server closed because of their client, and HTTP/2 streams that it reset: an idle one made
        /// room while all places were taken (room), a client had too many (client_limit), no first request came in time
        /// (no_request), the client did not take its answer (stalled), or it sent too many HTTP/2 frames that ask for
        /// nothing (flood).
        disconnects_total: IntCounterVec, labels ["reason"];
        /// Rows answered, by route, by the reason for the route and by the version that answered. A single request is one row, a
        /// batch has many.
        route_requests_total: IntCounterVec, labels ["route", "reason", "version"];
        /// Seconds from a row's arrival to its answer, by route and version.
        route_latency_seconds: HistogramVec, labels ["route", "version"], buckets SECONDS;
        /// Seconds of a batch's forward pass, counted once for each route in the batch.
        route_forward_seconds: HistogramVec, labels ["route"], buckets SECONDS;
        /// Seconds that an answered row spent in a stage: waiting for the device, in the router's batch, or in its route's batch.
        stage_duration_seconds: HistogramVec, labels ["stage"], buckets SECONDS;
        /// Floating-point operations computed for the rows of a route, with padding, without the router's and without what
        /// the history cache had. The second runs of ranked_twice_total count.
        executed_flops_total: IntCounterVec, labels ["route"];
        /// Floating-point operations that were not computed for the rows of a route, because the history cache had their
        /// results. They are not in executed_flops_total.
        reused_flops_total: IntCounterVec, labels ["route"];
        /// Bytes that the history cache takes.
        history_cache_bytes: IntGauge;
        /// Histories that the history cache keeps, one for each width and embedding at which it was computed.
        history_cache_entries: IntGauge;
        /// Rows that reused at least half of their positions.
        history_cache_hits_total: IntCounter;
        /// Rows that reused less: their history was unknown (history), or known at another width or embedding than the
        /// router chose (slice).
        history_cache_misses_total: IntCounterVec, labels ["cause"];
        /// Histories that left the history cache to make room.
        history_cache_evictions_total: IntCounter;
        /// Floating-point operations that the full model would have cost for the same rows.
        full_flops_total: IntCounterVec, labels ["route"];
        /// Device seconds that the full model is predicted to take for the same rows. Minus executed_seconds_total this is
        /// the time that routing saved.
        full_seconds_total: CounterVec, labels ["route"];
        /// Device seconds measured for the rows of a route: their share of their batches and of the router's batches.
        executed_seconds_total: CounterVec, labels ["route"];
        /// The running maximum of full_seconds_total minus executed_seconds_total, since a counter cannot fall. Later
        /// losses show only in the difference itself.
        saved_seconds_total: CounterVec, labels ["route"];
        /// Floating-point operations of the router.
        router_flops_total: IntCounter;
        /// Rows of a batch, by lane.
        batch_size: HistogramVec, labels ["lane"], buckets ROWS;
        /// Share of a batch's floating-point operations that was padding: embedding columns that only wider rows read.
        batch_padding_ratio: Histogram, buckets SHARES;
        /// Batches by the reason that they were no larger: the size limit (full), or no further row waited (drained).
        batch_release_total: IntCounterVec, labels ["reason"];
        /// Rows that wait in a lane for the device.
        queue_depth: IntGaugeVec, labels ["lane"];
        /// Seconds that an answered row waited for the device, by lane.
        queue_wait_seconds: HistogramVec, labels ["lane"], buckets SECONDS;
        /// Rows without an answer: the queue was full (overloaded), the deadline passed (deadline), the client left or
        /// another row failed the whole inference call (cancelled), no model was ready (unavailable), the device failed
        /// (failed), the model computed NaN or infinity for the row (not_finite), or answers that clients have not read
        /// yet left no room for this one (unread).
        rejected_total: IntCounterVec, labels ["reason"];
        /// The rows of rejected_total that waited for a version, by that version and by reason. Rows that were refused because
        /// there was no room for their answer are not among them.
        version_rejected_total: IntCounterVec, labels ["version", "reason"];
        /// Rows answered under pressure by a cheaper route than the router chose, or than their budget names.
        degraded_total: IntCounter;
        /// Rows without a known item, answered by popularity. No model runs, and no route series counts them.
        cold_start_total: IntCounter;
        /// Items in the histories of answered rows: those that the model knows (true), and those that it does not (false).
        history_items_total: IntCounterVec, labels ["known"];
        /// Answers that the user's next request judged, by route, version and the reason for the route.
        judged_total: IntCounterVec, labels ["route", "version", "reason"];
        /// Judged answers whose first ten items had the user's next item.
        hits_total: IntCounterVec, labels ["route", "version", "reason"];
        /// Reciprocal of the next item's place in a judged answer, 0 for a miss.
        reciprocal_rank: HistogramVec, labels ["route", "version"], buckets RECIPROCAL_RANKS;
        /// Users whose last answer was forgotten before it was judged or replaced, because others needed the memory.
        judge_evictions_total: IntCounter;
        /// Answers sampled for the answer log: written, dropped (too many waited) or failed (the write did).
        answer_log_total: IntCounterVec, labels ["outcome"];
        /// Share of the full model's ten best items that the route found, over the compared requests.
        shadow_overlap: HistogramVec, labels ["route"], buckets TENTHS;
        /// Sampled requests that were not compared, because too many waited for an idle device.
        shadow_dropped_total: IntCounter;
        /// Reloads by outcome: served, rejected (the checkpoint is at fault), incomplete (files are missing or end early, as
        /// while they are copied), regression (the recorded accuracy is too far below the live version's), missing, busy (another
        /// reload was running, or a candidate stood against it), unchanged (a version that an operator had left was written again), or failed (the device or the server). The first load and
        /// candidates count too.
        reload_total: IntCounterVec, labels ["outcome"];
        /// Seconds from the start of a successful reload to the swap.
        reload_duration_seconds: Histogram, buckets RELOAD_SECONDS;
        /// Rows that ran a second time, because the best items did not fill their `max_per`.
        ranked_twice_total: IntCounter;
        /// Readings of the catalogue file by outcome: served, rejected (its contents are wrong), or failed (it could not be
        /// read). The first reading counts too.
        catalogue_reload_total: IntCounterVec, labels ["outcome"];
        /// Items in the catalogue file that serves. 0 without --catalogue, as the gauges below.
        catalogue_items: IntGauge;
        /// Items of the model that the catalogue file hides.
        catalogue_hidden_items: IntGauge;
        /// Ids of the catalogue file that the model does not know.
        catalogue_unknown_ids: IntGauge;
        /// Items of the model that the catalogue file lacks. They are visible and have no values.
        catalogue_missing_items: IntGauge;
        /// When the catalogue file that serves was read, in seconds since 1970.
        catalogue_read_timestamp_seconds: IntGauge;
        /// Always 1; the label is the SHA-256 of the catalogue file that serves. Servers with the same file agree.
        catalogue_info: IntGaugeVec, labels ["digest"];
        /// Always 1; the labels name the checkpoint that serves.
        model_info: IntGaugeVec, labels ["name", "version", "digest"];
        /// Share of the users whom the candidate answers. Without a candidate there is no series.
        candidate_share: GaugeVec, labels ["version", "digest"];
    }
}

impl Metrics {
    /// The families, with every series that depends neither on a model nor on an endpoint.
    ///
    /// # Errors
    /// [`prometheus::Error`] if a family is malformed or `process_*` cannot be registered.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics::register()?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.registry.register(Box::new(process))?;
        create::<Stage>(&metrics.stage_duration_seconds);
        create::<Rejected>(&metrics.rejected_total);
        create::<Disconnect>(&metrics.disconnects_total);
        create::<Reloaded>(&metrics.reload_total);
        create::<AnswerLogged>(&metrics.answer_log_total);
        create::<CatalogueReloaded>(&metrics.catalogue_reload_total);
        create::<Released>(&metrics.batch_release_total);
        create::<CacheMiss>(&metrics.history_cache_misses_total);
        metrics.history_items(0, 0);
        Ok(metrics)
    }

    /// The Prometheus text format.
    ///
    /// # Errors
    /// [`prometheus::Error`] if a series cannot be written.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts a call as in flight until the guard drops.
    pub fn in_flight(&self) -> Counted {
        Counted::new(&self.requests_in_flight)
    }

    /// Counts a connection as open until the guard drops.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Counts a connection that the server closed, or a stream that it reset.
    pub fn disconnect(&self, reason: Disconnect) {
        self.disconnects_total.with_label_values(&[reason]).inc();
    }

    /// Counts a row's time in a stage.
    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        self.stage_duration_seconds.with_label_values(&[stage]).observe(took.as_secs_f64());
    }

    /// Counts rows that were not answered.
    pub fn rejected(&self, reason: Rejected, rows: usize) {
        self.rejected_total.with_label_values(&[reason]).inc_by(rows as u64);
    }

    /// When the rows of a version were first counted, which is now if they never were.
    pub(super) fn counted_since(&self, version: &str) -> SystemTime {
        let mut versions = self.versions.lock();
        *versions.entry(version.to_owned()).or_insert_with(SystemTime::now)
    }

    /// Removes the rows of every version that is not in `live`.
    pub fn keep_versions(&self, live: &HashSet<String>) {
        for family in [&self.route_requests_total, &self.version_rejected_total] {
            family.keep(&["version"], live);
        }
        self.route_latency_seconds.keep(&["version"], live);
        self.versions.lock().retain(|version, _| live.contains(version));
    }

    /// Counts the items of a row's history.
    pub fn history_items(&self, known: usize, unknown: usize) {
        for (label, items) in [("true", known), ("false", unknown)] {
            self.history_items_total.with_label_values(&[label]).inc_by(items as u64);
        }
    }

    /// Counts a row answered by popularity.
    pub fn cold_start(&self) {
        self.cold_start_total.inc();
    }

    /// Counts a user whose answer was forgotten for lack of memory.
    pub(crate) fn judge_evicted(&self) {
        self.judge_evictions_total.inc();
    }

    /// Counts answers for the answer log.
    pub(crate) fn answers_logged(&self, outcome: AnswerLogged, answers: u64) {
        self.answer_log_total.with_label_values(&[outcome]).inc_by(answers);
    }

    /// Counts a sampled request that was not compared.
    pub(crate) fn shadow_dropped(&self) {
        self.shadow_dropped_total.inc();
    }

    /// Counts a row that a cheaper route answered than the router chose.
    pub(crate) fn degraded(&self) {
        self.degraded_total.inc();
    }

    /// Counts FLOPs of the router.
    pub(crate) fn router_flops(&self, flops: u64) {
        self.router_flops_total.inc_by(flops);
    }

    /// Counts a batch.
    pub(crate) fn batch_release(&self, released: Released) {
        self.batch_release_total.with_label_values(&[released]).inc();
    }

    /// Counts a reload; its time counts only if it served.
    pub(crate) fn reloaded(&self, outcome: Reloaded, took: Duration) {
        self.reload_total.with_label_values(&[outcome]).inc();
        if outcome == Reloaded::Served {
            self.reload_duration_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a row that ran a second time.
    pub(crate) fn ranked_twice(&self) {
        self.ranked_twice_total.inc();
    }

    /// Counts a reading of the catalogue file.
    pub(crate) fn catalogue_reloaded(&self, outcome: CatalogueReloaded) {
        self.catalogue_reload_total.with_label_values(&[outcome]).inc();
    }

    /// Describes the catalogue file that serves, in place of the one before.
    pub(crate) fn catalogue_serves(&self, view: &CatalogueView) {
        let (index, count) = (&view.index, |count: usize| i64::try_from(count).unwrap_or(i64::MAX));
        self.catalogue_items.set(count(index.table().len()));
        self.catalogue_hidden_items.set(count(index.hidden()));
        self.catalogue_unknown_ids.set(count(index.unknown()));
        self.catalogue_missing_items.set(count(index.missing()));
        let read_at = view.read_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.catalogue_read_timestamp_seconds.set(i64::try_from(read_at.as_secs()).unwrap_or(i64::MAX));
        let labels = HashMap::from([("digest", index.table().sha256())]);
        self.catalogue_info.with(&labels).set(1);
        keep_only(&self.catalogue_info, &labels);
    }

    /// Names the checkpoint that serves, in place of the one before.
    pub(crate) fn serving(&self, name: &str, version: u64, digest: &str) {
        let version = version.to_string();
        let labels = HashMap::from([("name", name), ("version", &version), ("digest", digest)]);
        self.model_info.with(&labels).set(1);
        keep_only(&self.model_info, &labels);
    }

    /// Names the candidate by version, digest and share, in place of the one before.
    pub(crate) fn candidate(&self, candidate: Option<(u64, &str, f64)>) {
        let Some((version, digest, share)) = candidate else { return self.candidate_share.reset() };
        let version = version.to_string();
        let labels = HashMap::from([("version", version.as_str()), ("digest", digest)]);
        self.candidate_share.with(&labels).set(share);
        keep_only(&self.candidate_share, &labels);
    }
}

/// Removes every series of a family but one. Unlike a reset before that one is set, this leaves no moment without a series.
fn keep_only<T: MetricVecBuilder>(family: &MetricVec<T>, kept: &HashMap<&str, &str>) {
    remove_series(family, |labels| labels != kept);
}

/// Creates the series of a family with one label, for every value.
fn create<L: VariantArray + AsRef<str> + Debug>(family: &MetricVec<impl MetricVecBuilder>) {
    for label in L::VARIANTS {
        family.with_label_values(&[label]);
    }
}

/// Adds one to a gauge until it drops.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    pub(super) fn new(gauge: &IntGauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
