use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use canet_evaluation::{MultiModelEstimate, SeenItems, Shown};

use crate::verdict::Words;

/// Everything that a report found. It is the JSON document; the page and the plots are views of it.
///
/// Costs are FLOPs and seconds per request, as means over the test users.
#[derive(Serialize)]
pub(super) struct Findings {
    /// The conclusion at the budget of the summary.
    pub(super) verdict: Words,
    pub(super) metric: String,
    pub(super) users: usize,
    /// Number of test items in their user's own history. They count as misses if `seen_items` is `excluded`.
    pub(super) repeated_targets: usize,
    /// Whether items of the user's own history are ranked.
    pub(super) seen_items: SeenItems,
    pub(super) items: usize,
    pub(super) data: DataFinding,
    pub(super) models: Vec<ModelFinding>,
    pub(super) machine: Machine,
    pub(super) full_flops: f64,
    pub(super) router: Cost,
    /// Every route for every user, in the order of the routes.
    pub(super) routes: Vec<RouteFinding>,
    /// Vertices `[cost, value]` of the static mixtures on the test split, as means over the models. The mixtures are
    /// chosen on validation.
    pub(super) hull: Vec<[f64; 2]>,
    /// The same with seconds as the cost.
    pub(super) hull_by_time: Vec<[f64; 2]>,
    /// The route with the best validation metric, for every user.
    pub(super) strongest: PolicyFinding,
    /// Routes drawn uniformly.
    pub(super) random: PolicyFinding,
    /// The best route of each user in hindsight: an upper bound that is mostly noise.
    pub(super) oracle: OracleFinding,
    pub(super) popularity: Value,
    pub(super) markov: Value,
    /// The router at each budget, in ascending order of the budgets.
    pub(super) points: Vec<OperatingPoint>,
    pub(super) trained_alone: Vec<StandaloneModel>,
    pub(super) map: RouteMap,
}

