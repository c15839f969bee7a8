use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::eval_run::{Assignment, RoutedCases};
use crate::{CasesByUser, Estimate, EvalRun, Metric, RouteTable, SeenItems, target_rank};
use canet_data::Case;
use canet_domain::{Flops, History, HistoryError, ModelShape, Route, RoutePolicy, RouteSpace, Window, choose_route};
use canet_model::{Forward, ForwardError, Model, Rows};

/// Number of assignments over which a run with random routes is averaged.
pub const RANDOM_ASSIGNMENTS: usize = 5;

/// The model under evaluation.
#[derive(Clone, Copy)]
pub struct EvaluatedModel<'a> {
    /// Runs the router and the slices.
    pub forward: &'a dyn Forward,
    /// The routes of `forward`.
    pub space: &'a RouteSpace,
    /// The sizes that fix the cost of a route.
    pub shape: ModelShape,
    /// Which items of a history the model reads.
    pub window: Window,
}

impl<'a> From<&'a Model> for EvaluatedModel<'a> {
    fn from(model: &'a Model) -> EvaluatedModel<'a> {
        EvaluatedModel {
            forward: &**model.forward(),
            space: model.space(),
            shape: model.shape(),
            window: model.config().window(),
        }
    }
}

/// Ranks the targets of cases on any routes.
///
/// The ranker keeps the rank of each (route, case) pair and the router's logits of each case, so runs that share them
/// compute them once.
pub struct Ranker<'a> {
    model: EvaluatedModel<'a>,
    cases: &'a [Case<'a>],
    histories: Vec<History>,
    /// Cases by descending length of history. Neighbours have about the same length, so a batch has little padding.
    /// The first batch is the largest, so a batch size that exceeds the memory fails at once.
    by_length: Vec<usize>,
    batch: usize,
    seen: SeenItems,
    /// By route, then by case; `None` until computed.
    ranks: Vec<Vec<Option<TargetRank>>>,
    /// By case; empty until computed.
    logits: Vec<Vec<f32>>,
    progress: Box<dyn Fn(usize) + 'a>,
}

/// A computed rank; `None` for a miss.
type TargetRank = Option<u32>;

