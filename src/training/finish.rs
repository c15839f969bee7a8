use std::collections::BTreeMap;

use super::error::TrainError;
use super::job::TrainJob;
use super::state::RunState;
use super::validation::{Validation, batch};
use crate::data::{Dataset, Split};
use crate::domain::{Catalogue, History, RouteSpace};
use crate::evaluation::{Contender, Contest, Metric, Ranker, Subject, evaluate};
use crate::model::Forward;
use crate::model::checkpoint::{Checkpoint, CheckpointDraft, DataRecord, MetricsRecord, Probes};
use crate::model::libtorch::{Device, LibTorch};

/// Probes a checkpoint.
const PROBES: usize = 8;

/// Turns the best weights into a checkpoint: calibrated on validation, measured on both splits, with probes.
pub(super) fn finish(job: &TrainJob<'_>, space: &RouteSpace, state: &RunState) -> Result<Checkpoint, TrainError> {
    let weights = state.parameters.to_weights()?;
    let dataset = job.dataset;
    let catalogue =
        Catalogue::new(dataset.ids.clone(), dataset.popularity())?.with_titles(dataset.titles.iter().cloned());
    let reference = LibTorch::load(&job.config, &weights, Device::CPU)?;
    let probes = Probes::record(&reference, space, &probe_histories(dataset, job.config.max_len))?;
    let forward = job.target.load(&job.config, &weights)?;
    let calibration = Validation::new(job, space).calibrate(&*forward, state.progress.routing.as_ref())?;
    let bias = calibration.bias(job.options.flops_budget);
    let metrics = MetricsRecord {
        validation: Some(measure(job, space, &*forward, &bias, Split::Validation)?),
        test: Some(measure(job, space, &*forward, &bias, Split::Test)?),
    };
    let draft = CheckpointDraft {
        config: job.config.clone(),
        weights,
        catalogue,
        probes,
        data: DataRecord {
            name: dataset.name.clone(),
            sha256: dataset.sha256.clone(),
            users: Some(dataset.users.len() as u64),
            items: dataset.ids.len() as u64,
            interactions: Some(dataset.interactions),
        },
        metrics,
        calibration: Some(calibration),
        training: Some(job.options.record()),
    };
    Ok(draft.write(job.out)?)
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
fn measure(
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

/// Histories of real users, from the shortest to the longest that the model reads.
fn probe_histories(dataset: &Dataset, max_len: usize) -> Vec<History> {
    let mut cases = dataset.cases(Split::Train);
    cases.sort_by_key(|case| case.history.len());
    let last = cases.len().saturating_sub(1);
    (0..PROBES.min(cases.len()))
        .filter_map(|place| cases.get(place * last / (PROBES - 1)))
        .filter_map(|case| History::new(case.history, max_len).ok())
        .collect()
}
