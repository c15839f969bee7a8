use std::collections::HashMap;

use canet_domain::{ModelShape, RouteSpace};
use canet_evaluation::UpperHull;

use crate::price::lowest_price;

/// The FLOPs of every route.
pub(super) struct RouteCosts {
    space: RouteSpace,
    /// FLOPs of each route, by length of the history.
    by_length: Vec<Vec<f64>>,
    /// FLOPs of the router, by length of the history.
    router: Vec<f64>,
    /// FLOPs of each route relative to the full route, at the longest history. Prices multiply these.
    relative: Vec<f64>,
}

/// The utility and the cost of each route for each held-out case.
///
/// Means and costs count every user once, as the metrics of a model do: a case weighs one over the number of its user's cases.
pub(super) struct CaseTable {
    /// Number of routes.
    pub routes: usize,
    /// NDCG@10: `[cases, routes]`, row-major
    pub ndcg: Vec<f64>,
    /// Number of items that the model reads of each case.
    lengths: Vec<usize>,
    weights: Vec<f64>,
    costs: RouteCosts,
}

/// A held-out case of a [`CaseTable`].
#[derive(Clone, Copy)]
pub(super) struct MeasuredCase {
    pub user: usize,
    /// Number of items that the model reads.
    pub length: usize,
}

/// Chooses the route with the highest `mean + k · prediction - price · relative cost` among the allowed ones.
pub(super) struct Policy<'a> {
    /// Mean NDCG@10 of each route.
    pub means: &'a [f64],
    /// Factor of the predictions.
    pub k: f64,
    /// Predicted deviations from the mean: `[cases, routes]`, row-major
    pub predictions: &'a [f64],
    /// The routes that may be chosen.
    pub allowed: &'a [usize],
}

/// The routes that a policy chooses at one price.
pub(super) struct Choices {
    /// A route for each case.
    pub routes: Vec<usize>,
    /// The share of the full model's FLOPs that they cost.
    pub spent: f64,
}

impl RouteCosts {
    /// Costs for histories of up to `max_len` items.
    pub(super) fn new(space: &RouteSpace, shape: &ModelShape, max_len: usize) -> RouteCosts {
        let at = |length: usize| -> Vec<f64> {
            space.routes().map(|route| shape.route_flops(space, route, length) as f64).collect()
        };
        let longest = at(max_len);
        let full = longest.last().copied().unwrap_or(1.0);
        RouteCosts {
            space: space.clone(),
            by_length: (0..=max_len).map(|length| at(length.max(1))).collect(),
            router: (0..=max_len).map(|length| shape.router_flops(space.len(), length.max(1)) as f64).collect(),
            relative: longest.iter().map(|cost| cost / full).collect(),
        }
    }
}

impl CaseTable {
    /// A table of cases and the NDCG@10 of each route for each of them.
    pub(super) fn new(costs: RouteCosts, cases: &[MeasuredCase], ndcg: Vec<f64>) -> CaseTable {
        let mut of_user: HashMap<usize, f64> = HashMap::new();
        for case in cases {
            *of_user.entry(case.user).or_default() += 1.0;
        }
        let weights = cases.iter().map(|case| 1.0 / of_user[&case.user]).collect();
        let lengths = cases.iter().map(|case| case.length).collect();
        CaseTable { routes: costs.space.len(), ndcg, lengths, weights, costs }
    }

    /// Number of cases.
    pub(super) fn cases(&self) -> usize {
        self.lengths.len()
    }

    /// The weight of each case.
    pub(super) fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The mean over users of a value of some cases.
    fn mean(&self, cases: &[usize], value: impl Fn(usize) -> f64) -> f64 {
        self.sum(cases, value) / self.sum(cases, |_| 1.0).max(f64::MIN_POSITIVE)
    }

    /// The sum of a value of some cases, in which each case has its weight.
    fn sum(&self, cases: &[usize], value: impl Fn(usize) -> f64) -> f64 {
        cases.iter().map(|case| self.weights[*case] * value(*case)).sum()
    }

