//! The rules that turn predictions into routes, and what each of them gains on users whom its predictions did not learn from.

use canet_evaluation::{Estimate, UpperHull, UserMeans};

use super::crossfit::{CrossFit, FOLDS};
use super::policy::{CaseTable, Policy};
use crate::records::BudgetGain;
use crate::route_ranks::Utility;
use crate::stage::StageEnd;

/// Budgets at which rules are compared, as shares of the full model's FLOPs.
const BUDGETS: [f64; 4] = [0.2, 0.3, 0.4, 0.5];

/// Factors of the predictions that are compared, as multiples of the regression slope.
const FACTORS: [f64; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0];

/// Rules that [`RuleTrials::of`] tries, at most.
pub(super) const RULES: usize = 2 * FACTORS.len();

/// A way to turn predictions into routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoutingRule {
    /// The measure of utility that is predicted.
    pub utility: Utility,
    /// Factor of the predictions.
    pub k: f64,
    /// Whether routes outside the static hull may be chosen.
    pub every_route: bool,
}

/// The result of a rule on cases that its predictors did not train on.
#[derive(Clone, Debug)]
pub(super) struct RuleTrial<'a> {
    pub rule: RoutingRule,
    /// The predictions that the rule turns into routes.
    pub fit: &'a CrossFit,
    /// Gain in NDCG@10 over the static mixture of the same cost, for each case, as a mean over the compared budgets.
    pub gains: Vec<f64>,
}

/// The results of several rules on the same cases, at least one.
pub(super) struct RuleTrials<'a> {
    first: RuleTrial<'a>,
    others: Vec<RuleTrial<'a>>,
    /// The weight of each case, as in a [`CaseTable`].
    weights: &'a [f64],
}

impl<'a> RuleTrials<'a> {
    /// Tries several factors of the predictions of a utility, with the routes of the static hull and with all routes.
    ///
    /// For each fold, the routes' means and the hull come from the other folds. So does the static mixture of the same
    /// cost, with which the rule is compared.
    ///
    /// `interrupted` is asked before each rule. If it is out of time, only the first rule, which does not route by
    /// predictions, is tried for certain. If it is stopped, there is no result.
    pub(super) fn of(
        table: &'a CaseTable,
        folds: &[usize],
        utility: Utility,
        fit: &'a CrossFit,
        interrupted: impl Fn() -> Option<StageEnd>,
    ) -> Option<RuleTrials<'a>> {
        let slope = regression_slope(table, &fit.predictions);
        let mut trials = Vec::with_capacity(RULES);
        for every_route in [false, true] {
            for factor in FACTORS {
                match interrupted() {
                    Some(StageEnd::Stopped) => return None,
                    Some(_) if !trials.is_empty() => break,
                    _ => {}
                }
                let rule = RoutingRule { utility, k: factor * slope, every_route };
                trials.push(RuleTrial { rule, fit, gains: gains(table, folds, &fit.predictions, rule) });
            }
        }
        let mut trials = trials.into_iter();
        let first = trials.next()?;
        Some(RuleTrials { first, others: trials.collect(), weights: table.weights() })
    }

    /// These trials, and then others.
    pub(super) fn and(mut self, others: RuleTrials<'a>) -> RuleTrials<'a> {
        self.others.push(others.first);
        self.others.extend(others.others);
        self
    }

    /// The rule with the highest mean gain over the users of the cases that count. The first of equal ones wins.
    pub(super) fn best(&self, counts: impl Fn(usize) -> bool) -> &RuleTrial<'a> {
        let mut best = (&self.first, self.sum_of_gains(&self.first, &counts));
        for trial in &self.others {
            let gain = self.sum_of_gains(trial, &counts);
            if gain > best.1 {
                best = (trial, gain);
            }
        }
        best.0
    }

    /// The sum over users of a rule's gain in the cases that count.
    fn sum_of_gains(&self, trial: &RuleTrial<'_>, counts: impl Fn(usize) -> bool) -> f64 {
        let cases = trial.gains.iter().zip(self.weights).enumerate();
        cases.filter(|(case, _)| counts(*case)).map(|(_, (gain, weight))| weight * gain).sum()
    }
}

