use std::fmt;

use serde::{Deserialize, Serialize};

/// The list lengths at which metrics are reported.
pub const CUTOFFS: [u32; 3] = [5, 10, 20];

/// A metric of one ranked list with exactly one relevant item, the target.
///
/// With one relevant item, HR@k equals Recall@k. The ideal list has a discounted gain of 1, so NDCG@k equals DCG@k
/// (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with the
/// discount log2(rank + 1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Normalised discounted cumulative gain: 1 / log2(rank + 1) if the rank is at most k, else 0.
    Ndcg(u32),
    /// Hit rate: 1 if the rank is at most k, else 0.
    Hr(u32),
    /// Reciprocal rank within the list: 1 / rank if the rank is at most k, else 0.
    MrrAt(u32),
    /// Reciprocal rank: 1 / rank, and 0 for a target without a rank.
    Mrr,
}

impl Metric {
    /// Every reported metric, in the order of the report.
    pub fn all() -> impl Iterator<Item = Metric> {
        let at = |metric: fn(u32) -> Metric| CUTOFFS.into_iter().map(metric);
        at(Metric::Ndcg).chain(at(Metric::Hr)).chain(at(Metric::MrrAt)).chain([Metric::Mrr])
    }

    /// The metric's value for a target of this rank. A target without a rank scores 0.
    pub fn value(self, rank: Option<u32>) -> f64 {
        let Some(rank) = rank else { return 0.0 };
        match self {
            Metric::Ndcg(k) | Metric::Hr(k) | Metric::MrrAt(k) if rank > k => 0.0,
            Metric::Ndcg(_) => (f64::from(rank) + 1.0).log2().recip(),
            Metric::Hr(_) => 1.0,
            Metric::MrrAt(_) | Metric::Mrr => f64::from(rank).recip(),
        }
    }
}

impl fmt::Display for Metric {
    /// The name used in reports and flags: `ndcg@10`, `hr@10`, `mrr@10` or `mrr`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Ndcg(k) => write!(f, "ndcg@{k}"),
            Metric::Hr(k) => write!(f, "hr@{k}"),
            Metric::MrrAt(k) => write!(f, "mrr@{k}"),
            Metric::Mrr => f.write_str("mrr"),
        }
    }
}

/// A mean over users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean; 0 for no users.
    pub mean: f64,
    /// Standard error of the mean, from the sample variance; `None` for fewer than two users.
    pub se: Option<f64>,
}

impl Estimate {
    /// Mean and standard error of one value per user.
    pub fn of(values: &[f64]) -> Estimate {
        let users = values.len() as f64;
        if values.is_empty() {
            return Estimate { mean: 0.0, se: None };
        }
        let mean = values.iter().sum::<f64>() / users;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Estimate { mean, se: (values.len() > 1).then(|| (squares / (users - 1.0) / users).sqrt()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::close;

    #[test]
    fn metrics_match_their_definitions() {
        for (rank, ndcg, hr, mrr, full) in [
            (Some(1), 1.0, 1.0, 1.0, 1.0),
            (Some(3), 0.5, 1.0, 1.0 / 3.0, 1.0 / 3.0),
            (Some(10), 1.0 / 11_f64.log2(), 1.0, 0.1, 0.1),
            (Some(11), 0.0, 0.0, 0.0, 1.0 / 11.0),
            (None, 0.0, 0.0, 0.0, 0.0),
        ] {
            close(Metric::Ndcg(10).value(rank), ndcg);
            close(Metric::Hr(10).value(rank), hr);
            close(Metric::MrrAt(10).value(rank), mrr);
            close(Metric::Mrr.value(rank), full);
        }
    }

    #[test]
    fn the_standard_error_comes_from_the_sample_variance() {
        let estimate = Estimate::of(&[1.0, 0.0, 0.5, 0.5]);
        close(estimate.mean, 0.5);
        // The squared deviations are 0.25 twice; divide by 3, then by 4.
        close(estimate.se.unwrap(), (0.5_f64 / 3.0 / 4.0).sqrt());
        assert_eq!(Estimate::of(&[1.0]).se, None);
    }
}
