use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::losses::{LossWeights, Losses};
use super::optimizer::AdamWOptions;
use super::parameters::Recipe;
use super::samples::SampleOptions;
use super::stage::Stage;
use canet_model::checkpoint::TrainingRecord;

/// What fixes the result of a training run beside the data; an unfinished run resumes only under the same options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// The stages of the run.
    pub preset: Preset,
    /// Passes over the training data, of the first stage.
    pub epochs: u64,
    /// What an epoch learns from.
    pub samples: SampleOptions,
    /// Samples a step.
    pub batch_size: usize,
    /// Learning rate of the first stage, at the end of the warm-up.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// The optimizer's settings.
    pub optimizer: AdamWOptions,
    /// Share of activations dropped.
    pub dropout: f64,
    /// Whether items are scored by the table by which they are read.
    pub tied: bool,
    /// Epochs without a better validation NDCG@10 after which a stage ends.
    pub patience: u64,
    /// Seed of weights, order, dropout and draws.
    pub seed: u64,
    /// Share of the full model's FLOPs to spend.
    pub flops_budget: f64,
    /// The preset `paper`'s own.
    pub joint: JointOptions,
    /// How slices learn in the preset `utility`.
    pub sandwich: SandwichOptions,
    /// How the router is fitted there.
    pub router: RouterOptions,
    /// How the weights learn on behind that router.
    pub settle: SettleOptions,
    /// How they learn every interaction in the end.
    #[serde(default)]
    pub newest: NewestOptions,
}

impl TrainOptions {
    /// The share of a run's time after which a stage ends.
    pub(crate) fn ends_by(&self, stage: Stage) -> f64 {
        if stage == Stage::Settle && self.newest.epochs == 0 { 1.0 } else { stage.ends_by() }
    }

    /// Themselves as a log and a checkpoint keep them, with this program's version.
    pub(crate) fn record(&self) -> TrainingRecord {
        let options = match serde_json::to_value(self) {
            Ok(Value::Object(options)) => options.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        TrainingRecord { program: env!("CARGO_PKG_VERSION").to_owned(), options, everything: false }
    }

    /// Whether a run that was begun with `before` may go on with these: what stages that have not begun read may differ.
    /// `begun` are those that have.
    pub(crate) fn continues(&self, before: &TrainOptions, begun: &[Stage]) -> bool {
        let mut before = before.clone();
        if self.preset == Preset::Utility && !begun.contains(&Stage::Router) {
            before.router.fit = self.router.fit;
        }
        if self.preset == Preset::Utility && !begun.contains(&Stage::Settle) {
            (before.settle, before.flops_budget) = (self.settle, self.flops_budget);
        }
        if self.preset == Preset::Utility && !begun.contains(&Stage::Newest) {
            before.newest = self.newest;
        }
        *self == before
    }
}

/// A way to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Every slice learns first; then the router learns from what each slice was worth to held-out users; then the
    /// weights learn on what was held out.
    Utility,
    /// As published: router and slices learn together, over drawn routes.
    Paper,
}

impl Preset {
    /// How weights begin, and which are learnt.
    pub(crate) fn recipe(self) -> Recipe {
        match self {
            Preset::Utility => Recipe::Plain,
            Preset::Paper => Recipe::Paper,
        }
    }

    /// Its stages, in order.
    pub(crate) fn stages(self) -> &'static [Stage] {
        match self {
            Preset::Utility => &[Stage::Supernet, Stage::Router, Stage::Settle, Stage::Newest],
            Preset::Paper => &[Stage::Joint],
        }
    }
}

/// Of the paper's objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JointOptions {
    /// Temperature of the route draws.
    pub temperature: f64,
    /// Form of the guide and balance terms.
    pub losses: Losses,
    /// Weights of the terms.
    pub weights: LossWeights,
}

/// Of the sandwich.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandwichOptions {
    /// Items drawn for a step's softmax; `None` for the whole catalogue.
    pub negatives: Option<usize>,
    /// Share of the full slice's probabilities in what other slices learn; the rest is the true item.
    pub distillation: f64,
}

/// Of the router's stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterOptions {
    /// Most positions of a user's training part that the supernet does not learn and the router learns from; also at
    /// most a tenth of that part. The validation position comes to them.
    pub holdout: usize,
    /// How the router comes from the utilities.
    pub fit: RouterFit,
}

/// How the checkpoint's router comes from the held-out utilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RouterFit {
    /// A teacher on pooled embeddings learns the utilities, and the router learns from the teacher on every training
    /// history.
    Distilled,
    /// The router learns the utilities itself (for comparison).
    Direct,
    /// As `distilled`, but the prediction alone decides: without the routes' means and their hull (for comparison).
    Uncalibrated,
}

/// Of the stage in which the weights learn what the router had for itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettleOptions {
    /// Passes over all training data, what was held out for the router included; 0 leaves the stage out.
    pub epochs: u64,
    /// Learning rate at its start, and at that of the stage behind it.
    pub learning_rate: f64,
}

/// Of the last stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NewestOptions {
    /// Passes over all interactions, those of the validation and of the test too; 0 leaves the stage out.
    pub epochs: u64,
}
