use std::sync::Arc;

use super::super::Failure;
use canet_data::Case;
use canet_domain::{Route, choose_route};
use canet_evaluation::{Hull, Metric, Ranker, RouteTable, Subject};
use canet_model::checkpoint::{Checkpoint, ModelDirectory};
use canet_model::{Backend, Forward};

/// What is compared.
pub(super) const METRIC: Metric = Metric::Ndcg(10);
/// Histories in one batch.
pub(super) const BATCH: usize = 128;

/// A checkpoint, ready to run.
pub(super) struct Loaded {
    pub(super) checkpoint: Checkpoint,
    pub(super) forward: Arc<dyn Forward>,
}

impl Loaded {
    pub(super) fn open(path: &std::path::Path, target: &dyn Backend) -> Result<Loaded, Failure> {
        let checkpoint = ModelDirectory::open(path).and_then(|models| models.load(None)).map_err(Failure::data)?;
        let forward = target.load(&checkpoint.config, &checkpoint.weights).map_err(Failure::data)?;
        checkpoint.probes.replay(&*forward, &checkpoint.space, target.tolerance()).map_err(Failure::data)?;
        Ok(Loaded { checkpoint, forward })
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        let config = &self.checkpoint.config;
        Subject {
            forward: &*self.forward,
            space: &self.checkpoint.space,
            shape: config.shape(),
            max_len: config.max_len,
        }
    }

    /// The model's name and version.
    pub(super) fn name(&self) -> String {
        format!("{}, version {}", self.checkpoint.name, self.checkpoint.version)
    }
}

/// The cases of both splits: the same users in the same order.
pub(super) struct Splits<'a> {
    pub(super) validation: Vec<Case<'a>>,
    pub(super) test: Vec<Case<'a>>,
}

/// One checkpoint, measured on both splits.
pub(super) struct Study {
    pub(super) validation: RouteTable,
    pub(super) test: RouteTable,
    /// Chosen on validation.
    pub(super) hull: Hull,
    /// Mean cost by route over the test users, without the router.
    pub(super) costs: Vec<f64>,
    /// What the router chose for the test users at each budget.
    pub(super) choices: Vec<Vec<Route>>,
}

impl Study {
    /// Ranks every user of both splits on every route, and asks the router at each budget. Without a calibration there is
    /// one choice: the router's own.
    pub(super) fn of(
        loaded: &Loaded,
        splits: &Splits<'_>,
        budgets: &[f64],
        progress: &dyn Fn(usize),
    ) -> Result<Study, Failure> {
        let subject = loaded.subject();
        let space = subject.space;
        let ranker = |cases| Ranker::new(subject, cases, BATCH).map_err(Failure::data);
        let validation = ranker(&splits.validation)?.on_progress(progress).table(METRIC);
        let validation = validation.map_err(Failure::unavailable)?;
        let mut ranker = ranker(&splits.test)?.on_progress(progress);
        let test = ranker.table(METRIC).map_err(Failure::unavailable)?;
        let logits = ranker.logits().map_err(Failure::unavailable)?;
        let biases = match &loaded.checkpoint.manifest.calibration {
            Some(calibration) => budgets.iter().map(|budget| calibration.bias(*budget)).collect(),
            None => vec![vec![0.0; space.len()]],
        };
        let choose = |bias: &Vec<f32>| logits.iter().map(|row| choose_route(space, row, bias).route).collect();
        Ok(Study {
            hull: Hull::of(space, &validation.costs(space), &validation.means(|_| true)),
            costs: test.costs(space),
            choices: biases.iter().map(choose).collect(),
            validation,
            test,
        })
    }

    /// The best route for everybody, by validation: the last corner of the hull.
    pub(super) fn strongest(&self) -> Option<Route> {
        self.hull.routes().last().copied()
    }
}
