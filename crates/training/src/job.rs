use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use canet_data::Dataset;
use canet_evaluation::Verdict;
use canet_model::checkpoint::Checkpoint;
use canet_model::{Backend, Device, ModelConfig};
use canet_torch::tch_device;

use crate::options::TrainOptions;
use crate::parameters::ParameterOptions;
use crate::stage::Stage;

/// A training to do.
pub struct TrainJob<'a> {
    /// The interactions.
    pub dataset: &'a Dataset,
    /// Sizes and flags of the model.
    pub config: ModelConfig,
    /// How to train it.
    pub options: TrainOptions,
    /// The model whose weights it starts from, in place of random ones alone. `options` records it.
    pub source: Option<&'a Checkpoint>,
    /// Where to train it.
    pub device: Device,
    /// Computes the forward passes that rank held-out users.
    pub backend: Arc<dyn Backend>,
    /// The model's directory, which gets the next version.
    pub out: &'a Path,
    /// Time for all stages. A resumed training has the rest of it.
    pub max_time: Option<Duration>,
    /// Save and stop at the end of this stage.
    pub stop_after: Option<Stage>,
    /// Whether to discard an unfinished training in `out`.
    pub restart: bool,
    /// Set by the caller to save and stop.
    pub stop: &'a AtomicBool,
}

impl TrainJob<'_> {
    /// How weights become parameters in this job.
    pub(crate) fn parameters(&self) -> ParameterOptions {
        ParameterOptions { recipe: self.options.recipe(), tied: self.options.tied, device: tch_device(self.device) }
    }
}

/// The result of a training.
pub struct Finished {
    /// The checkpoint, read back.
    pub checkpoint: Checkpoint,
    /// The conclusion from the test split, before a stage that learns it. `None` if an older program measured the
    /// model, or if an earlier process wrote the version and was stopped before its own end.
    pub verdict: Option<Verdict>,
}

/// How a training ended.
pub enum TrainOutcome {
    /// It wrote a checkpoint.
    Finished(Box<Finished>),
    /// It was stopped and saved its state. The same job continues it.
    Stopped,
    /// It finished the stage `stop_after` and saved its state. The same job continues with the next stage.
    Paused,
}
