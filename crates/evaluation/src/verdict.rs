//! The conclusion of an evaluation: is the model worth serving, and does routing pay?

use serde::{Deserialize, Serialize};

use crate::{Estimate, EvalRun, Metric, MultiModelEstimate, Ranker, SeenItems};
use canet_data::{Case, Dataset, Split};
use canet_domain::{Route, RoutePolicy, RouteSpace};
use canet_model::ForwardError;

/// The metric of every verdict.
const METRIC: Metric = Metric::Ndcg(10);

/// What a verdict compares, measured on the same users in the same order.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name: of a run or of a route. Models whose best slices differ have several names in one.
    pub name: String,
    /// What serves it: `auto`, `full` or a route's name. If the models differ, it is the first one's. `None` without a
    /// network.
    pub route: Option<String>,
    /// NDCG@10 by model, then by user. At least one model. A contender without a network has the same values for each model.
    pub values: Vec<Vec<f64>>,
    /// Mean FLOPs over the users, including the router if one decided; `None` without a network.
    pub flops: Option<f64>,
}

impl Contender {
    /// A run of one model.
    pub fn of_run(run: &EvalRun) -> Contender {
        let flops = run.flops();
        let route = flops.map(|_| run.name.clone());
        Contender { name: run.name.clone(), route, values: vec![run.values(METRIC)], flops }
    }
}

/// The measurements behind a verdict.
#[derive(Clone, Debug)]
pub struct VerdictInputs {
    /// Number of routes of the model.
    pub routes: usize,
    /// The router's budget as a share of the full model's FLOPs; `None` for a router that is not calibrated.
    pub budget: Option<f64>,
    /// The route of every request under this budget; `None` if the router decides.
    pub fixed: Option<String>,
    /// The routed model.
    pub routed: Contender,
    /// The full route for every user.
    pub full: Contender,
    /// The best single route that costs no more than the routed model. It is chosen on validation.
    pub slice: Contender,
    /// [`Popularity`](crate::Popularity).
    pub popularity: Contender,
    /// [`Markov`](crate::Markov).
    pub markov: Contender,
    /// Mean FLOPs of the full route over the users.
    pub full_flops: f64,
    /// Share of the targets that are in their user's own history.
    pub repeats: f64,
    /// The rule under which everything was ranked.
    pub seen: SeenItems,
}

/// The conclusion of an evaluation. Differences are paired over users, with 95 % intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the metric.
    pub metric: String,
    /// Number of users.
    pub users: usize,
    /// The router's budget as a share of the full model's FLOPs; `None` for a router that is not calibrated.
    pub budget: Option<f64>,
    /// The route of every request under this budget; `None` if the router decides. A verdict of an older version has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// Whether routing pays.
    pub routing: Routing,
    /// The simple baseline that the routed model is not shown to beat, if there is one.
    pub unbeaten: Option<Unbeaten>,
    /// The route that the verdict recommends to serve: `auto`, `full` or a route's name. It is the first model's if the
    /// best slices of several models differ. `None` if a simple baseline is as good as the model.
    pub serve: Option<String>,
    /// The metric of the routed model.
    pub routed: Estimate,
    /// Share of the full model's FLOPs that the routed model spends, router included.
    pub compute: f64,
    /// 1 - `compute`.
    pub saved: f64,
    /// The full route for every user.
    pub full: Rival,
    /// The best single route that costs no more than the routed model. It is chosen on validation.
    pub slice: Rival,
    /// The Markov chain.
    pub markov: Rival,
    /// The most popular items.
    pub popularity: Rival,
    /// Share of the targets that are in their user's own history.
    pub repeats: f64,
    /// The rule under which everything was ranked.
    pub seen: SeenItems,
}

/// What the routed model is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Its name, as [`Contender::name`].
    pub name: String,
    /// Its metric.
    #[serde(flatten)]
    pub value: Estimate,
    /// Share of the full model's FLOPs that it spends; `None` without a network.
    pub compute: Option<f64>,
    /// The routed model minus it.
    pub difference: Difference,
}

/// A paired difference over users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean and standard error.
    #[serde(flatten)]
    pub value: Estimate,
    /// 95 % interval; `None` for fewer than two users.
    pub interval: Option<[f64; 2]>,
    /// What the interval shows.
    pub shown: Shown,
}