/// The gain of choosing the best rule, estimated on users who had no part in the choice. `users` has the user of each
/// case. (All users have a small part in the number of training passes and in the unit of the factors.)
///
/// Each fold has the gain of the rule that is best on the other folds. On the cases that chose it, the best of many
/// rules would always look good. Each user is one observation, the mean of the user's cases, because cases of one user
/// are alike.
pub(super) fn gain_of_choice(trials: &RuleTrials<'_>, folds: &[usize], users: &[usize]) -> Estimate {
    let mut means = UserMeans::default();
    for fold in 0..FOLDS {
        let trial = trials.best(|case| folds[case] != fold);
        for case in (0..trial.gains.len()).filter(|case| folds[*case] == fold) {
            means.add(users[case], trial.gains[case]);
        }
    }
    means.estimate()
}

/// The regression slope of NDCG@10 on the predictions over users, both as deviations. At least 0.
fn regression_slope(table: &CaseTable, predictions: &[f64]) -> f64 {
    let (mut product, mut square) = (0.0, 0.0);
    let every: Vec<usize> = (0..table.cases()).collect();
    let means = table.means(&every);
    let cases = table.ndcg.chunks(table.routes).zip(predictions.chunks(table.routes));
    for ((ndcg, predicted), weight) in cases.zip(table.weights()) {
        let level: f64 = ndcg.iter().zip(&means).map(|(ndcg, mean)| ndcg - mean).sum::<f64>() / table.routes as f64;
        for ((ndcg, mean), predicted) in ndcg.iter().zip(&means).zip(predicted) {
            product += weight * (ndcg - mean - level) * predicted;
            square += weight * predicted * predicted;
        }
    }
    (product / f64::max(square, 1e-12)).max(0.0)
}

/// A rule's gain over the static mixture for each case, as a mean over the budgets.
fn gains(table: &CaseTable, folds: &[usize], predictions: &[f64], rule: RoutingRule) -> Vec<f64> {
    let mut gains = vec![0.0; table.cases()];
    for fold in 0..FOLDS {
        let trial = FoldTrial::new(table, folds, fold, predictions, rule);
        for budget in BUDGETS {
            for (case, gain) in trial.gains(budget, 0.0) {
                gains[case] += gain / BUDGETS.len() as f64;
            }
        }
    }
    gains
}

/// A rule on the cases of one fold. The routes' means and the hull come from the other folds.
struct FoldTrial<'a> {
    table: &'a CaseTable,
    /// The fold's cases.
    inside: Vec<usize>,
    means: Vec<f64>,
    hull: UpperHull,
    /// The routes that may be chosen.
    allowed: Vec<usize>,
    k: f64,
    predictions: &'a [f64],
}

impl<'a> FoldTrial<'a> {
    fn new(
        table: &'a CaseTable,
        folds: &[usize],
        fold: usize,
        predictions: &'a [f64],
        rule: RoutingRule,
    ) -> FoldTrial<'a> {
        let part =
            |within: bool| (0..table.cases()).filter(|case| (folds[*case] == fold) == within).collect::<Vec<_>>();
        let (inside, outside) = (part(true), part(false));
        let means = table.means(&outside);
        let hull = table.hull(&outside, &means);
        let allowed: Vec<usize> = match rule.every_route {
            true => (0..table.routes).collect(),
            false => hull.vertices().iter().map(|route| route.index()).collect(),
        };
        FoldTrial { table, inside, means, hull, allowed, k: rule.k, predictions }
    }

    /// Each case's gain over the static mixture of the same cost, under a budget of which the router takes the share `router`.
    fn gains(&self, budget: f64, router: f64) -> Vec<(usize, f64)> {
        let FoldTrial { table, inside, means, hull, allowed, k, predictions } = self;
        let policy = Policy { means, k: *k, predictions, allowed };
        let choices = table.at_budget(&policy, inside, budget - router);
        let mixture = table.mixture(inside, hull, choices.spent + router);
        let gain = |(case, route): (&usize, usize)| {
            (*case, table.ndcg[case * table.routes + route] - table.expected(*case, &mixture))
        };
        inside.iter().zip(choices.routes).map(gain).collect()
    }
}

