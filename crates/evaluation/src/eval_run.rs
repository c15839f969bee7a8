use crate::{CasesByUser, Estimate, Metric};
use canet_domain::{Flops, Route, RouteSpace};

/// The ranks of all targets under one routing policy or baseline.
///
/// A policy that draws routes at random has several assignments of routes to cases, and a case's values are means over
/// them.
#[derive(Clone, Debug)]
pub struct EvalRun {
    /// Name of the run: a route's name, `auto`, `random`, ...
    pub name: String,
    /// At least one.
    assignments: Vec<Assignment>,
    /// Cost of the full model without a router, by case.
    full_flops: Vec<Flops>,
    cases_by_user: CasesByUser,
}

/// One assignment of the cases to routes.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    /// Rank of the target, by case.
    pub(crate) ranks: Vec<Option<u32>>,
    /// Routes and cost; `None` for a baseline without a network.
    pub(crate) routed: Option<RoutedCases>,
}

#[derive(Clone, Debug)]
pub(crate) struct RoutedCases {
    /// Route, by case.
    pub(crate) routes: Vec<Route>,
    /// Cost of the slice and, if a router decided, of the router, by case.
    pub(crate) flops: Vec<Flops>,
}

/// What a run did on one of its routes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteUsage {
    /// The route.
    pub route: Route,
    /// Share of the users on this route, over all assignments. A user of several cases counts with the share of their
    /// cases.
    pub share: f64,
    /// NDCG@10 of those users on this route.
    pub ndcg: Estimate,
    /// HR@10 of those users on this route.
    pub hr: Estimate,
    /// Mean cost of those users, including the router if one decided.
    pub flops: f64,
}

impl EvalRun {
    pub(crate) fn new(
        name: impl Into<String>,
        assignments: Vec<Assignment>,
        full_flops: Vec<Flops>,
        cases_by_user: CasesByUser,
    ) -> EvalRun {
        EvalRun { name: name.into(), assignments, full_flops, cases_by_user }
    }

    /// Renames the run.
    pub fn named(mut self, name: impl Into<String>) -> EvalRun {
        self.name = name.into();
        self
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.cases_by_user.users()
    }

    /// Number of cases: the targets that were ranked.
    pub fn cases(&self) -> usize {
        self.full_flops.len()
    }

    /// A metric's value for each user: the mean over their cases and over the assignments.
    pub fn values(&self, metric: Metric) -> Vec<f64> {
        let count = self.assignments.len() as f64;
        self.cases_by_user.means(|case| {
            self.assignments.iter().map(|assignment| metric.value(assignment.ranks[case])).sum::<f64>() / count
        })
    }

    /// A metric's mean over the users.
    pub fn estimate(&self, metric: Metric) -> Estimate {
        Estimate::of(&self.values(metric))
    }

    /// Mean FLOPs over the users, including the router if one decided; `None` for a baseline without a network.
    pub fn flops(&self) -> Option<f64> {
        let routed: Option<Vec<&RoutedCases>> =
            self.assignments.iter().map(|assignment| assignment.routed.as_ref()).collect();
        let routed = routed?;
        let of_case = |case: usize| routed.iter().map(|routed| routed.flops[case] as f64).sum::<f64>();
        let count = routed.len() as f64;
        Some(mean(&self.cases_by_user.means(|case| of_case(case) / count)))
    }

    /// Mean FLOPs of the full model without a router, over the users.
    pub fn full_flops(&self) -> f64 {
        mean(&self.cases_by_user.means(|case| self.full_flops[case] as f64))
    }

    /// Share of the full model's FLOPs that the run saves; `None` for a baseline without a network.
    pub fn saved(&self) -> Option<f64> {
        self.flops().map(|flops| 1.0 - flops / self.full_flops())
    }

    /// The usage of each route that served at least one case, in the order of the routes.
    pub fn route_usage(&self, space: &RouteSpace) -> Vec<RouteUsage> {
        space.routes().filter_map(|route| self.usage_of(route)).collect()
    }

    fn usage_of(&self, route: Route) -> Option<RouteUsage> {
        // Rank and cost in each assignment that gave the case to this route.
        let served = |case: usize| {
            let routed = self.assignments.iter().filter_map(move |assignment| {
                let routed = assignment.routed.as_ref()?;
                Some((assignment.ranks[case], routed.routes[case], routed.flops[case]))
            });
            routed.filter(move |(_, own, _)| *own == route).map(|(rank, _, flops)| (rank, flops))
        };
        let counts = self.cases_by_user.means(|case| served(case).count() as f64);
        let of_served = |value: &dyn Fn(Option<u32>, Flops) -> f64| -> Vec<f64> {
            let sum = |case: usize| served(case).map(|(rank, flops)| value(rank, flops)).sum::<f64>();
            let sums = self.cases_by_user.means(sum);
            sums.iter().zip(&counts).filter(|(_, count)| **count > 0.0).map(|(sum, count)| sum / count).collect()
        };
        let estimate = |metric: Metric| Estimate::of(&of_served(&|rank, _| metric.value(rank)));
        counts.iter().any(|count| *count > 0.0).then(|| RouteUsage {
            route,
            share: counts.iter().sum::<f64>() / (self.assignments.len() * self.users()) as f64,
            ndcg: estimate(Metric::Ndcg(10)),
            hr: estimate(Metric::Hr(10)),
            flops: mean(&of_served(&|_, flops| flops as f64)),
        })
    }
}

/// The mean; 0 for no values. FLOPs are whole numbers whose sums are exact in float64, so equal runs have bit-identical
/// costs.
fn mean(values: &[f64]) -> f64 {
    Estimate::of(values).mean
}
