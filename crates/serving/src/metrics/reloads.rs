use std::time::Duration;

use super::Metrics;

/// How a reload ended, as `reload_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The new generation serves.
    Served,
    /// The checkpoint is at fault.
    Rejected,
    /// There is no such checkpoint.
    Missing,
    /// Another reload was not done.
    Busy,
    /// The device failed, or the server stops.
    Failed,
}

impl Reloaded {
    pub(super) const ALL: [Reloaded; 5] =
        [Reloaded::Served, Reloaded::Rejected, Reloaded::Missing, Reloaded::Busy, Reloaded::Failed];

    pub(super) fn label(self) -> &'static str {
        match self {
            Reloaded::Served => "served",
            Reloaded::Rejected => "rejected",
            Reloaded::Missing => "missing",
            Reloaded::Busy => "busy",
            Reloaded::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Counts a reload; the time counts where it served.
    pub fn reloaded(&self, outcome: Reloaded, took: Duration) {
        self.reload_total.with_label_values(&[outcome.label()]).inc();
        if outcome == Reloaded::Served {
            self.reload_duration_seconds.observe(took.as_secs_f64());
        }
    }
}
