use canet_domain::{ModelShape, RouteSpace, choose_route};
use canet_model::checkpoint::{BudgetPoint, Calibration};

/// What budgets are fitted on: the router's answers for held-out histories.
pub(crate) struct RoutedUsers<'a> {
    /// The routes.
    pub space: &'a RouteSpace,
    /// What they cost.
    pub shape: ModelShape,
    /// Longest history: route prices are relative costs at this length.
    pub max_len: usize,
    /// One row of router logits a user.
    pub(crate) logits: &'a [Vec<f32>],
    /// Items of each user's history.
    pub(crate) lengths: Vec<usize>,
    /// What each route is worth to everybody, where that is known: a budget then is an upper bound, since dearer routes
    /// are taken for their worth alone.
    pub(crate) base: Option<&'a [f32]>,
}

/// Budgets for which every checkpoint is calibrated, beside its own.
const BUDGETS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Halvings of the price interval; the share is a step function of the price, so more would not get closer.
const HALVINGS: usize = 40;

/// A price at which cost alone decides.
const HIGHEST_PRICE: f64 = 1e6;

/// How far above the least share that can be spent a budget may end, as a factor.
const SLACK: f64 = 1.02;

impl RoutedUsers<'_> {
    /// A calibration for budgets from 10 to 90 % and for `own`.
    pub(crate) fn calibrate(&self, own: f64) -> Calibration {
        let mut budgets = BUDGETS.to_vec();
        if BUDGETS.iter().all(|budget| (budget - own).abs() > 1e-9) {
            budgets.push(own);
            budgets.sort_by(f64::total_cmp);
        }
        Calibration { points: budgets.into_iter().map(|budget| self.fit(budget)).collect() }
    }

    /// The bias under which these users spend `budget` of the full model's FLOPs, or the closest below it.
    ///
    /// The bias of a route is its worth minus a price times its cost relative to full. A higher price never makes a
    /// user's route dearer, so the price is found by halving; where the routes' worth is unknown it is negative where
    /// the router alone spends less. A budget out of reach counts as [`SLACK`] above the least that can be spent: to save
    /// the last thousandth the price would have to be so high that nothing else counted any more.
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
        for _ in 0..HALVINGS {
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

    fn bias(&self, price: f64) -> Vec<f32> {
        let full = self.shape.full_flops(self.space, self.max_len) as f64;
        self.space
            .routes()
            .map(|route| {
                let worth = self.base.and_then(|base| base.get(route.index())).map_or(0.0, |worth| f64::from(*worth));
                (worth - price * self.shape.route_flops(self.space, route, self.max_len) as f64 / full) as f32
            })
            .collect()
    }

    /// Share of the full model's FLOPs that slices and router cost these users.
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
    use super::*;
    use canet_domain::{FfnInner, RouterShape};

    /// Two routes of nearly the same cost, of which the dearer is worth more, and a wide one that is worth most.
    #[test]
    fn a_budget_out_of_reach_does_not_forget_what_routes_are_worth() {
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4, 8]).unwrap();
        let shape =
            ModelShape { items: 2000, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 1, ffn: 1 } };
        let logits = vec![vec![0.0; 4]; 10];
        let base = [1.0, 2.0, 2.5, 3.0];
        let users =
            RoutedUsers { space: &space, shape, max_len: 5, logits: &logits, lengths: vec![5; 10], base: Some(&base) };
        let cheapest = shape.route_flops(&space, space.smallest(), 5) + shape.router_flops(4, 5);
        let least = cheapest as f64 / shape.full_flops(&space, 5) as f64;
        let point = users.fit(0.01);
        assert!(point.spent <= SLACK * least, "{point:?}");
        assert_eq!(choose_route(&space, &logits[0], &point.bias).route.index(), 1, "{point:?}");
        // Within reach what is worth most is taken: the full route, and the router beside it.
        assert_eq!(choose_route(&space, &logits[0], &users.fit(1.1).bias).route.index(), 3);
        assert!(users.fit(0.9).spent <= 0.9);
    }
}
