use crate::domain::{ModelShape, RouteSpace};

/// Held-out cases on every route: what each is worth and costs there.
pub(super) struct Panel {
    /// Number of routes.
    pub routes: usize,
    /// NDCG@10, by case and route.
    pub utility: Vec<f64>,
    /// FLOPs of each route, by length of the history.
    costs: Vec<Vec<f64>>,
    /// Items that each case reads.
    lengths: Vec<usize>,
    /// Cost of each route relative to the full one, at the longest history: what prices are for.
    relative: Vec<f64>,
}

/// A rule that gives each case a route: the highest `mean + k · prediction - price · cost` among some routes.
pub(super) struct Rule<'a> {
    /// Mean worth of each route.
    pub means: &'a [f64],
    /// How far predictions are believed.
    pub k: f64,
    /// Predicted deviation from the mean, by case and route.
    pub predictions: &'a [f64],
    /// The routes that may be chosen.
    pub allowed: &'a [usize],
}

/// A mix of at most two static routes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mix {
    /// The cheaper and the dearer route.
    pub routes: [usize; 2],
    /// Share of the cases on the dearer one.
    pub dearer: f64,
}

/// Halvings of the price interval.
const HALVINGS: usize = 40;

impl Panel {
    /// Cases with their utilities.
    pub(super) fn new(
        space: &RouteSpace,
        shape: &ModelShape,
        max_len: usize,
        lengths: Vec<usize>,
        utility: Vec<f64>,
    ) -> Panel {
        let by_length = |length: usize| -> Vec<f64> {
            space.routes().map(|route| shape.route_flops(space, route, length) as f64).collect()
        };
        let costs: Vec<Vec<f64>> = (0..=max_len).map(|length| by_length(length.max(1))).collect();
        let longest = by_length(max_len);
        let full = longest.last().copied().unwrap_or(1.0);
        let relative = longest.iter().map(|cost| cost / full).collect();
        Panel { routes: space.len(), utility, costs, lengths, relative }
    }

    /// Number of cases.
    pub(super) fn cases(&self) -> usize {
        self.lengths.len()
    }

    /// Mean worth of each route over some cases.
    pub(super) fn means(&self, cases: &[usize]) -> Vec<f64> {
        let mean = |route: usize| cases.iter().map(|case| self.utility[case * self.routes + route]).sum::<f64>();
        (0..self.routes).map(|route| mean(route) / cases.len().max(1) as f64).collect()
    }

    /// Share of the full model's FLOPs that each route costs over some cases.
    fn shares(&self, cases: &[usize]) -> Vec<f64> {
        let sum = |route: usize| cases.iter().map(|case| self.costs[self.lengths[*case]][route]).sum::<f64>();
        let full = sum(self.routes - 1);
        (0..self.routes).map(|route| sum(route) / full.max(1.0)).collect()
    }

    /// The routes that no mix of others beats at their cost: the upper hull of (cost, worth), cheapest first, up to
    /// the worthiest.
    pub(super) fn hull(&self, cases: &[usize], means: &[f64]) -> Vec<usize> {
        let shares = self.shares(cases);
        let mut order: Vec<usize> = (0..self.routes).collect();
        order.sort_by(|a, b| shares[*a].total_cmp(&shares[*b]).then(means[*b].total_cmp(&means[*a])));
        let mut hull: Vec<usize> = Vec::new();
        for route in order {
            if hull.last().is_some_and(|last| means[*last] >= means[route]) {
                continue;
            }
            while let [.., before, last] = hull[..] {
                let slope = |from: usize, to: usize| (means[to] - means[from]) / (shares[to] - shares[from]).max(1e-12);
                if slope(before, last) > slope(last, route) {
                    break;
                }
                hull.pop();
            }
            hull.push(route);
        }
        hull
    }

    /// The mix of neighbours on a hull that costs a share, over some cases.
    pub(super) fn mix(&self, cases: &[usize], hull: &[usize], share: f64) -> Mix {
        let shares = self.shares(cases);
        let above = hull.partition_point(|route| shares[*route] <= share);
        let alone = |route: usize| Mix { routes: [route; 2], dearer: 0.0 };
        match (above.checked_sub(1).and_then(|below| hull.get(below)), hull.get(above)) {
            (Some(low), Some(high)) => {
                Mix { routes: [*low, *high], dearer: (share - shares[*low]) / (shares[*high] - shares[*low]) }
            }
            (Some(only), None) | (None, Some(only)) => alone(*only),
            (None, None) => alone(0),
        }
    }

