use canet_domain::{ModelShape, RouteSpace};
use canet_evaluation::Hull;

/// Held-out cases on every route: what each is worth and costs there.
pub(super) struct Panel {
    space: RouteSpace,
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
        Panel { space: space.clone(), routes: space.len(), utility, costs, lengths, relative }
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

    /// The static routes worth having over some cases: what a rule has to beat.
    pub(super) fn hull(&self, cases: &[usize], means: &[f64]) -> Hull {
        Hull::of(&self.space, &self.shares(cases), means)
    }

    /// Shares of the routes in the static mixture on a hull that costs a share, over some cases.
    pub(super) fn mixture(&self, cases: &[usize], hull: &Hull, share: f64) -> Vec<f64> {
        hull.mixture(&self.shares(cases), share)
    }

    /// What a case is worth under a static mixture.
    pub(super) fn mixed(&self, case: usize, mixture: &[f64]) -> f64 {
        let worths = &self.utility[case * self.routes..][..self.routes];
        worths.iter().zip(mixture).map(|(worth, share)| worth * share).sum()
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
    use canet_domain::{FfnInner, RouterShape};

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
        let hull = panel.hull(&cases, &panel.means(&cases));
        assert_eq!(hull.routes().iter().map(|route| route.index()).collect::<Vec<_>>(), [0, 2]);
        let shares = panel.shares(&cases);
        assert!(shares.is_sorted() && shares[3] == 1.0, "{shares:?}");
        let mixture = panel.mixture(&cases, &hull, f64::midpoint(shares[0], shares[2]));
        assert!((panel.mixed(3, &mixture) - 0.25).abs() < 1e-12);
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
