use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Generation, Refusal};
use crate::metrics::{Metrics, Rejected, Stage};
use canet_domain::Reason;

/// Counts how a row ended: exactly once.
///
/// A row that drops this without an outcome was cancelled: its client left, or its call failed because of another row.
pub(crate) struct RowOutcome<'a> {
    metrics: &'a Metrics,
    generation: &'a Arc<Generation>,
    counted: bool,
}

impl<'a> RowOutcome<'a> {
    /// Of a row that enters now, for a generation to answer.
    pub(crate) fn new(metrics: &'a Metrics, generation: &'a Arc<Generation>) -> RowOutcome<'a> {
        RowOutcome { metrics, generation, counted: false }
    }

    /// The row is answered.
    pub(crate) fn answered(mut self, arrived: Instant, answer: &Answer) {
        self.counted = true;
        let generation = self.generation;
        let Answer { routing, times, .. } = answer;
        generation.series.route(routing.route).answered(routing.reason, arrived.elapsed());
        if routing.reason == Reason::Degraded {
            self.metrics.degraded();
        }
        generation.series.lane(generation.lane(routing.route)).waited(times.queue);
        self.metrics.stage(Stage::Queue, times.queue);
        if routing.confidence.is_some() {
            self.metrics.stage(Stage::Router, times.router);
        }
        self.metrics.stage(Stage::Forward, times.forward);
    }

    /// The row is refused.
    pub(crate) fn refused(mut self, refusal: &Refusal) {
        self.counted = true;
        self.rejected(reason(refusal));
    }
}

impl RowOutcome<'_> {
    fn rejected(&self, reason: Rejected) {
        self.metrics.rejected(reason, 1);
        self.generation.series.rejected(reason);
    }
}

impl Drop for RowOutcome<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.rejected(Rejected::Cancelled);
        }
    }
}

/// Counts rows that are refused before they enter.
pub(crate) fn count(metrics: &Metrics, refusal: &Refusal, rows: usize) {
    metrics.rejected(reason(refusal), rows);
}

fn reason(refusal: &Refusal) -> Rejected {
    match refusal {
        Refusal::Overloaded(_) => Rejected::Overloaded,
        Refusal::DeadlineExceeded => Rejected::Deadline,
        Refusal::Unavailable(_) => Rejected::Unavailable,
        Refusal::Internal => Rejected::Failed,
        Refusal::NotFinite => Rejected::NotFinite,
    }
}
