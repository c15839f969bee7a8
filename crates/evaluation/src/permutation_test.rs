use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::RouteTable;
use canet_domain::Route;

/// Number of permutations of a test.
pub const PERMUTATIONS: usize = 1000;

/// Sums of the same values in another order differ by less.
const ROUNDING: f64 = 1e-12;

/// Permutation test of a router: does the assignment of its choices to users matter?
///
/// The statistic is the gain: the mean value of the assigned routes minus the expected value of random routes with the
/// same frequencies. The null hypothesis is that the router knows nothing about the user. Under it, shuffling the
/// choices among the users changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct PermutationTest {
    /// Gain of the router's own assignment.
    pub observed: f64,
    /// Gain of each permutation.
    pub permuted: Vec<f64>,
}

impl PermutationTest {
    /// Shuffles `choices`, one per case, [`PERMUTATIONS`] times.
    pub fn run(table: &RouteTable, choices: &[Route], seed: u64) -> PermutationTest {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let expected = table.drawn(&route_frequencies(choices, table.routes())).estimate().mean;
        let gain = |choices: &[Route]| table.mean(choices) - expected;
        let observed = gain(choices);
        let mut shuffled = choices.to_vec();
        let mut permute = || {
            shuffled.shuffle(&mut rng);
            gain(&shuffled)
        };
        PermutationTest { observed, permuted: (0..PERMUTATIONS).map(|_| permute()).collect() }
    }

    /// Averages the tests of several models, permutation by permutation. `models` has at least one.
    pub fn mean_of(models: &[PermutationTest]) -> PermutationTest {
        let count = models.len().max(1) as f64;
        let sum = |place: usize| models.iter().filter_map(|model| model.permuted.get(place)).sum::<f64>();
        PermutationTest {
            observed: models.iter().map(|model| model.observed).sum::<f64>() / count,
            permuted: (0..PERMUTATIONS).map(|place| sum(place) / count).collect(),
        }
    }

    /// Mean gain of the permutations.
    pub fn permuted_mean(&self) -> f64 {
        self.permuted.iter().sum::<f64>() / self.permuted.len().max(1) as f64
    }

    /// The middle 95 % of the permutations' gains.
    pub fn permuted_interval(&self) -> [f64; 2] {
        let mut gains = self.permuted.clone();
        gains.sort_unstable_by(f64::total_cmp);
        let tail = gains.len() / 40;
        let at = |place: usize| gains.get(place).copied().unwrap_or_default();
        [at(tail), at(gains.len().saturating_sub(1 + tail))]
    }

    /// Whether the mean gain of the permutations is 0 within four standard errors. Its expectation is 0, whatever the router
    /// chooses. If almost every user has one route, almost all permutations are alike and tell nothing.
    pub fn permuted_gain_nothing(&self) -> bool {
        let (count, mean) = (self.permuted.len().max(1) as f64, self.permuted_mean());
        let variance = self.permuted.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        let are_alike = variance.sqrt() <= ROUNDING;
        are_alike || mean.abs() <= 4.0 * (variance / count).sqrt() + ROUNDING
    }

    /// One-sided p-value: the share of permutations that gain at least as much as the router. The observed assignment
    /// counts as one more permutation, so the value is never 0.
    pub fn p(&self) -> f64 {
        let as_good = self.permuted.iter().filter(|gain| **gain >= self.observed - ROUNDING).count();
        (as_good + 1) as f64 / (self.permuted.len() + 1) as f64
    }
}

/// Share of each of the model's `routes` routes among the choices.
pub fn route_frequencies(choices: &[Route], routes: usize) -> Vec<f64> {
    let mut counts = vec![0_u32; routes];
    choices.iter().for_each(|route| counts[route.index()] += 1);
    counts.into_iter().map(|count| f64::from(count) / choices.len().max(1) as f64).collect()
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::testing::{close, random_table, rng, space};

    #[test]
    fn shuffled_choices_gain_nothing() {
        let space = space();
        let table = &random_table(400, 7);
        // This router looks at the target.
        let best = |user: usize| {
            let value = |route: &Route| table.values(*route)[user];
            space.routes().max_by(|a, b| value(a).total_cmp(&value(b))).unwrap()
        };
        let best: Vec<Route> = (0..400).map(best).collect();
        let shares = route_frequencies(&best, 4);
        close(shares.iter().sum::<f64>(), 1.0);
        let informed = PermutationTest::run(table, &best, 3);
        let expected: f64 = (0..400).map(|user| table.values(best[user])[user]).sum::<f64>() / 400.0;
        let random: f64 =
            space.routes().map(|route| shares[route.index()] * table.values(route).iter().sum::<f64>() / 400.0).sum();
        close(informed.observed, expected - random);
        let [low, high] = informed.permuted_interval();
        assert!(low < 0.0 && high > 0.0 && high < informed.observed, "{low} to {high}, observed {}", informed.observed);
        assert!(informed.permuted_mean().abs() < 0.2 * high, "{}", informed.permuted_mean());
        close(informed.p(), 1.0 / 1001.0);

        assert!(informed.permuted_gain_nothing());
        // One user has another route, so that no permutation differs; and a shuffle that is wrong.
        let of = |permuted| PermutationTest { observed: 0.1, permuted };
        assert!(of(vec![-0.002; 1000]).permuted_gain_nothing());
        assert!(!of((0..1000).map(|place| f64::from(place % 3) * 0.001).collect()).permuted_gain_nothing());

        let mut rng = rng(8);
        // This router knows nothing about the user.
        let random: Vec<Route> = (0..400).map(|_| space.route(rng.gen_range(0..4)).unwrap()).collect();
        let blind = PermutationTest::run(table, &random, 3);
        assert!(blind.p() > 0.01, "{}", blind.p());
        let both = PermutationTest::mean_of(&[informed.clone(), blind.clone()]);
        close(both.observed, f64::midpoint(informed.observed, blind.observed));
        close(both.permuted[17], f64::midpoint(informed.permuted[17], blind.permuted[17]));
    }
}