/// The gain of choosing the best rule under each of some budgets, like [`gain_of_choice`] but with the router's FLOPs: it may
/// spend them less, and the static mixture may spend them more. `interrupted` is asked before each fold. If it is stopped,
/// there is no result.
pub(super) fn gains_by_budget(
    cases: &Cases<'_>,
    trials: &RuleTrials<'_>,
    budgets: &[f64],
    interrupted: impl Fn() -> Option<StageEnd>,
) -> Option<Vec<BudgetGain>> {
    let Cases { table, folds, users } = *cases;
    let mut means = vec![UserMeans::default(); budgets.len()];
    for fold in 0..FOLDS {
        if interrupted() == Some(StageEnd::Stopped) {
            return None;
        }
        let RuleTrial { rule, fit, .. } = trials.best(|case| folds[case] != fold);
        let trial = FoldTrial::new(table, folds, fold, &fit.predictions, *rule);
        let router = table.router_share(&trial.inside);
        for (budget, means) in budgets.iter().zip(&mut means) {
            for (case, gain) in trial.gains(*budget, router) {
                means.add(users[case], gain);
            }
        }
    }
    let gain = |(budget, means): (&f64, UserMeans)| BudgetGain {
        budget: *budget,
        gain: means.estimate(),
        users: Some(means.users() as u64),
    };
    Some(budgets.iter().zip(means).map(gain).collect())
}

/// Measured cases, and the fold and the user of each.
#[derive(Clone, Copy)]
pub(super) struct Cases<'a> {
    pub table: &'a CaseTable,
    pub folds: &'a [usize],
    pub users: &'a [usize],
}

#[cfg(test)]
mod tests {
    use canet_domain::{FfnInner, ModelShape, RouteSpace, RouterShape};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tch::{Kind, Tensor};

    use super::*;
    use crate::router::crossfit::cross_fit;
    use crate::router::policy::{MeasuredCase, RouteCosts};
    use crate::stage::StageEnd;
    use crate::torch_seed::seed_torch;

