use std::collections::BTreeMap;

use canet_evaluation::SeenItems;
use canet_model::checkpoint::TrainingRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::losses::LossWeights;
use crate::optimizer::AdamWOptions;
use crate::parameters::Recipe;
use crate::samples::SampleOptions;
use crate::stage::{Preset, Stage};
use crate::warm_start::SourceRecord;
use crate::width_rates::NarrowBoost;

/// The options that determine the trained weights, beside the model's configuration and the data. An unfinished
/// training resumes only under the same options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// The stages.
    pub preset: Preset,
    /// Passes over the training data in the first stage. With 0, the next stage begins with the initial weights.
    pub epochs: u64,
    /// How an epoch splits sequences into samples.
    pub samples: SampleOptions,
    /// Samples a step.
    pub batch_size: usize,
    /// Learning rate of the first stage at the end of the warm-up.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Settings of the optimizer.
    pub optimizer: AdamWOptions,
    /// Share of activations that is dropped.
    pub dropout: f64,
    /// Whether the output layer uses the embedding table as its weight.
    pub tied: bool,
    /// A stage ends after this many epochs without a better validation NDCG@10.
    pub patience: u64,
    /// Seed of the initial weights, the order of samples, dropout and all other draws.
    pub seed: u64,
    /// Share of the full model's FLOPs to spend.
    pub flops_budget: f64,
    /// Whether items of a user's own history are left out of rankings: in validation, in what the router learns from, in the
    /// measurement, and by default when the model serves.
    #[serde(default = "exclude_seen")]
    pub exclude_seen: bool,
    /// Options of the preset `paper`.
    pub joint: JointOptions,
    /// Objective of the preset `utility`.
    pub sandwich: SandwichOptions,
    /// Options of the stage `router`.
    pub router: RouterOptions,
    /// Options of the stage `settle`.
    pub settle: SettleOptions,
    /// Options of the stage `newest`.
    #[serde(default)]
    pub newest: NewestOptions,
    /// The model whose weights the training starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SourceRecord>,
}

impl TrainOptions {
    /// How weights are initialised, and which of them are trained.
    pub(crate) fn recipe(&self) -> Recipe {
        match self.preset {
            Preset::Utility => Recipe::Plain,
            Preset::Paper => Recipe::Paper,
        }
    }

    /// The share of the training's time after which a stage ends, so that later stages have time as well. Stages without
    /// work in a model of this many routes take no time, and the last one with work ends with the training's time.
    pub(crate) fn ends_by(&self, stage: Stage, routes: usize) -> f64 {
        let stages = self.preset.stages();
        let part = |stage: &Stage| if self.has_work(*stage, routes) { stage.time_part() } else { 0.0 };
        let place = stages.iter().position(|own| *own == stage).unwrap_or(stages.len());
        let (until, after) = stages.split_at(stages.len().min(place + 1));
        let until: f64 = until.iter().map(part).sum();
        let after: f64 = after.iter().map(part).sum();
        if after > 0.0 { until / (until + after) } else { 1.0 }
    }

    /// Whether there is anything to do in a stage, in a model of this many routes.
    pub(crate) fn has_work(&self, stage: Stage, routes: usize) -> bool {
        match stage {
            Stage::Router => routes > 1,
            stage => self.stage_epochs(stage) > 0,
        }
    }

