use std::time::{Duration, Instant};

use super::batch::Batch;
use super::cut::MaskTables;
use super::error::TrainError;
use super::joint::Joint;
use super::log::Event;
use super::optimizer::Schedule;
use super::run::{Pause, Run};
use super::samples::Samples;
use super::sandwich::Sandwich;
use super::stage::Stage;
use super::state::EpochRecord;
use super::terms::{StepLoss, Terms};
use super::validation::Validation;
use canet_torch::tch_device;

/// Steps between lines of the run log.
const LOG_EVERY: u64 = 20;

/// Steps in a row whose gradient is not finite, after which a run is given up.
const HOPELESS: u32 = 10;

/// A stage that passes over samples: what it learns from, and how.
pub(crate) struct Epochs<'a> {
    stage: Stage,
    epochs: u64,
    /// Steps an epoch.
    steps: u64,
    samples: Samples<'a>,
    /// Of the stage that draws a route a row.
    tables: Option<MaskTables>,
    schedule: Schedule,
    validation: Validation<'a>,
    hopeless: u32,
    pace: Pace,
}

/// More time than a person wants to read of: a century.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What this process has learnt from in the epoch under way.
#[derive(Default)]
struct Pace {
    tokens: usize,
    time: Duration,
}

impl<'a> Epochs<'a> {
    /// The stage of a run.
    ///
    /// # Errors
    /// [`TrainError`] where there is nothing to learn from or the device fails.
    pub(crate) fn of(run: &Run<'a>, stage: Stage) -> Result<Epochs<'a>, TrainError> {
        let job = run.job;
        let options = &job.options;
        let (epochs, peak, warmup) = match stage {
            Stage::Settle => (options.settle.epochs, options.settle.learning_rate, 0),
            Stage::Newest => (options.newest.epochs, options.settle.learning_rate, 0),
            _ => (options.epochs, options.learning_rate, options.warmup_steps),
        };
        let sequences = match stage {
            Stage::Supernet => run.holdout.training.clone(),
            Stage::Newest => job.dataset.whole_sequences(),
            _ => job.dataset.training_sequences(),
        };
        let samples = Samples::new(sequences, options.samples, job.config.max_len, options.batch_size);
        let steps = samples.steps();
        let tables = match stage {
            Stage::Joint => Some(MaskTables::new(&job.config, run.space, tch_device(job.device))?),
            _ => None,
        };
        Ok(Epochs {
            stage,
            epochs,
            steps,
            samples,
            tables,
            schedule: Schedule { peak, warmup, total: steps.saturating_mul(epochs) },
            validation: Validation::new(job, run.space),
            hopeless: 0,
            pace: Pace::default(),
        })
    }

    /// Epochs until the stage ends.
    ///
    /// # Errors
    /// [`TrainError`] where training diverges, the device fails or the state cannot be saved.
    pub(crate) fn run(&mut self, run: &mut Run<'a>) -> Result<Pause, TrainError> {
        let progress = &run.state.progress;
        let done = progress.epoch.saturating_mul(self.steps).saturating_add(progress.step);
        run.display.begin(self.stage, self.schedule.total, done);
        while run.state.progress.epoch < self.epochs {
            let progress = &run.state.progress;
            let patience = run.job.options.patience;
            if progress.best(self.stage).is_some_and(|(best, _)| progress.epoch >= best.saturating_add(patience)) {
                return Ok(Pause::Patience);
            }
            if let Some(pause) = self.epoch(run)? {
                return Ok(pause);
            }
        }
        Ok(Pause::Done)
    }

    /// The rest of the epoch that the state is in.
    fn epoch(&mut self, run: &mut Run<'a>) -> Result<Option<Pause>, TrainError> {
        let job = run.job;
        let seed = run.state.progress.stage_seed();
        let batches = self.samples.epoch(seed, run.state.progress.epoch);
        for samples in batches.iter().skip(run.state.progress.step as usize) {
            if let Some(pause) = run.interrupted(self.stage) {
                return Ok(Some(pause));
            }
            let began = Instant::now();
            self.step(run, &Batch::new(samples, job.config.max_len, tch_device(job.device))?)?;
            self.pace.add(samples.iter().map(|sample| sample.inputs.len()).sum(), began.elapsed());
            run.save_now_and_then()?;
        }
        self.end_epoch(run)?;
        Ok(None)
    }

    fn step(&mut self, run: &mut Run<'a>, batch: &Batch) -> Result<(), TrainError> {
        let rate = self.schedule.rate(run.state.optimizer.steps());
        // Seeded by step, so that a resumed run draws what the stopped one would have drawn.
        let seed = run.state.progress.step_seed();
        tch::manual_seed(seed as i64);
        let loss = self.loss(run, batch, seed)?;
        loss.backward()?;
        let norm = run.state.optimizer.step(&run.state.parameters, rate)?;
        let terms = loss.terms()?;
        self.hopeless = if norm.is_finite() { 0 } else { self.hopeless + 1 };
        if self.hopeless >= HOPELESS {
            return Err(TrainError::Diverged { epoch: run.state.progress.epoch + 1 });
        }
        let progress = &mut run.state.progress;
        progress.step += 1;
        if terms.total().is_finite() {
            progress.sums.add(&terms);
        }
        if progress.step % LOG_EVERY == 1 {
            let (epoch, step) = (progress.epoch + 1, progress.step);
            let (stage, loss) = (self.stage, &terms);
            run.log.write(&Event::Step { stage, epoch, step, learning_rate: rate, gradient_norm: norm, loss })?;
        }
        run.display.step(terms.total(), run.state.progress.curve.last());
        Ok(())
    }

    fn loss(&self, run: &Run<'a>, batch: &Batch, seed: u64) -> Result<StepLoss, TrainError> {
        let job = run.job;
        let (config, space, dropout) = (&job.config, run.space, job.options.dropout);
        Ok(match &self.tables {
            Some(tables) => {
                let (options, flops_budget) = (&job.options.joint, job.options.flops_budget);
                Joint { config, space, tables, dropout, options, flops_budget }.loss(&run.state.parameters, batch)?
            }
            None => {
                let sandwich = Sandwich { config, space, dropout, options: &job.options.sandwich };
                sandwich.loss(&run.state.parameters, batch, seed)?
            }
        })
    }

    /// Validates where there is something to validate on, remembers the best weights, and saves.
    fn end_epoch(&mut self, run: &mut Run<'a>) -> Result<(), TrainError> {
        let weights = run.state.parameters.to_weights()?;
        let scored = match self.stage {
            Stage::Newest => None,
            Stage::Supernet => Some(self.validation.slices(&weights)?),
            _ => Some(self.validation.routed(&weights, run.state.progress.routing.as_ref())?),
        };
        let elapsed = run.elapsed();
        let progress = &mut run.state.progress;
        let train = progress.sums.mean(progress.step);
        let record = EpochRecord { stage: self.stage, epoch: progress.epoch + 1, train, scored };
        let (ndcg, best) = (scored.map(|scored| scored.ndcg), progress.best(self.stage).map(|(_, ndcg)| ndcg));
        if ndcg.is_some() && (best.is_none() || ndcg > best) {
            run.state.best = weights;
        }
        progress.curve.push(record.clone());
        progress.epoch += 1;
        progress.step = 0;
        progress.sums = Terms::default();
        let left = self.epochs.saturating_sub(progress.epoch) as f64;
        let pace = (elapsed.as_secs_f64() - progress.stage_began) / progress.epoch as f64;
        let tokens_per_second = std::mem::take(&mut self.pace).per_second();
        run.log.write(&Event::Epoch { record: &record, tokens_per_second, elapsed_seconds: elapsed.as_secs_f64() })?;
        let left = Duration::try_from_secs_f64((pace * left).max(0.0)).unwrap_or(FOREVER).min(FOREVER);
        run.display.epoch(&record, self.epochs, left);
        run.save()
    }
}

impl Pace {
    fn add(&mut self, tokens: usize, time: Duration) {
        self.tokens += tokens;
        self.time += time;
    }

    fn per_second(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64().max(1e-9)
    }
}