impl Findings {
    /// The names of the models' strongest slices, without repeats.
    pub(super) fn strongest_names(&self) -> String {
        let names: BTreeSet<&str> = self.models.iter().map(|model| model.strongest.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

#[derive(Serialize)]
pub(super) struct DataFinding {
    pub(super) name: String,
    pub(super) sha256: String,
}

#[derive(Serialize)]
pub(super) struct ModelFinding {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) created: String,
    /// Whether the model was trained on this very data file.
    pub(super) same_data: bool,
    /// Whether the model was trained on another selection of this file's interactions, some of the targets among them.
    pub(super) may_know_targets: bool,
    /// Whether the training on these data started from weights that may know the targets.
    pub(super) started_from_everything: bool,
    pub(super) calibrated: bool,
    /// Epochs after which the time limit ended the training; `None` if it ended by itself.
    pub(super) cut_short_after: Option<u64>,
    /// Names of the routes on the hull, which is chosen on validation.
    pub(super) hull: Vec<String>,
    /// Name of the route with the best validation metric.
    pub(super) strongest: String,
}

#[derive(Serialize)]
pub(super) struct Machine {
    pub(super) backend: &'static str,
    pub(super) precision: &'static str,
    pub(super) threads: usize,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Cost {
    pub(super) flops: f64,
    pub(super) seconds: f64,
}

/// A mean over the users and the models.
#[derive(Clone, Serialize)]
pub(super) struct Value {
    pub(super) mean: f64,
    /// Standard error over users.
    pub(super) se: Option<f64>,
    /// 95 % confidence interval.
    pub(super) interval: Option<[f64; 2]>,
    /// Standard deviation over models.
    pub(super) spread: Option<f64>,
    pub(super) by_model: Vec<f64>,
}

impl From<MultiModelEstimate> for Value {
    fn from(found: MultiModelEstimate) -> Value {
        Value {
            mean: found.estimate.mean,
            se: found.estimate.se,
            interval: found.interval(),
            spread: found.model_sd,
            by_model: found.by_model,
        }
    }
}

impl Value {
    /// What the interval shows.
    pub(super) fn shown(&self) -> Shown {
        Shown::by(self.interval)
    }
}

/// One route for every user.
#[derive(Serialize)]
pub(super) struct RouteFinding {
    pub(super) name: String,
    pub(super) cost: Cost,
    /// Duration of the fastest and of the slowest timing round, relative to the median round.
    pub(super) rounds: [f64; 2],
    /// 1 - FLOPs / FLOPs of the full route.
    pub(super) saved: f64,
    pub(super) test: Value,
    /// Mean over the models on the validation split.
    pub(super) validation: f64,
    /// This route minus the full route, on the test split.
    pub(super) over_full: Value,
    /// Number of models that have this route on their hull.
    pub(super) on_hulls: usize,
}

#[derive(Serialize)]
pub(super) struct PolicyFinding {
    pub(super) cost: Cost,
    pub(super) test: Value,
}

/// An oracle has no measured time, because no server can run it.
#[derive(Serialize)]
pub(super) struct OracleFinding {
    pub(super) flops: f64,
    pub(super) test: Value,
}

/// The router at one budget.
#[derive(Serialize)]
pub(super) struct OperatingPoint {
    /// `None` if the checkpoint has no calibration.
    pub(super) budget: Option<f64>,
    /// The routes that servers run for everybody under this budget, because the router was not shown to gain or there is one
    /// route: one for each such model, without repeats. Empty if every model's router decides. The other fields are about the router.
    pub(super) fixed: Vec<String>,
    /// Number of such models.
    pub(super) fixed_in: usize,
    /// Includes the router's own cost.
    pub(super) cost: Cost,
    pub(super) saved: f64,
    /// Saved share of the full route's measured time.
    pub(super) seconds_saved: f64,
    pub(super) test: Value,
    /// Random routes with the router's own frequencies: expected value and cost, including the router's cost.
    pub(super) matched: PolicyFinding,
    pub(super) over: PairedDifferences,
    pub(super) permuted: PermutationFinding,
    /// Share of the users by route, as means over the models. Unused routes are left out.
    pub(super) shares: BTreeMap<String, f64>,
    /// Number of routes with at least 2 % of the users, as a mean over the models.
    pub(super) routes_in_use: f64,
}

/// Paired differences over the same users: the router minus something else.
#[derive(Serialize)]
pub(super) struct PairedDifferences {
    /// Minus the static mixture of equal FLOPs.
    pub(super) hull: Value,
    /// Minus the static mixture of equal measured time.
    pub(super) hull_by_time: Value,
    /// Minus the static mixture of equal FLOPs that was chosen on the other fold of the users.
    pub(super) hull_cross_fitted: Value,
    pub(super) full: Value,
    pub(super) strongest: Value,
    pub(super) matched: Value,
}

/// Permutation test of the router: gains over random routes with the router's frequencies.
#[derive(Serialize)]
pub(super) struct PermutationFinding {
    /// The router's own gain.
    pub(super) own: f64,
    /// Mean gain of the permutations.
    pub(super) mean: f64,
    /// The middle 95 % of the permutations' gains.
    pub(super) interval: [f64; 2],
    /// Whether this interval contains 0, up to rounding.
    #[serde(skip)]
    pub(super) gains_nothing: bool,
    /// One-sided p-value.
    pub(super) p: f64,
}

/// A model without routing: the full route of its own checkpoint, for every user.
#[derive(Serialize)]
pub(super) struct StandaloneModel {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) slice: String,
    pub(super) cost: Cost,
    pub(super) test: Value,
    /// Index among `points` of the router to compare with: the most expensive one that costs no more FLOPs, or the
    /// cheapest one if all cost more.
    pub(super) point: usize,
    /// The router at that point minus this model.
    pub(super) routed_over: Value,
    /// The strongest slice of the routed model minus this model.
    pub(super) strongest_over: Value,
    /// The routed model's slice of this model's name minus this model. `None` if it has no such slice.
    pub(super) same_slice_over: Option<Value>,
}

/// Which users the first model's router sends to which route.
#[derive(Serialize)]
pub(super) struct RouteMap {
    /// Index among `points`.
    pub(super) point: usize,
    /// Routes with at least 2 % of the users, in the order of the routes.
    pub(super) routes: Vec<String>,
    pub(super) groups: Vec<GroupFinding>,
}

/// How users are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Grouping {
    Taste,
    Length,
    Popularity,
}

#[derive(Serialize)]
pub(super) struct GroupFinding {
    pub(super) kind: Grouping,
    pub(super) label: String,
    pub(super) users: usize,
    /// Shares of the group, by route of the map.
    pub(super) shares: Vec<f64>,
    pub(super) saved: f64,
    pub(super) test: Value,
    /// The router minus random routes with the frequencies over all users.
    pub(super) over_matched: Value,
    /// The router minus the static mixture that costs as many FLOPs over all users.
    pub(super) over_hull: Value,
}
