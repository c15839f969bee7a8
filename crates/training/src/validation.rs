use std::collections::BTreeMap;
use std::sync::Arc;

use canet_data::{Case, Split};
use canet_domain::{Route, RoutePolicy, RouteSpace};
use canet_evaluation::{
    Baseline, BaselineInputs, EvalRun, EvaluatedModel, Metric, Ranker, VerdictRuns, evaluate, selection_cases,
    selection_step,
};
use canet_model::checkpoint::{Calibration, MetricsRecord};
use canet_model::{Device, Forward, ForwardError, LoadError, Weights};

use crate::calibration::RoutedUsers;
use crate::error::TrainError;
use crate::job::TrainJob;
use crate::records::{BaseBias, EpochRecord, Measurement, ValidationScore};

/// The users of the validation split, which compare epochs and calibrate budgets.
pub(crate) struct Validation<'a> {
    job: &'a TrainJob<'a>,
    space: &'a RouteSpace,
    cases: Vec<Case<'a>>,
}

/// Histories in one forward pass that ranks users.
pub(crate) fn ranking_batch(device: Device) -> usize {
    if device.is_cuda() { 512 } else { 64 }
}

/// Slices on which epochs without a router are compared, at most.
pub(crate) const SCORED_SLICES: usize = 3;

/// How many of `validated` users compare epochs without a router.
pub(crate) fn scored_users(validated: usize) -> usize {
    validated.div_ceil(selection_step(validated))
}

impl<'a> Validation<'a> {
    /// The validation users of a job.
    pub(crate) fn new(job: &'a TrainJob<'a>, space: &'a RouteSpace) -> Validation<'a> {
        Validation { job, space, cases: job.dataset.cases(Split::Validation) }
    }

    /// Scores weights by the routes that would serve: the router's, or one route for everybody where the router is not shown to
    /// gain. The router is calibrated for the job's budget on these same users.
    ///
    /// # Errors
    /// [`TrainError`], if the device fails.
    pub(crate) fn score_routed(
        &self,
        weights: &Weights,
        base_bias: Option<&BaseBias>,
    ) -> Result<ValidationScore, TrainError> {
        let forward = self.load(weights)?;
        let mut ranker = self.ranker(&*forward, &self.cases)?;
        let point = self.users(&mut ranker, base_bias)?.served_at(self.job.options.flops_budget);
        let policy = point.fixed_route(self.space).map_or(RoutePolicy::Router(point.bias), RoutePolicy::Fixed);
        let run = ranker.routed(&policy)?;
        Ok(ValidationScore {
            ndcg: run.estimate(Metric::Ndcg(10)).mean,
            saved: Some(1.0 - point.spent),
            routes_in_use: Some(run.route_usage(self.space).len()),
        })
    }

    /// Scores weights by the mean NDCG@10 of the smallest, the middle and the full slice. If there are many users, only
    /// a share of them takes part.
    ///
    /// # Errors
    /// [`TrainError`], if the device fails.
    pub(crate) fn score_slices(&self, weights: &Weights) -> Result<ValidationScore, TrainError> {
        let cases: Vec<Case<'_>> = self.cases.iter().copied().step_by(selection_step(self.cases.len())).collect();
        let forward = self.load(weights)?;
        let mut ranker = self.ranker(&*forward, &cases)?;
        let routes = self.scored_routes();
        let mut sum = 0.0;
        for route in &routes {
            sum += ranker.fixed(*route)?.estimate(Metric::Ndcg(10)).mean;
        }
        Ok(ValidationScore { ndcg: sum / routes.len() as f64, saved: None, routes_in_use: None })
    }

    /// The smallest, the middle and the full slice.
    fn scored_routes(&self) -> Vec<Route> {
        let last = self.space.len() - 1;
        let places: [usize; SCORED_SLICES] = [0, last / 2, last];
        let mut routes: Vec<Route> = places.iter().filter_map(|route| self.space.route(*route)).collect();
        routes.dedup();
        routes
    }

    /// Number of rankings behind a score.
    pub(crate) fn rankings(&self, score: &ValidationScore) -> usize {
        match score.saved {
            Some(_) => self.cases.len(),
            None => self.scored_routes().len() * scored_users(self.cases.len()),
        }
    }

    /// An epoch's score and what it is the score of, to follow a phrase; empty if there is none. A model of one route has
    /// only one thing to score.
    pub(crate) fn words(&self, record: &EpochRecord) -> String {
        let Some(ValidationScore { ndcg, saved, routes_in_use }) = record.validation else { return String::new() };
        if self.space.len() == 1 {
            return format!(", validation NDCG@10 {ndcg:.4}");
        }
        let of = match (saved, routes_in_use) {
            (Some(saved), Some(routes)) => format!(
                "routed at a budget of {:.0} %, {:.0} % of the full model's FLOPs, {routes} {} in use",
                100.0 * self.job.options.flops_budget,
                100.0 * (1.0 - saved),
                if routes == 1 { "route" } else { "routes" },
            ),
            _ => {
                let names: Vec<&str> = self.scored_routes().iter().map(|route| self.space.name(*route)).collect();
                format!("mean of {}", names.join(", "))
            }
        };
        format!(", validation NDCG@10 {ndcg:.4} ({of})")
    }

    /// Calibrates the standard budgets and the job's own.
    fn calibrate(&self, forward: &dyn Forward, base_bias: Option<&BaseBias>) -> Result<Calibration, TrainError> {
        let mut ranker = self.ranker(forward, &self.cases)?;
        Ok(self.users(&mut ranker, base_bias)?.calibrate(self.job.options.flops_budget))
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        self.job.backend.load(&self.job.config, weights)
    }

    fn ranker<'b>(&self, forward: &'b dyn Forward, cases: &'b [Case<'b>]) -> Result<Ranker<'b>, TrainError>
    where
        'a: 'b,
    {
        Ok(Ranker::new(evaluated(self.job, self.space, forward), cases, ranking_batch(self.job.device))?
            .seeing(self.job.options.seen()))
    }

    fn users<'b>(
        &'b self,
        ranker: &'b mut Ranker<'_>,
        base_bias: Option<&'b BaseBias>,
    ) -> Result<RoutedUsers<'b>, ForwardError> {
        let config = &self.job.config;
        let lengths = self.cases.iter().map(|case| config.window().of(case.history, 0).len()).collect();
        Ok(RoutedUsers {
            space: self.space,
            shape: config.shape(),
            max_len: config.max_len,
            logits: ranker.logits()?,
            lengths,
            base: base_bias.map(|bias| bias.base.as_slice()),
            gains: base_bias.and_then(|bias| bias.gains.as_ref()),
        })
    }
}

