use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use super::policy::{Panel, Rule};
use super::teacher::Teacher;
use super::utility::Kind as Utility;
use canet_evaluation::Estimate;

/// Parts of the users; each is predicted by teachers that did not see it.
pub(super) const FOLDS: usize = 5;

/// Passes after which predictions are kept; the best number of them is found on the parts.
const PASSES: [usize; 7] = [1, 2, 4, 7, 11, 16, 22];

/// Teachers whose predictions are averaged, in a fold.
const MEMBERS: usize = 2;

/// Shares of the full model's FLOPs at which rules are compared.
const BUDGETS: [f64; 4] = [0.2, 0.3, 0.4, 0.5];

/// How far predictions may be believed, as multiples of their regression.
const BELIEFS: [f64; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0];

/// Worths of held-out cases as what a teacher learns: each less its case's mean over routes and its route's mean over
/// cases, scaled to deviation 1.
pub(super) struct Deviations {
    /// [M, routes]
    pub values: Tensor,
    /// Mean of the centred worths, by route: [1, routes]
    pub means: Tensor,
    /// What the deviations were divided by.
    pub scale: f64,
}

impl Deviations {
    /// Of worths, [M, routes], centred by the routes' means over `cases`.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn of(worths: &Tensor, cases: &Tensor) -> Result<Deviations, TchError> {
        let centred = worths.f_sub(&worths.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?)?;
        let own = centred.f_index_select(0, cases)?;
        let means = own.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let scale = own.f_sub(&means)?.f_square()?.f_mean(Kind::Double)?.f_sqrt()?.f_double_value(&[])?.max(1e-12);
        let values = centred.f_sub(&means)?.f_div_scalar(scale)?.f_to_kind(Kind::Float)?;
        Ok(Deviations { values, means, scale })
    }
}

/// What teachers predict of cases that they did not see.
pub(super) struct Unseen {
    /// Passes that predict best.
    pub passes: usize,
    /// Deviations, by case and route.
    pub predictions: Vec<f64>,
    /// Share of the deviations' variance that is predicted.
    pub explained: f64,
}

/// Predicts each fold by teachers that learnt the others: features [M, F], worths [M, routes], a fold a case.
///
/// # Errors
/// LibTorch's.
pub(super) fn predict_unseen(features: &Tensor, worths: &Tensor, folds: &[usize]) -> Result<Unseen, TchError> {
    let (cases, routes) = worths.size2()?;
    let kept = PASSES.map(|_| Tensor::zeros([cases, routes], (Kind::Float, features.device())));
    let truth = Tensor::f_zeros([cases, routes], (Kind::Float, features.device()))?;
    for fold in 0..FOLDS {
        let places = |within: bool| -> Result<Tensor, TchError> {
            let places = folds.iter().enumerate().filter(|(_, own)| (**own == fold) == within);
            Tensor::f_from_slice(&places.map(|(case, _)| case as i64).collect::<Vec<_>>())?
                .f_to_device(features.device())
        };
        let (inside, outside) = (places(true)?, places(false)?);
        if inside.numel() == 0 || outside.numel() == 0 {
            continue;
        }
        let deviations = Deviations::of(worths, &outside)?;
        let _ = truth.shallow_clone().f_index_copy_(0, &inside, &deviations.values.f_index_select(0, &inside)?)?;
        let (seen, targets) = (features.f_index_select(0, &outside)?, deviations.values.f_index_select(0, &outside)?);
        let asked = features.f_index_select(0, &inside)?;
        for _ in 0..MEMBERS {
            let mut teacher = Teacher::new(features.size2()?.1, routes as usize, features.device())?;
            let mut done = 0;
            for (passes, kept) in PASSES.iter().zip(&kept) {
                for _ in done..*passes {
                    teacher.pass(&seen, &targets)?;
                }
                done = *passes;
                let predicted = teacher.predict(&asked)?.f_div_scalar(MEMBERS as f64)?;
                let _ = kept.shallow_clone().f_index_add_(0, &inside, &predicted)?;
            }
        }
    }
    let total = truth.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?;
    let mut best = (0, f64::INFINITY);
    for (place, kept) in kept.iter().enumerate() {
        let error = kept.f_sub(&truth)?.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?;
        if error < best.1 {
            best = (place, error);
        }
    }
    let predictions = Vec::try_from(&kept[best.0].f_to_kind(Kind::Double)?.f_flatten(0, 1)?)?;
    Ok(Unseen {
        passes: PASSES[best.0],
        predictions,
        explained: if total > 1e-12 { 1.0 - best.1 / total } else { 0.0 },
    })
}

