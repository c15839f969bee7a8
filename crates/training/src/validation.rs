use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calibrate::RoutedUsers;
use super::error::TrainError;
use super::job::TrainJob;
use super::router::Routing;
use canet_data::{Case, Split};
use canet_domain::RouteSpace;
use canet_evaluation::{Metric, Ranker, Subject};
use canet_model::checkpoint::Calibration;
use canet_model::{Device, Forward, ForwardError, LoadError, Weights};

/// The held-out users by which epochs are compared and budgets calibrated.
pub(crate) struct Validation<'a> {
    job: &'a TrainJob<'a>,
    space: &'a RouteSpace,
    cases: Vec<Case<'a>>,
}

/// How weights do on held-out users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scored {
    /// Mean NDCG@10, full ranking: by the router at the budget, or over the slices that are looked at.
    pub(crate) ndcg: f64,
    /// Share of the full model's FLOPs saved there, the router's counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) saved: Option<f64>,
    /// Routes that at least one user takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routes_in_use: Option<usize>,
}

/// Histories a forward pass on a device.
pub(crate) fn batch(device: Device) -> usize {
    if device.is_cuda() { 512 } else { 64 }
}

/// Most users by whom epochs without a router are compared.
const MOST_USERS: usize = 5000;

impl<'a> Validation<'a> {
    /// The validation users of a job.
    pub(crate) fn new(job: &'a TrainJob<'a>, space: &'a RouteSpace) -> Validation<'a> {
        Validation { job, space, cases: job.dataset.cases(Split::Validation) }
    }

    /// Scores weights by their router, calibrated on these same users for the job's budget.
    ///
    /// # Errors
    /// [`TrainError`] where the device fails.
    pub(crate) fn routed(&self, weights: &Weights, routing: Option<&Routing>) -> Result<Scored, TrainError> {
        let forward = self.load(weights)?;
        let mut ranker = self.ranker(&*forward, &self.cases)?;
        let point = self.users(&mut ranker, routing)?.fit(self.job.options.flops_budget);
        let run = ranker.routed(&point.bias)?;
        Ok(Scored {
            ndcg: run.estimate(Metric::Ndcg(10)).mean,
            saved: Some(1.0 - point.spent),
            routes_in_use: Some(run.shares(self.space).len()),
        })
    }

    /// Scores weights by the mean of the smallest, the middle and the full slice, on a share of the users where there
    /// are many.
    ///
    /// # Errors
    /// [`TrainError`] where the device fails.
    pub(crate) fn slices(&self, weights: &Weights) -> Result<Scored, TrainError> {
        let every = self.cases.len().div_ceil(MOST_USERS).max(1);
        let cases: Vec<Case<'_>> = self.cases.iter().copied().step_by(every).collect();
        let forward = self.load(weights)?;
        let mut ranker = self.ranker(&*forward, &cases)?;
        let last = self.space.len() - 1;
        let mut routes = vec![0, last / 2, last];
        routes.dedup();
        let mut sum = 0.0;
        for route in routes.iter().filter_map(|route| self.space.route(*route)) {
            sum += ranker.fixed(route)?.estimate(Metric::Ndcg(10)).mean;
        }
        Ok(Scored { ndcg: sum / routes.len() as f64, saved: None, routes_in_use: None })
    }

    /// The checkpoint's calibration: every budget, and the one that it was trained for.
    ///
    /// # Errors
    /// [`TrainError`] where the device fails.
    pub(crate) fn calibrate(
        &self,
        forward: &dyn Forward,
        routing: Option<&Routing>,
    ) -> Result<Calibration, TrainError> {
        let mut ranker = self.ranker(forward, &self.cases)?;
        Ok(self.users(&mut ranker, routing)?.calibrate(self.job.options.flops_budget))
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        self.job.target.load(&self.job.config, weights)
    }

    fn ranker<'b>(&self, forward: &'b dyn Forward, cases: &'b [Case<'b>]) -> Result<Ranker<'b>, TrainError>
    where
        'a: 'b,
    {
        let config = &self.job.config;
        let subject = Subject { forward, space: self.space, shape: config.shape(), max_len: config.max_len };
        Ok(Ranker::new(subject, cases, batch(self.job.device))?)
    }

    fn users<'b>(
        &'b self,
        ranker: &'b mut Ranker<'_>,
        routing: Option<&'b Routing>,
    ) -> Result<RoutedUsers<'b>, ForwardError> {
        let config = &self.job.config;
        let lengths = self.cases.iter().map(|case| case.history.len().min(config.max_len)).collect();
        Ok(RoutedUsers {
            space: self.space,
            shape: config.shape(),
            max_len: config.max_len,
            logits: ranker.logits()?,
            lengths,
            base: routing.map(|routing| routing.base.as_slice()),
        })
    }
}
