use canet_data::Case;
use canet_domain::Item;
use canet_evaluation::Estimate;
use tch::{Kind, TchError, Tensor};

use super::crossfit::{self, FOLDS, MOST_PASSES, cross_fit, deviations};
use super::features::Features;
use super::policy::{CaseTable, MeasuredCase, RouteCosts};
use super::predictor::UtilityPredictor;
use super::rules::{Cases, RULES, RoutingRule, RuleTrial, RuleTrials, gain_of_choice, gains_by_budget};
use crate::calibration::budgets;
use crate::context::StageContext;
use crate::error::TrainError;
use crate::forecast::Work;
use crate::records::BudgetGain;
use crate::route_ranks::Utility;
use crate::stage::StageEnd;
use crate::state::derive_seed;

/// The measured held-out cases.
pub(super) struct MeasuredCases<'a> {
    pub cases: &'a [Case<'a>],
    pub table: CaseTable,
    pub features: Features,
    /// Features of the cases, in host memory: `[M, F]`
    pub inputs: Tensor,
    /// Fold of each case. All cases of a user are in one fold.
    folds: Vec<usize>,
}

/// Predictors of the utilities, and the rule that turns their predictions into routes.
pub(super) struct UtilityFit {
    /// Share of the variance of the rule's utility that is predicted for users outside the fit.
    pub explained: f64,
    /// The rule that gains most.
    pub rule: RoutingRule,
    /// The gain in NDCG@10 of choosing this rule, estimated on users who had no part in the choice.
    pub gain: Estimate,
    /// The same under each budget of the calibration, the router's FLOPs included.
    pub budgets: Vec<BudgetGain>,
    predictors: Vec<UtilityPredictor>,
}

/// Predictors whose mean prediction the router learns.
const PREDICTORS: usize = 5;

/// What a fit counts on the display, at most: training passes, rules, and folds in which budgets are compared.
pub(super) const UNITS: u64 = (2 * (crossfit::TRAINING_PASSES + RULES) + FOLDS + PREDICTORS * MOST_PASSES) as u64;

impl<'a> MeasuredCases<'a> {
    /// Prepares the cases that have ranks in the state.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn new(context: &StageContext<'_>, cases: &'a [Case<'a>]) -> Result<MeasuredCases<'a>, TchError> {
        let config = &context.job.config;
        let narrowest = context.space.embedding().first().copied().unwrap_or_default();
        let histories: Vec<&[Item]> = cases.iter().map(|case| case.history).collect();
        let counts = context.job.dataset.popularity();
        let mut features = Features::new(&context.state.parameters, narrowest, &counts, config.window())?;
        let inputs = features.standardise(&histories)?; // [M, F]
        let measured = |case: &Case<'_>| {
            let length = config.window().of(case.history, 0).len();
            MeasuredCase { user: case.user, length }
        };
        let measured: Vec<MeasuredCase> = cases.iter().map(measured).collect();
        let ndcg = context.state.ranks.utilities(Utility::Ndcg);
        let costs = RouteCosts::new(context.space, &config.shape(), config.max_len);
        let table = CaseTable::new(costs, &measured, ndcg);
        let fold = |case: &Case<'_>| (derive_seed(0, [case.user as u64, 0]) % FOLDS as u64) as usize;
        Ok(MeasuredCases { cases, folds: cases.iter().map(fold).collect(), table, features, inputs })
    }

    /// Chooses the rule that gains most, and trains predictors of its utility on all cases. `None` if the training is stopped.
    /// Counts up to [`UNITS`] on the display. If time runs out, predictors stay as they are, and further rules are not tried.
    ///
    /// # Errors
    /// [`TrainError`], if the device fails.
    pub(super) fn fit(&self, context: &StageContext<'_>) -> Result<Option<UtilityFit>, TrainError> {
        let device = self.inputs.device();
        let measured = Work { rankings: (self.cases.len() * self.table.routes) as f64, ..Work::default() };
        let next = || {
            context.display.advance(1, context.time_left(measured));
            context.exhausted()
        };
        let predicted =
            |utility: Utility| cross_fit(&self.inputs, &self.utilities(context, utility)?, &self.folds, next);
        let Some(ndcg) = predicted(Utility::Ndcg)? else { return Ok(None) };
        let Some(log_rank) = predicted(Utility::LogRank)? else { return Ok(None) };
        let tried = |utility, fit| RuleTrials::of(&self.table, &self.folds, utility, fit, next);
        let Some(trials) = tried(Utility::Ndcg, &ndcg) else { return Ok(None) };
        let Some(others) = tried(Utility::LogRank, &log_rank) else { return Ok(None) };
        let trials = trials.and(others);
        let users: Vec<usize> = self.cases.iter().map(|case| case.user).collect();
        let gain = gain_of_choice(&trials, &self.folds, &users);
        let cases = Cases { table: &self.table, folds: &self.folds, users: &users };
        let budgets = budgets(context.job.options.flops_budget);
        let Some(budgets) = gains_by_budget(&cases, &trials, &budgets, next) else { return Ok(None) };
        let RuleTrial { rule, fit, .. } = trials.best(|_| true);
        let every = Tensor::f_arange(self.cases.len() as i64, (Kind::Int64, device))?; // [M]
        let targets = deviations(&self.utilities(context, rule.utility)?, &every)?; // [M, routes]
        let mut predictors = Vec::with_capacity(PREDICTORS);
        for _ in 0..PREDICTORS {
            let mut predictor = UtilityPredictor::new(self.inputs.size2()?.1, self.table.routes, device)?;
            for _ in 0..fit.passes {
                match next() {
                    None => predictor.train_pass(&self.inputs, &targets)?,
                    Some(StageEnd::Stopped) => return Ok(None),
                    Some(_) => break,
                }
            }
            predictors.push(predictor);
        }
        Ok(Some(UtilityFit { explained: fit.explained, rule: *rule, gain, budgets, predictors }))
    }

    /// The utility of each route for each case: `[M, routes]`
    fn utilities(&self, context: &StageContext<'_>, utility: Utility) -> Result<Tensor, TchError> {
        let shape = [self.cases.len() as i64, self.table.routes as i64];
        let values = Tensor::f_from_slice(&context.state.ranks.utilities(utility))?;
        values.f_reshape(shape)?.f_to_device(self.inputs.device())
    }
}

impl UtilityFit {
    /// The mean of all predictions: `[M, F] -> [M, routes]`
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn predict(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let predictions =
            self.predictors.iter().map(|predictor| predictor.predict(features)).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_stack(&predictions, 0)?.f_mean_dim([0_i64].as_slice(), false, Kind::Float) // [M, routes]
    }
}