/// A rule that was tried on unseen cases.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// What the predictions are of.
    pub utility: Utility,
    /// How far predictions are believed.
    pub k: f64,
    /// Whether routes outside the static hull may be chosen too.
    pub every_route: bool,
    /// NDCG@10 above the static mix of the same cost, by case, mean over the compared budgets.
    pub gains: Vec<f64>,
}

impl Tried {
    /// What rules are chosen by: the mean gain over cases that count.
    fn worth(&self, counts: impl Fn(usize) -> bool) -> f64 {
        let counted: Vec<f64> =
            (0..self.gains.len()).filter(|case| counts(*case)).map(|case| self.gains[case]).collect();
        Estimate::of(&counted).mean
    }
}

/// Tries how far predictions are worth believing, and whether beyond the hull.
///
/// In each fold, means and hull come from the other folds, and the rule is compared with the static mix, chosen there
/// too, that costs what it spent.
pub(super) fn try_rules(panel: &Panel, folds: &[usize], utility: Utility, predictions: &[f64]) -> Vec<Tried> {
    let slope = regression(panel, predictions);
    let rules = [false, true].into_iter().flat_map(|every_route| BELIEFS.map(|belief| (belief * slope, every_route)));
    let tried = |(k, every_route)| {
        let gains = gains(panel, folds, predictions, k, every_route);
        Tried { utility, k, every_route, gains }
    };
    rules.map(tried).collect()
}

/// The rule that gains most over the cases that count, the first of equals.
pub(super) fn best(tried: &[Tried], counts: impl Fn(usize) -> bool) -> Option<&Tried> {
    let worths = tried.iter().map(|rule| (rule, rule.worth(&counts)));
    worths.reduce(|best, rule| if rule.1 > best.1 { rule } else { best }).map(|(rule, _)| rule)
}

/// What choosing the best rule gains on users who had no part in the choice: mean over users, each the mean of their
/// cases, since what one person does is alike. In each fold it is the gain of the rule that is best on the others; the best
/// of many rules on the cases that chose it would always look good. `users` has the user of each case.
pub(super) fn gain_of_choice(tried: &[Tried], folds: &[usize], users: &[usize]) -> Estimate {
    let mut by_user: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for fold in 0..FOLDS {
        let Some(rule) = best(tried, |case| folds[case] != fold) else { continue };
        for case in (0..rule.gains.len()).filter(|case| folds[*case] == fold) {
            let (sum, count) = by_user.entry(users[case]).or_default();
            (*sum, *count) = (*sum + rule.gains[case], *count + 1.0);
        }
    }
    Estimate::of(&by_user.into_values().map(|(sum, count)| sum / count).collect::<Vec<f64>>())
}

/// The slope of worth over prediction, both as deviations; not below 0.
fn regression(panel: &Panel, predictions: &[f64]) -> f64 {
    let (mut product, mut square) = (0.0, 0.0);
    let every: Vec<usize> = (0..panel.cases()).collect();
    let means = panel.means(&every);
    for (worth, predicted) in panel.utility.chunks(panel.routes).zip(predictions.chunks(panel.routes)) {
        let level: f64 = worth.iter().zip(&means).map(|(worth, mean)| worth - mean).sum::<f64>() / panel.routes as f64;
        for ((worth, mean), predicted) in worth.iter().zip(&means).zip(predicted) {
            product += (worth - mean - level) * predicted;
            square += predicted * predicted;
        }
    }
    (product / f64::max(square, 1e-12)).max(0.0)
}

