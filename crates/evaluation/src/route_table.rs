use super::{ByUser, Estimate};
use canet_domain::{Flops, Route, RouteSpace};

/// What every route makes of every case: a metric's value and the cost. Each policy of who runs which route can be
/// judged from it, by what it expects where it draws lots, so that no lot adds its noise.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// The metric's value by route, then by case.
    pub(crate) values: Vec<Vec<f64>>,
    /// Cost of the slice by route, then by case.
    pub(crate) flops: Vec<Vec<Flops>>,
    /// Cost of the router by case.
    pub(crate) router_flops: Vec<Flops>,
    pub(crate) by_user: ByUser,
}

/// What a policy does for each user.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The metric's value by user.
    pub values: Vec<f64>,
    /// Mean FLOPs over the users.
    pub flops: f64,
}

impl RouteTable {
    /// Number of routes.
    pub fn routes(&self) -> usize {
        self.values.len()
    }

    /// Whose the cases are.
    pub fn by_user(&self) -> &ByUser {
        &self.by_user
    }

    /// The metric's value on a route, by case.
    pub fn values(&self, route: Route) -> &[f64] {
        &self.values[route.index()]
    }

    /// Cost of the slice of a route, by case.
    pub fn flops(&self, route: Route) -> &[Flops] {
        &self.flops[route.index()]
    }

    /// Cost of the router, by case.
    pub fn router_flops(&self) -> &[Flops] {
        &self.router_flops
    }

    /// Mean FLOPs over the users of a router that decides for each case.
    pub fn router_cost(&self) -> f64 {
        Estimate::of(&self.by_user.means(|case| self.router_flops[case] as f64)).mean
    }

    /// Every case on one route, without a router.
    pub fn fixed(&self, route: Route) -> Outcome {
        self.outcome(|case| route_at(&self.values, route, case), |case| self.flops[route.index()][case] as f64)
    }

    /// Each case on a route of its own, as a router decides whose cost counts. `routes` has one a case.
    pub fn assigned(&self, routes: &[Route]) -> Outcome {
        self.outcome(
            |case| route_at(&self.values, routes[case], case),
            |case| (self.flops[routes[case].index()][case] + self.router_flops[case]) as f64,
        )
    }

    /// Mean value over the users of cases on routes of their own, one a case.
    pub(crate) fn mean(&self, routes: &[Route]) -> f64 {
        Estimate::of(&self.by_user.means(|case| route_at(&self.values, routes[case], case))).mean
    }

    /// Routes drawn with these `shares`, one a route that sum to 1, whoever the user is: the expectation over the
    /// draw, without a router's cost.
    pub fn drawn(&self, shares: &[f64]) -> Outcome {
        let expected = |column: &dyn Fn(usize) -> f64| -> f64 {
            shares
                .iter()
                .enumerate()
                .filter(|(_, share)| **share > 0.0)
                .map(|(route, share)| share * column(route))
                .sum()
        };
        self.outcome(
            |case| expected(&|route| self.values[route][case]),
            |case| expected(&|route| self.flops[route][case] as f64),
        )
    }

    /// Each case on the route that turned out best for it, the cheapest of equals, without a router's cost. Nobody can
    /// route so: the choice looks at the target, and the best of many noisy values is mostly noise.
    pub fn oracle(&self, space: &RouteSpace) -> Outcome {
        let best = |case: usize| {
            let better = |best: Route, other: Route| {
                let [of_best, of_other] = [best, other].map(|route| route_at(&self.values, route, case));
                let cheaper = self.flops[other.index()][case] < self.flops[best.index()][case];
                if of_other > of_best || (of_other == of_best && cheaper) { other } else { best }
            };
            space.routes().fold(space.smallest(), better)
        };
        let routes: Vec<Route> = (0..self.by_user.cases()).map(best).collect();
        self.outcome(
            |case| route_at(&self.values, routes[case], case),
            |case| self.flops[routes[case].index()][case] as f64,
        )
    }

    fn outcome(&self, value: impl Fn(usize) -> f64, flops: impl Fn(usize) -> f64) -> Outcome {
        Outcome { values: self.by_user.means(value), flops: Estimate::of(&self.by_user.means(flops)).mean }
    }
}

fn route_at(columns: &[Vec<f64>], route: Route, case: usize) -> f64 {
    columns[route.index()][case]
}

impl Outcome {
    /// The metric's mean over the users with its standard error.
    pub fn estimate(&self) -> Estimate {
        Estimate::of(&self.values)
    }

    /// How much better this is than `other` for the same users: the mean of the paired differences with its standard
    /// error.
    pub fn over(&self, other: &Outcome) -> Estimate {
        Estimate::of(&self.differences(other))
    }

    /// This less `other`, by user.
    pub fn differences(&self, other: &Outcome) -> Vec<f64> {
        self.values.iter().zip(&other.values).map(|(own, other)| own - other).collect()
    }
}