impl<'a> Ranker<'a> {
    /// A ranker that gives the model batches of `batch` histories, at least 1.
    ///
    /// # Errors
    /// [`HistoryError`] if a case has an empty history. [`Dataset::cases`] returns no such case.
    ///
    /// [`Dataset::cases`]: canet_data::Dataset::cases
    pub fn new(
        model: impl Into<EvaluatedModel<'a>>,
        cases: &'a [Case<'a>],
        batch: usize,
    ) -> Result<Ranker<'a>, HistoryError> {
        let model = model.into();
        let histories: Vec<History> =
            cases.iter().map(|case| History::in_window(case.history, model.window, 0)).collect::<Result<_, _>>()?;
        let mut by_length: Vec<usize> = (0..cases.len()).collect();
        by_length.sort_by_key(|case| std::cmp::Reverse(histories[*case].len()));
        Ok(Ranker {
            model,
            cases,
            histories,
            by_length,
            batch: batch.max(1),
            seen: SeenItems::default(),
            ranks: vec![vec![None; cases.len()]; model.space.len()],
            logits: Vec::new(),
            progress: Box::new(|_| {}),
        })
    }

    /// Calls `progress` after each batch with the number of cases that the batch ranked.
    pub fn on_progress(mut self, progress: impl Fn(usize) + 'a) -> Ranker<'a> {
        self.progress = Box::new(progress);
        self
    }

    /// Ranks under a rule for items of the history. Without this call they are excluded.
    pub fn seeing(mut self, seen: SeenItems) -> Ranker<'a> {
        self.seen = seen;
        self
    }

    /// The rule for items of the history.
    pub fn seen(&self) -> SeenItems {
        self.seen
    }

    /// The cases. Every run has their users in this order.
    pub fn cases(&self) -> &'a [Case<'a>] {
        self.cases
    }

    /// The routes of the model.
    pub fn space(&self) -> &'a RouteSpace {
        self.model.space
    }

    /// Router logits of each case, one per route.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn logits(&mut self) -> Result<&[Vec<f32>], ForwardError> {
        if self.logits.is_empty() {
            let mut logits = vec![Vec::new(); self.cases.len()];
            for batch in self.by_length.chunks(self.batch) {
                let histories: Vec<&History> = batch.iter().map(|case| &self.histories[*case]).collect();
                let rows = self.model.forward.router_logits(&histories)?;
                if !rows.is_finite() {
                    return Err(ForwardError::NotFinite("the router's logits"));
                }
                for (place, case) in batch.iter().enumerate() {
                    logits[*case] = row(&rows, place)?.to_vec();
                }
            }
            self.logits = logits;
        }
        Ok(&self.logits)
    }

    /// The router's choice for each case, as a server makes it: the argmax of the logits plus the budget's `bias`.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn choices(&mut self, bias: &[f32]) -> Result<Vec<Route>, ForwardError> {
        let space = self.model.space;
        Ok(self.logits()?.iter().map(|logits| choose_route(space, logits, bias).route).collect())
    }

    /// `auto`: each case on the route that a server runs under a budget of this policy.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn routed(&mut self, policy: &RoutePolicy) -> Result<EvalRun, ForwardError> {
        let (routes, cost) = self.decided(policy)?;
        let assignment = self.assign(routes, cost)?;
        Ok(self.run("auto", vec![assignment]))
    }

    /// The route of each case under a policy, and what they pay for the router.
    fn decided(&mut self, policy: &RoutePolicy) -> Result<(Vec<Route>, RouterCost), ForwardError> {
        match policy {
            RoutePolicy::Router(bias) => Ok((self.choices(bias)?, RouterCost::Included)),
            RoutePolicy::Fixed(route) => Ok((vec![*route; self.cases.len()], RouterCost::None)),
        }
    }

    /// Every case on one route. The run has the route's name.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn fixed(&mut self, route: Route) -> Result<EvalRun, ForwardError> {
        let assignment = self.assign(vec![route; self.cases.len()], RouterCost::None)?;
        Ok(self.run(self.model.space.name(route), vec![assignment]))
    }

    /// `random`: each case on a route drawn uniformly, [`RANDOM_ASSIGNMENTS`] times.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn random(&mut self, seed: u64) -> Result<EvalRun, ForwardError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let routes: Vec<Route> = self.model.space.routes().collect();
        let assign = |_| {
            let drawn = self.cases.iter().map(|_| routes[rng.gen_range(0..routes.len())]).collect();
            self.assign(drawn, RouterCost::None)
        };
        let assignments = (0..RANDOM_ASSIGNMENTS).map(assign).collect::<Result<_, _>>()?;
        Ok(self.run("random", assignments))
    }

    /// `random-matched`: the routes of [`routed`](Self::routed) shuffled among the cases, [`RANDOM_ASSIGNMENTS`] times.
    ///
    /// The run has their frequencies and their cost, but its choices do not depend on the user.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn random_matched(&mut self, policy: &RoutePolicy, seed: u64) -> Result<EvalRun, ForwardError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut routes, cost) = self.decided(policy)?;
        let assign = |_| {
            routes.shuffle(&mut rng);
            self.assign(routes.clone(), cost)
        };
        let assignments = (0..RANDOM_ASSIGNMENTS).map(assign).collect::<Result<_, _>>()?;
        Ok(self.run("random-matched", assignments))
    }

    /// The run of a baseline without a network, from its rank of each case's target.
    pub fn without_network(&self, name: &str, ranks: Vec<Option<u32>>) -> EvalRun {
        self.run(name, vec![Assignment { ranks, routed: None }])
    }

    /// A metric's value and the cost of every route on every case.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn table(&mut self, metric: Metric) -> Result<RouteTable, ForwardError> {
        let EvaluatedModel { shape, space, .. } = self.model;
        for route in space.routes() {
            self.rank(route, &vec![route; self.cases.len()])?;
        }
        let lengths = || self.histories.iter().map(History::len);
        let values = |ranks: &Vec<Option<TargetRank>>| ranks.iter().map(|rank| metric.value(rank.flatten())).collect();
        let costs = |route| lengths().map(|length| shape.route_flops(space, route, length)).collect();
        Ok(RouteTable {
            values: self.ranks.iter().map(values).collect(),
            flops: space.routes().map(costs).collect(),
            router_flops: match space.len() {
                // No router runs.
                1 => vec![0; lengths().count()],
                routes => lengths().map(|length| shape.router_flops(routes, length)).collect(),
            },
            cases_by_user: CasesByUser::of(self.cases),
        })
    }

    /// Mean FLOPs over the users, by route, without a router.
    pub fn costs(&self) -> Vec<f64> {
        let EvaluatedModel { shape, space, .. } = self.model;
        let users = CasesByUser::of(self.cases);
        let cost = |route| {
            Estimate::of(&users.means(|case| shape.route_flops(space, route, self.histories[case].len()) as f64)).mean
        };
        space.routes().map(cost).collect()
    }

    fn run(&self, name: &str, assignments: Vec<Assignment>) -> EvalRun {
        let EvaluatedModel { shape, space, .. } = self.model;
        let full_flops = self.histories.iter().map(|history| shape.full_flops(space, history.len())).collect();
        EvalRun::new(name, assignments, full_flops, CasesByUser::of(self.cases))
    }

    /// Ranks each case on its route and counts the cost.
    fn assign(&mut self, routes: Vec<Route>, router_cost: RouterCost) -> Result<Assignment, ForwardError> {
        let EvaluatedModel { shape, space, .. } = self.model;
        for route in space.routes() {
            self.rank(route, &routes)?;
        }
        let cost = |(route, history): (&Route, &History)| -> Flops {
            let router = match router_cost {
                RouterCost::Included => shape.router_flops(space.len(), history.len()),
                RouterCost::None => 0,
            };
            shape.route_flops(space, *route, history.len()) + router
        };
        let rank = |(case, route): (usize, &Route)| self.ranks[route.index()][case].flatten();
        let ranks = routes.iter().enumerate().map(rank).collect();
        let flops = routes.iter().zip(&self.histories).map(cost).collect();
        Ok(Assignment { ranks, routed: Some(RoutedCases { routes, flops }) })
    }

    /// Ranks the cases that are assigned to `route` and have no rank on it yet.
    fn rank(&mut self, route: Route, assigned: &[Route]) -> Result<(), ForwardError> {
        let ranks = &mut self.ranks[route.index()];
        let is_missing = |case: &usize| assigned[*case] == route && ranks[*case].is_none();
        let missing: Vec<usize> = self.by_length.iter().copied().filter(is_missing).collect();
        for batch in missing.chunks(self.batch) {
            let read: Vec<(&History, Case<'_>)> =
                batch.iter().map(|case| (&self.histories[*case], self.cases[*case])).collect();
            let found = rank_targets(self.model.forward, route, &read, self.seen)?;
            for (case, rank) in batch.iter().zip(found) {
                ranks[*case] = Some(rank);
            }
            (self.progress)(batch.len());
        }
        Ok(())
    }
}

