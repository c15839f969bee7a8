use serde::{Deserialize, Serialize};

use super::losses::{LossWeights, Losses};
use super::optimizer::AdamWOptions;

/// What fixes the result of a training run beside the data; an unfinished run resumes only under the same options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Passes over the training windows.
    pub epochs: u64,
    /// Windows a step.
    pub batch_size: usize,
    /// Learning rate at the end of the warm-up.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// The optimizer's settings.
    pub optimizer: AdamWOptions,
    /// Share of activations dropped.
    pub dropout: f64,
    /// Epochs without a better validation NDCG@10 after which training stops.
    pub patience: u64,
    /// Seed of weights, order, dropout and route draws.
    pub seed: u64,
    /// Temperature of the route draws.
    pub temperature: f64,
    /// Form of the guide and balance terms.
    pub losses: Losses,
    /// Weights of the terms.
    pub weights: LossWeights,
    /// Whether every step also trains the full and the smallest slice on every row.
    pub sandwich: bool,
    /// Share of the full model's FLOPs to spend.
    pub flops_budget: f64,
}