    /// Mean NDCG@10 of each route over some cases.
    pub(super) fn means(&self, cases: &[usize]) -> Vec<f64> {
        (0..self.routes).map(|route| self.mean(cases, |case| self.ndcg[case * self.routes + route])).collect()
    }

    /// The share of the full model's FLOPs that each route costs over some cases.
    fn shares(&self, cases: &[usize]) -> Vec<f64> {
        (0..self.routes).map(|route| self.share(cases, |case| self.costs_of(case)[route])).collect()
    }

    /// The share of the full model's FLOPs that the router costs over some cases.
    pub(super) fn router_share(&self, cases: &[usize]) -> f64 {
        self.share(cases, |case| self.costs.router[self.lengths[case]])
    }

    /// The share of the full model's FLOPs that `flops` are over some cases.
    fn share(&self, cases: &[usize], flops: impl Fn(usize) -> f64) -> f64 {
        self.sum(cases, flops) / self.sum(cases, |case| self.costs_of(case)[self.routes - 1]).max(f64::MIN_POSITIVE)
    }

    /// FLOPs of each route for a case.
    fn costs_of(&self, case: usize) -> &[f64] {
        &self.costs.by_length[self.lengths[case]]
    }

    /// The static routes that no mixture of others beats, over some cases. A policy must beat their mixtures.
    pub(super) fn hull(&self, cases: &[usize], means: &[f64]) -> UpperHull {
        UpperHull::of(&self.costs.space, &self.shares(cases), means)
    }

    /// The proportions of the routes in the static mixture that costs a given share of the full model's FLOPs over some
    /// cases.
    pub(super) fn mixture(&self, cases: &[usize], hull: &UpperHull, share: f64) -> Vec<f64> {
        hull.mixture(&self.shares(cases), share)
    }

    /// The expected NDCG@10 of a case under a static mixture.
    pub(super) fn expected(&self, case: usize, mixture: &[f64]) -> f64 {
        let ndcg = &self.ndcg[case * self.routes..][..self.routes];
        ndcg.iter().zip(mixture).map(|(ndcg, proportion)| ndcg * proportion).sum()
    }

    /// A policy's choices at the lowest price that keeps the cost of some cases within a budget. As in a calibration, no price
    /// is negative, so a policy does not spend what it has no use for.
    pub(super) fn at_budget(&self, policy: &Policy<'_>, cases: &[usize], budget: f64) -> Choices {
        let spent = |price: f64| self.spent(cases, &self.choose(policy, cases, price));
        let price = lowest_price(0.0..=1e3, budget, spent);
        let routes = self.choose(policy, cases, price);
        Choices { spent: self.spent(cases, &routes), routes }
    }

    fn choose(&self, policy: &Policy<'_>, cases: &[usize], price: f64) -> Vec<usize> {
        let value = |case: usize, route: usize| {
            let prediction = policy.predictions[case * self.routes + route];
            policy.means[route] + policy.k * prediction - price * self.costs.relative[route]
        };
        let best = |case: &usize| {
            let better = |best: (usize, f64), route: &usize| {
                let value = value(*case, *route);
                if value > best.1 { (*route, value) } else { best }
            };
            policy.allowed.iter().fold((0, f64::NEG_INFINITY), better).0
        };
        cases.iter().map(best).collect()
    }

    /// The share of the full model's FLOPs that routes of some cases cost.
    fn spent(&self, cases: &[usize], routes: &[usize]) -> f64 {
        let chosen = |(case, route): (&usize, &usize)| self.weights[*case] * self.costs_of(*case)[*route];
        let spent: f64 = cases.iter().zip(routes).map(chosen).sum();
        spent / self.sum(cases, |case| self.costs_of(case)[self.routes - 1]).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::{FfnInner, RouterShape};

    use super::*;

    fn table(ndcg: Vec<f64>) -> (CaseTable, Vec<usize>) {
        let space = RouteSpace::new(vec![4, 8], vec![1, 2], vec![4]).unwrap();
        let shape =
            ModelShape { items: 9, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 2, ffn: 4 } };
        let cases = ndcg.len() / 4;
        let measured: Vec<MeasuredCase> =
            (0..cases).map(|case| MeasuredCase { user: case, length: 1 + case % 5 }).collect();
        (CaseTable::new(RouteCosts::new(&space, &shape, 5), &measured, ndcg), (0..cases).collect())
    }

