//! The order of the stages, from a job to a checkpoint.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use canet_model::checkpoint::{Checkpoint, CheckpointError, ModelDirectory};

use crate::checkpoint::write_checkpoint;
use crate::context::{LOG_NAME, StageContext};
use crate::display::Display;
use crate::epochs::Epochs;
use crate::error::TrainError;
use crate::job::{Finished, TrainJob, TrainOutcome};
use crate::log::Event;
use crate::router::fit_router;
use crate::stage::{Stage, StageEnd};
use crate::state_file::StateFile;
use crate::validation::measure;
use crate::warm_start::SourceRecord;

/// The working directory of an unfinished training, inside the model's directory.
const WORK: &str = ".training";

/// How the pipeline ended.
enum PipelineEnd {
    /// All stages are done.
    Finished,
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
    check_out(job.out)?;
    let space = job.config.check()?;
    if job.options.tied && job.config.width() != job.config.embedding_width() {
        return Err(TrainError::Untieable);
    }
    job.dataset.check_lengths()?;
    let work = job.out.join(WORK);
    fs::create_dir_all(&work).map_err(|source| TrainError::Directory { path: work.clone(), source })?;
    let _lock = lock(&work)?;
    if let Some(checkpoint) = clean_up_earlier(job, &work)? {
        return Ok(TrainOutcome::Finished(Box::new(Finished { checkpoint, verdict: None })));
    }
    if job.restart {
        StateFile::new(&work).remove()?;
    }
    let mut context = StageContext::open(job, &space, &work)?;
    let end = run_stages(&mut context).map_err(|error| error.or_diverged(context.state.progress.latest_epoch()))?;
    match end {
        PipelineEnd::Stopped => Ok(TrainOutcome::Stopped),
        PipelineEnd::Paused => Ok(TrainOutcome::Paused),
        PipelineEnd::Finished => {
            let diverged = |error: TrainError| error.or_diverged(context.state.progress.latest_epoch());
            let (version, verdict) = write_checkpoint(job, &space, &context.state).map_err(diverged)?;
            context.finish(version)?;
            let (reason, elapsed) = (context.state.progress.finish_reason(), context.elapsed());
            context.log.write(&Event::Finish { reason, elapsed_seconds: elapsed.as_secs_f64() })?;
            let checkpoint = read_back(job, version)?;
            clean_up(job, &work, version)?;
            Ok(TrainOutcome::Finished(Box::new(Finished { checkpoint, verdict })))
        }
    }
}

/// Refuses a directory that cannot be a model's, which would otherwise fail the training once all of it is done.
fn check_out(out: &Path) -> Result<(), TrainError> {
    use CheckpointError::{IsVersion, NoModel, NoName, NotADirectory};
    match ModelDirectory::open(out) {
        Err(error @ (IsVersion { .. } | NoName { .. } | NotADirectory { .. })) => Err(TrainError::Out(error)),
        Err(NoModel { path }) if path.file_name().is_some_and(|name| name.to_str().is_none()) => {
            Err(TrainError::Out(NoName { path }))
        }
        // A model without a version is none of these, and gets its first one.
        _ => Ok(()),
    }
}

/// The model from which an unfinished training in `out` started, or one that wrote its version and was stopped before its own
/// end. `None` if there is no such training, or if it started from random weights.
///
/// # Errors
/// [`TrainError`], if the state cannot be read.
pub fn recorded_source(out: &Path) -> Result<Option<SourceRecord>, TrainError> {
    let work = out.join(WORK);
    let state = StateFile::finished(&work)?.map_or_else(|| StateFile::new(&work), |(_, state)| state);
    Ok(state.progress()?.and_then(|progress| progress.options.from))
}

/// Whether [`train`] discards what an earlier training left in the directory, because it has written its version and the job
/// is another one.
///
/// # Errors
/// [`TrainError`], if the state cannot be read.
pub fn discards_earlier(job: &TrainJob<'_>) -> Result<bool, TrainError> {
    StateFile::finished(&job.out.join(WORK))?.map_or(Ok(false), |(_, state)| is_of_another_job(job, &state))
}

