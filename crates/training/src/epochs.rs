use std::time::{Duration, Instant};

use canet_torch::tch_device;
use tch::Tensor;

use crate::batch::Batch;
use crate::context::StageContext;
use crate::display::time_left;
use crate::error::TrainError;
use crate::forecast::{Work, samples};
use crate::joint::{Joint, ROUTED};
use crate::log::Event;
use crate::optimizer::{Rates, Schedule};
use crate::records::EpochRecord;
use crate::samples::Samples;
use crate::sandwich::{FULL, Sandwich};
use crate::stage::{Stage, StageEnd};
use crate::step_loss::{LossValues, StepLoss};
use crate::subnet_mask::MaskTables;
use crate::validation::Validation;

/// Steps between lines of the run log.
const LOG_EVERY: u64 = 20;

/// The training fails after this many steps in a row whose gradient is not finite.
const MOST_FAILED_STEPS: u32 = 10;

/// A stage that trains the weights in epochs.
pub(crate) struct Epochs<'a> {
    stage: Stage,
    epochs: u64,
    /// Steps an epoch.
    steps: u64,
    samples: Samples<'a>,
    objective: Objective,
    schedule: Schedule,
    validation: Validation<'a>,
    /// Steps in a row whose gradient was not finite.
    failed_steps: u32,
    throughput: Throughput,
}

/// What the steps of a stage minimise.
enum Objective {
    /// The loss of drawn routes, from which router and slices learn together ([`Joint`]).
    Joint(MaskTables),
    /// The loss of the slices, without a router ([`Sandwich`]).
    Sandwich {
        /// The factor of each weight's learning rate: `[P]`. `None` if all are 1.
        factors: Option<Tensor>,
        /// Items in the softmax of a step beside the true one; `None` for the whole catalogue.
        negatives: Option<usize>,
    },
}

/// The items that this process has trained on in the current epoch, and the time for them.
#[derive(Default)]
struct Throughput {
    tokens: usize,
    time: Duration,
}

