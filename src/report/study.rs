use std::path::Path;

use super::super::Failure;
use canet_data::Case;
use canet_domain::Route;
use canet_evaluation::{Hull, Metric, Ranker, RouteTable};
use canet_model::Model;
use canet_model::checkpoint::ModelDirectory;

/// What is compared.
pub(super) const METRIC: Metric = Metric::Ndcg(10);
/// Histories in one batch.
pub(super) const BATCH: usize = 128;

/// The item embedding table, one row a column of the scores. It is read from the checkpoint, because an opened model
/// keeps no weights in host memory.
pub(super) fn item_embedding(directory: &Path, model: &Model) -> Result<Vec<Vec<f32>>, Failure> {
    let checkpoint = ModelDirectory::open(directory).and_then(|directory| directory.load(Some(model.version())));
    let weights = checkpoint.map_err(Failure::data)?.weights;
    let table = weights.get("backbone.item_embedding").map_err(Failure::data)?;
    let columns = table.shape.last().copied().unwrap_or(1).max(1);
    Ok(table.data.chunks_exact(columns).map(<[f32]>::to_vec).collect())
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
        model: &Model,
        splits: &Splits<'_>,
        budgets: &[f64],
        progress: &dyn Fn(usize),
    ) -> Result<Study, Failure> {
        let space = model.space();
        let ranker = |cases| Ranker::new(model, cases, BATCH).map_err(Failure::data);
        let validation = ranker(&splits.validation)?.on_progress(progress).table(METRIC);
        let validation = validation.map_err(Failure::unavailable)?;
        let mut ranker = ranker(&splits.test)?.on_progress(progress);
        let test = ranker.table(METRIC).map_err(Failure::unavailable)?;
        // Without a calibration every budget has the same bias: zero.
        let budgets = if model.manifest().calibration.is_some() { budgets } else { &[1.0] };
        let choices = budgets.iter().map(|budget| ranker.choices(&model.bias(*budget))).collect::<Result<_, _>>();
        Ok(Study {
            hull: Hull::of(space, &validation.costs(space), &validation.means(|_| true)),
            costs: test.costs(space),
            choices: choices.map_err(Failure::unavailable)?,
            validation,
            test,
        })
    }

    /// The best route for everybody, by validation: the last corner of the hull.
    pub(super) fn strongest(&self) -> Option<Route> {
        self.hull.routes().last().copied()
    }
}
