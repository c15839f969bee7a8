use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use canet_domain::RouteSpace;
use canet_torch::tch_device;

use crate::conflict::Conflict;
use crate::display::Display;
use crate::error::TrainError;
use crate::forecast::{Forecast, Work};
use crate::holdout::Holdout;
use crate::job::TrainJob;
use crate::log::{Event, RunLog};
use crate::optimizer::AdamW;
use crate::parameters::Parameters;
use crate::stage::{Stage, StageEnd};
use crate::state::{Progress, TrainState};
use crate::state_file::StateFile;

/// Time between saves within an epoch.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Name of the run log in the working directory.
pub(crate) const LOG_NAME: &str = "log.jsonl";

/// Everything that a stage may use of the training that it belongs to.
pub(crate) struct StageContext<'a> {
    pub job: &'a TrainJob<'a>,
    pub space: &'a RouteSpace,
    pub holdout: Holdout<'a>,
    pub state: TrainState,
    pub log: RunLog,
    pub display: Display,
    pub forecast: Forecast,
    file: StateFile,
    time: TimeBudget,
    saved: Instant,
}

/// The time of a training over all its processes.
struct TimeBudget {
    process_began: Instant,
    spent_before: Duration,
    limit: Option<Duration>,
}

impl TimeBudget {
    fn elapsed(&self) -> Duration {
        self.process_began.elapsed() + self.spent_before
    }

    /// Whether a share of the time limit is over.
    fn is_over(&self, share: f64) -> bool {
        self.limit.is_some_and(|limit| self.elapsed() >= limit.mul_f64(share))
    }
}

