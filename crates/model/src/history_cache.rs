use canet_domain::{Flops, History, Ranked, Route};

/// States of histories that a [`Forward`](crate::Forward) keeps, so that a history that grew costs its new items alone.
///
/// Answers never depend on it.
pub trait HistoryCache {
    /// What a row would save now. Another row may change that before the row runs.
    fn reusable(&self, route: Route, history: &History) -> Flops;

    /// What it holds and what it has done.
    fn stats(&self) -> HistoryCacheStats;

    /// Frees everything. From now on nothing is kept, and rows are computed whole.
    fn close(&self);
}

/// The size of a history cache, and counts since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryCacheStats {
    /// Bytes of memory that it takes.
    pub bytes: u64,
    /// Histories that it keeps.
    pub entries: u64,
    /// Rows that reused at least half of their positions.
    pub hits: u64,
    /// Rows whose history was unknown.
    pub misses_of_history: u64,
    /// Rows whose history was known at another width or embedding alone.
    pub misses_of_slice: u64,
    /// Histories that left to make room.
    pub evictions: u64,
}

/// The answer to a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedBatch {
    /// The best items of each row, best first.
    pub rankings: Vec<Vec<Ranked>>,
    /// What each row did not compute, because the history cache had it. Empty if there is no cache.
    pub reused: Vec<Flops>,
}

impl RankedBatch {
    /// What a row did not compute.
    pub fn reused(&self, row: usize) -> Flops {
        self.reused.get(row).copied().unwrap_or_default()
    }
}
