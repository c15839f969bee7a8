use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::job::TrainJob;
use super::state::RunState;
use super::validation::{Validation, batch};
use canet_data::Split;
use canet_domain::RouteSpace;
use canet_evaluation::{Contender, Contest, Metric, Ranker, Subject, evaluate};
use canet_model::Forward;
use canet_model::checkpoint::{Calibration, MetricsRecord};

/// What weights come to on users from whom they have not learnt what is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// What budgets cost and choose on validation.
    pub calibration: Calibration,
    /// On both splits.
    pub metrics: MetricsRecord,
}

/// Measures the current weights of a run: budgets are calibrated on validation, the splits ranked at the job's own.
pub(crate) fn measure(job: &TrainJob<'_>, space: &RouteSpace, state: &RunState) -> Result<Measured, TrainError> {
    let forward = job.target.load(&job.config, &state.parameters.to_weights()?)?;
    let calibration = Validation::new(job, space).calibrate(&*forward, state.progress.routing.as_ref())?;
    let bias = calibration.bias(job.options.flops_budget);
    let metrics = MetricsRecord {
        validation: Some(of_split(job, space, &*forward, &bias, Split::Validation)?),
        test: Some(of_split(job, space, &*forward, &bias, Split::Test)?),
    };
    Ok(Measured { calibration, metrics })
}

/// The runs whose metrics a checkpoint carries, by their names in an evaluation.
const MEASURED: [Contender; 6] = [
    Contender::Auto,
    Contender::Full,
    Contender::Smallest,
    Contender::RandomMatched,
    Contender::Popularity,
    Contender::Markov,
];

/// Metrics of a split as `run.metric`, standard errors as `run.metric.se`, and each run's saving as `run.saved`.
fn of_split(
    job: &TrainJob<'_>,
    space: &RouteSpace,
    forward: &dyn Forward,
    bias: &[f32],
    split: Split,
) -> Result<BTreeMap<String, f64>, TrainError> {
    let cases = job.dataset.cases(split);
    let subject = Subject { forward, space, shape: job.config.shape(), max_len: job.config.max_len };
    let contest = Contest { dataset: job.dataset, bias, seed: job.options.seed };
    let mut metrics = BTreeMap::new();
    for run in evaluate(&mut Ranker::new(subject, &cases, batch(job.device))?, &contest, &MEASURED)? {
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
    Ok(metrics)
}
