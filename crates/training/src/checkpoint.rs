use canet_data::{Dataset, Split};
use canet_domain::{Catalogue, History, RouteSpace, Window};
use canet_evaluation::Verdict;
use canet_model::checkpoint::{CheckpointDraft, DataRecord, Probes, TrainingRecord};
use canet_model::{Device, Precision};
use canet_torch::TorchForward;

use crate::error::TrainError;
use crate::job::TrainJob;
use crate::state::TrainState;
use crate::validation::measure;

/// Number of probes in a checkpoint.
const PROBES: usize = 8;

/// Writes the weights of the last stage as a checkpoint and returns its version. The verdict is `None` if an older
/// program measured the model.
///
/// If the last stage could train on the splits that measure a model, the checkpoint has the measurement from before that
/// stage.
///
/// # Errors
/// [`TrainError`], if the device fails or the checkpoint cannot be written.
pub(crate) fn write_checkpoint(
    job: &TrainJob<'_>,
    space: &RouteSpace,
    state: &TrainState,
) -> Result<(u64, Option<Verdict>), TrainError> {
    let weights = state.parameters.to_weights()?;
    let dataset = job.dataset;
    let measured = match &state.progress.measured {
        Some(before) => before.clone(),
        None => measure(job, space, &weights, state.progress.base_bias.as_ref())?,
    };
    let everything = state.progress.has_learnt_everything();
    let trained_on = if everything { dataset.whole_sequences() } else { dataset.training_sequences() };
    let catalogue = Catalogue::new(dataset.ids.clone(), dataset.popularity_in(&trained_on))?
        .with_titles(dataset.titles.iter().cloned());
    let reference = TorchForward::load(&job.config, &weights, Precision::Fp32, Device::CPU)?;
    let probes = Probes::record(&reference, space, &probe_histories(dataset, job.config.window()))?;
    let draft = CheckpointDraft {
        config: job.config.clone(),
        weights,
        catalogue,
        probes,
        data: DataRecord {
            name: dataset.name.clone(),
            sha256: dataset.sha256.clone(),
            parsed_sha256: Some(dataset.parsed_sha256.clone()),
            users: Some(dataset.users.len() as u64),
            items: dataset.ids.len() as u64,
            interactions: Some(dataset.interactions),
        },
        metrics: measured.metrics,
        calibration: Some(measured.calibration),
        training: Some(TrainingRecord {
            everything,
            from_everything: job.source.is_some_and(|source| source.manifest.has_learnt_everything()),
            cut_short_after: state.progress.cut_short_after,
            ..job.options.record()
        }),
        exclude_seen: job.options.exclude_seen,
    };
    Ok((draft.publish(job.out)?, measured.verdict))
}

/// Histories of users, at even steps from the shortest to the longest.
fn probe_histories(dataset: &Dataset, window: Window) -> Vec<History> {
    let mut cases = dataset.cases(Split::Train);
    cases.sort_by_key(|case| case.history.len());
    let (last, count) = (cases.len().saturating_sub(1), PROBES.min(cases.len()));
    (0..count)
        .filter_map(|place| cases.get(place * last / (count - 1).max(1)))
        .filter_map(|case| History::in_window(case.history, window, 0).ok())
        .collect()
}
