use canet_evaluation::{Estimate, UpperHull, UserMeans};
use tch::{Kind, TchError, Tensor};

use super::policy::{CaseTable, Policy};
use super::predictor::UtilityPredictor;
use crate::records::BudgetGain;
use crate::route_ranks::Utility;
use crate::stage::StageEnd;

/// Number of folds of the users. Each fold is predicted by predictors that did not train on it.
pub(super) const FOLDS: usize = 5;

/// Numbers of training passes that are compared.
const PASSES: [usize; 7] = [1, 2, 4, 7, 11, 16, 22];

/// Predictors of a fold, whose predictions are averaged.
const PREDICTORS: usize = 2;

/// Budgets at which rules are compared, as shares of the full model's FLOPs.
const BUDGETS: [f64; 4] = [0.2, 0.3, 0.4, 0.5];

/// Factors of the predictions that are compared, as multiples of the regression slope.
const FACTORS: [f64; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0];

/// Utilities, `[M, routes]`, less the mean of their case and of their route, scaled to standard deviation 1. The means of the
/// routes and the scale are taken over `cases`.
///
/// # Errors
/// LibTorch's.
pub(super) fn deviations(utilities: &Tensor, cases: &Tensor) -> Result<Tensor, TchError> {
    let centred = utilities.f_sub(&utilities.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?)?; // [M, routes]
    let own = centred.f_index_select(0, cases)?; // [cases, routes]
    let means = own.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?; // [1, routes]
    let scale = own.f_sub(&means)?.f_square()?.f_mean(Kind::Double)?.f_sqrt()?.f_double_value(&[])?.max(1e-12);
    centred.f_sub(&means)?.f_div_scalar(scale)?.f_to_kind(Kind::Float) // [M, routes]
}

/// Predictions for all cases, each by predictors that did not train on its fold.
#[derive(Debug)]
pub(super) struct CrossFit {
    /// The number of training passes with the smallest error.
    pub passes: usize,
    /// Predicted deviations: `[M, routes]`, row-major
    pub predictions: Vec<f64>,
    /// Share of the deviations' variance that is predicted.
    pub explained: f64,
}

/// Predicts each fold by predictors that trained on the other folds: features `[M, F]`, utilities `[M, routes]`, and a
/// fold for each case. `interrupted` is asked before each training pass. If it is out of time, predictors stay as they are. If
/// it is stopped, there is no result.
///
/// # Errors
/// LibTorch's.
pub(super) fn cross_fit(
    features: &Tensor,
    utilities: &Tensor,
    folds: &[usize],
    interrupted: impl Fn() -> Option<StageEnd>,
) -> Result<Option<CrossFit>, TchError> {
    let (cases, routes) = utilities.size2()?;
    let zeros = || Tensor::f_zeros([cases, routes], (Kind::Float, features.device())); // [M, routes]
    let by_passes: Vec<Tensor> = PASSES.iter().map(|_| zeros()).collect::<Result<_, _>>()?;
    let truth = zeros()?;
    for fold in 0..FOLDS {
        let part = |within: bool| -> Result<Tensor, TchError> {
            let cases = folds.iter().enumerate().filter(|(_, own)| (**own == fold) == within);
            Tensor::f_from_slice(&cases.map(|(case, _)| case as i64).collect::<Vec<_>>())?
                .f_to_device(features.device())
        };
        let (inside, outside) = (part(true)?, part(false)?);
        if inside.numel() == 0 || outside.numel() == 0 {
            continue;
        }
        let deviations = deviations(utilities, &outside)?;
        let _ = truth.shallow_clone().f_index_copy_(0, &inside, &deviations.f_index_select(0, &inside)?)?;
        let seen = features.f_index_select(0, &outside)?; // [outside, F]
        let targets = deviations.f_index_select(0, &outside)?; // [outside, routes]
        let unseen = features.f_index_select(0, &inside)?; // [inside, F]
        for _ in 0..PREDICTORS {
            let mut predictor = UtilityPredictor::new(features.size2()?.1, routes as usize, features.device())?;
            let mut done = 0;
            for (passes, predictions) in PASSES.iter().zip(&by_passes) {
                for _ in done..*passes {
                    match interrupted() {
                        None => predictor.train_pass(&seen, &targets)?,
                        Some(StageEnd::Stopped) => return Ok(None),
                        Some(_) => break,
                    }
                }
                done = *passes;
                let predicted = predictor.predict(&unseen)?.f_div_scalar(PREDICTORS as f64)?; // [inside, routes]
                let _ = predictions.shallow_clone().f_index_add_(0, &inside, &predicted)?;
            }
        }
    }
    let variance = truth.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?;
    let mut best = (0, f64::INFINITY);
    for (place, predictions) in by_passes.iter().enumerate() {
        let error = predictions.f_sub(&truth)?.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?;
        if error < best.1 {
            best = (place, error);
        }
    }
    let (place, error) = best;
    Ok(Some(CrossFit {
        passes: PASSES[place],
        predictions: Vec::try_from(&by_passes[place].f_to_kind(Kind::Double)?.f_flatten(0, 1)?)?,
        explained: if variance > 1e-12 { 1.0 - error / variance } else { 0.0 },
    }))
}

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

impl RuleTrial<'_> {
    /// Mean gain over the cases that count.
    fn mean_gain(&self, counts: impl Fn(usize) -> bool) -> f64 {
        let counted: Vec<f64> =
            (0..self.gains.len()).filter(|case| counts(*case)).map(|case| self.gains[case]).collect();
        Estimate::of(&counted).mean
    }
}

/// The results of several rules on the same cases, at least one.
pub(super) struct RuleTrials<'a> {
    first: RuleTrial<'a>,
    others: Vec<RuleTrial<'a>>,
}

