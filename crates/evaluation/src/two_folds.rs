use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{PolicyOutcome, RouteTable, UpperHull};
use canet_domain::RouteSpace;

/// Two random folds of the users for cross-fitting: a policy chosen on one fold is tested on the other. So no user's
/// noise favours the policy that is tested on that user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwoFolds {
    /// Whether each user is in the second fold.
    second: Vec<bool>,
}

impl TwoFolds {
    /// Splits `users` users at random.
    pub fn split(users: usize, seed: u64) -> TwoFolds {
        let mut second: Vec<bool> = (0..users).map(|user| user % 2 == 1).collect();
        second.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        TwoFolds { second }
    }

    /// Whether a user is in the second fold.
    pub fn in_second(&self, user: usize) -> bool {
        self.second[user]
    }

    /// The cross-fitted static mixture of mean cost `cost`: each fold runs the mixture from the other fold's upper hull.
    ///
    /// The hulls come from the table `chosen_on`, the outcome from `tested_on`. Both tables must have the same users in
    /// the same order.
    pub fn static_mixture(
        &self,
        space: &RouteSpace,
        chosen_on: &RouteTable,
        tested_on: &RouteTable,
        cost: f64,
    ) -> PolicyOutcome {
        let costs = tested_on.costs(space);
        let [of_first, of_second] = [false, true].map(|fold| {
            let means = chosen_on.means(|user| self.second[user] != fold);
            let hull = UpperHull::of(space, &chosen_on.costs(space), &means);
            tested_on.drawn(&hull.mixture(&costs, cost))
        });
        let pairs = of_first.values.iter().zip(&of_second.values);
        PolicyOutcome {
            values: self.second.iter().zip(pairs).map(|(second, (a, b))| if *second { *b } else { *a }).collect(),
            flops: f64::midpoint(of_first.flops, of_second.flops),
        }
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::Route;

    use super::*;
    use crate::testing::{best_mixture, random_table, space};

    #[test]
    fn each_fold_runs_the_mixture_from_the_other_folds_hull() {
        let space = space();
        let (validation, test) = (random_table(61, 5), random_table(61, 6));
        let folds = TwoFolds::split(61, 9);
        let second = (0..61).filter(|user| folds.in_second(*user)).count();
        assert_eq!(second, 30);
        let cost = 0.4 * test.costs(&space)[0] + 0.6 * test.costs(&space)[3];
        let found = folds.static_mixture(&space, &validation, &test, cost);
        for fold in [false, true] {
            let own = |user: &usize| folds.in_second(*user) == fold;
            let mean = |route: Route| {
                let others: Vec<usize> = (0..61).filter(|user| !own(user)).collect();
                others.iter().map(|user| validation.values(route)[*user]).sum::<f64>() / others.len() as f64
            };
            let means: Vec<f64> = space.routes().map(mean).collect();
            assert_eq!(validation.costs(&space), test.costs(&space));
            let (_, shares) = best_mixture(&test.costs(&space), &means, cost);
            for user in (0..61).filter(own) {
                let expected: f64 = space.routes().map(|route| shares[route.index()] * test.values(route)[user]).sum();
                assert!((found.values[user] - expected).abs() < 1e-9, "user {user}");
            }
        }
        assert_eq!(TwoFolds::split(61, 9), folds);
        assert_ne!(TwoFolds::split(61, 10), folds);
    }
}
