use std::convert::Infallible;

use canet_domain::{Flops, ModelShape, Route, RouteSpace, choose_route};
use canet_evaluation::best_affordable_route;
use canet_model::checkpoint::{BudgetPoint, Calibration};

use crate::price::lowest_price;
use crate::records::RouterGains;

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
    /// What the router gains under each budget; `None` for a router that decides under all of them.
    pub gains: Option<&'a RouterGains>,
}

/// The budgets of every calibration, beside the job's own.
const BUDGETS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// A price at which only the FLOPs of a route count.
const HIGHEST_PRICE: f64 = 1e6;

/// A budget below the least possible share is raised to this multiple of it.
const SLACK: f64 = 1.02;

/// The budgets of a job's calibration: from 10 to 90 %, and the job's own.
pub(crate) fn budgets(own: f64) -> Vec<f64> {
    let mut budgets = BUDGETS.to_vec();
    if BUDGETS.iter().all(|budget| (budget - own).abs() > 1e-9) {
        budgets.push(own);
        budgets.sort_by(f64::total_cmp);
    }
    budgets
}

impl RoutedUsers<'_> {
    /// Fits every budget. Where the router is not shown to gain, the best affordable route takes its place.
    ///
    /// If that route costs less than the router of a smaller budget, that router stays: it gained over this route too, and a
    /// greater budget does not spend less.
    pub(crate) fn calibrate(&self, own: f64) -> Calibration {
        let mut routed: Option<BudgetPoint> = None;
        let point = |budget: f64| {
            let fitted = self.fit(budget);
            let Some(gains) = self.gains.filter(|gains| !gains.shows_gain_at(budget)) else {
                return routed.insert(fitted).clone();
            };
            let fixed = self.with_route(fitted, gains);
            match routed.as_ref().filter(|routed| routed.spent > fixed.spent) {
                Some(routed) => BudgetPoint { budget, ..routed.clone() },
                None => fixed,
            }
        };
        Calibration { points: budgets(own).into_iter().map(point).collect() }
    }

    /// The point of one budget in a calibration of it.
    pub(crate) fn served_at(&self, budget: f64) -> BudgetPoint {
        let fitted = || self.fit(budget);
        if self.gains.is_none_or(|gains| gains.shows_gain_at(budget)) {
            return fitted();
        }
        let points = self.calibrate(budget).points;
        points.into_iter().find(|point| (point.budget - budget).abs() < 1e-9).unwrap_or_else(fitted)
    }

    /// The point with the best route within its budget.
    fn with_route(&self, point: BudgetPoint, gains: &RouterGains) -> BudgetPoint {
        let costs = self.shares();
        let value = |route: Route| Ok::<f64, Infallible>(gains.means.get(route.index()).copied().unwrap_or_default());
        let Ok(route) = best_affordable_route(self.space, &costs, point.budget, value);
        BudgetPoint { route: Some(self.space.name(route).to_owned()), spent: costs[route.index()], ..point }
    }

    /// The share of the full model's FLOPs that each route spends on these users.
    fn shares(&self) -> Vec<f64> {
        let sum = |route: Route| {
            self.lengths.iter().map(|length| self.shape.route_flops(self.space, route, *length)).sum::<Flops>()
        };
        let full = sum(self.space.full()) as f64;
        self.space.routes().map(|route| sum(route) as f64 / full.max(1.0)).collect()
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
        let spent = |price: f64| self.spent(&self.bias(price));
        let target = budget.max(SLACK * spent(HIGHEST_PRICE));
        let price = match self.base {
            Some(_) if spent(0.0) <= target => 0.0,
            Some(_) => lowest_price(0.0..=HIGHEST_PRICE, target, spent),
            None => lowest_price(-HIGHEST_PRICE..=HIGHEST_PRICE, target, spent),
        };
        let bias = self.bias(price);
        BudgetPoint { budget, spent: self.spent(&bias), bias, route: None }
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
    use canet_evaluation::Estimate;

    use super::*;
    use crate::records::BudgetGain;

    #[test]
    fn a_budget_out_of_reach_still_prefers_better_routes_of_similar_cost() {
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4, 8]).unwrap();
        let shape =
            ModelShape { items: 2000, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 1, ffn: 1 } };
        let logits = vec![vec![0.0; 4]; 10];
        // The first two routes cost nearly the same, and the second has the higher utility.
        let base = [1.0, 2.0, 2.5, 3.0];
        let users = RoutedUsers {
            space: &space,
            shape,
            max_len: 5,
            logits: &logits,
            lengths: vec![5; 10],
            base: Some(&base),
            gains: None,
        };
        let cheapest = shape.route_flops(&space, space.smallest(), 5) + shape.router_flops(4, 5);
        let least = cheapest as f64 / shape.full_flops(&space, 5) as f64;
        let point = users.fit(0.01);
        assert!(point.spent <= SLACK * least, "{point:?}");
        assert_eq!(choose_route(&space, &logits[0], &point.bias).route.index(), 1, "{point:?}");
        // The budget of 1.1 is enough for the full route and the router.
        assert_eq!(choose_route(&space, &logits[0], &users.fit(1.1).bias).route.index(), 3);
        assert!(users.fit(0.9).spent <= 0.9);
    }

    #[test]
    fn the_best_affordable_route_takes_the_place_of_a_router_that_is_not_shown_to_gain() {
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4, 8]).unwrap();
        let shape =
            ModelShape { items: 2000, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 1, ffn: 1 } };
        let gain = |budget, mean, se| BudgetGain { budget, gain: Estimate { mean, se: Some(se) }, users: Some(1000) };
        // The third route is better than the full one.
        let gains = RouterGains {
            means: vec![0.1, 0.2, 0.4, 0.3],
            budgets: vec![gain(0.1, 0.01, 0.02), gain(0.6, 0.01, 0.002), gain(0.9, -0.01, 0.002)],
        };
        let users = RoutedUsers {
            space: &space,
            shape,
            max_len: 5,
            logits: &vec![vec![0.0; 4]; 10],
            lengths: vec![5; 10],
            base: Some(&[0.0; 4]),
            gains: Some(&gains),
        };
        let calibration = users.calibrate(0.3);
        calibration.check(&space).unwrap();
        let at = |budget: f64| calibration.points.iter().find(|point| point.budget == budget).unwrap();
        // No route is within a tenth, and two are within 60 %, where the router decides.
        let cost = |route: usize| {
            let route = space.route(route).unwrap();
            shape.route_flops(&space, route, 5) as f64 / shape.full_flops(&space, 5) as f64
        };
        assert!(cost(0) > 0.1 && cost(1) < 0.6 && cost(2) > 0.6 && cost(2) < 1.0);
        assert_eq!((at(0.1).route.as_deref(), at(0.1).spent), (Some("h4-l1-e4"), cost(0)));
        assert_eq!(at(0.6).route, None);
        // Above, a budget without a measured gain has the best route again, which costs more than the router.
        let last = calibration.points.last().unwrap();
        assert_eq!(last.route.as_deref(), Some(if cost(2) <= 0.9 { "h8-l1-e4" } else { "h4-l1-e8" }));
        assert!(last.spent >= at(0.6).spent, "{calibration:?}");
        assert_eq!(at(0.6).bias, users.fit(0.6).bias);
        // If the smallest route is the best, it costs less than the router that gained over it, so the router stays.
        let gains = RouterGains { means: vec![0.4, 0.3, 0.2, 0.1], ..gains.clone() };
        let kept = RoutedUsers { gains: Some(&gains), lengths: users.lengths.clone(), ..users }.calibrate(0.3);
        let (before, after) = kept.points.split_at(kept.points.iter().position(|point| point.budget == 0.6).unwrap());
        assert!(before.iter().all(|point| point.route.is_some()));
        for point in after {
            assert_eq!((&point.route, &point.bias, point.spent), (&None, &after[0].bias, after[0].spent), "{point:?}");
        }
        let without = RoutedUsers { gains: None, ..users }.calibrate(0.3);
        assert!(without.points.iter().all(|point| point.route.is_none()));
    }
}