    /// The options as the run log and the checkpoint record them.
    pub(crate) fn record(&self) -> TrainingRecord {
        let options = match serde_json::to_value(self) {
            Ok(Value::Object(options)) => options.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        TrainingRecord {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            options,
            everything: false,
            from_everything: false,
            cut_short_after: None,
        }
    }

    /// These options with those of stages outside `begun` replaced by `new`. A training with these options may continue
    /// with `new` if both are then equal.
    pub(crate) fn continued_by(&self, new: &TrainOptions, begun: &[Stage]) -> TrainOptions {
        let mut before = self.clone();
        // The router's gain is measured at the budget too.
        if new.preset == Preset::Utility && !begun.contains(&Stage::Router) {
            before.flops_budget = new.flops_budget;
        }
        if new.preset == Preset::Utility && !begun.contains(&Stage::Settle) {
            before.settle = new.settle;
        }
        if new.preset == Preset::Utility && !begun.contains(&Stage::Newest) {
            before.newest = new.newest;
        }
        before
    }

    /// The epochs of a stage at most; 0 for the stage `router`, which has none.
    pub(crate) fn stage_epochs(&self, stage: Stage) -> u64 {
        match stage {
            Stage::Joint | Stage::Supernet => self.epochs,
            Stage::Router => 0,
            Stage::Settle => self.settle.epochs,
            Stage::Newest => self.newest.epochs,
        }
    }

    /// The rule for items of a user's own history.
    pub(crate) fn seen(&self) -> SeenItems {
        SeenItems::excluded_if(self.exclude_seen)
    }
}

/// The rule of trainings that were saved before there was another.
fn exclude_seen() -> bool {
    true
}

/// Options of the stage `joint`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JointOptions {
    /// Temperature of the Gumbel-softmax that draws routes.
    pub temperature: f64,
    /// Weights of the terms.
    pub weights: LossWeights,
}

/// Options of the sandwich rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandwichOptions {
    /// Negatives of a step's sampled softmax. `None` stands for the full softmax.
    pub negatives: Option<usize>,
    /// Share of the full slice's probabilities in the targets of the other slices. The rest is the true item.
    pub distillation: f64,
    /// The loss of a narrow slice, and in the stage `supernet` the learning rate of its features, count
    /// `(widest / width)^narrow_boost` times. 0 treats all widths alike.
    #[serde(default)]
    pub narrow_boost: f64,
}

impl SandwichOptions {
    pub(crate) fn boost(&self) -> NarrowBoost {
        NarrowBoost(self.narrow_boost)
    }
}

/// Options of the stage `router`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterOptions {
    /// The supernet leaves at most this many of a user's newest training positions to the router, and at most a tenth
    /// of them. The router has the validation position as well.
    pub holdout: usize,
}

/// Options of the stage `settle`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettleOptions {
    /// Passes over all training data, including the positions that were held out for the router. 0 skips the stage.
    pub epochs: u64,
    /// Initial learning rate of this stage and of the stage `newest`.
    pub learning_rate: f64,
}

/// Options of the stage `newest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NewestOptions {
    /// Passes over all interactions, including those of the validation and test splits. 0 skips the stage.
    pub epochs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Progress;

    #[test]
    fn time_is_shared_among_the_stages_with_work() {
        let options = |epochs: u64, settle: u64, newest: u64| TrainOptions {
            preset: Preset::Utility,
            epochs,
            settle: SettleOptions { epochs: settle, learning_rate: 0.1 },
            newest: NewestOptions { epochs: newest },
            ..Progress::for_tests().options
        };
        let (supernet, router, settle, newest) = (Stage::Supernet, Stage::Router, Stage::Settle, Stage::Newest);
        for (options, routes, expected) in [
            (options(5, 3, 1), 8, vec![(supernet, 0.65), (router, 0.85), (settle, 0.93), (newest, 1.0)]),
            (options(5, 3, 0), 8, vec![(supernet, 65.0 / 93.0), (router, 85.0 / 93.0), (settle, 1.0)]),
            (options(5, 3, 0), 1, vec![(supernet, 65.0 / 73.0), (settle, 1.0)]),
            (options(5, 0, 0), 8, vec![(supernet, 65.0 / 85.0), (router, 1.0)]),
            (options(5, 0, 0), 1, vec![(supernet, 1.0)]),
            (options(0, 0, 2), 8, vec![(router, 20.0 / 27.0), (newest, 1.0)]),
            (options(0, 0, 0), 1, vec![(supernet, 1.0)]),
            (Progress::for_tests().options, 8, vec![(Stage::Joint, 1.0)]),
        ] {
            for (stage, share) in expected {
                let found = options.ends_by(stage, routes);
                assert!((found - share).abs() < 1e-12, "{stage:?} of {routes} routes: {found} instead of {share}");
            }
        }
    }
}
