use canet_model::{ModelConfig, Weights};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::job::TrainJob;
use crate::log::FinishReason;
use crate::optimizer::AdamW;
use crate::options::TrainOptions;
use crate::parameters::{Parameters, Recipe};
use crate::records::{BaseBias, EpochRecord, Measurement};
use crate::route_ranks::RouteRanks;
use crate::stage::{Stage, StageEnd};
use crate::step_loss::LossValues;
use crate::warm_start::{fold_residuals, start_from};

/// The progress of an unfinished training: everything that resuming needs beside the tensors of [`TrainState`].
///
/// Random generators have no state to save, because every step seeds its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub config: ModelConfig,
    pub options: TrainOptions,
    /// SHA-256 of what was understood of the data. States of older versions have none.
    #[serde(default)]
    pub parsed_sha256: String,
    /// Place of the current stage in the preset's list.
    pub stage: usize,
    /// The current epoch of the stage, from 0.
    pub epoch: u64,
    /// Steps done in the current epoch.
    pub step: u64,
    /// Sums of the loss over these steps, apart from the skipped ones.
    pub sums: LossValues,
    /// How many of these steps had a loss that is not finite.
    #[serde(default)]
    pub skipped: u64,
    /// Steps of the optimizer in the current stage.
    pub optimizer_steps: u64,
    /// Seconds of training so far.
    pub elapsed_seconds: f64,
    /// The finished epochs of all stages.
    pub curve: Vec<EpochRecord>,
    /// Number of finished epochs when the time limit last ended a stage before the measurement.
    #[serde(default)]
    pub cut_short_after: Option<u64>,
    /// Why the stages so far ended. States of older versions have none.
    #[serde(default)]
    pub reason: Option<FinishReason>,
    /// Result of the stage `router` beside the router's weights.
    #[serde(rename = "routing")]
    pub base_bias: Option<BaseBias>,
    /// Measurement of the weights before the stage `newest`, which trains on the splits that measure them.
    #[serde(default)]
    pub measured: Option<Measurement>,
    /// Whether the stage `newest` has moved the weights. `None` before its end, and in states of older versions.
    #[serde(default)]
    pub everything: Option<bool>,
    /// Length of the run log in bytes. A resumed training repeats what was logged after this point.
    pub log_bytes: u64,
}

impl Progress {
    /// The start of a training.
    pub(crate) fn new(config: ModelConfig, options: TrainOptions, parsed_sha256: String) -> Progress {
        Progress {
            config,
            options,
            parsed_sha256,
            stage: 0,
            epoch: 0,
            step: 0,
            sums: LossValues::default(),
            skipped: 0,
            optimizer_steps: 0,
            elapsed_seconds: 0.0,
            curve: Vec::new(),
            cut_short_after: None,
            reason: None,
            base_bias: None,
            measured: None,
            everything: None,
            log_bytes: 0,
        }
    }

    /// A value that no training writes, in words. The program computes with the others without overflow.
    pub(crate) fn fault(&self) -> Option<String> {
        const MOST: u64 = 1 << 48;
        let stages = self.options.preset.stages().len();
        if self.stage > stages {
            return Some(format!("stage {} of {stages}", self.stage));
        }
        if !(0.0..=MOST as f64).contains(&self.elapsed_seconds) {
            return Some(format!("elapsed_seconds {}", self.elapsed_seconds));
        }
        let counts = [
            ("epoch", self.epoch),
            ("step", self.step),
            ("skipped", self.skipped),
            ("optimizer_steps", self.optimizer_steps),
        ];
        counts.into_iter().find(|(_, count)| *count > MOST).map(|(name, count)| format!("{name} {count}"))
    }

