use crate::{CasesByUser, Estimate};
use canet_domain::{Flops, Route, RouteSpace};

/// A metric's value and the cost of every route on every case.
///
/// The table gives the outcome of any routing policy without running the model again. A policy that draws routes at
/// random has its expectation computed, so the draw adds no noise.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// The metric's value, by route, then by case.
    pub(crate) values: Vec<Vec<f64>>,
    /// Cost of the slice, by route, then by case.
    pub(crate) flops: Vec<Vec<Flops>>,
    /// Cost of the router, by case.
    pub(crate) router_flops: Vec<Flops>,
    pub(crate) cases_by_user: CasesByUser,
}

/// The values and the cost of a routing policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOutcome {
    /// The metric's value, by user.
    pub values: Vec<f64>,
    /// Mean FLOPs over the users.
    pub flops: f64,
}

impl RouteTable {
    /// Number of routes.
    pub fn routes(&self) -> usize {
        self.values.len()
    }

    /// The users of the cases.
    pub fn cases_by_user(&self) -> &CasesByUser {
        &self.cases_by_user
    }

    /// The metric's value on a route, by case.
    pub fn values(&self, route: Route) -> &[f64] {
        &self.values[route.index()]
    }

    /// Cost of a route's slice, by case.
    pub fn flops(&self, route: Route) -> &[Flops] {
        &self.flops[route.index()]
    }

    /// Cost of the router, by case.
    pub fn router_flops(&self) -> &[Flops] {
        &self.router_flops
    }

    /// Mean FLOPs of the router over the users.
    pub fn router_cost(&self) -> f64 {
        Estimate::of(&self.cases_by_user.means(|case| self.router_flops[case] as f64)).mean
    }

    /// Mean FLOPs over the users, by route, without a router.
    pub fn costs(&self, space: &RouteSpace) -> Vec<f64> {
        space.routes().map(|route| self.fixed(route).flops).collect()
    }

    /// Mean value, by route, over the users for whom `include` returns true. `include` gets the user's index.
    pub fn means(&self, include: impl Fn(usize) -> bool) -> Vec<f64> {
        let mean = |values: &Vec<f64>| {
            let by_user = self.cases_by_user.means(|case| values[case]).into_iter().enumerate();
            let included = by_user.filter(|(user, _)| include(*user)).map(|(_, value)| value);
            Estimate::of(&included.collect::<Vec<f64>>()).mean
        };
        self.values.iter().map(mean).collect()
    }

    /// One route for every case, without a router.
    pub fn fixed(&self, route: Route) -> PolicyOutcome {
        self.outcome(|case| self.value(route, case), |case| self.cost(route, case))
    }

    /// A router's choices, one per case. The cost includes the router's.
    pub fn assigned(&self, routes: &[Route]) -> PolicyOutcome {
        self.outcome(
            |case| self.value(routes[case], case),
            |case| self.cost(routes[case], case) + self.router_flops[case] as f64,
        )
    }

    /// Mean value over the users of a router's choices, one per case.
    pub(crate) fn mean(&self, routes: &[Route]) -> f64 {
        Estimate::of(&self.cases_by_user.means(|case| self.value(routes[case], case))).mean
    }

    /// Routes drawn at random with these shares, without looking at the user and without a router. The outcome is the
    /// expectation over the draw. `shares` has one element per route and sums to 1.
    pub fn drawn(&self, shares: &[f64]) -> PolicyOutcome {
        let expected = |column: &dyn Fn(usize) -> f64| -> f64 {
            let used = shares.iter().enumerate().filter(|(_, share)| **share > 0.0);
            used.map(|(route, share)| share * column(route)).sum()
        };
        self.outcome(
            |case| expected(&|route| self.values[route][case]),
            |case| expected(&|route| self.flops[route][case] as f64),
        )
    }

    /// The best route of each case in hindsight, the cheapest of equals, without a router.
    ///
    /// No router can reach it: the choice looks at the target, and the best of many noisy values is mostly noise.
    pub fn oracle(&self, space: &RouteSpace) -> PolicyOutcome {
        let best = |case: usize| {
            let better = |best: Route, other: Route| {
                let [best_value, other_value] = [best, other].map(|route| self.value(route, case));
                let cheaper = self.flops[other.index()][case] < self.flops[best.index()][case];
                if other_value > best_value || (other_value == best_value && cheaper) { other } else { best }
            };
            space.routes().fold(space.smallest(), better)
        };
        let routes: Vec<Route> = (0..self.cases_by_user.cases()).map(best).collect();
        self.outcome(|case| self.value(routes[case], case), |case| self.cost(routes[case], case))
    }

    fn value(&self, route: Route, case: usize) -> f64 {
        self.values[route.index()][case]
    }

    fn cost(&self, route: Route, case: usize) -> f64 {
        self.flops[route.index()][case] as f64
    }

    fn outcome(&self, value: impl Fn(usize) -> f64, flops: impl Fn(usize) -> f64) -> PolicyOutcome {
        PolicyOutcome {
            values: self.cases_by_user.means(value),
            flops: Estimate::of(&self.cases_by_user.means(flops)).mean,
        }
    }
}

impl PolicyOutcome {
    /// The metric's mean over the users.
    pub fn estimate(&self) -> Estimate {
        Estimate::of(&self.values)
    }

    /// Values of this policy minus those of `other`, by user. Both must have the same users in the same order.
    pub fn differences(&self, other: &PolicyOutcome) -> Vec<f64> {
        self.values.iter().zip(&other.values).map(|(own, other)| own - other).collect()
    }
}