impl<'a> Epochs<'a> {
    /// Prepares a stage.
    ///
    /// # Errors
    /// [`TrainError`], if the device fails.
    pub(crate) fn new(context: &StageContext<'a>, stage: Stage) -> Result<Epochs<'a>, TrainError> {
        let job = context.job;
        let options = &job.options;
        let epochs = options.stage_epochs(stage);
        let (peak, warmup) = match stage {
            Stage::Settle | Stage::Newest => (options.settle.learning_rate, 0),
            _ => (options.learning_rate, options.warmup_steps),
        };
        let samples = samples(job, stage, &context.holdout);
        let steps = samples.steps();
        Ok(Epochs {
            stage,
            epochs,
            steps,
            samples,
            objective: Objective::of(context, stage)?,
            schedule: Schedule { peak, warmup, total: steps.saturating_mul(epochs) },
            validation: Validation::new(job, context.space),
            failed_steps: 0,
            throughput: Throughput::default(),
        })
    }

    /// Trains until the stage ends. Continues from the epoch and step in the state.
    ///
    /// # Errors
    /// [`TrainError`], if training diverges, the device fails or the state cannot be saved.
    pub(crate) fn run(&mut self, context: &mut StageContext<'a>) -> Result<StageEnd, TrainError> {
        let progress = &context.state.progress;
        let done = progress.epoch.saturating_mul(self.steps).saturating_add(progress.step);
        context.display.begin(self.stage, self.schedule.total, done);
        while context.state.progress.epoch < self.epochs {
            let progress = &context.state.progress;
            let patience = context.job.options.patience;
            let best = progress.best(self.stage).map(|(best, _)| best);
            if let Some(best) = best.filter(|best| progress.epoch >= best.saturating_add(patience)) {
                context.display.line(&format!(
                    "{}: no epoch after {best} was better on validation, so the stage ends with its weights (--patience {patience})",
                    self.stage.name()
                ));
                return Ok(StageEnd::Patience);
            }
            if let Some(end) = self.finish_epoch(context)? {
                return Ok(end);
            }
        }
        Ok(StageEnd::Done)
    }

    /// Trains the rest of the current epoch. Returns why the stage was interrupted, if it was.
    fn finish_epoch(&mut self, context: &mut StageContext<'a>) -> Result<Option<StageEnd>, TrainError> {
        let job = context.job;
        let seed = context.state.progress.stage_seed();
        let batches = self.samples.epoch(seed, context.state.progress.epoch);
        for samples in batches.iter().skip(context.state.progress.step as usize) {
            if let Some(end) = context.interrupted(self.stage) {
                return Ok(Some(end));
            }
            let began = Instant::now();
            self.step(context, &Batch::new(samples, job.config.max_len, tch_device(job.device))?)?;
            let took = began.elapsed();
            context.forecast.stepped(took);
            self.throughput.add(samples.iter().map(|sample| sample.inputs.len()).sum(), took);
            context.save_if_due()?;
        }
        self.end_epoch(context)?;
        Ok(None)
    }

    fn step(&mut self, context: &mut StageContext<'a>, batch: &Batch) -> Result<(), TrainError> {
        let learning_rate = self.schedule.rate(context.state.optimizer.steps());
        // Every step has its own seed, so a resumed training draws the same as an unbroken one.
        let seed = context.state.progress.step_seed();
        tch::manual_seed(seed as i64);
        let loss = self.objective.loss(context, batch, seed)?;
        loss.backward()?;
        let rates = Rates { learning_rate, factors: self.objective.rate_factors() };
        let gradient_norm = context.state.optimizer.step(&context.state.parameters, rates)?;
        let values = loss.values()?;
        self.failed_steps = if gradient_norm.is_finite() { 0 } else { self.failed_steps + 1 };
        if self.failed_steps >= MOST_FAILED_STEPS {
            return Err(TrainError::Diverged { stage: self.stage, epoch: context.state.progress.epoch + 1 });
        }
        let progress = &mut context.state.progress;
        progress.count_step(&values);
        if progress.step % LOG_EVERY == 1 {
            let (epoch, step) = (progress.epoch + 1, progress.step);
            let (stage, loss) = (self.stage, &values);
            context.log.write(&Event::Step { stage, epoch, step, learning_rate, gradient_norm, loss })?;
        }
        context.display.step(|| {
            let validation =
                context.state.progress.curve.last().map(|last| self.validation.words(last)).unwrap_or_default();
            format!("{}{validation}{}", self.objective.words(&values), time_left(context.time_left(Work::default())))
        });
        Ok(())
    }

    /// Validates the weights, keeps them if they are the best of the stage, and saves the state.
    fn end_epoch(&mut self, context: &mut StageContext<'a>) -> Result<(), TrainError> {
        let weights = context.state.parameters.to_weights()?;
        let began = Instant::now();
        let validation = match self.stage {
            Stage::Newest => None,
            Stage::Supernet => Some(self.validation.score_slices(&weights)?),
            _ => Some(self.validation.score_routed(&weights, context.state.progress.base_bias.as_ref())?),
        };
        if let Some(score) = &validation {
            context.forecast.ranked(self.validation.rankings(score), began.elapsed());
        }
        let elapsed = context.elapsed();
        let progress = &mut context.state.progress;
        let train = progress.mean_loss();
        let skipped = match progress.skipped {
            0 => String::new(),
            skipped => format!(" without {skipped} of {} steps, whose loss is not finite", progress.step),
        };
        let record = EpochRecord { stage: self.stage, epoch: progress.epoch + 1, train, validation };
        let (ndcg, best) = (validation.map(|score| score.ndcg), progress.best(self.stage).map(|(_, ndcg)| ndcg));
        if ndcg.is_some() && (best.is_none() || ndcg > best) {
            context.state.best = weights;
        }
        progress.curve.push(record.clone());
        progress.epoch += 1;
        progress.begin_epoch();
        let tokens_per_second = std::mem::take(&mut self.throughput).tokens_per_second();
        let elapsed_seconds = elapsed.as_secs_f64();
        context.log.write(&Event::Epoch { record: &record, tokens_per_second, elapsed_seconds })?;
        context.display.line(&format!(
            "{}, epoch {}/{}: {}{skipped}{}{}",
            self.stage.name(),
            record.epoch,
            self.epochs,
            self.objective.words(&record.train),
            self.validation.words(&record),
            time_left(context.time_left(Work::default())),
        ));
        context.save()
    }
}

impl Objective {
    /// The objective of a stage.
    ///
    /// # Errors
    /// [`TrainError`], if the device fails.
    fn of(context: &StageContext<'_>, stage: Stage) -> Result<Objective, TrainError> {
        let (job, space, options) = (context.job, context.space, context.job.options.sandwich);
        let negatives = options.negatives;
        Ok(match stage {
            Stage::Joint => Objective::Joint(MaskTables::new(&job.config, space, tch_device(job.device))?),
            Stage::Supernet => {
                let factors = options.boost().rates(&job.config, space, &context.state.parameters)?;
                Objective::Sandwich { factors, negatives }
            }
            Stage::Router | Stage::Settle | Stage::Newest => Objective::Sandwich { factors: None, negatives },
        })
    }

    /// The loss of a batch. Draws slices from `seed`, and all else from tch's generator.
    ///
    /// # Errors
    /// [`TrainError`], if memory runs out.
    fn loss(&self, context: &StageContext<'_>, batch: &Batch, seed: u64) -> Result<StepLoss, TrainError> {
        let (config, space, options) = (&context.job.config, context.space, &context.job.options);
        let (parameters, dropout, flops_budget) = (&context.state.parameters, options.dropout, options.flops_budget);
        Ok(match self {
            Objective::Joint(tables) => {
                let (options, seen) = (&options.joint, options.seen());
                Joint { config, space, tables, dropout, options, flops_budget, seen }.loss(parameters, batch)?
            }
            Objective::Sandwich { .. } => {
                Sandwich { config, space, dropout, options: &options.sandwich }.loss(parameters, batch, seed)?
            }
        })
    }

    /// The factor of each weight's learning rate: `[P]`. `None` if all are 1.
    fn rate_factors(&self) -> Option<&Tensor> {
        match self {
            Objective::Joint(_) => None,
            Objective::Sandwich { factors, .. } => factors.as_ref(),
        }
    }

    /// A loss in words: its part that is comparable from epoch to epoch.
    fn words(&self, values: &LossValues) -> String {
        match self {
            Objective::Joint(_) => format!("cross-entropy of the routed slices {:.3} nats", values.part(ROUTED)),
            Objective::Sandwich { negatives, .. } => {
                let sampled = negatives.map(|count| format!(" over {count} sampled items")).unwrap_or_default();
                format!("cross-entropy of the full slice {:.3} nats{sampled}", values.part(FULL))
            }
        }
    }
}

impl Throughput {
    fn add(&mut self, tokens: usize, time: Duration) {
        self.tokens += tokens;
        self.time += time;
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64().max(1e-9)
    }
}
