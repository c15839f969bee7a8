//! The order of the stages, from a job to a checkpoint.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use canet_data::Split;

use crate::checkpoint::write_checkpoint;
use crate::context::{LOG_NAME, StageContext};
use crate::epochs::Epochs;
use crate::error::TrainError;
use crate::job::{Finished, TrainJob, TrainOutcome};
use crate::log::Event;
use crate::router::fit_router;
use crate::stage::{Stage, StageEnd};
use crate::state_file::StateFile;
use crate::validation::measure;

/// The working directory of an unfinished training, inside the model's directory.
const WORK: &str = ".training";

/// How the pipeline ended.
enum PipelineEnd {
    /// All stages are done.
    Finished {
        /// For the run log.
        reason: &'static str,
    },
    /// A signal asked the process to stop.
    Stopped,
    /// The stage `stop_after` is done.
    Paused,
}

/// Trains a model and writes its checkpoint. Continues an unfinished training of the same job.
///
/// # Errors
/// [`TrainError`], whose message says what to do.
pub fn train(job: &TrainJob<'_>) -> Result<TrainOutcome, TrainError> {
    let space = job.config.check()?;
    if job.options.tied && job.config.width() != job.config.embedding_width() {
        return Err(TrainError::Untieable);
    }
    if job.dataset.training_sequences().iter().all(|sequence| sequence.len() < 2) {
        return Err(TrainError::NothingToLearn);
    }
    if job.dataset.cases(Split::Validation).is_empty() {
        return Err(TrainError::NothingToValidate);
    }
    let work = job.out.join(WORK);
    fs::create_dir_all(&work).map_err(|source| TrainError::io(&work, source))?;
    let _lock = lock(&work)?;
    if job.restart {
        StateFile::new(&work).remove()?;
    }
    let mut context = StageContext::open(job, &space, &work)?;
    let end = run_stages(&mut context).map_err(|error| error.or_diverged(context.state.progress.latest_epoch()))?;
    match end {
        PipelineEnd::Stopped => Ok(TrainOutcome::Stopped),
        PipelineEnd::Paused => Ok(TrainOutcome::Paused),
        PipelineEnd::Finished { reason } => {
            let diverged = |error: TrainError| error.or_diverged(context.state.progress.latest_epoch());
            let (checkpoint, verdict) = write_checkpoint(job, &space, &context.state).map_err(diverged)?;
            let elapsed_seconds = context.elapsed().as_secs_f64();
            context.log.write(&Event::Finish { reason, elapsed_seconds })?;
            let log = job.out.join(format!("{}.train.jsonl", checkpoint.version));
            fs::rename(work.join(LOG_NAME), &log).map_err(|source| TrainError::io(&log, source))?;
            fs::remove_dir_all(&work).map_err(|source| TrainError::io(&work, source))?;
            Ok(TrainOutcome::Finished(Box::new(Finished { checkpoint, verdict })))
        }
    }
}

/// The reason of a training that the time limit cut short, in its log.
const OUT_OF_TIME: &str = "max_minutes";

/// Locks the working directory, so that no second process writes the same state. The system frees the lock when the
/// process ends.
fn lock(work: &Path) -> Result<File, TrainError> {
    let path = work.join("lock");
    let file = File::create(&path).map_err(|source| TrainError::io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Busy { path: work.to_owned() }),
        Err(TryLockError::Error(source)) => Err(TrainError::io(&path, source)),
    }
}

/// Runs the preset's stages from the current one on.
fn run_stages(context: &mut StageContext<'_>) -> Result<PipelineEnd, TrainError> {
    let stages = context.job.options.preset.stages();
    let stop_after = stages.iter().position(|stage| context.job.stop_after == Some(*stage));
    if stop_after.is_some_and(|place| context.state.progress.stage > place) {
        return Ok(PipelineEnd::Paused);
    }
    let mut reason = "epochs";
    while let Some(stage) = stages.get(context.state.progress.stage).copied() {
        match run_stage(context, stage)? {
            Some(StageEnd::Stopped) => {
                context.save()?;
                return Ok(PipelineEnd::Stopped);
            }
            Some(StageEnd::OutOfTime) => {
                reason = OUT_OF_TIME;
                // The figures are from before the stage `newest`.
                if stage != Stage::Newest {
                    let progress = &mut context.state.progress;
                    progress.cut_short_after = Some(progress.curve.len() as u64);
                }
            }
            // A stage that time cut short stays the reason, however the later stages end.
            _ if reason == OUT_OF_TIME => {}
            Some(StageEnd::Patience) => reason = "patience",
            Some(StageEnd::Done) => reason = "epochs",
            None => {}
        }
        context.begin_next_stage()?;
        if context.job.stop_after == Some(stage) {
            return Ok(PipelineEnd::Paused);
        }
    }
    let reason = context.state.progress.cut_short_after.map_or(reason, |_| OUT_OF_TIME);
    Ok(PipelineEnd::Finished { reason })
}

/// Runs one stage. Returns `None` if there is nothing to do in it.
fn run_stage(context: &mut StageContext<'_>, stage: Stage) -> Result<Option<StageEnd>, TrainError> {
    let options = &context.job.options;
    let end = match stage {
        Stage::Router if context.space.len() == 1 => return Ok(None),
        Stage::Router => fit_router(context)?,
        Stage::Newest if options.newest.epochs == 0 => return Ok(None),
        Stage::Newest => {
            measure_before_newest(context)?;
            Epochs::new(context, stage)?.run(context)?
        }
        Stage::Joint | Stage::Supernet | Stage::Settle => Epochs::new(context, stage)?.run(context)?,
    };
    Ok(Some(end))
}

/// Measures the weights before the stage `newest` trains on the validation and test splits.
fn measure_before_newest(context: &mut StageContext<'_>) -> Result<(), TrainError> {
    if context.state.progress.measured.is_none() {
        let weights = context.state.parameters.to_weights()?;
        let base_bias = context.state.progress.base_bias.as_ref();
        context.state.progress.measured = Some(measure(context.job, context.space, &weights, base_bias)?);
        context.save()?;
    }
    Ok(())
}
