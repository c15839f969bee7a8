use canet_domain::{ModelShape, RouteSpace, choose_route};
use canet_model::checkpoint::{BudgetPoint, Calibration};

/// The users on whom the route biases of budgets are fitted.
pub(crate) struct RoutedUsers<'a> {
    pub space: &'a RouteSpace,
    /// Gives the FLOPs of routes.
    pub shape: ModelShape,
    /// Longest history. The price of a route is relative to its FLOPs at this length.
    pub max_len: usize,
    /// Router logits of each user.
    pub logits: &'a [Vec<f32>],
    /// Number of items in each user's history.
    pub lengths: Vec<usize>,
    /// The bias of each route before its price. With it, a budget is an upper bound, because no price is negative.
    pub base: Option<&'a [f32]>,
}

/// The budgets of every calibration, beside the job's own.
const BUDGETS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Steps of bisection for the price. The spent share is a step function of the price, so more steps would not help.
const BISECTIONS: usize = 40;

/// A price at which only the FLOPs of a route count.
const HIGHEST_PRICE: f64 = 1e6;

/// A budget below the least possible share is raised to this multiple of it.
const SLACK: f64 = 1.02;

impl RoutedUsers<'_> {
    /// Fits the budgets from 10 to 90 % and `own`.
    pub(crate) fn calibrate(&self, own: f64) -> Calibration {
        let mut budgets = BUDGETS.to_vec();
        if BUDGETS.iter().all(|budget| (budget - own).abs() > 1e-9) {
            budgets.push(own);
            budgets.sort_by(f64::total_cmp);
        }
        Calibration { points: budgets.into_iter().map(|budget| self.fit(budget)).collect() }
    }

    /// Finds the bias under which these users spend the share `budget` of the full model's FLOPs, or the closest share
    /// below it.
    ///
    /// The bias of a route is its base bias minus the price times its FLOPs relative to the full route. A higher price
    /// never makes a user's route more expensive, so bisection finds the price. Without base biases it may be negative,
    /// if the router alone spends less than the budget.
    ///
    /// A budget out of reach counts as [`SLACK`] times the least possible share. Saving the last thousandth would need
    /// a price that hides all other differences between routes.
    pub(crate) fn fit(&self, budget: f64) -> BudgetPoint {
        let target = budget.max(SLACK * self.spent(&self.bias(HIGHEST_PRICE)));
        let (mut low, mut high) = (if self.base.is_some() { 0.0 } else { -1.0 }, 1.0);
        if self.base.is_some() && self.spent(&self.bias(0.0)) <= target {
            high = 0.0;
        }
        while self.spent(&self.bias(high)) > target && high < HIGHEST_PRICE {
            high *= 2.0;
        }
        while low < 0.0 && self.spent(&self.bias(low)) < target && low > -HIGHEST_PRICE {
            low *= 2.0;
        }
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            if self.spent(&self.bias(middle)) > target {
                low = middle;
            } else {
                high = middle;
            }
        }
        let bias = self.bias(high);
        BudgetPoint { budget, spent: self.spent(&bias), bias }
    }

    /// The bias of each route at a price.
    fn bias(&self, price: f64) -> Vec<f32> {
        let full = self.shape.full_flops(self.space, self.max_len) as f64;
        self.space
            .routes()
            .map(|route| {
                let base = self.base.and_then(|base| base.get(route.index())).map_or(0.0, |base| f64::from(*base));
                (base - price * self.shape.route_flops(self.space, route, self.max_len) as f64 / full) as f32
            })
            .collect()
    }

    /// The share of the full model's FLOPs that slices and router spend on these users.
    fn spent(&self, bias: &[f32]) -> f64 {
        let (mut spent, mut full) = (0, 0);
        for (logits, length) in self.logits.iter().zip(&self.lengths) {
            let route = choose_route(self.space, logits, bias).route;
            spent += self.shape.route_flops(self.space, route, *length);
            spent += self.shape.router_flops(self.space.len(), *length);
            full += self.shape.full_flops(self.space, *length);
        }
        spent as f64 / (full as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::{FfnInner, RouterShape};

    use super::*;

    #[test]
    fn a_budget_out_of_reach_still_prefers_better_routes_of_similar_cost() {
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4, 8]).unwrap();
        let shape =
            ModelShape { items: 2000, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 1, ffn: 1 } };
        let logits = vec![vec![0.0; 4]; 10];
        // The first two routes cost nearly the same, and the second has the higher utility.
        let base = [1.0, 2.0, 2.5, 3.0];
        let users =
            RoutedUsers { space: &space, shape, max_len: 5, logits: &logits, lengths: vec![5; 10], base: Some(&base) };
        let cheapest = shape.route_flops(&space, space.smallest(), 5) + shape.router_flops(4, 5);
        let least = cheapest as f64 / shape.full_flops(&space, 5) as f64;
        let point = users.fit(0.01);
        assert!(point.spent <= SLACK * least, "{point:?}");
        assert_eq!(choose_route(&space, &logits[0], &point.bias).route.index(), 1, "{point:?}");
        // The budget of 1.1 is enough for the full route and the router.
        assert_eq!(choose_route(&space, &logits[0], &users.fit(1.1).bias).route.index(), 3);
        assert!(users.fit(0.9).spent <= 0.9);
    }
}