    /// What a case is worth under a mix.
    pub(super) fn mixed(&self, case: usize, mix: Mix) -> f64 {
        let [low, high] = mix.routes.map(|route| self.utility[case * self.routes + route]);
        low + mix.dearer * (high - low)
    }

    /// The routes that a rule gives to some cases at the price that spends a budget or just less, and the share spent.
    pub(super) fn at_budget(&self, rule: &Rule<'_>, cases: &[usize], budget: f64) -> (Vec<usize>, f64) {
        let (mut low, mut high) = (-1.0, 1.0);
        let spends = |price: f64| self.spent(cases, &self.choose(rule, cases, price));
        while spends(high) > budget && high < 1e3 {
            high *= 2.0;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if spends(middle) > budget { low = middle } else { high = middle }
        }
        let chosen = self.choose(rule, cases, high);
        let spent = self.spent(cases, &chosen);
        (chosen, spent)
    }

    fn choose(&self, rule: &Rule<'_>, cases: &[usize], price: f64) -> Vec<usize> {
        let value = |case: usize, route: usize| {
            rule.means[route] + rule.k * rule.predictions[case * self.routes + route] - price * self.relative[route]
        };
        let best = |case: &usize| {
            let better = |best: (usize, f64), route: &usize| {
                let value = value(*case, *route);
                if value > best.1 { (*route, value) } else { best }
            };
            rule.allowed.iter().fold((0, f64::NEG_INFINITY), better).0
        };
        cases.iter().map(best).collect()
    }

    fn spent(&self, cases: &[usize], chosen: &[usize]) -> f64 {
        let (mut spent, mut full) = (0.0, 0.0);
        for (case, route) in cases.iter().zip(chosen) {
            let costs = &self.costs[self.lengths[*case]];
            spent += costs[*route];
            full += costs[self.routes - 1];
        }
        spent / f64::max(full, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FfnInner, RouterShape};

    fn panel(utility: Vec<f64>) -> (Panel, Vec<usize>) {
        let space = RouteSpace::new(vec![4, 8], vec![1, 2], vec![4]).unwrap();
        let shape =
            ModelShape { items: 9, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 2, ffn: 4 } };
        let cases = utility.len() / 4;
        (Panel::new(&space, &shape, 5, (0..cases).map(|case| 1 + case % 5).collect(), utility), (0..cases).collect())
    }

    #[test]
    fn the_hull_leaves_out_what_a_mix_beats() {
        // Costs ascend h4-l1 < h4-l2 < h8-l1 < h8-l2; the second lies under the line from the first to the third, and
        // the last is worth less than the third.
        let (panel, cases) = panel([0.1, 0.1001, 0.4, 0.3].repeat(10));
        assert_eq!(panel.hull(&cases, &panel.means(&cases)), [0, 2]);
        let shares = panel.shares(&cases);
        assert!(shares.is_sorted() && shares[3] == 1.0, "{shares:?}");
        let halfway = f64::midpoint(shares[0], shares[2]);
        let mix = panel.mix(&cases, &[0, 2], halfway);
        assert_eq!(mix.routes, [0, 2]);
        assert!((panel.mixed(3, mix) - 0.25).abs() < 1e-12);
        assert_eq!(panel.mix(&cases, &[0, 2], 0.0001).routes, [0, 0]);
        assert_eq!(panel.mix(&cases, &[0, 2], 1.0).routes, [2, 2]);
    }

    #[test]
    fn a_true_prediction_spends_the_budget_where_it_helps() {
        // Every other case gains by the widest and deepest route, the rest gain nothing.
        let utility: Vec<f64> =
            (0..40).flat_map(|case| [0.1, 0.1, 0.1, if case % 2 == 0 { 0.9 } else { 0.1 }]).collect();
        let (panel, cases) = panel(utility.clone());
        let means = panel.means(&cases);
        let predictions: Vec<f64> = utility.iter().enumerate().map(|(place, value)| value - means[place % 4]).collect();
        let rule = Rule { means: &means, k: 1.0, predictions: &predictions, allowed: &[0, 3] };
        let (chosen, spent) = panel.at_budget(&rule, &cases, 0.6);
        assert!(
            chosen.iter().enumerate().all(|(case, route)| *route == if case % 2 == 0 { 3 } else { 0 }),
            "{chosen:?}"
        );
        assert!(spent < 0.6);
        let blind = Rule { k: 0.0, ..rule };
        let (chosen, _) = panel.at_budget(&blind, &cases, 0.6);
        assert!(chosen.iter().all(|route| *route == 0), "{chosen:?}");
    }
}