    #[test]
    fn the_hull_leaves_out_routes_that_a_mixture_beats() {
        // Costs ascend from h4-l1 over h4-l2 and h8-l1 to h8-l2. The second route lies under the line from the first to
        // the third, and the last has a lower NDCG than the third.
        let (table, cases) = table([0.1, 0.1001, 0.4, 0.3].repeat(10));
        let hull = table.hull(&cases, &table.means(&cases));
        assert_eq!(hull.vertices().iter().map(|route| route.index()).collect::<Vec<_>>(), [0, 2]);
        let shares = table.shares(&cases);
        assert!(shares.is_sorted() && shares[3] == 1.0, "{shares:?}");
        let mixture = table.mixture(&cases, &hull, f64::midpoint(shares[0], shares[2]));
        assert!((table.expected(3, &mixture) - 0.25).abs() < 1e-12);
    }

    /// One user has three cases of the longest histories, for which the full route is best. Three others have one short case.
    #[test]
    fn every_user_counts_once() {
        let (one, _) = table(Vec::new());
        let measured =
            [(7, 5), (7, 5), (7, 5), (1, 1), (2, 1), (3, 1)].map(|(user, length)| MeasuredCase { user, length });
        let ndcg = [[0.0, 0.0, 0.0, 1.0].repeat(3), [1.0, 0.0, 0.0, 0.0].repeat(3)].concat();
        let table = CaseTable::new(one.costs, &measured, ndcg);
        let cases: Vec<usize> = (0..6).collect();
        let means = table.means(&cases);
        assert!((means[0] - 0.75).abs() < 1e-12 && (means[3] - 0.25).abs() < 1e-12, "{means:?}");
        let flops = |case: usize, route: usize| table.costs_of(case)[route];
        let share = (flops(0, 0) + 3.0 * flops(3, 0)) / (flops(0, 3) + 3.0 * flops(3, 3));
        assert!((table.shares(&cases)[0] - share).abs() < 1e-12);
        let spent = (flops(0, 3) + 3.0 * flops(3, 0)) / (flops(0, 3) + 3.0 * flops(3, 3));
        assert!((table.spent(&cases, &[3, 3, 3, 0, 0, 0]) - spent).abs() < 1e-12);
    }

    /// A budget beyond the best route is not spent.
    #[test]
    fn no_price_is_negative() {
        let (table, cases) = table([0.1, 0.2, 0.4, 0.3].repeat(10));
        let means = table.means(&cases);
        let policy = Policy { means: &means, k: 0.0, predictions: &[0.0; 40], allowed: &[0, 1, 2, 3] };
        assert!(table.at_budget(&policy, &cases, 1.0).routes.iter().all(|route| *route == 2));
    }

    #[test]
    fn a_true_prediction_spends_the_budget_on_the_cases_that_gain() {
        // Every other case gains from the full route.
        let ndcg: Vec<f64> = (0..40).flat_map(|case| [0.1, 0.1, 0.1, if case % 2 == 0 { 0.9 } else { 0.1 }]).collect();
        let (table, cases) = table(ndcg.clone());
        let means = table.means(&cases);
        let predictions: Vec<f64> = ndcg.iter().enumerate().map(|(place, value)| value - means[place % 4]).collect();
        let policy = Policy { means: &means, k: 1.0, predictions: &predictions, allowed: &[0, 3] };
        let Choices { routes, spent } = table.at_budget(&policy, &cases, 0.6);
        let expected = |case: usize| if case.is_multiple_of(2) { 3 } else { 0 };
        assert!(routes.iter().enumerate().all(|(case, route)| *route == expected(case)), "{routes:?}");
        assert!(spent < 0.6);
        let blind = Policy { k: 0.0, ..policy };
        let routes = table.at_budget(&blind, &cases, 0.6).routes;
        assert!(routes.iter().all(|route| *route == 0), "{routes:?}");
    }
}