/// Whether a finished training is not that of the job.
fn is_of_another_job(job: &TrainJob<'_>, state: &StateFile) -> Result<bool, TrainError> {
    Ok(job.restart || state.progress()?.is_none_or(|progress| progress.differs_from(job).is_some()))
}

/// Reads the version of a training back, with all its checks.
fn read_back(job: &TrainJob<'_>, version: u64) -> Result<Checkpoint, CheckpointError> {
    ModelDirectory::open(job.out)?.load(Some(version))
}

/// Moves the log of a training beside its version and removes the rest of the training.
fn clean_up(job: &TrainJob<'_>, work: &Path, version: u64) -> Result<(), TrainError> {
    keep_log(job, work, version)?;
    fs::remove_dir_all(work).map_err(|source| TrainError::io(work, source))
}

/// Cleans up after an earlier process that was stopped once it had written its version. Returns the version if it is that
/// of this job, which then needs no training. If it is gone or damaged, its state stays and the training goes on after
/// its last epoch.
fn clean_up_earlier(job: &TrainJob<'_>, work: &Path) -> Result<Option<Checkpoint>, TrainError> {
    let Some((version, state)) = StateFile::finished(work)? else { return Ok(None) };
    if is_of_another_job(job, &state)? {
        keep_log(job, work, version)?;
        state.remove()?;
        return Ok(None);
    }
    match read_back(job, version) {
        Ok(checkpoint) => {
            clean_up(job, work, version)?;
            Ok(Some(checkpoint))
        }
        Err(error) => {
            Display::new()
                .line(&format!("the version of this training cannot be read back, so it is written again: {error}"));
            state.unfinish()?;
            Ok(None)
        }
    }
}

/// Moves the log of a training beside its version, if that is not done.
fn keep_log(job: &TrainJob<'_>, work: &Path, version: u64) -> Result<(), TrainError> {
    let log = job.out.join(format!("{version}.train.jsonl"));
    match fs::rename(work.join(LOG_NAME), &log) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(TrainError::io(&log, source)),
        _ => Ok(()),
    }
}

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
    while let Some(stage) = stages.get(context.state.progress.stage).copied() {
        let end = run_stage(context, stage)?;
        match end {
            Some(StageEnd::Stopped) => {
                context.save()?;
                return Ok(PipelineEnd::Stopped);
            }
            Some(StageEnd::OutOfTime) => tell_cut_short(context, stage)?,
            _ => {}
        }
        context.state.progress.end_stage(stage, end);
        context.begin_next_stage()?;
        if context.job.stop_after == Some(stage) {
            return Ok(PipelineEnd::Paused);
        }
    }
    Ok(PipelineEnd::Finished)
}

/// Prints and logs that the time limit ended a stage.
fn tell_cut_short(context: &mut StageContext<'_>, stage: Stage) -> Result<(), TrainError> {
    let (epochs, of) = (context.state.progress.epoch, context.job.options.stage_epochs(stage));
    let steps = context.state.progress.step;
    let name = stage.name();
    context.display.line(&match (stage, epochs, steps) {
        (Stage::Router, ..) => format!("{name}: --max-minutes ended the stage early"),
        (Stage::Newest, 0, 0) => format!(
            "{name}: --max-minutes left no time for the stage, so the model has not learnt the validation and test splits"
        ),
        (_, 0, 0) => format!("{name}: --max-minutes left no time for the stage"),
        _ => format!("{name}: --max-minutes ended the stage after {epochs} of {of} epochs and {steps} steps"),
    });
    context.log.write(&Event::CutShort { stage, epochs, of, steps })
}

/// Runs one stage. Returns `None` if there is nothing to do in it.
fn run_stage(context: &mut StageContext<'_>, stage: Stage) -> Result<Option<StageEnd>, TrainError> {
    if !context.job.options.has_work(stage, context.space.len()) {
        return Ok(None);
    }
    let end = match stage {
        Stage::Router => fit_router(context)?,
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
