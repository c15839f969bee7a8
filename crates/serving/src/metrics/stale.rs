use std::collections::{HashMap, HashSet};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Histogram, IntCounter, IntGauge};

/// Labels whose values belong to one checkpoint.
const MODEL_LABELS: [&str; 2] = ["route", "lane"];

/// A family that can lose series.
pub(super) trait Stale {
    /// Removes every series whose route or lane is not among `live`.
    fn keep(&self, live: &HashSet<String>);
}

impl<T: MetricVecBuilder> Stale for MetricVec<T> {
    fn keep(&self, live: &HashSet<String>) {
        for family in self.collect() {
            for series in family.get_metric() {
                let labels: HashMap<&str, &str> =
                    series.get_label().iter().map(|label| (label.name(), label.value())).collect();
                let of_model = |name: &&str| labels.get(*name).is_some_and(|value| !live.contains(*value));
                if MODEL_LABELS.iter().any(of_model) {
                    // It may be gone already: then all is well.
                    drop(self.remove(&labels));
                }
            }
        }
    }
}

/// Families of one series, which no label ties to a model.
macro_rules! without_labels {
    ($($kind:ty),+) => { $( impl Stale for $kind { fn keep(&self, _live: &HashSet<String>) {} } )+ };
}

without_labels!(IntCounter, IntGauge, Histogram);
