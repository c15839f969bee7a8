use crate::Failure;
use canet_data::Case;
use canet_domain::Route;
use canet_evaluation::{Metric, Ranker, RouteTable, SeenItems, UpperHull};
use canet_model::Model;
use canet_model::checkpoint::ModelDirectory;

/// The metric of the report.
pub(super) const METRIC: Metric = Metric::Ndcg(10);
/// Number of histories in a batch.
pub(super) const BATCH: usize = 128;

/// The cases of both splits. Both have the same users in the same order.
pub(super) struct Splits<'a> {
    pub(super) validation: Vec<Case<'a>>,
    pub(super) test: Vec<Case<'a>>,
}

/// One model, measured on both splits.
pub(super) struct MeasuredModel {
    pub(super) validation: RouteTable,
    pub(super) test: RouteTable,
    /// The upper hull of the routes on the validation split.
    pub(super) hull: UpperHull,
    /// Mean FLOPs over the test users, by route, without the router.
    pub(super) costs: Vec<f64>,
    /// The router's choices for the test users, by budget.
    pub(super) choices: Vec<Vec<Route>>,
    /// The route that a server runs for everybody instead of asking the router, by budget.
    pub(super) fixed: Vec<Option<Route>>,
}

/// How a model is measured.
#[derive(Clone, Copy)]
pub(super) struct MeasureOptions<'a> {
    /// Budgets of the router, as shares of the full model's FLOPs.
    pub(super) budgets: &'a [f64],
    /// The rule for items of a user's own history.
    pub(super) seen: SeenItems,
    /// Gets the number of cases of each batch that was ranked.
    pub(super) progress: &'a dyn Fn(usize),
}

impl MeasuredModel {
    /// Ranks every user of both splits on every route and runs the router at each budget.
    ///
    /// Without a calibration, budgets do not change the router's choices, so there is one set of choices.
    pub(super) fn measure(
        model: &Model,
        splits: &Splits<'_>,
        options: &MeasureOptions<'_>,
    ) -> Result<MeasuredModel, Failure> {
        let space = model.space();
        let MeasureOptions { budgets, seen, progress } = *options;
        let ranker = |cases| Ok::<_, Failure>(Ranker::new(model, cases, BATCH).map_err(Failure::data)?.seeing(seen));
        let validation = ranker(&splits.validation)?.on_progress(progress).table(METRIC);
        let validation = validation.map_err(Failure::forward)?;
        let mut ranker = ranker(&splits.test)?.on_progress(progress);
        let test = ranker.table(METRIC).map_err(Failure::forward)?;
        let budgets = if model.manifest().calibration.is_some() { budgets } else { &[1.0] };
        let choices = budgets.iter().map(|budget| ranker.choices(&model.bias(*budget))).collect::<Result<_, _>>();
        Ok(MeasuredModel {
            hull: validation.upper_hull(space),
            costs: test.costs(space),
            choices: choices.map_err(Failure::forward)?,
            fixed: budgets.iter().map(|budget| model.policy(*budget).fixed()).collect(),
            validation,
            test,
        })
    }

    /// Whether the router chooses at a budget as at the one before it, and a server does the same as there.
    pub(super) fn repeats(&self, place: usize) -> bool {
        let before = place.saturating_sub(1);
        match (self.choices.get(place), self.choices.get(before)) {
            (Some(choices), Some(earlier)) => choices == earlier && self.fixed[place] == self.fixed[before],
            // Without a calibration there are no budgets.
            _ => false,
        }
    }

    /// The route with the best validation metric: the last vertex of the hull.
    pub(super) fn strongest(&self) -> Option<Route> {
        self.hull.vertices().last().copied()
    }
}

/// The item embedding table, one row per column of the scores. It is read from the checkpoint again, because an opened
/// model keeps no weights in host memory.
pub(super) fn item_embedding(directory: &ModelDirectory, model: &Model) -> Result<Vec<Vec<f32>>, Failure> {
    let checkpoint = directory.load(Some(model.version()));
    let weights = checkpoint.map_err(|error| Failure::checkpoint(&error))?.weights;
    let table = weights.get("backbone.item_embedding").map_err(Failure::data)?;
    let columns = table.shape.last().copied().unwrap_or(1).max(1);
    Ok(table.data.chunks_exact(columns).map(<[f32]>::to_vec).collect())
}
