use canet_torch::tch_device;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::display::Display;
use super::epochs::Epochs;
use super::error::TrainError;
use super::finish::finish;
use super::holdout::Holdout;
use super::job::{Outcome, TrainJob};
use super::log::{Event, RunLog};
use super::measured::measure;
use super::optimizer::AdamW;
use super::router::fit_router;
use super::stage::Stage;
use super::state::{Progress, RunState};
use super::state_file::StateFile;
use super::terms::Terms;
use canet_data::Split;
use canet_domain::RouteSpace;

/// Where an unfinished run keeps its state and log, inside the model's directory.
const WORK: &str = ".training";

/// Time between saves within an epoch.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Trains to the end, or until stopped, and writes the checkpoint.
///
/// # Errors
/// [`TrainError`] that says what to do.
pub fn train(job: &TrainJob<'_>) -> Result<Outcome, TrainError> {
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
    let _alone = lock(&work)?;
    if job.restart {
        StateFile::of(&work).remove()?;
    }
    let mut run = Run::open(job, &space, &work)?;
    match run.stages()? {
        Stages::Stopped => Ok(Outcome::Stopped),
        Stages::Paused => Ok(Outcome::Paused),
        Stages::Ended(reason) => {
            let checkpoint = finish(job, &space, &run.state)?;
            let elapsed_seconds = run.elapsed().as_secs_f64();
            run.log.write(&Event::Finish { reason, elapsed_seconds })?;
            let log = job.out.join(format!("{}.train.jsonl", checkpoint.version));
            fs::rename(work.join("log.jsonl"), &log).map_err(|source| TrainError::io(&log, source))?;
            fs::remove_dir_all(&work).map_err(|source| TrainError::io(&work, source))?;
            Ok(Outcome::Finished(Box::new(checkpoint)))
        }
    }
}

/// Keeps a second process out of a run: both would write one state. The system frees the lock when the process ends.
fn lock(work: &Path) -> Result<File, TrainError> {
    let path = work.join("lock");
    let file = File::create(&path).map_err(|source| TrainError::io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Busy { path: work.to_owned() }),
        Err(TryLockError::Error(source)) => Err(TrainError::io(&path, source)),
    }
}

/// A run under way.
pub(crate) struct Run<'a> {
    /// What is to be done.
    pub job: &'a TrainJob<'a>,
    /// The routes.
    pub space: &'a RouteSpace,
    /// What the router learns from and the supernet does not.
    pub holdout: Holdout<'a>,
    /// Where it stands.
    pub state: RunState,
    /// What it did.
    pub log: RunLog,
    /// What a person sees.
    pub display: Display,
    file: StateFile,
    /// When this process began, and the time that earlier ones spent.
    started: Instant,
    spent_before: Duration,
    saved: Instant,
}

