use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batch::{Batch, Window, epoch_order, windows};
use super::cut::MaskTables;
use super::display::Display;
use super::error::TrainError;
use super::finish::finish;
use super::job::{Outcome, TrainJob};
use super::log::{Event, RunLog};
use super::objective::{Objective, Terms};
use super::optimizer::Schedule;
use super::state::{EpochRecord, Progress, RunState};
use super::state_file::StateFile;
use super::validation::Validation;
use crate::data::Split;
use crate::domain::RouteSpace;

/// Where an unfinished run keeps its state and log, inside the model's directory.
const WORK: &str = ".training";

/// Time between saves within an epoch.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Steps between lines of the run log.
const LOG_EVERY: u64 = 20;

/// Steps in a row whose gradient is not finite, after which a run is given up.
const HOPELESS: u32 = 10;

/// Trains to the end, or until stopped, and writes the checkpoint.
///
/// # Errors
/// [`TrainError`] that says what to do.
pub fn train(job: &TrainJob<'_>) -> Result<Outcome, TrainError> {
    let space = job.config.check()?;
    let sequences = job.dataset.training_sequences();
    let windows = windows(&sequences, job.config.max_len);
    if windows.is_empty() {
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
    let mut run = Run::open(job, &space, &windows, &work)?;
    match run.train()? {
        None => Ok(Outcome::Stopped),
        Some(reason) => {
            let checkpoint = finish(job, &space, &run.state)?;
            let best_epoch = run.state.progress.best().map_or(0, |record| record.epoch);
            let elapsed_seconds = run.elapsed().as_secs_f64();
            run.log.write(&Event::Finish { reason, best_epoch, elapsed_seconds })?;
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
struct Run<'a> {
    job: &'a TrainJob<'a>,
    space: &'a RouteSpace,
    windows: &'a [Window<'a>],
    tables: MaskTables,
    schedule: Schedule,
    validation: Validation<'a>,
    state: RunState,
    file: StateFile,
    log: RunLog,
    display: Display,
    /// When this process began, less the time that earlier ones spent.
    started: Instant,
    spent_before: f64,
    saved: Instant,
    hopeless: u32,
}

impl<'a> Run<'a> {
    fn open(
        job: &'a TrainJob<'a>,
        space: &'a RouteSpace,
        windows: &'a [Window<'a>],
        work: &Path,
    ) -> Result<Run<'a>, TrainError> {
        let device = job.device.tch();
        let file = StateFile::of(work);
        let (state, resumed) = match file.load(device)? {
            Some(state) => (state, true),
            None => (RunState::fresh(job)?, false),
        };
        if let Some(what) = state.progress.differs_in(job) {
            return Err(TrainError::OtherRun { path: work.to_owned(), what });
        }
        let steps_an_epoch = windows.len().div_ceil(job.options.batch_size) as u64;
        let total = steps_an_epoch * job.options.epochs;
        let mut log = RunLog::open(&work.join("log.jsonl"), state.progress.log_bytes)?;
        let Progress { epoch, step, elapsed_seconds, .. } = state.progress;
        let device_name = job.device.to_string();
        log.write(&Event::Start { resumed, epoch, step, windows: windows.len(), device: &device_name })?;
        Ok(Run {
            job,
            space,
            windows,
            tables: MaskTables::new(&job.config, space, device)?,
            schedule: Schedule { peak: job.options.learning_rate, warmup: job.options.warmup_steps, total },
            validation: Validation::new(job.dataset, space, &job.config, job.device),
            display: Display::new(job.options.epochs, total, epoch * steps_an_epoch + step),
            state,
            file,
            log,
            started: Instant::now(),
            spent_before: elapsed_seconds,
            saved: Instant::now(),
            hopeless: 0,
        })
    }

    /// Epochs until the end; why it ended, or `None` where it was stopped from outside.
    fn train(&mut self) -> Result<Option<&'static str>, TrainError> {
        while self.state.progress.epoch < self.job.options.epochs {
            if self.out_of_patience() {
                return Ok(Some("patience"));
            }
            match self.epoch()? {
                Pause::None => {}
                Pause::Stopped => {
                    self.save()?;
                    return Ok(None);
                }
                Pause::OutOfTime => return Ok(Some("max_minutes")),
            }
        }
        Ok(Some("epochs"))
    }

    /// The rest of the epoch that the state is in.
    fn epoch(&mut self) -> Result<Pause, TrainError> {
        let (batch_size, max_len) = (self.job.options.batch_size, self.job.config.max_len);
        let order = epoch_order(self.windows.len(), self.job.options.seed, self.state.progress.epoch);
        let done = self.state.progress.step as usize;
        for chunk in order.chunks(batch_size).skip(done) {
            if self.job.stop.load(Ordering::Relaxed) {
                return Ok(Pause::Stopped);
            }
            if self.job.max_time.is_some_and(|limit| self.elapsed() >= limit) {
                return Ok(Pause::OutOfTime);
            }
            let windows: Vec<Window<'_>> = chunk.iter().map(|place| self.windows[*place]).collect();
            self.step(&Batch::new(&windows, max_len, self.job.device.tch())?)?;
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save()?;
            }
        }
        self.end_epoch()?;
        Ok(Pause::None)
    }

    fn step(&mut self, batch: &Batch) -> Result<(), TrainError> {
        let made = self.state.optimizer.steps();
        let rate = self.schedule.rate(made);
        // Seeded by step, so that a resumed run draws what the stopped one would have drawn.
        tch::manual_seed(self.state.progress.step_seed());
        let objective =
            Objective { config: &self.job.config, space: self.space, tables: &self.tables, options: &self.job.options };
        let loss = objective.loss(&self.state.parameters, batch)?;
        loss.total.f_backward()?;
        let norm = self.state.optimizer.step(&self.state.parameters, rate)?;
        self.hopeless = if norm.is_finite() { 0 } else { self.hopeless + 1 };
        if self.hopeless >= HOPELESS {
            return Err(TrainError::Diverged { epoch: self.state.progress.epoch + 1 });
        }
        let progress = &mut self.state.progress;
        progress.step += 1;
        if loss.terms.total.is_finite() {
            progress.sums.add(&loss.terms);
        }
        if progress.step % LOG_EVERY == 1 {
            let (epoch, step) = (progress.epoch + 1, progress.step);
            let event = Event::Step { epoch, step, learning_rate: rate, gradient_norm: norm, loss: &loss.terms };
            self.log.write(&event)?;
        }
        self.display.step(loss.terms.total, self.state.progress.curve.last());
        Ok(())
    }

    /// Validates, remembers the best weights, and saves.
    fn end_epoch(&mut self) -> Result<(), TrainError> {
        let weights = self.state.parameters.to_weights()?;
        let scored = self.validation.score(&weights, self.job.options.flops_budget)?;
        let elapsed = self.elapsed();
        let progress = &mut self.state.progress;
        let record = EpochRecord {
            epoch: progress.epoch + 1,
            train: progress.sums.mean(progress.step),
            ndcg: scored.ndcg,
            saved: scored.saved,
            routes_in_use: scored.routes_in_use,
        };
        if progress.best().is_none_or(|best| record.ndcg > best.ndcg) {
            self.state.best = weights;
        }
        progress.curve.push(record.clone());
        progress.epoch += 1;
        progress.step = 0;
        progress.sums = Terms::default();
        let left = self.job.options.epochs.saturating_sub(progress.epoch) as f64;
        let pace = elapsed.as_secs_f64() / progress.epoch as f64;
        self.log.write(&Event::Epoch { record: &record, elapsed_seconds: elapsed.as_secs_f64() })?;
        self.display.epoch(&record, Duration::from_secs_f64(pace * left));
        self.save()
    }

    fn out_of_patience(&self) -> bool {
        let progress = &self.state.progress;
        progress.best().is_some_and(|best| progress.epoch >= best.epoch + self.job.options.patience)
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.state.progress.optimizer_steps = self.state.optimizer.steps();
        self.state.progress.elapsed_seconds = self.elapsed().as_secs_f64();
        self.state.progress.log_bytes = self.log.bytes()?;
        self.file.save(&self.state)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Time spent on this run by this process and those before it.
    fn elapsed(&self) -> Duration {
        self.started.elapsed() + Duration::from_secs_f64(self.spent_before)
    }
}

/// Why an epoch was left before its end.
enum Pause {
    None,
    Stopped,
    OutOfTime,
}
