use crate::RouteTable;
use canet_domain::{Route, RouteSpace};

/// The upper hull of the routes in the plane of cost and value, from the cheapest route to the best one.
///
/// A route below the hull is never worth serving. A server can send a fixed share of all requests to either of two
/// routes, without looking at the user, so every point on the line between two vertices can be served too. The hull is
/// therefore the best that any static mixture of routes reaches at each cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperHull {
    /// At least one, with ascending cost and value.
    vertices: Vec<Route>,
}

impl UpperHull {
    /// The hull of routes with these costs and values, one of each per route. Of equal routes it takes the cheaper.
    ///
    /// This is the upper half of Andrew's monotone chain ("Another efficient algorithm for convex hulls in two
    /// dimensions", Information Processing Letters 9(5), 1979).
    pub fn of(space: &RouteSpace, costs: &[f64], values: &[f64]) -> UpperHull {
        let at = |route: &Route| (costs[route.index()], values[route.index()]);
        let mut order: Vec<Route> = space.routes().collect();
        // By cost; of equal costs the better route first.
        order.sort_by(|a, b| at(a).0.total_cmp(&at(b).0).then(at(b).1.total_cmp(&at(a).1)));
        let mut vertices: Vec<Route> = Vec::new();
        for route in order {
            let (cost, value) = at(&route);
            if vertices.last().is_some_and(|last| value <= at(last).1) {
                continue;
            }
            // Drop vertices on or below the line from their predecessor to this route.
            while let [.., before, last] = vertices.as_slice() {
                let ((x0, y0), (x1, y1)) = (at(before), at(last));
                if (y1 - y0) * (cost - x0) > (value - y0) * (x1 - x0) {
                    break;
                }
                vertices.pop();
            }
            vertices.push(route);
        }
        UpperHull { vertices }
    }

    /// The vertices, from the cheapest route to the best one.
    pub fn vertices(&self) -> &[Route] {
        &self.vertices
    }

    /// Shares of the routes in the mixture of two neighbouring vertices with mean cost `cost`.
    ///
    /// `costs` and the result have one element per route. Below the cheapest vertex the mixture is that vertex alone,
    /// because no route is cheaper. Above the best vertex it is that vertex alone, because more cost gains nothing.
    pub fn mixture(&self, costs: &[f64], cost: f64) -> Vec<f64> {
        let mut shares = vec![0.0; costs.len()];
        let above = self.vertices.iter().position(|route| costs[route.index()] > cost);
        match above {
            Some(0) => shares[self.vertices[0].index()] = 1.0,
            Some(place) => {
                let [low, high] = [self.vertices[place - 1], self.vertices[place]].map(Route::index);
                let share = (cost - costs[low]) / (costs[high] - costs[low]);
                shares[high] = share;
                shares[low] = 1.0 - share;
            }
            None => self.vertices.iter().rev().take(1).for_each(|best| shares[best.index()] = 1.0),
        }
        shares
    }
}

impl RouteTable {
    /// The hull of the routes' mean values over mean costs.
    pub fn upper_hull(&self, space: &RouteSpace) -> UpperHull {
        UpperHull::of(space, &self.costs(space), &self.means(|_| true))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{best_mixture, space};

    #[test]
    fn the_hull_has_the_routes_that_are_worth_serving() {
        let costs = [1.0, 2.0, 3.0, 5.0];
        let hull = |values: [f64; 4]| -> Vec<usize> {
            UpperHull::of(&space(), &costs, &values).vertices().iter().map(|route| route.index()).collect()
        };
        assert_eq!(hull([0.1, 0.3, 0.25, 0.4]), [0, 1, 3]);
        // Collinear routes are no vertices, and neither are routes that cost more than the best one.
        assert_eq!(hull([0.1, 0.2, 0.3, 0.5]), [0, 3]);
        assert_eq!(hull([0.4, 0.3, 0.2, 0.1]), [0]);
        assert_eq!(hull([0.1, 0.1, 0.4, 0.4]), [0, 2]);
    }

    #[test]
    fn a_mixture_interpolates_between_neighbouring_vertices() {
        let costs = [1.0, 2.0, 3.0, 5.0];
        let hull = UpperHull::of(&space(), &costs, &[0.1, 0.3, 0.25, 0.4]);
        assert_eq!(hull.mixture(&costs, 3.5), [0.0, 0.5, 0.0, 0.5]);
        assert_eq!(hull.mixture(&costs, 2.0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(hull.mixture(&costs, 0.5), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(hull.mixture(&costs, 9.0), [0.0, 0.0, 0.0, 1.0]);
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    proptest! {
        #[test]
        fn no_mixture_of_two_routes_beats_the_hull(
            points in prop::collection::vec((1_u32..40, 0_u32..20), 12),
            above in 0.0_f64..50.0,
        ) {
            let space = RouteSpace::new(vec![4, 8], vec![1, 2], vec![2, 3, 4]).unwrap();
            let costs: Vec<f64> = points.iter().map(|(cost, _)| f64::from(*cost)).collect();
            let values: Vec<f64> = points.iter().map(|(_, value)| f64::from(*value)).collect();
            let cheapest = costs.iter().copied().fold(f64::INFINITY, f64::min);
            let shares = UpperHull::of(&space, &costs, &values).mixture(&costs, cheapest + above);
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(dot(&shares, &costs) <= cheapest + above + 1e-9);
            prop_assert!((dot(&shares, &values) - best_mixture(&costs, &values, cheapest + above).0).abs() < 1e-9);
        }
    }
}
