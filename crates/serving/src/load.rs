use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::{Generation, Pace, Policy, Timings};
use crate::metrics::Metrics;
use canet_domain::{History, Item, Route};
use canet_model::checkpoint::{Checkpoint, CheckpointError, ModelDirectory, ProbeError};
use canet_model::{Backend, Forward, ForwardError};

/// Makes generations from the checkpoints of one model.
#[derive(Debug)]
pub struct Loader {
    /// Where the versions are.
    pub directory: ModelDirectory,
    /// Where the weights go, and what runs them.
    pub target: Arc<dyn Backend>,
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
    Weights(#[from] canet_model::LoadError),
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
    /// The calling thread keeps the `pace`: with [`Pace::BesideLive`] it should be the load's own.
    ///
    /// # Errors
    /// [`LoadError`] where any of these fails: such a checkpoint must not serve.
    pub fn load(&self, version: Option<u64>, pace: Pace) -> Result<Generation, LoadError> {
        let started = Instant::now();
        pace.keep();
        let mut checkpoint = self.directory.load(version)?;
        // The copy in host memory goes as soon as the device has its own.
        let weights = mem::take(&mut checkpoint.weights);
        let forward = self.target.load(&checkpoint.config, &weights)?;
        drop(weights);
        let replayed = checkpoint.probes.replay(&*forward, &checkpoint.space, self.target.tolerance());
        replayed.map_err(|source| LoadError::Probes {
            name: checkpoint.name.clone(),
            version: checkpoint.version,
            source,
        })?;
        let timings = self.warm_up(&checkpoint, &*forward, pace)?;
        let (weight_bytes, backend) = (forward.weight_bytes(), forward.backend());
        let generation = Generation {
            timings,
            precision: self.target.precision(),
            ..Generation::new(checkpoint, forward, self.policy, &self.metrics)
        };
        tracing::info!(
            model = generation.name,
            version = generation.version,
            routes = generation.space.len(),
            items = generation.catalogue.len(),
            weight_bytes,
            backend,
            precision = self.target.precision().name(),
            load_ms = started.elapsed().as_millis(),
            "the model is loaded, its probes agree"
        );
        Ok(generation)
    }

    /// Runs every route once, so that no request pays for a first time; where kernels are chosen by shape also each width's
    /// largest route in batches up to the largest. Then times the routes, where nothing else runs: beside live requests
    /// the clock would tell of them, and what these have taught of the device still holds.
    fn warm_up(&self, checkpoint: &Checkpoint, forward: &dyn Forward, pace: Pace) -> Result<Timings, ForwardError> {
        let space = &checkpoint.space;
        let newest: Vec<Item> =
            checkpoint.catalogue.by_popularity().iter().copied().cycle().take(checkpoint.config.max_len).collect();
        // A catalogue is never empty and `max_len` is at least 1.
        let Ok(longest) = History::new(&newest, checkpoint.config.max_len) else { return Ok(Timings::default()) };
        for route in space.routes() {
            forward.scores(route, &[&longest])?;
        }
        let width = |route| space.slice(route).hidden;
        let widest = space.routes().filter(|&route| {
            // Routes ascend by width first: the last of a width is its largest.
            space.route(route.index() + 1).is_none_or(|next| width(next) != width(route))
        });
        let widest: Vec<Route> = widest.collect();
        let sizes = buckets(self.max_batch).filter(|_| forward.chooses_by_shape());
        for rows in sizes {
            let batch = vec![&longest; rows];
            forward.router_logits(&batch)?;
            for route in &widest {
                forward.scores(*route, &batch)?;
            }
        }
        match pace {
            Pace::Alone => Timings::measure(forward, (&checkpoint.config.shape(), space), &longest, self.max_batch),
            Pace::BesideLive => Ok(Timings::default()),
        }
    }
}

/// Powers of two below the largest batch, and that one.
fn buckets(max_batch: usize) -> impl Iterator<Item = usize> {
    let below = std::iter::successors(Some(1_usize), |rows| rows.checked_mul(2));
    below.take_while(move |rows| *rows < max_batch).chain([max_batch])
}
