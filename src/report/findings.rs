use std::collections::BTreeMap;

use serde::Serialize;

use canet_evaluation::Replicated;

/// Everything that a report found: the JSON document, of which the page and the pictures are views. Costs are FLOPs and
/// seconds a request, means over the test users.
#[derive(Serialize)]
pub(super) struct Findings {
    pub(super) metric: String,
    pub(super) users: usize,
    /// Test items in their user's own history, which count as misses.
    pub(super) repeated_targets: usize,
    pub(super) items: usize,
    pub(super) data: DataFinding,
    pub(super) models: Vec<ModelFinding>,
    pub(super) machine: Machine,
    pub(super) full_flops: f64,
    pub(super) router: Cost,
    /// Every route for everybody, in the order of the routes.
    pub(super) routes: Vec<RouteFinding>,
    /// Corners of the validation-chosen static mixtures on the test split, `[cost, value]`; the mean over models.
    pub(super) hull: Vec<[f64; 2]>,
    /// The same with seconds as the cost.
    pub(super) hull_by_time: Vec<[f64; 2]>,
    /// The best route by validation for everybody.
    pub(super) strongest: Policy,
    /// Routes drawn uniformly.
    pub(super) random: Policy,
    /// The best route of each user in hindsight: a bound that is mostly noise.
    pub(super) oracle: Bound,
    pub(super) popularity: Value,
    pub(super) markov: Value,
    /// The router along the budgets, as they were given.
    pub(super) points: Vec<Point>,
    pub(super) trained_alone: Vec<Alone>,
    pub(super) map: Map,
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
    /// Made from these very data.
    pub(super) same_data: bool,
    pub(super) calibrated: bool,
    /// Chosen on validation.
    pub(super) hull: Vec<String>,
    /// Chosen on validation.
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

/// A mean over the users.
#[derive(Clone, Serialize)]
pub(super) struct Value {
    pub(super) mean: f64,
    /// Standard error over users.
    pub(super) se: Option<f64>,
    /// 95 %.
    pub(super) interval: Option<[f64; 2]>,
    /// Standard deviation over models.
    pub(super) spread: Option<f64>,
    pub(super) by_model: Vec<f64>,
}

impl From<Replicated> for Value {
    fn from(found: Replicated) -> Value {
        Value {
            mean: found.estimate.mean,
            se: found.estimate.se,
            interval: found.interval(),
            spread: found.spread,
            by_model: found.by_model,
        }
    }
}

/// What an interval says of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Worse,
    /// The interval holds zero, or there is none.
    Open,
}

impl Value {
    pub(super) fn verdict(&self) -> Verdict {
        match self.interval {
            Some([low, _]) if low > 0.0 => Verdict::Better,
            Some([_, high]) if high < 0.0 => Verdict::Worse,
            _ => Verdict::Open,
        }
    }
}

#[derive(Serialize)]
pub(super) struct RouteFinding {
    pub(super) name: String,
    pub(super) cost: Cost,
    /// The fastest and the slowest round of the timing, as a share of the median one.
    pub(super) rounds: [f64; 2],
    /// 1 - FLOPs / FLOPs of the full route.
    pub(super) saved: f64,
    pub(super) test: Value,
    /// The mean over the models.
    pub(super) validation: f64,
    /// This less the full route, on the test split.
    pub(super) over_full: Value,
    /// Models on whose hull it is.
    pub(super) on_hulls: usize,
}

#[derive(Serialize)]
pub(super) struct Policy {
    pub(super) cost: Cost,
    pub(super) test: Value,
}

/// What nobody can run.
#[derive(Serialize)]
pub(super) struct Bound {
    pub(super) flops: f64,
    pub(super) test: Value,
}

/// The router at a budget.
#[derive(Serialize)]
pub(super) struct Point {
    /// `None` where the checkpoint has no calibration.
    pub(super) budget: Option<f64>,
    /// The router's own cost included.
    pub(super) cost: Cost,
    pub(super) saved: f64,
    /// Of the full route's measured time.
    pub(super) seconds_saved: f64,
    pub(super) test: Value,
    /// Routes drawn with the router's own frequencies, whoever the user is: expected value and cost, the router's
    /// included.
    pub(super) matched: Policy,
    pub(super) over: Over,
    pub(super) permuted: PermutedFinding,
    /// Share of the users by route, the mean over models; those that nobody takes are left out.
    pub(super) shares: BTreeMap<String, f64>,
    /// Routes with 2 % of the users or more, the mean over models.
    pub(super) routes_in_use: f64,
}

/// Paired differences: the router less something else, over the same users.
#[derive(Serialize)]
pub(super) struct Over {
    /// The static mixture of equal FLOPs.
    pub(super) hull: Value,
    /// The static mixture of equal measured time.
    pub(super) hull_by_time: Value,
    /// The static mixture of equal FLOPs, chosen on the other half of the users.
    pub(super) hull_cross_fitted: Value,
    pub(super) full: Value,
    pub(super) strongest: Value,
    pub(super) matched: Value,
}

/// The router's choices dealt out to other users: gains over random routes of its frequencies.
#[derive(Serialize)]
pub(super) struct PermutedFinding {
    pub(super) own: f64,
    pub(super) mean: f64,
    /// The middle 95 % of the permutations.
    pub(super) interval: [f64; 2],
    /// One-sided.
    pub(super) p: f64,
}

/// A model without routing: the full route of its own checkpoint.
#[derive(Serialize)]
pub(super) struct Alone {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) slice: String,
    pub(super) cost: Cost,
    pub(super) test: Value,
    /// Place among `points` of the dearest that costs no more FLOPs, or else of the cheapest.
    pub(super) point: usize,
    /// The router at that point less this model.
    pub(super) routed_over: Value,
}

/// Which users the first model's router sends where.
#[derive(Serialize)]
pub(super) struct Map {
    /// Place among `points`.
    pub(super) point: usize,
    /// Routes with 2 % of the users or more, in the order of the routes.
    pub(super) routes: Vec<String>,
    pub(super) groups: Vec<GroupFinding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Taste,
    Length,
    Popularity,
}

#[derive(Serialize)]
pub(super) struct GroupFinding {
    pub(super) kind: Kind,
    pub(super) label: String,
    pub(super) users: usize,
    /// Of the group, by route of the map.
    pub(super) shares: Vec<f64>,
    pub(super) saved: f64,
    pub(super) test: Value,
    /// Routed less random routes of the same frequencies over all users.
    pub(super) over_matched: Value,
    /// Routed less the static mixture of the FLOPs that all users cost.
    pub(super) over_hull: Value,
}