    /// The stages that have begun.
    pub(crate) fn begun(&self) -> &'static [Stage] {
        let stages = self.options.preset.stages();
        &stages[..stages.len().min(self.stage + usize::from(self.under_way()))]
    }

    /// Whether the current stage has trained the weights.
    fn under_way(&self) -> bool {
        self.epoch > 0 || self.step > 0
    }

    /// Notes how a stage ended; `None` if there was nothing to do in it.
    pub(crate) fn end_stage(&mut self, stage: Stage, end: Option<StageEnd>) {
        match end {
            Some(StageEnd::OutOfTime) => {
                self.reason = Some(FinishReason::MaxMinutes);
                // The figures are from before the stage `newest`.
                if stage != Stage::Newest {
                    self.cut_short_after = Some(self.curve.len() as u64);
                }
            }
            // A stage that time cut short stays the reason, however the later stages end.
            _ if self.finish_reason() == FinishReason::MaxMinutes => {}
            Some(StageEnd::Patience) => self.reason = Some(FinishReason::Patience),
            Some(StageEnd::Done) => self.reason = Some(FinishReason::Epochs),
            Some(StageEnd::Stopped) | None => {}
        }
        if stage == Stage::Newest {
            self.everything = Some(self.under_way());
        }
    }

    /// Why the training finished, once it has.
    pub(crate) fn finish_reason(&self) -> FinishReason {
        match self.cut_short_after {
            Some(_) => FinishReason::MaxMinutes,
            None => self.reason.unwrap_or(FinishReason::Epochs),
        }
    }

    /// Whether the weights have learnt the splits that measure them. An older version kept a measurement only if they had.
    pub(crate) fn has_learnt_everything(&self) -> bool {
        self.everything.unwrap_or(self.measured.is_some())
    }

    /// Seed of the current stage.
    pub(crate) fn stage_seed(&self) -> u64 {
        derive_seed(self.options.seed, [self.stage as u64, u64::MAX])
    }

    /// Seed of the next step. Unlike the optimizer's count, it also counts steps that moved nothing.
    pub(crate) fn step_seed(&self) -> u64 {
        derive_seed(self.stage_seed(), [self.epoch, self.step])
    }

    /// Counts a step of the current epoch with its loss.
    pub(crate) fn count_step(&mut self, loss: &LossValues) {
        self.step += 1;
        if loss.total().is_finite() {
            self.sums.add(loss);
        } else {
            self.skipped += 1;
        }
    }

    /// Mean loss over the steps of the current epoch whose loss is finite.
    pub(crate) fn mean_loss(&self) -> LossValues {
        self.sums.mean(self.step.saturating_sub(self.skipped))
    }

    /// Forgets the steps of the current epoch.
    pub(crate) fn begin_epoch(&mut self) {
        (self.step, self.sums, self.skipped) = (0, LossValues::default(), 0);
    }

    /// The epoch that ran last: its stage, and its number there, from 1.
    pub(crate) fn latest_epoch(&self) -> (Stage, u64) {
        let stages = self.options.preset.stages();
        let stage = stages.get(self.stage).or(stages.last()).copied().unwrap_or(Stage::Joint);
        match self.curve.last() {
            Some(record) if self.step == 0 => (record.stage, record.epoch),
            _ => (stage, self.epoch + 1),
        }
    }

    /// Number and score of a stage's epoch with the highest validation NDCG@10. The earlier of two equal ones wins.
    pub(crate) fn best(&self, stage: Stage) -> Option<(u64, f64)> {
        let records = self.curve.iter().filter(|record| record.stage == stage);
        let scored = records.filter_map(|record| Some((record.epoch, record.validation?.ndcg)));
        scored.reduce(|best, epoch| if epoch.1 > best.1 { epoch } else { best })
    }
}

#[cfg(test)]
impl Progress {
    /// The start of a training with the defaults of the preset `paper`.
    pub(crate) fn for_tests() -> Progress {
        let options = serde_json::json!({
            "preset": "paper", "epochs": 1, "samples": {"loss_positions": null, "per_user": null}, "batch_size": 1,
            "learning_rate": 0.1, "warmup_steps": 1, "dropout": 0.0, "tied": false, "patience": 1, "seed": 1,
            "optimizer": {"betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": 1.0}, "flops_budget": 0.3,
            "joint": {"temperature": 1.0, "weights": {"guide": 0.0, "balance": 0.0, "flops": 0.0}},
            "sandwich": {"negatives": null, "distillation": 0.5}, "router": {"holdout": 0},
            "settle": {"epochs": 1, "learning_rate": 0.1}, "newest": {"epochs": 0},
        });
        Progress::new(canet_testing::small_config(), serde_json::from_value(options).unwrap(), String::new())
    }
}

/// Everything that changes during training.
pub(crate) struct TrainState {
    pub progress: Progress,
    pub parameters: Parameters,
    pub optimizer: AdamW,
    /// Weights of the current stage's best epoch. Empty before the first one.
    pub best: Weights,
    /// Ranks of the held-out cases that the stage `router` has measured so far.
    pub ranks: RouteRanks,
}

impl TrainState {
    /// The state at the start of a job, with random weights or with those of its source.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn fresh(job: &TrainJob<'_>) -> Result<TrainState, TrainError> {
        tch::manual_seed(derive_seed(job.options.seed, [u64::MAX, 0]) as i64);
        let mut parameters = Parameters::fresh(&job.config, job.parameters())?;
        if let Some(source) = job.source {
            let mut weights = parameters.to_weights()?;
            start_from(&mut weights, &job.config, &job.dataset.ids, source);
            if job.options.recipe() == Recipe::Plain {
                fold_residuals(&mut weights);
            }
            parameters = Parameters::from_weights(&job.config, &weights, job.parameters())?;
        }
        let optimizer = AdamW::new(job.options.optimizer, &parameters)?;
        let progress = Progress::new(job.config.clone(), job.options.clone(), job.dataset.parsed_sha256.clone());
        Ok(TrainState { progress, parameters, optimizer, best: Weights::default(), ranks: RouteRanks::default() })
    }
}

