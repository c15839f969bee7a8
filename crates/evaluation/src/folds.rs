use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Hull, Outcome, RouteTable};
use canet_domain::RouteSpace;

/// Two halves of the users, drawn by lot: what is chosen on one is tested on the other, so that nobody's luck counts
/// twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halves {
    /// By user.
    second: Vec<bool>,
}

impl Halves {
    /// Halves of `users` users.
    pub fn draw(users: usize, seed: u64) -> Halves {
        let mut second: Vec<bool> = (0..users).map(|user| user % 2 == 1).collect();
        second.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        Halves { second }
    }

    /// Whether a user is in the second half.
    pub fn is_second(&self, user: usize) -> bool {
        self.second[user]
    }

    /// The static mixture of mean cost `cost`, each user's from the hull of the other half: chosen by their values on
    /// `chosen_on` at the costs there, run on `tested_on`. Both tables have the same users in the same order.
    pub fn static_mixture(
        &self,
        space: &RouteSpace,
        chosen_on: &RouteTable,
        tested_on: &RouteTable,
        cost: f64,
    ) -> Outcome {
        let costs = tested_on.costs(space);
        let [of_first, of_second] = [false, true].map(|half| {
            let means = chosen_on.means(|user| self.second[user] != half);
            let hull = Hull::of(space, &chosen_on.costs(space), &means);
            tested_on.drawn(&hull.mixture(&costs, cost))
        });
        let pairs = of_first.values.iter().zip(&of_second.values);
        Outcome {
            values: self.second.iter().zip(pairs).map(|(second, (a, b))| if *second { *b } else { *a }).collect(),
            flops: f64::midpoint(of_first.flops, of_second.flops),
        }
    }
}
