use std::fmt;

/// The list lengths at which metrics are reported.
pub const CUTOFFS: [u32; 3] = [5, 10, 20];

/// A number that says how well one target was ranked. With one target a user, HR@k is Recall@k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// 1 / log2(rank + 1) where the rank is at most k, else 0.
    Ndcg(u32),
    /// 1 where the rank is at most k, else 0.
    Hr(u32),
    /// 1 / rank where the rank is at most k, else 0.
    MrrAt(u32),
    /// 1 / rank; 0 for a target without a rank.
    Mrr,
}

impl Metric {
    /// Every metric that is reported, in the order of the report.
    pub fn all() -> impl Iterator<Item = Metric> {
        let at = |metric: fn(u32) -> Metric| CUTOFFS.into_iter().map(metric);
        at(Metric::Ndcg).chain(at(Metric::Hr)).chain(at(Metric::MrrAt)).chain([Metric::Mrr])
    }

    /// Value for a target of this rank, `None` being a miss at every length.
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
    /// As in the report: `ndcg@10`, `hr@10`, `mrr@10`, `mrr`.
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean; 0 over no users.
    pub mean: f64,
    /// Its standard error, from the sample variance; `None` under two users.
    pub se: Option<f64>,
}

impl Estimate {
    /// Mean and standard error of one value a user.
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

/// Every reported metric of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics(Vec<(Metric, Estimate)>);

impl Metrics {
    pub(crate) fn new(estimate: impl Fn(Metric) -> Estimate) -> Metrics {
        Metrics(Metric::all().map(|metric| (metric, estimate(metric))).collect())
    }

    /// The metrics with their estimates, in the order of [`Metric::all`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Metric, Estimate)> {
        self.0.iter().copied()
    }
}
