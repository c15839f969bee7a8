use std::sync::Arc;
use std::time::Instant;

use super::{Generation, Policy, Timings};
use crate::domain::{History, Item};
use crate::model::checkpoint::{Checkpoint, CheckpointError, ModelDirectory, ProbeError, Tolerance};
use crate::model::libtorch::{self, Device, LibTorch};
use crate::model::{Forward, ForwardError};
use crate::telemetry::Metrics;

/// Makes generations from the checkpoints of one model.
#[derive(Debug)]
pub struct Loader {
    /// Where the versions are.
    pub directory: ModelDirectory,
    /// Where the weights go.
    pub device: Device,
    /// How its checkpoints are served.
    pub policy: Policy,
    /// The largest batch that will run.
    pub max_batch: usize,
    /// Where the generation's series are made.
    pub metrics: Arc<Metrics>,
}

/// Why a checkpoint is not served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing, damaged or senseless.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights do not make a model on this device.
    #[error(transparent)]
    Weights(#[from] libtorch::LoadError),
    /// The model does not answer as it did where it was written.
    #[error("model {name} version {version}: {source}")]
    Probes {
        /// The model.
        name: String,
        /// The version.
        version: u64,
        /// What differs.
        source: ProbeError,
    },
    /// The device failed while the model was warmed up.
    #[error("the device failed while the model was warmed up: {0}")]
    WarmUp(#[from] ForwardError),
}

impl Loader {
    /// Reads a version (`None`: the highest), puts it on the device, replays its probes there and warms it up.
    ///
    /// # Errors
    /// [`LoadError`] where any of these fails: such a checkpoint must not serve.
    pub fn load(&self, version: Option<u64>) -> Result<Generation, LoadError> {
        let started = Instant::now();
        let checkpoint = self.directory.load(version)?;
        let forward = LibTorch::load(&checkpoint.config, &checkpoint.weights, self.device)?;
        let replayed = checkpoint.probes.replay(&forward, &checkpoint.space, Tolerance::FP32);
        replayed.map_err(|source| LoadError::Probes {
            name: checkpoint.name.clone(),
            version: checkpoint.version,
            source,
        })?;
        let timings = self.warm_up(&checkpoint, &forward)?;
        let weight_bytes = forward.weight_bytes();
        let generation =
            Generation { timings, ..Generation::new(checkpoint, Arc::new(forward), self.policy, &self.metrics) };
        tracing::info!(
            model = generation.name,
            version = generation.version,
            routes = generation.space.len(),
            items = generation.catalogue.len(),
            weight_bytes,
            load_ms = started.elapsed().as_millis(),
            "the model is loaded, its probes agree"
        );
        Ok(generation)
    }

    /// Runs every route once, and the largest batch of the full one, so that no request pays for a first time,
    /// and times them on the way.
    fn warm_up(&self, checkpoint: &Checkpoint, forward: &dyn Forward) -> Result<Timings, ForwardError> {
        let newest: Vec<Item> =
            checkpoint.catalogue.by_popularity().iter().copied().cycle().take(checkpoint.config.max_len).collect();
        // A catalogue is never empty and `max_len` is at least 1.
        let Ok(longest) = History::new(&newest, checkpoint.config.max_len) else { return Ok(Timings::default()) };
        let largest = vec![&longest; self.max_batch];
        forward.router_logits(&largest)?;
        forward.scores(checkpoint.space.full(), &largest)?;
        Timings::measure(forward, (&checkpoint.config.shape(), &checkpoint.space), &longest, self.max_batch)
    }
}
