use crate::domain::{ModelShape, RouteSpace, choose_route};
use crate::model::checkpoint::{BudgetPoint, Calibration};

/// What budgets are fitted on: the router's answers for held-out histories.
pub(super) struct RoutedUsers<'a> {
    /// The routes.
    pub space: &'a RouteSpace,
    /// What they cost.
    pub shape: ModelShape,
    /// Longest history: route prices are relative costs at this length.
    pub max_len: usize,
    /// One row of router logits a user.
    pub(super) logits: &'a [Vec<f32>],
    /// Items of each user's history.
    pub(super) lengths: Vec<usize>,
    /// What each route is worth to everybody, where that is known: a budget then is an upper bound, since dearer routes
    /// are taken for their worth alone.
    pub(super) base: Option<&'a [f32]>,
}

/// Budgets for which every checkpoint is calibrated, beside its own.
const BUDGETS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Halvings of the price interval; the share is a step function of the price, so more would not get closer.
const HALVINGS: usize = 40;

impl RoutedUsers<'_> {
    /// A calibration for budgets from 10 to 90 % and for `own`.
    pub(super) fn calibrate(&self, own: f64) -> Calibration {
        let mut budgets = BUDGETS.to_vec();
        if BUDGETS.iter().all(|budget| (budget - own).abs() > 1e-9) {
            budgets.push(own);
            budgets.sort_by(f64::total_cmp);
        }
        Calibration { points: budgets.into_iter().map(|budget| self.fit(budget)).collect() }
    }

    /// The bias under which these users spend `budget` of the full model's FLOPs, or the closest below it.
    ///
    /// The bias of a route is minus a price times its cost relative to full. A higher price never makes a user's
    /// route dearer, so the price is found by halving; it is negative where the router alone spends less.
    pub(super) fn fit(&self, budget: f64) -> BudgetPoint {
        let (mut low, mut high) = (if self.base.is_some() { 0.0 } else { -1.0 }, 1.0);
        if self.base.is_some() && self.spent(&self.bias(0.0)) <= budget {
            high = 0.0;
        }
        while self.spent(&self.bias(high)) > budget && high < 1e6 {
            high *= 2.0;
        }
        while low < 0.0 && self.spent(&self.bias(low)) < budget && low > -1e6 {
            low *= 2.0;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if self.spent(&self.bias(middle)) > budget {
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
