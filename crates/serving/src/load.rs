use std::collections::{HashMap, HashSet};
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::gate::Measured;
use super::{Gate, Generation, Policy, Priority, Regression, Timings};
use crate::metrics::{Metrics, Reloaded};
use canet_domain::{History, HistoryError, Item, Route};
use canet_model::checkpoint::{Fault, ModelDirectory};
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
    /// What a version must pass that nobody asked for by name. `None` lets every version pass.
    pub gate: Option<Gate>,
    /// Registers the generations' series.
    pub metrics: Arc<Metrics>,
}

/// What a server begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Start {
    /// The live version. `None` means the highest that is not the candidate.
    pub version: Option<u64>,
    /// Whether that must pass the gate.
    pub gated: bool,
    /// The candidate's version and the share of the users whom it answers.
    pub candidate: Option<(u64, f64)>,
}

/// Why a version does not serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The version could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The gate keeps the version from serving.
    #[error(transparent)]
    Regression(#[from] Regression),
    /// The only version of the model is to be the candidate.
    #[error("{path}: version {candidate} is to be the candidate, and there is no other version for the other users")]
    NoOther {
        /// The model's directory.
        path: PathBuf,
        /// The candidate's version.
        candidate: u64,
    },
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
    /// The model has no item that a history for the warm-up could have.
    #[error("the model has no item that it could be warmed up with ({0}): train it on other data")]
    NoHistory(#[from] HistoryError),
    /// The device failed during the warm-up, or the model computed NaN or infinity in it.
    #[error("the model failed its warm-up: {0}{remedy}", remedy = warm_up_remedy(.0))]
    WarmUp(#[from] ForwardError),
}

impl LoadError {
    /// Who is at fault that the version does not serve.
    pub fn fault(&self) -> Fault {
        match self {
            LoadError::Open(error) => error.fault(),
            LoadError::Regression(_)
            | LoadError::NoOther { .. }
            | LoadError::NoRoute { .. }
            | LoadError::NoHistory(_)
            | LoadError::WarmUp(ForwardError::NotFinite(_)) => Fault::Rejected,
            LoadError::WarmUp(ForwardError::Device(_) | ForwardError::Shape { .. }) => Fault::Server,
        }
    }
}

/// What to do about a warm-up that failed, if the error does not say so itself.
fn warm_up_remedy(error: &ForwardError) -> &'static str {
    match error {
        ForwardError::NotFinite(_) => "",
        ForwardError::Device(_) => "; see that the device works and has memory for one more version",
        ForwardError::Shape { .. } => "; this is a bug: report it, and serve another version meanwhile",
    }
}

impl Loader {
    /// Opens a version (`None`: the highest) and warms it up.
    ///
    /// [`Priority::BesideLive`] slows the calling thread for good, so such a load needs a thread of its own.
    ///
    /// # Errors
    /// [`LoadError`] if the version cannot be opened or the device fails.
    pub fn load(&self, version: Option<u64>, priority: Priority) -> Result<Generation, LoadError> {
        self.load_from(&self.directory, version, priority)
    }

    fn load_from(
        &self,
        directory: &ModelDirectory,
        version: Option<u64>,
        priority: Priority,
    ) -> Result<Generation, LoadError> {
        let started = Instant::now();
        priority.apply_to_thread();
        let model = Model::open(directory, version, &*self.backend)?;
        if let Some(fault) = model.titles_fault() {
            tracing::warn!(version = model.version(), %fault, "titles are missing");
        }
        let fixed_route = self.fixed_route_of(&model)?;
        self.tell_reachable_budget(&model);
        if self.backend.history_cache() > 0 && model.forward().history_cache().is_none() {
            let reason = "the model counts positions from the newest item, so that each new item changes all states";
            tracing::info!(version = model.version(), reason, "no histories are kept");
        }
        let timings = self.warm_up(&model, priority)?;
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

    /// Says in the log that the server's budget is more than the model spends.
    fn tell_reachable_budget(&self, model: &Model) {
        let last = model.manifest().calibration.as_ref().and_then(|calibration| calibration.reachable().last());
        let Some(last) = last.filter(|last| self.fixed_route.is_none() && self.policy.budget > last.budget) else {
            return;
        };
        tracing::info!(
            flops_budget = self.policy.budget,
            reachable = last.budget,
            spent = last.spent,
            "this model spends no more than `reachable`, whatever greater budget is asked for"
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

    /// Loads the version to start with: the named one, or the highest that is not the candidate's.
    ///
    /// If the highest version is incomplete, the one below it is loaded, so that a server can start while somebody copies a
    /// version. A gated start also passes over damaged versions and those that the gate refuses. It thus serves what a server
    /// with --watch would serve by now: a version that does not load has no part in what the gate compares. Every version
    /// that is passed over is logged and counted.
    ///
    /// # Errors
    /// [`LoadError`] of the first version that is not passed over, or of the last one if all are.
    pub fn load_first(&self, start: Start) -> Result<Generation, LoadError> {
        self.load_first_of(&self.directory, start)
    }

    /// Like [`load_first`](Loader::load_first), but takes the versions of a store that were copied before. `None` if none of
    /// them will do, or if the model is in no store.
    pub(crate) fn load_first_copy(&self, start: Start) -> Option<Generation> {
        self.load_first_of(&self.directory.copies()?, start).ok()
    }

    fn load_first_of(&self, directory: &ModelDirectory, start: Start) -> Result<Generation, LoadError> {
        if start.version.is_some() {
            return self.load_from(directory, start.version, Priority::WholeMachine);
        }
        let mut versions = directory.versions().map_err(OpenError::from)?;
        if let Some((candidate, _)) = start.candidate {
            versions.retain(|version| *version != candidate);
            if versions.is_empty() {
                return Err(LoadError::NoOther { path: self.directory.address(), candidate });
            }
        }
        let mut reported = HashSet::new();
        loop {
            let started = Instant::now();
            let mut refused = match self.gate.filter(|_| start.gated) {
                Some(gate) => self.refused_by(gate, directory, &versions),
                None => HashMap::new(),
            };
            let place = versions.iter().rposition(|version| !refused.contains_key(version));
            for version in versions.iter().skip(place.map_or(0, |place| place + 1)).rev() {
                if let Some(regression) = refused.remove(version).filter(|_| reported.insert(*version)) {
                    tracing::warn!(%regression, "the version is refused: one before it is loaded");
                    self.metrics.reloaded(Reloaded::Regression, started.elapsed());
                }
            }
            let version = place.map(|place| versions.remove(place));
            let error = match self.load_from(directory, version, Priority::WholeMachine) {
                Err(error) if !versions.is_empty() => error,
                outcome => return outcome,
            };
            match error.fault() {
                Fault::Incomplete => {
                    tracing::warn!(%error, "the version is incomplete: the one before it is loaded");
                    self.metrics.reloaded(Reloaded::Incomplete, started.elapsed());
                }
                Fault::Missing | Fault::Rejected if start.gated => {
                    tracing::warn!(%error, "the version is refused: the one before it is loaded");
                    self.metrics.reloaded(Reloaded::Rejected, started.elapsed());
                }
                Fault::Missing | Fault::Rejected | Fault::StoreUnavailable | Fault::Server => return Err(error),
            }
        }
    }

    /// Replays the watch over `versions`, in ascending order, and returns those that the gate would have refused. It never
    /// refuses the first.
    fn refused_by(&self, gate: Gate, directory: &ModelDirectory, versions: &[u64]) -> HashMap<u64, Regression> {
        let (mut refused, mut live) = (HashMap::new(), None);
        for version in versions {
            // Loading reports what is wrong with this one.
            let Ok(new) = self.measured(directory, *version) else { continue };
            match live.as_ref().map_or(Ok(()), |live| gate.check(&new, live)) {
                Ok(()) => live = Some(new),
                Err(regression) => drop(refused.insert(*version, regression)),
            }
        }
        refused
    }

    /// Checks whether a version may replace `live`. It reads the version's manifest alone.
    ///
    /// # Errors
    /// [`LoadError`] if it may not, or if the manifest cannot be read.
    pub(crate) fn check_gate(&self, version: u64, live: &Generation) -> Result<(), LoadError> {
        let Some(gate) = self.gate else { return Ok(()) };
        Ok(gate.check(&self.measured(&self.directory, version)?, &self.measured_of(live))?)
    }

    fn measured(&self, directory: &ModelDirectory, version: u64) -> Result<Measured, LoadError> {
        let manifest = directory.manifest(version).map_err(OpenError::from)?;
        Ok(Measured::of(version, &manifest, self.fixed_route.as_deref()))
    }

    fn measured_of(&self, generation: &Generation) -> Measured {
        let model = &generation.model;
        Measured::of(model.version(), model.manifest(), self.fixed_route.as_deref())
    }

    /// Runs every route once, so that no request pays for the first run, and checks that all scores are finite. If the forward chooses kernels by shape, each
    /// width's largest route also runs in batches of every size up to the largest.
    ///
    /// Then it times the routes, unless live batches run beside it: they would distort the times.
    fn warm_up(&self, model: &Model, priority: Priority) -> Result<Option<Timings>, LoadError> {
        let (space, forward, max_len) = (model.space(), model.forward(), model.config().max_len);
        let longest = longest_history(model.catalogue().by_popularity(), max_len)?;
        if !forward.router_logits(&[&longest])?.is_finite() {
            return Err(ForwardError::NotFinite("the router's logits").into());
        }
        for route in space.routes() {
            if !forward.scores(route, &[&longest])?.is_finite() {
                return Err(ForwardError::NotFinite("the scores").into());
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
        match priority {
            Priority::WholeMachine => Ok(Some(Timings::measure(model, &longest, self.max_batch)?)),
            Priority::BesideLive => Ok(None),
        }
    }
}

/// A history of `max_len` items. It repeats `items` if they are fewer.
///
/// # Errors
/// [`HistoryError`] if there is no item.
fn longest_history(items: &[Item], max_len: usize) -> Result<History, HistoryError> {
    let items: Vec<Item> = items.iter().copied().cycle().take(max_len).collect();
    History::new(&items, max_len)
}

/// The powers of two below the largest batch, and the largest batch.
fn batch_sizes(max_batch: usize) -> impl Iterator<Item = usize> {
    let powers = iter::successors(Some(1_usize), |rows| rows.checked_mul(2));
    powers.take_while(move |rows| *rows < max_batch).chain([max_batch])
}

#[cfg(test)]
mod tests {
    use canet_domain::{HistoryError, Item};

    use super::longest_history;

    #[test]
    fn a_model_without_items_cannot_be_warmed_up() {
        let items: Vec<Item> = [3, 1].into_iter().filter_map(Item::new).collect();
        let history = longest_history(&items, 5).unwrap();
        assert_eq!(history.items().iter().map(|item| item.id()).collect::<Vec<_>>(), [3, 1, 3, 1, 3]);
        assert_eq!(longest_history(&[], 5), Err(HistoryError::Empty));
    }
}
