use super::RouteTable;
use canet_domain::{Route, RouteSpace};

/// The static routes that are worth having: the upper concave hull of value over cost, from the cheapest route to the
/// best one. Between two neighbours a server can send a fixed share of all requests to either, whoever asks, so the
/// straight line between them is static too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hull {
    /// At least one, cost and value ascending.
    routes: Vec<Route>,
}

impl Hull {
    /// The hull of routes with these costs and values, one of each a route; of equals the cheaper is taken.
    pub fn of(space: &RouteSpace, costs: &[f64], values: &[f64]) -> Hull {
        let at = |route: &Route| (costs[route.index()], values[route.index()]);
        let mut order: Vec<Route> = space.routes().collect();
        // By cost, and the better first.
        order.sort_by(|a, b| at(a).0.total_cmp(&at(b).0).then(at(b).1.total_cmp(&at(a).1)));
        let mut routes: Vec<Route> = Vec::new();
        for route in order {
            let (cost, value) = at(&route);
            if routes.last().is_some_and(|last| value <= at(last).1) {
                continue;
            }
            // What lies on or below the line from the one before it to this one is no corner.
            while let [.., before, last] = routes.as_slice() {
                let ((x0, y0), (x1, y1)) = (at(before), at(last));
                if (y1 - y0) * (cost - x0) > (value - y0) * (x1 - x0) {
                    break;
                }
                routes.pop();
            }
            routes.push(route);
        }
        Hull { routes }
    }

    /// The corners, from the cheapest route to the best one.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Shares of the routes, one a route, in the mixture of two neighbours whose mean cost is `cost` under `costs`, one a
    /// route. Outside the hull's costs its first or last route alone: nothing is cheaper than the first, and more
    /// cost buys nothing after the last.
    pub fn mixture(&self, costs: &[f64], cost: f64) -> Vec<f64> {
        let mut shares = vec![0.0; costs.len()];
        let dear = self.routes.iter().position(|route| costs[route.index()] > cost);
        match dear {
            Some(0) => shares[self.routes[0].index()] = 1.0,
            Some(place) => {
                let [low, high] = [self.routes[place - 1], self.routes[place]].map(Route::index);
                let share = (cost - costs[low]) / (costs[high] - costs[low]);
                shares[high] = share;
                shares[low] = 1.0 - share;
            }
            None => self.routes.iter().rev().take(1).for_each(|best| shares[best.index()] = 1.0),
        }
        shares
    }
}

impl RouteTable {
    /// Mean value by route over the users for whom `among` holds, by their place.
    pub fn means(&self, among: impl Fn(usize) -> bool) -> Vec<f64> {
        let mean = |values: &Vec<f64>| {
            let by_user = self.by_user.means(|case| values[case]);
            let (mut sum, mut count) = (0.0, 0_u32);
            for (_, value) in by_user.into_iter().enumerate().filter(|(user, _)| among(*user)) {
                sum += value;
                count += 1;
            }
            if count == 0 { 0.0 } else { sum / f64::from(count) }
        };
        self.values.iter().map(mean).collect()
    }

    /// Mean FLOPs over the users by route, without a router.
    pub fn costs(&self, space: &RouteSpace) -> Vec<f64> {
        space.routes().map(|route| self.fixed(route).flops).collect()
    }
}
