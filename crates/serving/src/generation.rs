use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::Timings;
use crate::metrics::{Metrics, Series};
use canet_domain::{BatchBy, Catalogue, ModelShape, Route, RouteSpace};
use canet_model::checkpoint::{Calibration, Checkpoint, Manifest};
use canet_model::{Forward, Precision};

/// One checkpoint that serves: everything that an answer is made from.
///
/// A row holds the generation that it was validated against until it is answered, so that its router, its slice and
/// its catalogue are of one checkpoint whatever is swapped in meanwhile.
pub struct Generation {
    /// Tells generations apart, even two of the same version.
    pub id: GenerationId,
    /// The model's name.
    pub name: String,
    /// The checkpoint's version.
    pub version: u64,
    /// The checkpoint's digest.
    pub digest: String,
    /// What the checkpoint says of itself.
    pub manifest: Manifest,
    /// Ids, titles and popularity.
    pub catalogue: Catalogue,
    /// The routes.
    pub space: RouteSpace,
    /// What a route costs.
    pub shape: ModelShape,
    /// Share of the full model's FLOPs that a request without a budget of its own may spend.
    pub budget: f64,
    /// Added to the router's logits, one value a route, to spend that budget.
    pub bias: Vec<f32>,
    /// Which of its rows share a batch.
    pub batch_by: BatchBy,
    /// The weights on their device.
    pub forward: Arc<dyn Forward>,
    /// In which numbers it multiplies; float32 unless said.
    pub precision: Precision,
    /// The metrics of its routes and lanes.
    pub series: Series,
    /// What its batches took before it served; without any, costs are learnt from live ones alone.
    pub timings: Timings,
}

/// How a checkpoint is served.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The share of the full model's FLOPs to spend; without a calibration the router's own argmax counts.
    pub budget: f64,
    /// Which rows share a batch.
    pub batch_by: BatchBy,
}

/// Identity of a generation within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GenerationId(u64);

impl Generation {
    /// A generation of a checkpoint whose weights `forward` holds; a copy in host memory is dropped here.
    pub fn new(checkpoint: Checkpoint, forward: Arc<dyn Forward>, policy: Policy, metrics: &Metrics) -> Generation {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Checkpoint { name, version, digest, manifest, config, space, catalogue, .. } = checkpoint;
        let bias = manifest.bias(&space, policy.budget);
        Generation {
            id: GenerationId(NEXT.fetch_add(1, Ordering::Relaxed)),
            series: Series::new(metrics, &space, policy.batch_by),
            shape: config.shape(),
            name,
            version,
            digest,
            manifest,
            catalogue,
            space,
            budget: policy.budget,
            bias,
            batch_by: policy.batch_by,
            forward,
            precision: Precision::Fp32,
            timings: Timings::default(),
        }
    }

    /// What is added to the router's logits, one value a route, to spend a request's budget, or the server's.
    pub fn bias_for(&self, budget: Option<f64>) -> Cow<'_, [f32]> {
        budget.map_or(Cow::Borrowed(&self.bias), |budget| self.manifest.bias(&self.space, budget).into())
    }

    /// The checkpoint's budgets, where it was calibrated for any.
    pub(crate) fn calibration(&self) -> Option<&Calibration> {
        self.manifest.calibration.as_ref()
    }

    /// The place of a route's lane among this generation's lanes.
    pub fn lane(&self, route: Route) -> usize {
        self.batch_by.lane(&self.space, route)
    }

    /// Longest history that is read.
    pub fn max_len(&self) -> usize {
        self.manifest.config.max_len
    }
}

/// The generation that serves now, if any.
#[derive(Default)]
pub(crate) struct Current(ArcSwapOption<Generation>);

impl Current {
    /// The generation to pin in a new row.
    pub(crate) fn get(&self) -> Option<Arc<Generation>> {
        self.0.load_full()
    }

    /// Swaps a generation in and returns the old one: rows that pinned it still run on it.
    pub(crate) fn swap(&self, generation: Arc<Generation>) -> Option<Arc<Generation>> {
        self.0.swap(Some(generation))
    }
}
