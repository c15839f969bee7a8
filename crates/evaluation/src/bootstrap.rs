use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Estimate, EvalRun, Metric};

/// Number of resamples of a bootstrap.
pub const RESAMPLES: usize = 10_000;

/// The difference between two runs over the same users.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Name of the first run.
    pub a: String,
    /// Name of the second run.
    pub b: String,
    /// The metric that is compared.
    pub metric: Metric,
    /// Mean over users of a's value minus b's value, with the standard error of the paired differences.
    pub difference: Estimate,
    /// 95 % percentile interval of the paired bootstrap.
    pub interval: [f64; 2],
    /// Two-sided p-value: twice the share of resamples on the other side of zero, at most 1. The observed sample counts
    /// as one more resample on either side, so the value is never 0.
    pub p: f64,
}

/// Compares pairs of runs by the paired bootstrap over users, with [`RESAMPLES`] resamples.
///
/// Each resample draws users with replacement and keeps the two values of a user together. The interval is the
/// percentile interval of the resampled means (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993,
/// chapter 13). Every pair sees the same resamples. The runs must have the same users in the same order.
pub fn compare(pairs: &[(&EvalRun, &EvalRun)], metric: Metric, seed: u64) -> Vec<Comparison> {
    let differences: Vec<Vec<f64>> = pairs
        .iter()
        .map(|(a, b)| a.values(metric).iter().zip(b.values(metric)).map(|(a, b)| a - b).collect())
        .collect();
    let means = resampled_means(&differences, seed);
    let compared = pairs.iter().zip(differences).zip(means);
    compared
        .map(|(((a, b), differences), means)| {
            let (interval, p) = interval_and_p(means);
            let difference = Estimate::of(&differences);
            Comparison { a: a.name.clone(), b: b.name.clone(), metric, difference, interval, p }
        })
        .collect()
}

/// Percentile interval and two-sided p-value of resampled mean differences.
fn interval_and_p(mut means: Vec<f64>) -> ([f64; 2], f64) {
    means.sort_unstable_by(f64::total_cmp);
    let tail = means.len() / 40;
    let at_most_zero = means.partition_point(|mean| *mean <= 0.0);
    let at_least_zero = means.len() - means.partition_point(|mean| *mean < 0.0);
    let share = (at_most_zero.min(at_least_zero) + 1) as f64 / (means.len() + 1) as f64;
    ([means[tail], means[means.len() - 1 - tail]], (2.0 * share).min(1.0))
}

/// Means of the resamples, for each series of one value per user.
///
/// The values of one user are contiguous, so a drawn user costs one memory access. Users whose values are all 0 add
/// nothing to a sum and are not stored. On a large catalogue they are the majority.
fn resampled_means(series: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
    let users = series.iter().map(Vec::len).min().unwrap_or_default();
    let width = series.len();
    let mut values_by_user = Vec::new();
    for user in 0..users {
        if series.iter().any(|values| values[user] != 0.0) {
            values_by_user.extend(series.iter().map(|values| values[user]));
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means = vec![Vec::with_capacity(RESAMPLES); width];
    let mut sums = vec![0.0; width];
    for _ in 0..RESAMPLES {
        sums.fill(0.0);
        for _ in 0..users {
            let start = rng.gen_range(0..users) * width;
            let drawn = values_by_user.get(start..start + width).unwrap_or_default();
            sums.iter_mut().zip(drawn).for_each(|(sum, value)| *sum += value);
        }
        for (means, sum) in means.iter_mut().zip(&sums) {
            means.push(sum / users.max(1) as f64);
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use canet_data::Case;

    use super::*;
    use crate::Ranker;
    use crate::testing::{RingModel, close, item, items, space};

    /// A run with these ranks, one per user.
    fn run_of(name: &str, ranks: Vec<Option<u32>>) -> EvalRun {
        let history = items(&[1]);
        let cases: Vec<Case<'_>> =
            (0..ranks.len()).map(|user| Case { user, history: &history, target: item(2) }).collect();
        let (model, space) = (RingModel::new(), space());
        Ranker::new(model.with_space(&space), &cases, 1).unwrap().without_network(name, ranks)
    }

    #[test]
    fn the_bootstrap_agrees_with_the_closed_form() {
        // The difference in HR@10 is +1 for 140 users, -1 for 100 and 0 for 160.
        let ranks = |hits: &dyn Fn(usize) -> bool| (0..400).map(|user| hits(user).then_some(1)).collect::<Vec<_>>();
        let a = run_of("a", ranks(&|user| !(140..320).contains(&user)));
        let b = run_of("b", ranks(&|user| user >= 140 && !(240..320).contains(&user)));
        let pairs = [(&a, &b), (&b, &a), (&a, &a)];
        let [found, reversed, same] = compare(&pairs, Metric::Hr(10), 3).try_into().unwrap();
        assert_eq!((found.a.as_str(), found.b.as_str()), ("a", "b"));
        let (mean, variance) = (0.1, 0.6 - 0.01);
        close(found.difference.mean, mean);
        close(found.difference.se.unwrap(), (variance / 399.0_f64).sqrt());
        // The resampled mean is nearly normal with standard deviation sqrt(variance / 400).
        let deviation = (variance / 400.0_f64).sqrt();
        assert!((found.interval[0] - (mean - 1.96 * deviation)).abs() < 0.1 * deviation, "{found:?}");
        assert!((found.interval[1] - (mean + 1.96 * deviation)).abs() < 0.1 * deviation, "{found:?}");
        // z is 2.604, whose two-sided p-value is 0.0092.
        assert!((found.p - 0.0092).abs() < 0.004, "{found:?}");
        assert_eq!(reversed.interval, [-found.interval[1], -found.interval[0]]);
        assert_eq!((same.difference.mean, same.interval, same.p), (0.0, [0.0, 0.0], 1.0));
    }

    #[test]
    fn a_clear_difference_has_a_small_p_but_never_zero() {
        let a = run_of("a", vec![Some(1); 50]);
        let b = run_of("b", vec![None; 50]);
        let [found] = compare(&[(&a, &b)], Metric::Ndcg(10), 0).try_into().unwrap();
        assert_eq!(found.interval, [1.0, 1.0]);
        close(found.p, 2.0 / 10_001.0);
        assert_eq!(compare(&[(&a, &b)], Metric::Ndcg(10), 0), [found]);
    }
}
