use std::iter;
use std::sync::Arc;
use std::time::Instant;

use super::{Generation, Pace, Policy, Timings};
use crate::metrics::{Metrics, Reloaded};
use canet_domain::{History, Item, Route};
use canet_model::checkpoint::ModelDirectory;
use canet_model::{Backend, ForwardError, Model, OpenError};

/// Opens versions of one model and makes generations of them.
#[derive(Debug)]
pub struct Loader {
    /// The model's versions.
    pub directory: ModelDirectory,
    /// Loads the weights.
    pub backend: Arc<dyn Backend>,
    /// How the generations serve.
    pub policy: Policy,
    /// Name of the route that every generation runs for requests that name none: `full`, `smallest` or a route's name.
    pub fixed_route: Option<String>,
    /// Rows of the largest batch that will run.
    pub max_batch: usize,
    /// Registers the generations' series.
    pub metrics: Arc<Metrics>,
}

/// Why a version does not serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The version could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The version has no route of the name that the server runs for every request.
    #[error(
        "{model} has no route {name:?}, which --route runs for every request: its routes are full, smallest, {}",
        routes.join(", ")
    )]
    NoRoute {
        /// Name and version of the model.
        model: String,
        /// The route's name.
        name: String,
        /// The names of the model's routes.
        routes: Vec<String>,
    },
    /// The device failed during the warm-up, or the model computed NaN or infinity in it.
    #[error("the model was warmed up without success: {0}")]
    WarmUp(#[from] ForwardError),
}

impl LoadError {
    /// Whether the version does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, LoadError::Open(error) if error.is_missing())
    }

    /// Whether files of the version are missing or end early, as while somebody copies them.
    pub fn is_incomplete(&self) -> bool {
        matches!(self, LoadError::Open(error) if error.is_incomplete())
    }

    /// Whether the checkpoint is at fault, rather than the device.
    pub fn checkpoint_at_fault(&self) -> bool {
        match self {
            LoadError::Open(error) => error.checkpoint_at_fault(),
            LoadError::NoRoute { .. } => true,
            LoadError::WarmUp(error) => matches!(error, ForwardError::NotFinite(_)),
        }
    }
}

impl Loader {
    /// Opens a version (`None`: the highest) and warms it up.
    ///
    /// [`Pace::BesideLive`] slows the calling thread for good, so such a load needs a thread of its own.
    ///
    /// # Errors
    /// [`LoadError`] if the version cannot be opened or the device fails.
    pub fn load(&self, version: Option<u64>, pace: Pace) -> Result<Generation, LoadError> {
        let started = Instant::now();
        pace.keep();
        let model = Model::open(&self.directory, version, &*self.backend)?;
        if let Some(fault) = model.titles_fault() {
            tracing::warn!(version = model.version(), %fault, "titles are missing");
        }
        let fixed_route = self.fixed_route_of(&model)?;
        self.warn_of_unreachable_budget(&model);
        if self.backend.history_cache() > 0 && model.forward().history_cache().is_none() {
            let reason = "the model counts positions from the newest item, so that each new item changes all states";
            tracing::info!(version = model.version(), reason, "no histories are kept");
        }
        let timings = self.warm_up(&model, pace)?;
        tracing::info!(
            model = model.name(),
            version = model.version(),
            routes = model.space().len(),
            items = model.catalogue().len(),
            weight_bytes = model.forward().weight_bytes(),
            backend = model.forward().backend(),
            precision = model.precision().name(),
            route = self.fixed_route.as_deref().unwrap_or("auto"),
            load_ms = started.elapsed().as_millis(),
            "the model is loaded, its probes agree"
        );
        Ok(Generation { timings, fixed_route, ..Generation::new(model, self.policy, &self.metrics) })
    }

    /// Says in the log that the server's budget is more than the router can spend.
    fn warn_of_unreachable_budget(&self, model: &Model) {
        let last = model.manifest().calibration.as_ref().and_then(|calibration| calibration.reachable().last());
        let Some(last) = last.filter(|last| self.fixed_route.is_none() && self.policy.budget > last.budget) else {
            return;
        };
        tracing::warn!(
            flops_budget = self.policy.budget,
            reachable = last.budget,
            spent = last.spent,
            "the router spends no more than at the largest reachable budget"
        );
    }

    /// The route of the loader's name in a model.
    fn fixed_route_of(&self, model: &Model) -> Result<Option<Route>, LoadError> {
        let Some(name) = &self.fixed_route else { return Ok(None) };
        let space = model.space();
        space.named(name).map(Some).ok_or_else(|| LoadError::NoRoute {
            model: model.to_string(),
            name: name.clone(),
            routes: space.routes().map(|route| space.name(route).to_owned()).collect(),
        })
    }

    /// Like [`load`](Loader::load) of the highest version. While that is incomplete, it loads the highest complete version
    /// instead, so that a server can start while somebody copies a version. Every version that it passes over is logged and
    /// counted.
    ///
    /// # Errors
    /// [`LoadError`] of the first version that is complete, or of the lowest if none is.
    pub fn load_newest_complete(&self, pace: Pace) -> Result<Generation, LoadError> {
        let mut versions = self.directory.versions().map_err(OpenError::from)?;
        let mut version = versions.pop();
        loop {
            let started = Instant::now();
            match self.load(version, pace) {
                Err(error) if error.is_incomplete() && !versions.is_empty() => {
                    tracing::warn!(%error, "the version is incomplete: the one before it is loaded");
                    self.metrics.reloaded(Reloaded::Incomplete, started.elapsed());
                    version = versions.pop();
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs every route once, so that no request pays for the first run, and checks that all scores are finite. If the forward chooses kernels by shape, each
    /// width's largest route also runs in batches of every size up to the largest.
    ///
    /// Then it times the routes, unless live batches run beside it: they would distort the times.
    fn warm_up(&self, model: &Model, pace: Pace) -> Result<Timings, ForwardError> {
        let (space, forward, max_len) = (model.space(), model.forward(), model.config().max_len);
        let popular = model.catalogue().by_popularity().iter().copied();
        let items: Vec<Item> = popular.cycle().take(max_len).collect();
        // This cannot fail: a catalogue is never empty and `max_len` is at least 1.
        let Ok(longest) = History::new(&items, max_len) else { return Ok(Timings::default()) };
        if !forward.router_logits(&[&longest])?.is_finite() {
            return Err(ForwardError::NotFinite("the router's logits"));
        }
        for route in space.routes() {
            if !forward.scores(route, &[&longest])?.is_finite() {
                return Err(ForwardError::NotFinite("the scores"));
            }
        }
        if forward.chooses_by_shape() {
            let width = |route| space.slice(route).hidden;
            // Routes ascend by width first, so the last route of a width is its largest.
            let is_largest =
                |&route: &Route| space.route(route.index() + 1).is_none_or(|next| width(next) != width(route));
            let largest: Vec<Route> = space.routes().filter(is_largest).collect();
            for rows in batch_sizes(self.max_batch) {
                let batch = vec![&longest; rows];
                forward.router_logits(&batch)?;
                for route in &largest {
                    forward.scores(*route, &batch)?;
                }
            }
        }
        match pace {
            Pace::Alone => Timings::measure(model, &longest, self.max_batch),
            Pace::BesideLive => Ok(Timings::default()),
        }
    }
}

/// The powers of two below the largest batch, and the largest batch.
fn batch_sizes(max_batch: usize) -> impl Iterator<Item = usize> {
    let powers = iter::successors(Some(1_usize), |rows| rows.checked_mul(2));
    powers.take_while(move |rows| *rows < max_batch).chain([max_batch])
}