/// Calibrates budgets on the validation split, computes metrics of both splits at the job's own budget, and draws the verdict
/// on the test split.
///
/// # Errors
/// [`TrainError`], if the device fails.
pub(crate) fn measure(
    job: &TrainJob<'_>,
    space: &RouteSpace,
    weights: &Weights,
    base_bias: Option<&BaseBias>,
) -> Result<Measurement, TrainError> {
    let forward = job.backend.load(&job.config, weights)?;
    let calibration = Validation::new(job, space).calibrate(&*forward, base_bias)?;
    let policy = match space.len() {
        1 => RoutePolicy::Fixed(space.full()),
        _ => calibration.policy(space, job.options.flops_budget),
    };
    let inputs = BaselineInputs::new(job.dataset, &policy, job.options.seen(), job.options.seed);
    let [validation, test] = [Split::Validation, Split::Test].map(|split| job.dataset.cases(split));
    let selection = selection_cases(job.dataset);
    let ranker = |cases| -> Result<Ranker<'_>, TrainError> {
        let ranker = Ranker::new(evaluated(job, space, &*forward), cases, ranking_batch(job.device))?;
        Ok(ranker.seeing(job.options.seen()))
    };
    let validated = evaluate(&mut ranker(&validation)?, &inputs, &MEASURED, |_| ())?;
    let mut test_ranker = ranker(&test)?;
    let tested = evaluate(&mut test_ranker, &inputs, &MEASURED, |_| ())?;
    let verdict = match VerdictRuns::among(&tested) {
        Some(runs) => {
            let budget = Some(job.options.flops_budget);
            Some(runs.judge(&mut test_ranker, &mut ranker(&selection)?, budget, &policy)?)
        }
        None => None,
    };
    let metrics = MetricsRecord { validation: Some(metrics_of(&validated)), test: Some(metrics_of(&tested)) };
    Ok(Measurement { calibration, metrics, verdict })
}

/// The policies whose metrics a checkpoint records.
const MEASURED: [Baseline; 6] = [
    Baseline::Auto,
    Baseline::Full,
    Baseline::Smallest,
    Baseline::RandomMatched,
    Baseline::Popularity,
    Baseline::Markov,
];

/// Metrics of runs, named `POLICY.METRIC`, with standard errors as `POLICY.METRIC.se` and the saved share of the FLOPs as
/// `POLICY.saved`.
fn metrics_of(runs: &[EvalRun]) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    for run in runs {
        for metric in [Metric::Ndcg(10), Metric::Hr(10), Metric::Mrr] {
            let estimate = run.estimate(metric);
            metrics.insert(format!("{}.{metric}", run.name), estimate.mean);
            if let Some(se) = estimate.se {
                metrics.insert(format!("{}.{metric}.se", run.name), se);
            }
        }
        if let Some(saved) = run.saved() {
            metrics.insert(format!("{}.saved", run.name), saved);
        }
    }
    metrics
}

fn evaluated<'b>(job: &TrainJob<'_>, space: &'b RouteSpace, forward: &'b dyn Forward) -> EvaluatedModel<'b> {
    EvaluatedModel { forward, space, shape: job.config.shape(), window: job.config.window() }
}
