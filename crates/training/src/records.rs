//! Results of stages and epochs, as the state file and the run log record them.

use canet_evaluation::{Estimate, Verdict, t_critical};
use canet_model::checkpoint::{Calibration, MetricsRecord};
use serde::{Deserialize, Serialize};

use crate::stage::Stage;
use crate::step_loss::LossValues;

/// The result of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    pub stage: Stage,
    /// Number of the epoch in its stage, from 1.
    pub epoch: u64,
    /// Mean loss over its steps whose loss is finite.
    pub train: LossValues,
    /// `None` in the stage `newest`, which trains on the validation split.
    #[serde(flatten)]
    pub validation: Option<ValidationScore>,
}

/// Accuracy on the validation split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ValidationScore {
    /// Mean NDCG@10 over the whole catalogue: with the router's routes at the job's budget, or as the mean over some
    /// slices.
    pub ndcg: f64,
    /// Share of the full model's FLOPs that the router's routes save, with the router's own FLOPs counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<f64>,
    /// Number of routes that at least one user takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes_in_use: Option<usize>,
}

/// The bias of each route before the price of its FLOPs, in the unit of the router's logits.
///
/// It is the route's mean utility over all users. Routes that must not be chosen have a bias far below all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BaseBias {
    pub base: Vec<f32>,
    /// What the router gains under each budget. A state that was saved by an older version has none.
    #[serde(default)]
    pub gains: Option<RouterGains>,
}

/// What the router gains under each budget, on held-out cases of users that its predictors did not see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RouterGains {
    /// Mean NDCG@10 of each route over all held-out cases.
    pub means: Vec<f64>,
    pub budgets: Vec<BudgetGain>,
}

/// The router's gain in NDCG@10 under a budget, over the static mixture of routes that costs as much as routes and router.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BudgetGain {
    /// Share of the full model's FLOPs, the router's included.
    pub budget: f64,
    #[serde(flatten)]
    pub gain: Estimate,
    /// Number of users behind the gain. A state that was saved by an older version has none.
    #[serde(default)]
    pub users: Option<u64>,
}

impl BudgetGain {
    /// Lower end of the 95 % interval, by Student's t as in a verdict. Without a number of users, the interval is that of
    /// infinitely many.
    fn lower(&self) -> f64 {
        let degrees = self.users.map_or(f64::INFINITY, |users| users as f64 - 1.0);
        self.gain.mean - t_critical(degrees) * self.gain.se.unwrap_or(f64::INFINITY)
    }
}

impl RouterGains {
    /// Whether the router is shown to gain under a budget: the lower end of the 95 % interval is above 0.
    pub(crate) fn shows_gain_at(&self, budget: f64) -> bool {
        self.budgets.iter().any(|at| (at.budget - budget).abs() < 1e-9 && at.lower() > 0.0)
    }
}

/// What a checkpoint records of its weights' accuracy and cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// Route biases for several budgets, fitted on the validation split.
    pub calibration: Calibration,
    /// Metrics on the validation and test splits, at the job's own budget.
    pub metrics: MetricsRecord,
    /// The conclusion from the test split. A state that was saved by an older version has none.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of Student's t give 2.776 for 4 degrees of freedom, and 1.960 for infinitely many.
    #[test]
    fn a_gain_of_few_users_needs_more_standard_errors() {
        let shown = |mean: f64, users: Option<u64>| {
            let gain = BudgetGain { budget: 0.3, gain: Estimate { mean, se: Some(0.1) }, users };
            RouterGains { means: Vec::new(), budgets: vec![gain] }.shows_gain_at(0.3)
        };
        assert_eq!([0.277, 0.278].map(|mean| shown(mean, Some(5))), [false, true]);
        assert_eq!([0.195, 0.197].map(|mean| shown(mean, None)), [false, true]);
        let old: BudgetGain = serde_json::from_str(r#"{"budget": 0.3, "mean": 0.2, "se": 0.1}"#).unwrap();
        assert_eq!(old.users, None);
    }
}
