use super::calibrate::RoutedUsers;
use super::error::TrainError;
use crate::data::{Case, Dataset, Split};
use crate::domain::RouteSpace;
use crate::evaluation::{Metric, Ranker, Subject};
use crate::model::checkpoint::Calibration;
use crate::model::libtorch::{Device, LibTorch};
use crate::model::{Forward, ForwardError, ModelConfig, Weights};

/// The held-out users by which epochs are compared and budgets calibrated.
pub(super) struct Validation<'a> {
    config: &'a ModelConfig,
    space: &'a RouteSpace,
    device: Device,
    cases: Vec<Case<'a>>,
}

/// How weights do on the held-out users, by the router at a budget.
pub(super) struct Scored {
    /// Mean NDCG@10, full ranking.
    pub(super) ndcg: f64,
    /// Share of the full model's FLOPs saved, the router's counted.
    pub(super) saved: f64,
    /// Routes that at least one user takes.
    pub(super) routes_in_use: usize,
}

/// Histories a forward pass.
pub(super) const BATCH: usize = 64;

impl<'a> Validation<'a> {
    /// The validation users of a data set.
    pub(super) fn new(dataset: &'a Dataset, space: &'a RouteSpace, config: &'a ModelConfig, device: Device) -> Self {
        Validation { config, space, device, cases: dataset.cases(Split::Validation) }
    }

    /// Scores weights by their router, calibrated on these same users for the budget.
    ///
    /// # Errors
    /// [`TrainError`] where the device fails.
    pub(super) fn score(&self, weights: &Weights, budget: f64) -> Result<Scored, TrainError> {
        let forward = LibTorch::load(self.config, weights, self.device)?;
        let mut ranker = self.ranker(&forward)?;
        let point = self.users(&mut ranker)?.fit(budget);
        let run = ranker.routed(&point.bias)?;
        Ok(Scored {
            ndcg: run.estimate(Metric::Ndcg(10)).mean,
            saved: 1.0 - point.spent,
            routes_in_use: run.shares(self.space).len(),
        })
    }

    /// The checkpoint's calibration: every budget, and the one that it was trained for.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub(super) fn calibrate(&self, forward: &dyn Forward, own: f64) -> Result<Calibration, TrainError> {
        Ok(self.users(&mut self.ranker(forward)?)?.calibrate(own))
    }

    fn ranker<'b>(&'b self, forward: &'b dyn Forward) -> Result<Ranker<'b>, TrainError> {
        Ok(Ranker::new(self.subject(forward), &self.cases, BATCH)?)
    }

    fn subject<'b>(&'b self, forward: &'b dyn Forward) -> Subject<'b> {
        Subject { forward, space: self.space, shape: self.config.shape(), max_len: self.config.max_len }
    }

    fn users<'b>(&'b self, ranker: &'b mut Ranker<'_>) -> Result<RoutedUsers<'b>, ForwardError> {
        let lengths = self.cases.iter().map(|case| case.history.len().min(self.config.max_len)).collect();
        Ok(RoutedUsers {
            space: self.space,
            shape: self.config.shape(),
            max_len: self.config.max_len,
            logits: ranker.logits()?,
            lengths,
        })
    }
}
