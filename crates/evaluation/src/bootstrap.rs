use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Estimate, Metric, Run};

/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 10_000;

/// How much better one run is than another, over the same users.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Name of the run.
    pub a: String,
    /// Name of the run it is compared with.
    pub b: String,
    /// What is compared.
    pub metric: Metric,
    /// Mean over users of a's value less b's, with the standard error of paired differences.
    pub difference: Estimate,
    /// 95 % percentile interval of the paired bootstrap.
    pub interval: [f64; 2],
    /// Two-sided: twice the share of resamples on the far side of zero, at most 1; the sample itself counts as one
    /// more on either side, so that it is never 0.
    pub p: f64,
}

/// Compares pairs of runs by resampling users with replacement, [`RESAMPLES`] times; every pair sees the same
/// resamples, and a pair keeps each user's two values together. The runs have the same users in the same order.
pub fn compare(pairs: &[(&Run, &Run)], metric: Metric, seed: u64) -> Vec<Comparison> {
    let differences: Vec<Vec<f64>> = pairs
        .iter()
        .map(|(a, b)| a.values(metric).iter().zip(b.values(metric)).map(|(a, b)| a - b).collect())
        .collect();
    let means = resampled_means(&differences, seed);
    pairs
        .iter()
        .zip(differences)
        .zip(means)
        .map(|((pair, values), means)| judge(pair, metric, &values, means))
        .collect()
}

fn judge((a, b): &(&Run, &Run), metric: Metric, differences: &[f64], mut means: Vec<f64>) -> Comparison {
    means.sort_unstable_by(f64::total_cmp);
    let tail = means.len() / 40;
    let at_most_zero = means.partition_point(|mean| *mean <= 0.0);
    let at_least_zero = means.len() - means.partition_point(|mean| *mean < 0.0);
    let share = (at_most_zero.min(at_least_zero) + 1) as f64 / (means.len() + 1) as f64;
    Comparison {
        a: a.name.clone(),
        b: b.name.clone(),
        metric,
        difference: Estimate::of(differences),
        interval: [means[tail], means[means.len() - 1 - tail]],
        p: (2.0 * share).min(1.0),
    }
}

/// Means of the resamples, by series.
///
/// Series are laid side by side, so that a drawn user is one contiguous row; users who differ nowhere, most of them
/// on a large catalogue, come after the others and have no row.
fn resampled_means(series: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
    let users = series.iter().map(Vec::len).min().unwrap_or_default();
    let width = series.len();
    let mut rows = Vec::new();
    for user in 0..users {
        if series.iter().any(|values| values[user] != 0.0) {
            rows.extend(series.iter().map(|values| values[user]));
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means = vec![Vec::with_capacity(RESAMPLES); width];
    let mut sums = vec![0.0; width];
    for _ in 0..RESAMPLES {
        sums.fill(0.0);
        for _ in 0..users {
            let start = rng.gen_range(0..users) * width;
            let row = rows.get(start..start + width).unwrap_or_default();
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        for (means, sum) in means.iter_mut().zip(&sums) {
            means.push(sum / users.max(1) as f64);
        }
    }
    means
}
