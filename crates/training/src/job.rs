use canet_torch::tch_device;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tch::TchError;

use super::options::TrainOptions;
use super::parameters::Parameters;
use super::stage::Stage;
use canet_data::Dataset;
use canet_model::Device;
use canet_model::checkpoint::Checkpoint;
use canet_model::{Backend, ModelConfig, Weights};

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
    /// What ranks held-out users between the epochs.
    pub target: Arc<dyn Backend>,
    /// The model's directory, which gets the next version.
    pub out: &'a Path,
    /// Time for the whole run, of which a resumed run has what is left.
    pub max_time: Option<Duration>,
    /// The stage at whose end to save and stop.
    pub stop_after: Option<Stage>,
    /// Whether an unfinished run in `out` is thrown away.
    pub restart: bool,
    /// Set from outside to save and stop.
    pub stop: &'a AtomicBool,
}

impl TrainJob<'_> {
    /// Weights as the job learns them, on its device.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn parameters(&self, weights: &Weights) -> Result<Parameters, TchError> {
        Parameters::from_weights(weights, self.options.preset.recipe(), self.options.tied, tch_device(self.device))
    }
}

/// How a run ended.
pub enum Outcome {
    /// With a checkpoint.
    Finished(Box<Checkpoint>),
    /// Saved and stopped; the same command goes on.
    Stopped,
    /// Saved at the end of the stage that was asked for; the next one begins the next stage.
    Paused,
}
