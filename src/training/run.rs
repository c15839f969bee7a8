use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::batch::{Batch, Window, epoch_order, windows};
use super::cut::MaskTables;
use super::display::Display;
use super::error::TrainError;
use super::finish::finish;
use super::log::{Event, RunLog};
use super::objective::{Objective, Terms};
use super::optimizer::{AdamW, Schedule};
use super::options::TrainOptions;
use super::parameters::Parameters;
use super::state::{EpochRecord, Progress, RunState, StateFile};
use super::validation::Validation;
use crate::data::Dataset;
use crate::domain::RouteSpace;
use crate::model::checkpoint::Checkpoint;
use crate::model::libtorch::Device;
use crate::model::{ModelConfig, Weights};

/// A training to be done: what, on what, where to.
pub struct TrainJob<'a> {
    /// The interactions.
    pub dataset: &'a Dataset,
    /// Sizes and flags of the model.
    pub config: ModelConfig,
    /// How to train it.
    pub options: TrainOptions,
    /// Where to train it.
    pub device: Device,
    /// The model's directory, which gets the next version.
    pub out: &'a Path,
    /// Time for the whole run, of which a resumed run has what is left.
    pub max_time: Option<Duration>,
    /// Whether an unfinished run in `out` is thrown away.
    pub restart: bool,
    /// Set from outside to save and stop.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
pub enum Outcome {
    /// With a checkpoint.
    Finished(Box<Checkpoint>),
    /// Saved and stopped; the same command goes on.
    Stopped,
}

/// Where an unfinished run keeps its state and log, inside the model's directory.
const WORK: &str = ".training";

/// Time between saves within an epoch.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Steps between lines of the run log.
const LOG_EVERY: u64 = 20;

/// Steps in a row whose gradient is not finite, after which a run is given up.
const HOPELESS: u32 = 10;

impl TrainJob<'_> {
    /// Trains to the end, or until stopped, and writes the checkpoint.
    ///
    /// # Errors
    /// [`TrainError`] that says what to do.
    pub fn run(&self) -> Result<Outcome, TrainError> {
        let space = self.config.check()?;
        let sequences = self.dataset.training_sequences();
        let windows = windows(&sequences, self.config.max_len);
        if windows.is_empty() {
            return Err(TrainError::NothingToLearn);
        }
        let work = self.out.join(WORK);
        if self.restart && work.exists() {
            fs::remove_dir_all(&work).map_err(|source| TrainError::io(&work, source))?;
        }
        fs::create_dir_all(&work).map_err(|source| TrainError::io(&work, source))?;
        let mut run = Run::open(self, &space, &windows, &work)?;
        match run.train()? {
            None => Ok(Outcome::Stopped),
            Some(reason) => {
                let checkpoint = finish(self, &space, &run.state, reason, &mut run.log)?;
                let log = self.out.join(format!("{}.train.jsonl", checkpoint.version));
                fs::rename(work.join("log.jsonl"), &log).map_err(|source| TrainError::io(&log, source))?;
                fs::remove_dir_all(&work).map_err(|source| TrainError::io(&work, source))?;
                Ok(Outcome::Finished(Box::new(checkpoint)))
            }
        }
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
            Some(state) => (job.same_run(state, work)?, true),
            None => (job.fresh_state(device)?, false),
        };
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
        // Seeded by step, so that a resumed run draws what the stopped one would have drawn. A skipped step counts in
        // the epoch and not in the optimizer, hence both.
        let progress = &self.state.progress;
        tch::manual_seed(step_seed(self.job.options.seed, [progress.epoch, progress.step]));
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

impl TrainJob<'_> {
    fn fresh_state(&self, device: tch::Device) -> Result<RunState, TrainError> {
        tch::manual_seed(step_seed(self.options.seed, [u64::MAX, 0]));
        let parameters = Parameters::fresh(&self.config, device)?;
        let optimizer = AdamW::new(self.options.optimizer, &parameters)?;
        let progress = Progress {
            config: self.config.clone(),
            options: self.options.clone(),
            data_sha256: self.dataset.sha256.clone(),
            epoch: 0,
            step: 0,
            sums: Terms::default(),
            optimizer_steps: 0,
            elapsed_seconds: 0.0,
            curve: Vec::new(),
            log_bytes: 0,
        };
        Ok(RunState { progress, parameters, optimizer, best: Weights::default() })
    }

    /// The unfinished run's state, if it is this job's.
    fn same_run(&self, state: RunState, work: &Path) -> Result<RunState, TrainError> {
        let Progress { config, options, data_sha256, .. } = &state.progress;
        let different = if *config != self.config {
            Some("model sizes")
        } else if *options != self.options {
            Some("training options")
        } else if *data_sha256 != self.dataset.sha256 {
            Some("data")
        } else {
            None
        };
        match different {
            Some(what) => Err(TrainError::OtherRun { path: work.to_owned(), what }),
            None => Ok(state),
        }
    }
}

/// A seed for one place of a run, by SplitMix64's mixing function.
fn step_seed(seed: u64, place: [u64; 2]) -> i64 {
    let mixed = place.iter().fold(seed, |state, part| {
        let mut bits = (state ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    });
    mixed as i64
}