/// The rank of each case's target on a route, from 1, in the order of the cases; `None` for a miss. Each case comes with the
/// part of its history that the model reads. All of them are one batch of the forward pass.
///
/// # Errors
/// [`ForwardError`] if the device fails, or if a score is not finite.
pub fn rank_targets(
    forward: &dyn Forward,
    route: Route,
    batch: &[(&History, Case<'_>)],
    seen: SeenItems,
) -> Result<Vec<Option<u32>>, ForwardError> {
    let histories: Vec<&History> = batch.iter().map(|(history, _)| *history).collect();
    let scores = forward.scores(route, &histories)?;
    // A NaN would silently count as a miss.
    if !scores.is_finite() {
        return Err(ForwardError::NotFinite("the scores"));
    }
    let rank = |(place, (_, case)): (usize, &(&History, Case<'_>))| {
        Ok(target_rank(row(&scores, place)?, seen.masked(case.history), case.target))
    };
    batch.iter().enumerate().map(rank).collect()
}

/// Whether a run's cost includes the router.
#[derive(Clone, Copy)]
enum RouterCost {
    Included,
    None,
}

/// One row of a forward's result, which must have a row for each history.
fn row(rows: &Rows, place: usize) -> Result<&[f32], ForwardError> {
    rows.row(place).ok_or(ForwardError::Shape { columns: place + 1, values: rows.len() })
}

#[cfg(test)]
mod tests;