/// How the stages of a run were left.
enum Stages {
    /// All are done; why the last one ended, or that time cut any of them short.
    Ended(&'static str),
    /// Somebody stopped the run.
    Stopped,
    /// The stage that was asked for is done.
    Paused,
}

/// Why a stage was left.
pub(crate) enum Pause {
    /// There is nothing to do in it.
    LeftOut,
    /// It is done.
    Done,
    /// There was no better epoch for a while.
    Patience,
    /// Its time is over.
    OutOfTime,
    /// Somebody stopped the run.
    Stopped,
}

impl<'a> Run<'a> {
    fn open(job: &'a TrainJob<'a>, space: &'a RouteSpace, work: &Path) -> Result<Run<'a>, TrainError> {
        let file = StateFile::of(work);
        let (mut state, resumed) = match file.load(tch_device(job.device))? {
            Some(state) => (state, true),
            None => (RunState::fresh(job)?, false),
        };
        if let Some(what) = state.progress.differs_in(job) {
            return Err(TrainError::OtherRun { path: work.to_owned(), what });
        }
        state.progress.options = job.options.clone();
        let mut log = RunLog::open(&work.join("log.jsonl"), state.progress.log_bytes)?;
        let Progress { stage, epoch, step, elapsed_seconds, .. } = state.progress;
        let device = job.device.to_string();
        log.write(&Event::Start {
            resumed,
            stage: job.options.preset.stages().get(stage).copied(),
            epoch,
            step,
            device: &device,
            config: &job.config,
            training: &job.options.record(),
            max_minutes: job.max_time.map(|limit| limit.as_secs_f64() / 60.0),
            data_sha256: &job.dataset.sha256,
        })?;
        let most = match job.options.preset.stages().contains(&Stage::Router) && space.len() > 1 {
            true => job.options.router.holdout,
            false => 0,
        };
        Ok(Run {
            job,
            space,
            holdout: Holdout::new(job.dataset, most),
            state,
            log,
            display: Display::new(),
            file,
            started: Instant::now(),
            spent_before: Duration::from_secs_f64(elapsed_seconds),
            saved: Instant::now(),
        })
    }

    /// Stage after stage.
    fn stages(&mut self) -> Result<Stages, TrainError> {
        let mut reason = "epochs";
        while let Some(stage) = self.job.options.preset.stages().get(self.state.progress.stage).copied() {
            let pause = match stage {
                Stage::Router if self.space.len() == 1 => Pause::LeftOut,
                Stage::Router => fit_router(self)?,
                Stage::Newest if self.job.options.newest.epochs == 0 => Pause::LeftOut,
                Stage::Newest => {
                    self.measure_before_all_is_learnt()?;
                    Epochs::of(self, stage)?.run(self)?
                }
                Stage::Joint | Stage::Supernet | Stage::Settle => Epochs::of(self, stage)?.run(self)?,
            };
            reason = match pause {
                Pause::LeftOut => reason,
                Pause::Stopped => {
                    self.save()?;
                    return Ok(Stages::Stopped);
                }
                Pause::OutOfTime => "max_minutes",
                // A stage that was cut short is the reason whatever the later ones did.
                _ if reason == "max_minutes" => reason,
                Pause::Patience => "patience",
                Pause::Done => "epochs",
            };
            self.next_stage()?;
            if self.job.stop_after == Some(stage) {
                return Ok(Stages::Paused);
            }
        }
        Ok(Stages::Ended(reason))
    }

    fn measure_before_all_is_learnt(&mut self) -> Result<(), TrainError> {
        if self.state.progress.measured.is_none() {
            self.state.progress.measured = Some(measure(self.job, self.space, &self.state)?);
            self.save()?;
        }
        Ok(())
    }

    /// Goes on from the best weights of a stage, with a fresh optimizer.
    fn next_stage(&mut self) -> Result<(), TrainError> {
        let best = std::mem::take(&mut self.state.best);
        let weights = if best.parameters() > 0 { best } else { self.state.parameters.to_weights()? };
        // Made anew in any case: a gradient left by one stage, if only zero, would let the next one's decay move what it
        // does not train.
        self.state.parameters = self.job.parameters(&weights)?;
        self.state.optimizer = AdamW::new(self.job.options.optimizer, &self.state.parameters)?;
        let elapsed = self.elapsed().as_secs_f64();
        let progress = &mut self.state.progress;
        if progress.epoch == 0 && progress.step == 0 {
            // What was to be learnt after measuring was not: out of time, or no longer asked for.
            progress.measured = None;
        }
        (progress.stage, progress.stage_began) = (progress.stage + 1, elapsed);
        (progress.epoch, progress.step, progress.sums) = (0, 0, Terms::default());
        self.save()
    }

    /// Whether somebody asked to stop, or a stage's time is over.
    pub(crate) fn interrupted(&self, stage: Stage) -> Option<Pause> {
        if self.job.stop.load(Ordering::Relaxed) {
            return Some(Pause::Stopped);
        }
        let over =
            self.job.max_time.is_some_and(|limit| self.elapsed() >= limit.mul_f64(self.job.options.ends_by(stage)));
        over.then_some(Pause::OutOfTime)
    }

    /// Saves where the last save is a while ago.
    pub(crate) fn save_now_and_then(&mut self) -> Result<(), TrainError> {
        if self.saved.elapsed() >= SAVE_EVERY { self.save() } else { Ok(()) }
    }

    pub(crate) fn save(&mut self) -> Result<(), TrainError> {
        self.state.progress.optimizer_steps = self.state.optimizer.steps();
        self.state.progress.elapsed_seconds = self.elapsed().as_secs_f64();
        self.state.progress.log_bytes = self.log.bytes()?;
        self.file.save(&self.state)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Time spent on this run by this process and those before it.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed() + self.spent_before
    }
}