    /// In 600 cases, one feature says whether the widest route helps, under noise. It helps on average.
    #[test]
    fn useful_predictions_gain_and_predictions_from_noise_do_not() {
        let _generator = seed_torch(4);
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4]).unwrap();
        let shape =
            ModelShape { items: 9, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 2, ffn: 4 } };
        let options = (Kind::Float, tch::Device::Cpu);
        let taste = Tensor::randn([600, 1], options);
        let noise = Tensor::randn([600, 2], options) * 0.3;
        let utilities = (Tensor::cat(&[taste.zeros_like(), taste.sign() + 0.5], 1) + noise).to_kind(Kind::Double);
        let folds: Vec<usize> = (0..600).map(|case| case % FOLDS).collect();
        let ndcg = Vec::try_from(&utilities.flatten(0, 1)).unwrap();
        // Each user has two cases, both in one fold.
        let users: Vec<usize> = (0..600).map(|case| case % 300).collect();
        let measured: Vec<MeasuredCase> = users.iter().map(|user| MeasuredCase { user: *user, length: 5 }).collect();
        let table = CaseTable::new(RouteCosts::new(&space, &shape, 5), &measured, ndcg);

        let features = Tensor::cat(&[taste, Tensor::randn([600, 4], options)], 1);
        let fit = cross_fit(&features, &utilities, &folds, || None).unwrap().unwrap();
        assert!(fit.explained > 0.2, "{}", fit.explained);
        let trials = RuleTrials::of(&table, &folds, Utility::Ndcg, &fit, || None).unwrap();
        let (chosen, gain) = (trials.best(|_| true).rule, gain_of_choice(&trials, &folds, &users));
        assert!(chosen.k > 0.0 && gain.mean > 4.0 * gain.se.unwrap(), "{chosen:?} {gain:?}");
        let cases = Cases { table: &table, folds: &folds, users: &users };
        let middle = gains_by_budget(&cases, &trials, &[0.05, 0.75], || None).unwrap();
        let lower = |gain: &BudgetGain| gain.gain.mean - 1.96 * gain.gain.se.unwrap();
        // Within a budget that does not pay for more than the smallest route, the router's own cost is a loss.
        assert!(lower(&middle[0]) <= 0.0 && lower(&middle[1]) > 0.0, "{middle:?}");
        assert!(middle.iter().all(|gain| gain.users == Some(300)), "{middle:?}");
        // Out of time, the rule without predictions is tried alone. Stopped, there is no result.
        let [late, stopped] = [StageEnd::OutOfTime, StageEnd::Stopped].map(|end| move || Some(end));
        let trial = RuleTrials::of(&table, &folds, Utility::Ndcg, &fit, late).unwrap();
        assert!(trial.others.is_empty() && trial.first.rule.k == 0.0, "{:?}", trial.first.rule);
        assert!(gains_by_budget(&cases, &trial, &[0.75], late).is_some());
        assert!(RuleTrials::of(&table, &folds, Utility::Ndcg, &fit, stopped).is_none());
        assert!(gains_by_budget(&cases, &trials, &[0.75], stopped).is_none());

        let blind = cross_fit(&Tensor::randn([600, 5], options), &utilities, &folds, || None).unwrap().unwrap();
        assert!(blind.explained < 0.05, "{}", blind.explained);
        let trials = RuleTrials::of(&table, &folds, Utility::Ndcg, &blind, || None).unwrap();
        let gain = gain_of_choice(&trials, &folds, &users);
        assert!(gain.mean < 2.5 * gain.se.unwrap_or_default().max(1e-3), "{gain:?}");
        // Out of time it predicts nothing, and stopped it has no result.
        let late = cross_fit(&features, &utilities, &folds, || Some(StageEnd::OutOfTime)).unwrap().unwrap();
        assert!(late.predictions.iter().all(|predicted| *predicted == 0.0));
        assert!(cross_fit(&features, &utilities, &folds, || Some(StageEnd::Stopped)).unwrap().is_none());
    }

    /// Trials of rules with these gains. No predictions stand behind them.
    fn trials(gains: Vec<Vec<f64>>) -> RuleTrials<'static> {
        static FIT: CrossFit = CrossFit { passes: 0, predictions: Vec::new(), explained: 0.0 };
        let rule = RoutingRule { utility: Utility::Ndcg, k: 1.0, every_route: false };
        let mut trials = gains.into_iter().map(|gains| RuleTrial { rule, fit: &FIT, gains });
        RuleTrials { first: trials.next().unwrap(), others: trials.collect(), weights: &[1.0; 100] }
    }

    /// The best of many worthless rules looks good on the cases that chose it. The estimate must not.
    #[test]
    fn the_best_of_many_worthless_rules_gains_nothing_on_unseen_users() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (folds, users): (Vec<usize>, Vec<usize>) = (0..100).map(|case| (case % FOLDS, case)).unzip();
        let (mut own, mut unseen) = (0.0, 0.0);
        for _ in 0..200 {
            let trials = trials((0..24).map(|_| (0..100).map(|_| rng.gen_range(-1.0..1.0)).collect()).collect());
            own += Estimate::of(&trials.best(|_| true).gains).mean / 200.0;
            unseen += gain_of_choice(&trials, &folds, &users).mean / 200.0;
        }
        assert!(own > 0.08 && unseen.abs() < 0.025, "{own} {unseen}");
    }

    #[test]
    fn a_user_with_many_cases_is_one_observation() {
        let trials = trials(vec![vec![1.0, 3.0, 4.0, 4.0]]);
        let gain = gain_of_choice(&trials, &[0, 0, 1, 1], &[7, 7, 2, 2]);
        assert_eq!(gain, Estimate::of(&[2.0, 4.0]));
    }
}
