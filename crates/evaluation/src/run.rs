use super::{ByUser, Estimate, Metric, Metrics};
use canet_domain::{Flops, Route, RouteSpace};

/// Every case ranked once, or several times where routes are drawn by lot.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was run: a route's name, `auto`, `random`, ...
    pub name: String,
    /// Independent assignments of the cases to routes, at least one; a case's values are averaged over them.
    draws: Vec<Draw>,
    /// Cost of the full model without a router, by case.
    full_flops: Vec<Flops>,
    by_user: ByUser,
}

/// One assignment of the cases to routes.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    /// Rank of the target, by case.
    pub(crate) ranks: Vec<Option<u32>>,
    /// Where the network ran and at what cost; `None` for a baseline without a network.
    pub(crate) spent: Option<Spent>,
}

#[derive(Clone, Debug)]
pub(crate) struct Spent {
    /// Route, by case.
    pub(crate) routes: Vec<Route>,
    /// Cost of the slice, and of the router where one decided, by case.
    pub(crate) flops: Vec<Flops>,
}

/// What a run did on one of its routes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The route.
    pub route: Route,
    /// Share of the users that it served, over all draws; a user of several cases counts with the share of them.
    pub share: f64,
    /// NDCG@10 of those users on this route.
    pub ndcg: Estimate,
    /// HR@10 of those users on this route.
    pub hr: Estimate,
    /// Mean cost of those users, with the router's where one decided.
    pub flops: f64,
}

impl Run {
    pub(crate) fn new(name: impl Into<String>, draws: Vec<Draw>, full_flops: Vec<Flops>, by_user: ByUser) -> Run {
        Run { name: name.into(), draws, full_flops, by_user }
    }

    /// The same run under another name.
    pub fn named(mut self, name: impl Into<String>) -> Run {
        self.name = name.into();
        self
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.by_user.users()
    }

    /// Number of cases: the targets that were ranked.
    pub fn cases(&self) -> usize {
        self.full_flops.len()
    }

    /// A metric's value for each user: the mean over their cases and the draws.
    pub fn values(&self, metric: Metric) -> Vec<f64> {
        let draws = self.draws.len() as f64;
        self.by_user.means(|case| self.draws.iter().map(|draw| metric.value(draw.ranks[case])).sum::<f64>() / draws)
    }

    /// A metric's mean over the users with its standard error.
    pub fn estimate(&self, metric: Metric) -> Estimate {
        Estimate::of(&self.values(metric))
    }

    /// Every reported metric.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(|metric| self.estimate(metric))
    }

    /// Mean FLOPs over the users, the router's included where one decided; `None` for a baseline without a network.
    pub fn flops(&self) -> Option<f64> {
        let draws: Option<Vec<&Spent>> = self.draws.iter().map(|draw| draw.spent.as_ref()).collect();
        let draws = draws?;
        let count = draws.len() as f64;
        Some(mean(&self.by_user.means(|case| draws.iter().map(|spent| spent.flops[case] as f64).sum::<f64>() / count)))
    }

    /// Mean FLOPs over the users of the full model without a router.
    pub fn full_flops(&self) -> f64 {
        mean(&self.by_user.means(|case| self.full_flops[case] as f64))
    }

    /// 1 - FLOPs spent / FLOPs of the full model; `None` for a baseline without a network.
    pub fn saved(&self) -> Option<f64> {
        self.flops().map(|flops| 1.0 - flops / self.full_flops())
    }

    /// What each route did that served at least one case, in the order of the routes.
    pub fn shares(&self, space: &RouteSpace) -> Vec<Share> {
        space.routes().filter_map(|route| self.share(route)).collect()
    }

    fn share(&self, route: Route) -> Option<Share> {
        // Rank and cost in the draws that gave the case to this route.
        let served = |case: usize| {
            let spent = self.draws.iter().filter_map(move |draw| Some((draw.ranks[case], draw.spent.as_ref()?)));
            spent.filter(move |(_, spent)| spent.routes[case] == route)
        };
        let counts = self.by_user.means(|case| served(case).count() as f64);
        let of_served = |value: &dyn Fn(Option<u32>, Flops) -> f64| -> Vec<f64> {
            let sum = |case: usize| served(case).map(|(rank, spent)| value(rank, spent.flops[case])).sum::<f64>();
            let sums = self.by_user.means(sum);
            sums.iter().zip(&counts).filter(|(_, count)| **count > 0.0).map(|(sum, count)| sum / count).collect()
        };
        let estimate = |metric: Metric| Estimate::of(&of_served(&|rank, _| metric.value(rank)));
        counts.iter().any(|count| *count > 0.0).then(|| Share {
            route,
            share: counts.iter().sum::<f64>() / (self.draws.len() * self.users()) as f64,
            ndcg: estimate(Metric::Ndcg(10)),
            hr: estimate(Metric::Hr(10)),
            flops: mean(&of_served(&|_, flops| flops as f64)),
        })
    }
}

/// 0 over nothing. FLOPs are whole numbers whose sums float64 holds exactly, so equal runs cost the same to the bit.
fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
