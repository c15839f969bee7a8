use prometheus::Histogram;
use prometheus::core::Metric;
use prometheus::proto::Bucket;

/// The rows that a route has answered since counting began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// How many.
    pub rows: u64,
    /// The time from arrival to answer; `None` before the first row.
    pub latency: Option<Latency>,
}

/// Seconds. The quantiles are interpolated within the histogram's buckets, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The mean, exact.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 99 % quantile.
    pub p99: f64,
}

impl Traffic {
    pub(super) fn of(latency: &Histogram) -> Traffic {
        let metric = latency.metric();
        let histogram = metric.get_histogram();
        let (rows, buckets) = (histogram.get_sample_count(), histogram.get_bucket());
        let latency = (rows > 0).then(|| Latency {
            mean: histogram.get_sample_sum() / rows as f64,
            p50: quantile(buckets, rows, 0.5),
            p99: quantile(buckets, rows, 0.99),
        });
        Traffic { rows, latency }
    }
}

/// Interpolates linearly within the quantile's bucket. A quantile beyond the last finite bound is that bound.
fn quantile(buckets: &[Bucket], count: u64, quantile: f64) -> f64 {
    let rank = quantile * count as f64;
    let (mut below, mut bound) = (0, 0.0);
    for bucket in buckets {
        let (up_to, upper) = (bucket.cumulative_count(), bucket.upper_bound());
        if up_to as f64 >= rank && up_to > below && upper.is_finite() {
            return bound + (upper - bound) * (rank - below as f64) / (up_to - below) as f64;
        }
        (below, bound) = (up_to, if upper.is_finite() { upper } else { bound });
    }
    bound
}