/// What the interval of a difference shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// The first is better.
    Better,
    /// The first is worse.
    Worse,
    /// The interval includes zero, or there is no interval.
    Open,
}

/// Whether routing pays: the routed model against the best single route that costs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// The routed model is shown to be better.
    Pays,
    /// No difference is shown.
    NotShown,
    /// The routed model is shown to be worse.
    Loses,
    /// The router does not decide under this budget: on validation it was not shown to gain over fixed routes.
    Fixed,
    /// The model has one route.
    SingleRoute,
}

/// A simple baseline that the routed model is not shown to beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbeaten {
    /// Its name.
    pub name: String,
    /// Whether it is shown to be better than the routed model.
    pub wins: bool,
    /// Whether the full route is shown to beat both simple baselines.
    pub full_beats: bool,
}

impl Shown {
    /// What an interval shows.
    pub fn by(interval: Option<[f64; 2]>) -> Shown {
        match interval {
            Some([low, _]) if low > 0.0 => Shown::Better,
            Some([_, high]) if high < 0.0 => Shown::Worse,
            _ => Shown::Open,
        }
    }
}

impl Difference {
    /// The first contender minus the second.
    fn between(first: &Contender, second: &Contender) -> Difference {
        let paired = |(first, second): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            first.iter().zip(second).map(|(first, second)| first - second).collect()
        };
        let found = MultiModelEstimate::of(&first.values.iter().zip(&second.values).map(paired).collect::<Vec<_>>());
        let interval = found.interval();
        Difference { value: found.estimate, interval, shown: Shown::by(interval) }
    }
}

impl Verdict {
    /// Draws the conclusion.
    pub fn new(inputs: &VerdictInputs) -> Verdict {
        let VerdictInputs { routes, budget, fixed, routed, full, slice, popularity, markov, full_flops, repeats, seen } =
            inputs;
        let share = |contender: &Contender| contender.flops.map(|flops| flops / full_flops.max(f64::MIN_POSITIVE));
        let rival = |other: &Contender| Rival {
            name: other.name.clone(),
            value: MultiModelEstimate::of(&other.values).estimate,
            compute: share(other),
            difference: Difference::between(routed, other),
        };
        let compute = share(routed).unwrap_or(1.0);
        let [full_rival, slice_rival, markov_rival, popularity_rival] = [full, slice, markov, popularity].map(rival);
        let routing = match slice_rival.difference.shown {
            _ if *routes == 1 => Routing::SingleRoute,
            _ if fixed.is_some() => Routing::Fixed,
            Shown::Better => Routing::Pays,
            Shown::Open => Routing::NotShown,
            Shown::Worse => Routing::Loses,
        };
        let beats_simple = |contender: &Contender| {
            [markov, popularity].iter().all(|simple| Difference::between(contender, simple).shown == Shown::Better)
        };
        let unbeaten = [&markov_rival, &popularity_rival]
            .into_iter()
            .filter(|rival| rival.difference.shown != Shown::Better)
            // The later of two equals wins, so the order is reversed.
            .rev()
            .max_by(|a, b| a.value.mean.total_cmp(&b.value.mean))
            .map(|rival| Unbeaten {
                name: rival.name.clone(),
                wins: rival.difference.shown == Shown::Worse,
                full_beats: beats_simple(full),
            });
        let serve = match (&unbeaten, routing) {
            (Some(Unbeaten { full_beats: false, .. }), _) => None,
            (Some(_), _) => full.route.clone(),
            (None, Routing::Pays | Routing::Fixed | Routing::SingleRoute) => routed.route.clone(),
            (None, Routing::NotShown | Routing::Loses) if beats_simple(slice) => slice.route.clone(),
            // The routed model is shown to beat both simple baselines, and the slice is not.
            (None, Routing::NotShown | Routing::Loses) => routed.route.clone(),
        };
        let routed_value = MultiModelEstimate::of(&routed.values);
        Verdict {
            metric: METRIC.to_string(),
            users: routed.values.first().map_or(0, Vec::len),
            budget: *budget,
            fixed: fixed.clone(),
            routing,
            unbeaten,
            serve,
            routed: routed_value.estimate,
            compute,
            saved: 1.0 - compute,
            full: full_rival,
            slice: slice_rival,
            markov: markov_rival,
            popularity: popularity_rival,
            repeats: *repeats,
            seen: *seen,
        }
    }
}