/// Derives a seed for one place of a training. It applies SplitMix64's mixing function to each part of the place.
pub(crate) fn derive_seed(seed: u64, place: [u64; 2]) -> u64 {
    place.iter().fold(seed, |state, part| {
        let mut bits = (state ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

#[cfg(test)]
mod tests {
    use canet_model::checkpoint::{Calibration, MetricsRecord};

    use super::*;
    use crate::stage::Preset;

    #[test]
    fn what_no_training_writes_is_named() {
        let changed = |change: fn(&mut Progress)| {
            let mut progress = Progress::for_tests();
            change(&mut progress);
            progress.fault()
        };
        assert_eq!(changed(|progress| (progress.stage, progress.elapsed_seconds) = (1, 1e7)), None);
        for (change, words) in [
            ((|progress| progress.stage = 99) as fn(&mut Progress), "stage 99 of "),
            (|progress| progress.elapsed_seconds = -1.0, "elapsed_seconds -1"),
            (|progress| progress.elapsed_seconds = 1e300, "elapsed_seconds 1"),
            (|progress| progress.elapsed_seconds = f64::NAN, "elapsed_seconds NaN"),
            (|progress| progress.epoch = u64::MAX, "epoch 18446744073709551615"),
            (|progress| progress.optimizer_steps = u64::MAX, "optimizer_steps 18446744073709551615"),
        ] {
            let found = changed(change).unwrap();
            assert!(found.starts_with(words), "{found}");
        }
    }

    /// A state of the preset `utility` at the start of a stage.
    fn at(stage: usize) -> Progress {
        let mut progress = Progress::for_tests();
        progress.options.preset = Preset::Utility;
        Progress { stage, ..progress }
    }

    #[test]
    fn a_stage_that_time_cut_short_stays_the_reason() {
        let reasons = |ends: &[(Stage, Option<StageEnd>)]| {
            let mut progress = at(0);
            ends.iter().for_each(|(stage, end)| progress.end_stage(*stage, *end));
            // Another process reads it from the state.
            let saved = serde_json::to_string(&progress).unwrap();
            let resumed: Progress = serde_json::from_str(&saved).unwrap();
            (resumed.finish_reason(), resumed.cut_short_after)
        };
        let (done, late) = (Some(StageEnd::Done), Some(StageEnd::OutOfTime));
        let patience = (Stage::Supernet, Some(StageEnd::Patience));
        assert_eq!(reasons(&[patience, (Stage::Router, done)]), (FinishReason::Epochs, None));
        assert_eq!(reasons(&[(Stage::Router, done), patience, (Stage::Newest, None)]), (FinishReason::Patience, None));
        assert_eq!(reasons(&[(Stage::Settle, late), (Stage::Newest, done)]), (FinishReason::MaxMinutes, Some(0)));
        assert_eq!(reasons(&[(Stage::Settle, done), (Stage::Newest, late)]), (FinishReason::MaxMinutes, None));
    }

    #[test]
    fn weights_have_learnt_everything_once_the_stage_newest_has_moved_them() {
        let measured = Measurement {
            calibration: Calibration { points: Vec::new() },
            metrics: MetricsRecord::default(),
            verdict: None,
        };
        for (epoch, step, moved) in [(0, 0, false), (0, 3, true), (2, 0, true)] {
            let mut progress = Progress { epoch, step, measured: Some(measured.clone()), ..at(3) };
            progress.end_stage(Stage::Newest, Some(StageEnd::OutOfTime));
            assert_eq!(progress.has_learnt_everything(), moved, "{epoch} {step}");
        }
        let mut without = at(3);
        without.end_stage(Stage::Newest, None);
        assert!(!without.has_learnt_everything());
        // A state of an older version after its last stage.
        let mut saved = serde_json::to_value(Progress { measured: Some(measured), ..at(4) }).unwrap();
        saved.as_object_mut().unwrap().remove("everything");
        saved.as_object_mut().unwrap().remove("reason");
        let old: Progress = serde_json::from_value(saved).unwrap();
        assert!(old.has_learnt_everything());
        assert!(!at(4).has_learnt_everything());
    }

    #[test]
    fn a_step_without_a_finite_loss_does_not_lower_the_mean() {
        let mut progress = Progress::for_tests();
        for total in [3.0, f64::NAN, 5.0, f64::INFINITY] {
            progress.count_step(&LossValues::of_total(total));
        }
        assert_eq!((progress.step, progress.skipped), (4, 2));
        assert_eq!(progress.mean_loss(), LossValues::of_total(4.0));
        progress.begin_epoch();
        assert_eq!((progress.step, progress.skipped, progress.mean_loss()), (0, 0, LossValues::default()));
    }
}
