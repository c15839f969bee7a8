use prometheus::{IntCounter, IntGauge};

use super::labels::CacheMiss;
use super::registry::Metrics;
use canet_model::HistoryCacheStats;
use parking_lot::Mutex;

/// The series of one generation's history cache.
///
/// Caches count since their start. Two generations may serve at a time, and a counter must not fall when one of them goes,
/// so the series grow by what each cache has added since it was last seen.
#[derive(Debug)]
pub(crate) struct CacheSeries {
    bytes: IntGauge,
    entries: IntGauge,
    hits: IntCounter,
    misses_of_history: IntCounter,
    misses_of_slice: IntCounter,
    evictions: IntCounter,
    seen: Mutex<HistoryCacheStats>,
}

impl CacheSeries {
    pub(super) fn new(metrics: &Metrics) -> CacheSeries {
        let [misses_of_history, misses_of_slice] = [CacheMiss::History, CacheMiss::Slice]
            .map(|cause| metrics.history_cache_misses_total.with_label_values(&[cause]));
        CacheSeries {
            bytes: metrics.history_cache_bytes.clone(),
            entries: metrics.history_cache_entries.clone(),
            hits: metrics.history_cache_hits_total.clone(),
            misses_of_history,
            misses_of_slice,
            evictions: metrics.history_cache_evictions_total.clone(),
            seen: Mutex::default(),
        }
    }

    /// Counts what the cache has done since the last call. `read` reads the cache, so that no older state is counted after
    /// a newer one.
    pub(crate) fn observe(&self, read: impl FnOnce() -> HistoryCacheStats) {
        let mut seen = self.seen.lock();
        let now = read();
        let change = |now: u64, before: u64| now.wrapping_sub(before).cast_signed();
        self.bytes.add(change(now.bytes, seen.bytes));
        self.entries.add(change(now.entries, seen.entries));
        self.hits.inc_by(now.hits.saturating_sub(seen.hits));
        self.misses_of_history.inc_by(now.misses_of_history.saturating_sub(seen.misses_of_history));
        self.misses_of_slice.inc_by(now.misses_of_slice.saturating_sub(seen.misses_of_slice));
        self.evictions.inc_by(now.evictions.saturating_sub(seen.evictions));
        *seen = now;
    }
}

impl Drop for CacheSeries {
    /// The cache goes with its generation.
    fn drop(&mut self) {
        self.observe(HistoryCacheStats::default);
    }
}
