use std::fmt;
use std::sync::Arc;

use canet_domain::{
    Catalogue, Choice, History, ModelShape, Ranked, RequestFlops, Route, RoutePolicy, RouteSpace, choose_route,
};

use crate::checkpoint::{
    Checkpoint, CheckpointError, Description, Fault, Manifest, ModelDirectory, ReplayError, TitlesFault,
};
use crate::{Backend, Forward, ForwardError, LoadError, ModelConfig, Precision, Query, RankedBatch};

/// A checkpoint that answers: its description in host memory and its weights on a device.
///
/// ```no_run
/// use canet_domain::{Candidates, History, Item, Selection};
/// use canet_model::checkpoint::ModelDirectory;
/// use canet_model::{Backend, Model, Query};
///
/// # fn example(backend: &dyn Backend) -> Result<(), Box<dyn std::error::Error>> {
/// let directory = ModelDirectory::open("models/ml-100k".as_ref())?;
/// let model = Model::open(&directory, None, backend)?;
///
/// let items: Vec<Item> = ["50", "181"].iter().filter_map(|id| model.catalogue().item(id)).collect();
/// let history = History::in_window(&items, model.config().window(), 0)?;
/// let choice = model.route(&[&history], 0.3)?[0];
///
/// let excluded = items.iter().copied().collect();
/// let selection = Selection { k: 10, excluded: &excluded, candidates: Candidates::All };
/// for ranked in &model.rank(&[(choice.route, Query { history: &history, selection })])?[0] {
///     println!("{} {}", model.catalogue().id(ranked.item), ranked.score);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Model {
    name: String,
    version: u64,
    digest: String,
    manifest: Manifest,
    space: RouteSpace,
    catalogue: Catalogue,
    titles_fault: Option<TitlesFault>,
    forward: Arc<dyn Forward>,
    precision: Precision,
}

/// Why a version of a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is missing, damaged or invalid.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The backend could not load the weights.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model answers its probes differently here than where it was written.
    #[error("model {name} version {version}: {source}")]
    Probes {
        /// The model's name.
        name: String,
        /// The version.
        version: u64,
        /// The first answer that differs.
        source: ReplayError,
    },
}

impl OpenError {
    /// Who is at fault that the version could not be opened.
    pub fn fault(&self) -> Fault {
        match self {
            OpenError::Checkpoint(error) => error.fault(),
            OpenError::Probes { .. } => Fault::Rejected,
            OpenError::Load(_) => Fault::Server,
        }
    }
}

impl Checkpoint {
    /// Replays the probes on a backend, and frees what that takes.
    ///
    /// # Errors
    /// [`OpenError`] if the backend cannot load the weights, or a probe's answer differs.
    pub fn replay_probes(&self, backend: &dyn Backend) -> Result<(), OpenError> {
        let forward = backend.load(&self.config, &self.weights)?;
        self.probes.replay(&*forward, &self.space, backend.tolerance()).map_err(|source| OpenError::Probes {
            name: self.name.clone(),
            version: self.version,
            source,
        })
    }
}

impl Model {
    /// Reads a version (`None`: the highest), loads its weights onto the backend's device and replays its probes.
    ///
    /// The copy of the weights in host memory is freed as soon as the device has its own.
    ///
    /// # Errors
    /// [`OpenError`] if the checkpoint is invalid, the backend cannot load it, or a probe's answer differs.
    pub fn open(directory: &ModelDirectory, version: Option<u64>, backend: &dyn Backend) -> Result<Model, OpenError> {
        let Checkpoint { name, version, digest, manifest, config, space, weights, catalogue, titles_fault, probes } =
            directory.load(version)?;
        let forward = backend.load(&config, &weights)?;
        drop(weights);
        if let Err(source) = probes.replay(&*forward, &space, backend.tolerance()) {
            return Err(OpenError::Probes { name, version, source });
        }
        let precision = backend.precision();
        Ok(Model { name, version, digest, manifest, space, catalogue, titles_fault, forward, precision })
    }

    /// A model of a checkpoint whose weights `forward` already holds in float32. Its probes are not replayed.
    pub fn with_forward(checkpoint: Checkpoint, forward: Arc<dyn Forward>) -> Model {
        let Checkpoint { name, version, digest, manifest, space, catalogue, titles_fault, .. } = checkpoint;
        let precision = Precision::Fp32;
        Model { name, version, digest, manifest, space, catalogue, titles_fault, forward, precision }
    }

    /// The router's choice for each history under a budget, which is a share of the full model's FLOPs. A server asks it
    /// only where the budget's [policy](Model::policy) says so.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails or a logit is not finite.
    pub fn route(&self, histories: &[&History], budget: f64) -> Result<Vec<Choice>, ForwardError> {
        let logits = self.forward.router_logits(histories)?;
        if !logits.is_finite() {
            return Err(ForwardError::NotFinite("the router's logits"));
        }
        let bias = self.bias(budget);
        Ok(logits.iter().map(|logits| choose_route(&self.space, logits, &bias)).collect())
    }

    /// The best items of each row, best first, in the order of the rows.
    ///
    /// A row lacks items if their scores are NaN: ask [`is_complete`](Model::is_complete) before using it. One bad row thus
    /// fails no other row of its batch.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn rank(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        self.forward.rank(rows)
    }

    /// Like [`rank`](Model::rank), and reuses and keeps states of histories if the forward has a cache for them.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn rank_reusing(&self, rows: &[(Route, Query<'_>)]) -> Result<RankedBatch, ForwardError> {
        self.forward.rank_reusing(rows)
    }

    /// Whether a query's ranking has every item that it must have, with finite scores. This costs a comparison an item of
    /// the ranking.
    pub fn is_complete(&self, query: &Query<'_>, ranking: &[Ranked]) -> bool {
        query.selection.is_complete(ranking, self.catalogue.len())
    }

    /// The cost of a request on a route, for a history of `length` items.
    pub fn cost(&self, route: Route, length: usize) -> RequestFlops {
        self.shape().request_flops(&self.space, route, length)
    }

    /// What decides routes under a budget: the router, or one route without the router.
    pub fn policy(&self, budget: f64) -> RoutePolicy {
        self.manifest.policy(&self.space, budget)
    }

    /// The value that a budget adds to each route's logit, wherever the router decides. The values are zero if the
    /// checkpoint is not calibrated.
    pub fn bias(&self, budget: f64) -> Vec<f32> {
        self.manifest.bias(&self.space, budget)
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checkpoint's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// SHA-256 of the checkpoint's manifest.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The checkpoint's description of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The checkpoint without its weights, for programs.
    pub fn description(&self) -> Description<'_> {
        let Model { name, version, digest, manifest, space, .. } = self;
        Description { name, version: *version, digest, manifest, space }
    }

    /// The sizes and flags of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.manifest.config
    }

    /// The sizes that fix the cost of a route.
    pub fn shape(&self) -> ModelShape {
        self.config().shape()
    }

    /// The routes.
    pub fn space(&self) -> &RouteSpace {
        &self.space
    }

    /// Ids, titles and popularity of the items.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Why titles are missing from the catalogue, if some are.
    pub fn titles_fault(&self) -> Option<&TitlesFault> {
        self.titles_fault.as_ref()
    }

    /// The weights on their device.
    pub fn forward(&self) -> &Arc<dyn Forward> {
        &self.forward
    }

    /// The numbers in which the forward stores weights and multiplies.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

impl fmt::Display for Model {
    /// Name and version, as in `ml-100k, version 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, version {}", self.name, self.version)
    }
}