impl<'a> StageContext<'a> {
    /// Starts a job, or resumes it from the state in the working directory.
    ///
    /// # Errors
    /// [`TrainError`], if the state belongs to another training or cannot be read.
    pub(crate) fn open(
        job: &'a TrainJob<'a>,
        space: &'a RouteSpace,
        work: &Path,
    ) -> Result<StageContext<'a>, TrainError> {
        let file = StateFile::new(work);
        let (mut state, resumed) = match file.open()? {
            Some(saved) => {
                if let Some(Conflict { differences, remedy }) = saved.progress.differs_from(job) {
                    return Err(TrainError::OtherTraining { path: work.to_owned(), differences, remedy });
                }
                // The configuration is the job's, which is checked, so the tensors have possible sizes.
                (saved.load(tch_device(job.device))?, true)
            }
            None => (TrainState::fresh(job)?, false),
        };
        state.progress.options = job.options.clone();
        let mut log = RunLog::open(&work.join(LOG_NAME), state.progress.log_bytes)?;
        let Progress { stage, epoch, step, elapsed_seconds, .. } = state.progress;
        let stages = job.options.preset.stages();
        log.write(&Event::Start {
            resumed,
            stage: stages.get(stage).copied(),
            epoch,
            step,
            device: &job.device.to_string(),
            config: &job.config,
            training: &job.options.record(),
            max_minutes: job.max_time.map(|limit| limit.as_secs_f64() / 60.0),
            data_sha256: &job.dataset.sha256,
            parsed_sha256: &job.dataset.parsed_sha256,
        })?;
        let trains_router = stages.contains(&Stage::Router) && space.len() > 1;
        let holdout = Holdout::new(job.dataset, if trains_router { job.options.router.holdout } else { 0 });
        if !state.ranks.belong_to(holdout.cases.len(), space.len()) {
            return Err(file.invalid("it has ranks of other cases or routes"));
        }
        let display = Display::new();
        if resumed {
            display.line(&resumed_at(job, &state.progress));
        }
        let now = Instant::now();
        Ok(StageContext {
            job,
            space,
            forecast: Forecast::new(job, space.len(), &holdout),
            holdout,
            state,
            log,
            display,
            file,
            time: TimeBudget {
                process_began: now,
                spent_before: Duration::from_secs_f64(elapsed_seconds),
                limit: job.max_time,
            },
            saved: now,
        })
    }

    /// Why the stage must end now: a signal asked for it, or its time is over.
    pub(crate) fn interrupted(&self, stage: Stage) -> Option<StageEnd> {
        if self.job.stop.load(Ordering::Relaxed) {
            return Some(StageEnd::Stopped);
        }
        self.time.is_over(self.job.options.ends_by(stage, self.space.len())).then_some(StageEnd::OutOfTime)
    }

    /// Why work that runs beyond its stage's share of the time must end now: a signal asked for it, or the whole time is over.
    pub(crate) fn exhausted(&self) -> Option<StageEnd> {
        if self.job.stop.load(Ordering::Relaxed) {
            return Some(StageEnd::Stopped);
        }
        self.time.is_over(1.0).then_some(StageEnd::OutOfTime)
    }

    /// Saves the state if the last save is old.
    ///
    /// # Errors
    /// [`TrainError`], if the disk is full or the device is lost.
    pub(crate) fn save_if_due(&mut self) -> Result<(), TrainError> {
        if self.saved.elapsed() >= SAVE_EVERY { self.save() } else { Ok(()) }
    }

    /// Saves the state.
    ///
    /// # Errors
    /// [`TrainError`], if the disk is full or the device is lost.
    pub(crate) fn save(&mut self) -> Result<(), TrainError> {
        self.state.progress.optimizer_steps = self.state.optimizer.steps();
        self.state.progress.elapsed_seconds = self.elapsed().as_secs_f64();
        self.state.progress.log_bytes = self.log.bytes()?;
        self.file.save(&self.state)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Notes in the working directory that the training has written this version.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn finish(&self, version: u64) -> Result<(), TrainError> {
        self.file.finish(version)
    }

    /// Time of this training, including earlier processes.
    pub(crate) fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    /// The time for the rest of the training, if it can be predicted: at most what `--max-minutes` leaves. `done` is the work
    /// of the current stage that its epochs do not count.
    pub(crate) fn time_left(&self, done: Work) -> Option<Duration> {
        let within = self.time.limit.map(|limit| limit.saturating_sub(self.elapsed()));
        let predicted = self.forecast.left(&self.state.progress, done);
        match (predicted, within) {
            (Some(predicted), Some(within)) => Some(predicted.min(within)),
            (predicted, within) => predicted.or(within),
        }
    }

    /// Moves to the next stage, with the best weights of this one and a fresh optimizer, and saves the state.
    ///
    /// # Errors
    /// [`TrainError`], if the disk is full or the device is lost.
    pub(crate) fn begin_next_stage(&mut self) -> Result<(), TrainError> {
        let best = std::mem::take(&mut self.state.best);
        let weights = if best.parameters() > 0 { best } else { self.state.parameters.to_weights()? };
        // Fresh parameters have no gradients. An old gradient, even if it is zero, would make weights decay that the
        // next stage does not train.
        self.state.parameters = Parameters::from_weights(&self.job.config, &weights, self.job.parameters())?;
        self.state.optimizer = AdamW::new(self.job.options.optimizer, &self.state.parameters)?;
        let progress = &mut self.state.progress;
        progress.stage += 1;
        progress.epoch = 0;
        progress.begin_epoch();
        self.save()
    }
}

/// Where a resumed training goes on.
fn resumed_at(job: &TrainJob<'_>, progress: &Progress) -> String {
    match job.options.preset.stages().get(progress.stage) {
        Some(Stage::Router) => "resuming in the stage router".to_owned(),
        Some(stage) if progress.epoch < job.options.stage_epochs(*stage) => {
            let (epoch, epochs) = (progress.epoch + 1, job.options.stage_epochs(*stage));
            format!("resuming at epoch {epoch} of {epochs} in the stage {}", stage.name())
        }
        _ => "resuming after the last epoch".to_owned(),
    }
}