/// The rule's gain over the static mix, by case, mean over the budgets.
fn gains(panel: &Panel, folds: &[usize], predictions: &[f64], k: f64, every_route: bool) -> Vec<f64> {
    let mut gains = vec![0.0; panel.cases()];
    for fold in 0..FOLDS {
        let part =
            |within: bool| (0..panel.cases()).filter(|case| (folds[*case] == fold) == within).collect::<Vec<_>>();
        let (inside, outside) = (part(true), part(false));
        let means = panel.means(&outside);
        let hull = panel.hull(&outside, &means);
        let allowed: Vec<usize> = match every_route {
            true => (0..panel.routes).collect(),
            false => hull.routes().iter().map(|route| route.index()).collect(),
        };
        let rule = Rule { means: &means, k, predictions, allowed: &allowed };
        for budget in BUDGETS {
            let (chosen, spent) = panel.at_budget(&rule, &inside, budget);
            let mixture = panel.mixture(&inside, &hull, spent);
            for (case, route) in inside.iter().zip(chosen) {
                let gain = panel.utility[case * panel.routes + route] - panel.mixed(*case, &mixture);
                gains[*case] += gain / BUDGETS.len() as f64;
            }
        }
    }
    gains
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use canet_domain::{FfnInner, ModelShape, RouteSpace, RouterShape};

    /// 600 cases of which a feature tells whether the widest route helps, under noise: the rule is believed and gains.
    /// With features that tell nothing it gains nothing to speak of.
    #[test]
    fn what_can_be_predicted_is_believed_and_noise_is_not() {
        tch::manual_seed(4);
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4]).unwrap();
        let shape =
            ModelShape { items: 9, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 2, ffn: 4 } };
        let options = (Kind::Float, tch::Device::Cpu);
        let taste = Tensor::randn([600, 1], options);
        let noise = Tensor::randn([600, 2], options) * 0.3;
        let worths = (Tensor::cat(&[taste.zeros_like(), taste.sign()], 1) + noise).to_kind(Kind::Double);
        let folds: Vec<usize> = (0..600).map(|case| case % FOLDS).collect();
        let utility = Vec::try_from(&worths.flatten(0, 1)).unwrap();
        let panel = Panel::new(&space, &shape, 5, vec![5; 600], utility);

        let features = Tensor::cat(&[taste, Tensor::randn([600, 4], options)], 1);
        let unseen = predict_unseen(&features, &worths, &folds).unwrap();
        assert!(unseen.explained > 0.3, "{}", unseen.explained);
        // Two cases a user, in one fold.
        let users: Vec<usize> = (0..600).map(|case| case % 300).collect();
        let tried = try_rules(&panel, &folds, Utility::Ndcg, &unseen.predictions);
        let (chosen, gain) = (best(&tried, |_| true).unwrap(), gain_of_choice(&tried, &folds, &users));
        assert!(chosen.k > 0.0 && gain.mean > 4.0 * gain.se.unwrap(), "{} {gain:?}", chosen.k);

        let blind = predict_unseen(&Tensor::randn([600, 5], options), &worths, &folds).unwrap();
        assert!(blind.explained < 0.05, "{}", blind.explained);
        let tried = try_rules(&panel, &folds, Utility::Ndcg, &blind.predictions);
        let gain = gain_of_choice(&tried, &folds, &users);
        assert!(gain.mean < 2.5 * gain.se.unwrap_or_default().max(1e-3), "{gain:?}");
    }

    fn rule(gains: Vec<f64>) -> Tried {
        Tried { utility: Utility::Ndcg, k: 1.0, every_route: false, gains }
    }

    /// Of rules that all gain nothing but noise the best looks good to the cases that chose it, and not to others.
    #[test]
    fn the_best_of_many_worthless_rules_gains_nothing_on_unseen_users() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (folds, users): (Vec<usize>, Vec<usize>) = (0..100).map(|case| (case % FOLDS, case)).unzip();
        let (mut own, mut unseen) = (0.0, 0.0);
        for _ in 0..200 {
            let tried: Vec<Tried> =
                (0..24).map(|_| rule((0..100).map(|_| rng.gen_range(-1.0..1.0)).collect())).collect();
            own += best(&tried, |_| true).unwrap().worth(|_| true) / 200.0;
            unseen += gain_of_choice(&tried, &folds, &users).mean / 200.0;
        }
        assert!(own > 0.08 && unseen.abs() < 0.025, "{own} {unseen}");
    }

    #[test]
    fn a_user_is_one_observation_however_many_cases() {
        let tried = [rule(vec![1.0, 3.0, 4.0, 4.0])];
        let gain = gain_of_choice(&tried, &[0, 0, 1, 1], &[7, 7, 2, 2]);
        assert_eq!(gain, Estimate::of(&[2.0, 4.0]));
    }
}
