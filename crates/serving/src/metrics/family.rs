use std::collections::{HashMap, HashSet};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts,
};

/// The description of a family: name, help and buckets in one set of options, then the names of the labels.
pub(super) type Build = (HistogramOpts, &'static [&'static str]);

/// A metric family that can be built from its description.
pub(super) trait Family: Collector + Clone + Sized + 'static {
    /// Builds the family.
    ///
    /// # Errors
    /// [`prometheus::Error`] if a name, a label or the buckets are malformed.
    fn build(build: Build) -> Result<Self, prometheus::Error>;
}

impl Family for CounterVec {
    fn build((options, labels): Build) -> Result<Self, prometheus::Error> {
        CounterVec::new(options.common_opts, labels)
    }
}

impl Family for GaugeVec {
    fn build((options, labels): Build) -> Result<Self, prometheus::Error> {
        GaugeVec::new(options.common_opts, labels)
    }
}

impl Family for IntCounter {
    fn build((options, _): Build) -> Result<Self, prometheus::Error> {
        IntCounter::with_opts(options.common_opts)
    }
}

impl Family for IntGauge {
    fn build((options, _): Build) -> Result<Self, prometheus::Error> {
        IntGauge::with_opts(options.common_opts)
    }
}

impl Family for IntCounterVec {
    fn build((options, labels): Build) -> Result<Self, prometheus::Error> {
        IntCounterVec::new(options.common_opts, labels)
    }
}

impl Family for IntGaugeVec {
    fn build((options, labels): Build) -> Result<Self, prometheus::Error> {
        IntGaugeVec::new(options.common_opts, labels)
    }
}

impl Family for Histogram {
    fn build((options, _): Build) -> Result<Self, prometheus::Error> {
        Histogram::with_opts(options)
    }
}

impl Family for HistogramVec {
    fn build((options, labels): Build) -> Result<Self, prometheus::Error> {
        HistogramVec::new(options, labels)
    }
}

/// The options of a family; its name gets the prefix `canet_`.
pub(super) fn options(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts { common_opts: Opts::new(name, help.trim()).namespace("canet"), buckets: buckets.to_vec() }
}

/// The labels whose values depend on the routes of the checkpoint.
pub(super) const MODEL_LABELS: &[&str] = &["route", "lane"];

/// A family whose series may become stale when another checkpoint serves.
pub(super) trait Stale {
    /// Removes every series of which one of `labels` has a value that is not in `live`.
    fn keep(&self, labels: &[&str], live: &HashSet<String>);
}

impl<T: MetricVecBuilder> Stale for MetricVec<T> {
    fn keep(&self, names: &[&str], live: &HashSet<String>) {
        remove_series(self, |labels| {
            names.iter().any(|name| labels.get(name).is_some_and(|value| !live.contains(*value)))
        });
    }
}

/// Removes every series of a family whose labels are such that it `goes`.
pub(super) fn remove_series<T: MetricVecBuilder>(family: &MetricVec<T>, goes: impl Fn(&HashMap<&str, &str>) -> bool) {
    for family_of_series in family.collect() {
        for series in family_of_series.get_metric() {
            let labels: HashMap<&str, &str> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if goes(&labels) {
                // An error means that the series is already gone.
                drop(family.remove(&labels));
            }
        }
    }
}

/// Families without labels depend on no checkpoint.
macro_rules! without_labels {
    ($($kind:ty),+) => { $( impl Stale for $kind { fn keep(&self, _labels: &[&str], _live: &HashSet<String>) {} } )+ };
}

without_labels!(IntCounter, IntGauge, Histogram);

/// Defines a struct of metric families whose doc comments are their help texts.
///
/// A field is `name: Kind, labels [..], buckets ..;`. Labels and buckets are optional.
macro_rules! families {
    (
        $(#[$outer:meta])*
        pub struct $name:ident {
            $( $(#[doc = $help:literal])+ $field:ident : $kind:ty $(, labels [$($label:literal),+])? $(, buckets $buckets:expr)?; )+
        }
    ) => {
        $(#[$outer])*
        pub struct $name {
            registry: prometheus::Registry,
            /// Held while a route's seconds are counted, because three counters of a route change together.
            pub(super) saving: std::sync::Arc<parking_lot::Mutex<()>>,
            /// The series of versions that serve, or did until lately, the newest last.
            pub(super) judgements: parking_lot::Mutex<Vec<std::sync::Arc<$crate::metrics::Judgements>>>,
            /// When the rows of each version were first counted.
            pub(super) versions: parking_lot::Mutex<std::collections::HashMap<String, std::time::SystemTime>>,
            $( $(#[doc = $help])+ pub(super) $field: $kind, )+
        }

        impl $name {
            /// Registers every family in a registry of its own, so that two servers in one process share no series.
            fn register() -> Result<$name, prometheus::Error> {
                let registry = prometheus::Registry::new();
                $(
                    let help = concat!($($help),+);
                    let labels: &'static [&'static str] = &[$($($label),+)?];
                    let buckets: &[f64] = [$(&$buckets as &[f64])?].first().copied().unwrap_or_default();
                    let options = $crate::metrics::family::options(stringify!($field), help, buckets);
                    let $field = <$kind as $crate::metrics::family::Family>::build((options, labels))?;
                    registry.register(Box::new($field.clone()))?;
                )+
                Ok($name {
                    registry,
                    saving: std::sync::Arc::default(),
                    judgements: parking_lot::Mutex::default(),
                    versions: parking_lot::Mutex::default(),
                    $($field),+
                })
            }

            /// Removes the series of every route and lane whose name is not in `live`. Those of the live accuracy stay, because
            /// answers of a version that serves no more are still judged.
            pub fn keep_series(&self, live: &std::collections::HashSet<String>) {
                $(
                    if !$crate::metrics::judgements::FAMILIES.contains(&stringify!($field)) {
                        $crate::metrics::family::Stale::keep(&self.$field, $crate::metrics::family::MODEL_LABELS, live);
                    }
                )+
            }
        }
    };
}

pub(super) use families;
