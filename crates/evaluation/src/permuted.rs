use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::RouteTable;
use canet_domain::Route;

/// Permutations of a control.
pub const PERMUTATIONS: usize = 1000;

/// The control that must show nothing: a router's choices dealt out to other users. What it gains over random routes of
/// the same frequencies is luck alone, so a router has to gain more than nearly all of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Permuted {
    /// Gain of the router's own choices.
    pub own: f64,
    /// Gain of each permutation.
    pub gains: Vec<f64>,
}

impl Permuted {
    /// Deals `choices`, one a case, out [`PERMUTATIONS`] times.
    pub fn deal(table: &RouteTable, choices: &[Route], seed: u64) -> Permuted {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let expected = table.drawn(&frequencies(choices, table.routes())).estimate().mean;
        let gain = |choices: &[Route]| table.mean(choices) - expected;
        let own = gain(choices);
        let mut dealt = choices.to_vec();
        let mut deal = || {
            dealt.shuffle(&mut rng);
            gain(&dealt)
        };
        Permuted { own, gains: (0..PERMUTATIONS).map(|_| deal()).collect() }
    }

    /// The mean over several models: permutation by permutation, as each is independent of the others. At least one.
    pub fn mean_of(models: &[Permuted]) -> Permuted {
        let count = models.len().max(1) as f64;
        let sum = |place: usize| models.iter().filter_map(|model| model.gains.get(place)).sum::<f64>();
        Permuted {
            own: models.iter().map(|model| model.own).sum::<f64>() / count,
            gains: (0..PERMUTATIONS).map(|place| sum(place) / count).collect(),
        }
    }

    /// Mean gain of the permutations.
    pub fn mean(&self) -> f64 {
        self.gains.iter().sum::<f64>() / self.gains.len().max(1) as f64
    }

    /// The middle 95 % of the permutations' gains.
    pub fn interval(&self) -> [f64; 2] {
        let mut gains = self.gains.clone();
        gains.sort_unstable_by(f64::total_cmp);
        let tail = gains.len() / 40;
        let at = |place: usize| gains.get(place).copied().unwrap_or_default();
        [at(tail), at(gains.len().saturating_sub(1 + tail))]
    }

    /// One-sided: how often luck gains as much as the router did, the router itself counted as one more permutation.
    pub fn p(&self) -> f64 {
        let as_good = self.gains.iter().filter(|gain| **gain >= self.own).count();
        (as_good + 1) as f64 / (self.gains.len() + 1) as f64
    }
}

/// Share of each route among the choices, one a route.
pub fn frequencies(choices: &[Route], routes: usize) -> Vec<f64> {
    let mut counts = vec![0_u32; routes];
    choices.iter().for_each(|route| counts[route.index()] += 1);
    counts.into_iter().map(|count| f64::from(count) / choices.len().max(1) as f64).collect()
}