impl<'a> RuleTrials<'a> {
    /// Tries several factors of the predictions of a utility, with the routes of the static hull and with all routes.
    ///
    /// For each fold, the routes' means and the hull come from the other folds. So does the static mixture of the same
    /// cost, with which the rule is compared.
    pub(super) fn of(table: &CaseTable, folds: &[usize], utility: Utility, fit: &'a CrossFit) -> RuleTrials<'a> {
        let slope = regression_slope(table, &fit.predictions);
        let trial = |factor: f64, every_route: bool| {
            let rule = RoutingRule { utility, k: factor * slope, every_route };
            RuleTrial { rule, fit, gains: gains(table, folds, &fit.predictions, rule) }
        };
        let [first, others @ ..] = FACTORS.map(|factor| trial(factor, false));
        let every_route = FACTORS.map(|factor| trial(factor, true));
        RuleTrials { first, others: others.into_iter().chain(every_route).collect() }
    }

    /// These trials, and then others.
    pub(super) fn and(mut self, others: RuleTrials<'a>) -> RuleTrials<'a> {
        self.others.push(others.first);
        self.others.extend(others.others);
        self
    }

    /// The rule with the highest mean gain over the cases that count. The first of equal ones wins.
    pub(super) fn best(&self, counts: impl Fn(usize) -> bool) -> &RuleTrial<'a> {
        let mut best = (&self.first, self.first.mean_gain(&counts));
        for trial in &self.others {
            let gain = trial.mean_gain(&counts);
            if gain > best.1 {
                best = (trial, gain);
            }
        }
        best.0
    }
}

/// The gain of choosing the best rule, estimated on users who had no part in the choice. `users` has the user of each
/// case.
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

/// The regression slope of NDCG@10 on the predictions, both as deviations. At least 0.
fn regression_slope(table: &CaseTable, predictions: &[f64]) -> f64 {
    let (mut product, mut square) = (0.0, 0.0);
    let every: Vec<usize> = (0..table.cases()).collect();
    let means = table.means(&every);
    for (ndcg, predicted) in table.ndcg.chunks(table.routes).zip(predictions.chunks(table.routes)) {
        let level: f64 = ndcg.iter().zip(&means).map(|(ndcg, mean)| ndcg - mean).sum::<f64>() / table.routes as f64;
        for ((ndcg, mean), predicted) in ndcg.iter().zip(&means).zip(predicted) {
            product += (ndcg - mean - level) * predicted;
            square += predicted * predicted;
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
/// spend them less, and the static mixture may spend them more.
pub(super) fn gains_by_budget(cases: &Cases<'_>, trials: &RuleTrials<'_>, budgets: &[f64]) -> Vec<BudgetGain> {
    let Cases { table, folds, users } = *cases;
    let mut means = vec![UserMeans::default(); budgets.len()];
    for fold in 0..FOLDS {
        let RuleTrial { rule, fit, .. } = trials.best(|case| folds[case] != fold);
        let trial = FoldTrial::new(table, folds, fold, &fit.predictions, *rule);
        let router = table.router_share(&trial.inside);
        for (budget, means) in budgets.iter().zip(&mut means) {
            for (case, gain) in trial.gains(*budget, router) {
                means.add(users[case], gain);
            }
        }
    }
    budgets.iter().zip(means).map(|(budget, means)| BudgetGain { budget: *budget, gain: means.estimate() }).collect()
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

    use super::*;
    use crate::router::policy::RouteCosts;
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
        let table = CaseTable::new(RouteCosts::new(&space, &shape, 5), vec![5; 600], ndcg);

        let features = Tensor::cat(&[taste, Tensor::randn([600, 4], options)], 1);
        let fit = cross_fit(&features, &utilities, &folds, || None).unwrap().unwrap();
        assert!(fit.explained > 0.2, "{}", fit.explained);
        // Each user has two cases, both in one fold.
        let users: Vec<usize> = (0..600).map(|case| case % 300).collect();
        let trials = RuleTrials::of(&table, &folds, Utility::Ndcg, &fit);
        let (chosen, gain) = (trials.best(|_| true).rule, gain_of_choice(&trials, &folds, &users));
        assert!(chosen.k > 0.0 && gain.mean > 4.0 * gain.se.unwrap(), "{chosen:?} {gain:?}");
        let cases = Cases { table: &table, folds: &folds, users: &users };
        let middle = gains_by_budget(&cases, &trials, &[0.05, 0.75]);
        let lower = |gain: &BudgetGain| gain.gain.mean - 1.96 * gain.gain.se.unwrap();
        // Within a budget that does not pay for more than the smallest route, the router's own cost is a loss.
        assert!(lower(&middle[0]) <= 0.0 && lower(&middle[1]) > 0.0, "{middle:?}");

        let blind = cross_fit(&Tensor::randn([600, 5], options), &utilities, &folds, || None).unwrap().unwrap();
        assert!(blind.explained < 0.05, "{}", blind.explained);
        let trials = RuleTrials::of(&table, &folds, Utility::Ndcg, &blind);
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
        RuleTrials { first: trials.next().unwrap(), others: trials.collect() }
    }

    /// The best of many worthless rules looks good on the cases that chose it. The estimate must not.
    #[test]
    fn the_best_of_many_worthless_rules_gains_nothing_on_unseen_users() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (folds, users): (Vec<usize>, Vec<usize>) = (0..100).map(|case| (case % FOLDS, case)).unzip();
        let (mut own, mut unseen) = (0.0, 0.0);
        for _ in 0..200 {
            let trials = trials((0..24).map(|_| (0..100).map(|_| rng.gen_range(-1.0..1.0)).collect()).collect());
            own += trials.best(|_| true).mean_gain(|_| true) / 200.0;
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
