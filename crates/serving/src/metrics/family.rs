use prometheus::core::Collector;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

/// What a family of series is made from: name, help and buckets in one set of options, then label names.
pub(super) type Build = (HistogramOpts, &'static [&'static str]);

/// A metric family that can be built from its name and help alone.
pub(super) trait Family: Collector + Clone + Sized + 'static {
    /// Builds the family.
    ///
    /// # Errors
    /// [`prometheus::Error`] where a name, a label or the buckets are malformed.
    fn build(build: Build) -> Result<Self, prometheus::Error>;
}

impl Family for CounterVec {
    fn build((options, labels): Build) -> Result<Self, prometheus::Error> {
        CounterVec::new(options.common_opts, labels)
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

/// The options of a family: its name under `canet_`, its help text, its buckets.
pub(super) fn options(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts { common_opts: Opts::new(name, help.trim()).namespace("canet"), buckets: buckets.to_vec() }
}

/// A struct of metric families whose doc comments are their help texts.
///
/// `name: Kind [labels] (buckets)`; labels and buckets may be left out.
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
            since: std::time::SystemTime,
            /// Held while a route's seconds are counted: three counters of a route change together.
            pub(super) saving: std::sync::Arc<std::sync::Mutex<()>>,
            $( $(#[doc = $help])+ pub(super) $field: $kind, )+
        }

        impl $name {
            /// Every family, in a registry of its own, so that servers in one process do not share series.
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
                let since = std::time::SystemTime::now();
                Ok($name { registry, since, saving: std::sync::Arc::default(), $($field),+ })
            }

            /// When counting began.
            pub fn since(&self) -> std::time::SystemTime {
                self.since
            }

            /// Removes the series of routes and lanes that the model which serves does not have; `live` are its
            /// routes' and lanes' names.
            pub fn keep_series(&self, live: &std::collections::HashSet<String>) {
                $( $crate::metrics::stale::Stale::keep(&self.$field, live); )+
            }
        }
    };
}

pub(super) use families;