/// The runs of one model that a verdict compares.
#[derive(Clone, Copy, Debug)]
pub struct VerdictRuns<'a> {
    /// The routed model.
    pub routed: &'a EvalRun,
    /// The full route for every user.
    pub full: &'a EvalRun,
    /// [`Popularity`](crate::Popularity).
    pub popularity: &'a EvalRun,
    /// [`Markov`](crate::Markov).
    pub markov: &'a EvalRun,
}

impl<'a> VerdictRuns<'a> {
    /// The runs among those of an evaluation; `None` if one is missing.
    pub fn among(runs: &'a [EvalRun]) -> Option<VerdictRuns<'a>> {
        let find = |name: &str| runs.iter().find(|run| run.name == name);
        Some(VerdictRuns {
            routed: find("auto")?,
            full: find("full")?,
            popularity: find("popularity")?,
            markov: find("markov")?,
        })
    }

    /// Chooses the single route on the validation cases, ranks it on the test cases and draws the conclusion. `budget` is the
    /// router's, `None` if it is not calibrated, and `policy` is what decides routes under it. A policy that is itself a
    /// single route is compared with no other.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn judge(
        &self,
        test: &mut Ranker<'_>,
        validation: &mut Ranker<'_>,
        budget: Option<f64>,
        policy: &RoutePolicy,
    ) -> Result<Verdict, ForwardError> {
        let limit = self.routed.flops().unwrap_or_default();
        let value = |route| Ok(validation.fixed(route)?.estimate(METRIC).mean);
        let slice = match policy {
            RoutePolicy::Router(_) => best_affordable_route(test.space(), &test.costs(), limit, value)?,
            RoutePolicy::Fixed(route) => *route,
        };
        let slice = test.fixed(slice)?;
        let repeating = Case::repeating(test.cases());
        Ok(Verdict::new(&VerdictInputs {
            routes: test.space().len(),
            budget,
            fixed: policy.fixed().map(|route| test.space().name(route).to_owned()),
            routed: Contender::of_run(self.routed),
            full: Contender::of_run(self.full),
            slice: Contender::of_run(&slice),
            popularity: Contender::of_run(self.popularity),
            markov: Contender::of_run(self.markov),
            full_flops: self.full.full_flops(),
            repeats: repeating as f64 / test.cases().len().max(1) as f64,
            seen: test.seen(),
        }))
    }
}

/// At most about this many users take part where a sample of the users is enough.
const MOST_USERS: usize = 5000;

/// The validation cases on which the single route of a verdict is chosen: those of all users, or of every n-th user if there
/// are more than 5,000.
pub fn selection_cases(dataset: &Dataset) -> Vec<Case<'_>> {
    let cases = dataset.cases(Split::Validation);
    let every = selection_step(cases.len());
    cases.into_iter().step_by(every).collect()
}

/// Of `users` users, every how many-th takes part where about 5,000 are enough: in the choice of a verdict's single route,
/// and in the comparison of a training's epochs that have no router.
pub fn selection_step(users: usize) -> usize {
    users.div_ceil(MOST_USERS).max(1)
}

/// The route of the highest `value` among those whose cost is at most `limit`, or the cheapest route if all cost more. The
/// cheapest of equals wins. `costs` has one element per route.
///
/// # Errors
/// The first error of `value`.
pub fn best_affordable_route<E>(
    space: &RouteSpace,
    costs: &[f64],
    limit: f64,
    mut value: impl FnMut(Route) -> Result<f64, E>,
) -> Result<Route, E> {
    let mut order: Vec<Route> = space.routes().collect();
    order.sort_by(|a, b| costs[a.index()].total_cmp(&costs[b.index()]));
    let mut best = (order.first().copied().unwrap_or(space.smallest()), f64::NEG_INFINITY);
    for route in order.into_iter().take_while(|route| costs[route.index()] <= limit) {
        let value = value(route)?;
        if value > best.1 {
            best = (route, value);
        }
    }
    Ok(best.0)
}

#[cfg(test)]
mod tests;
