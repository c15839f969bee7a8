use super::{Estimate, Metric, Metrics};
use crate::domain::{Flops, Route, RouteSpace};

/// Every user ranked once, or several times where routes are drawn by lot.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was run: a route's name, `auto`, `random`, ...
    pub name: String,
    /// Independent assignments of the users to routes, at least one; a user's values are averaged over them.
    draws: Vec<Draw>,
    /// Cost of the full model without a router, by user.
    full_flops: Vec<Flops>,
}

/// One assignment of the users to routes.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    /// Rank of the target, by user.
    pub(super) ranks: Vec<Option<u32>>,
    /// Where the network ran and at what cost; `None` for a baseline without a network.
    pub(super) spent: Option<Spent>,
}

#[derive(Clone, Debug)]
pub(super) struct Spent {
    /// Route, by user.
    pub(super) routes: Vec<Route>,
    /// Cost of the slice, and of the router where one decided, by user.
    pub(super) flops: Vec<Flops>,
}

/// What a run did on one of its routes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The route.
    pub route: Route,
    /// Share of the users that it served, over all draws.
    pub share: f64,
    /// NDCG@10 of those users on this route.
    pub ndcg: Estimate,
    /// HR@10 of those users on this route.
    pub hr: Estimate,
    /// Mean cost of those users, with the router's where one decided.
    pub flops: f64,
}

impl Run {
    pub(super) fn new(name: impl Into<String>, draws: Vec<Draw>, full_flops: Vec<Flops>) -> Run {
        Run { name: name.into(), draws, full_flops }
    }

    /// The same run under another name.
    pub fn named(mut self, name: impl Into<String>) -> Run {
        self.name = name.into();
        self
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.full_flops.len()
    }

    /// A metric's value for each user, averaged over the draws.
    pub fn values(&self, metric: Metric) -> Vec<f64> {
        let draws = self.draws.len() as f64;
        (0..self.users())
            .map(|user| self.draws.iter().map(|draw| metric.value(draw.ranks[user])).sum::<f64>() / draws)
            .collect()
    }

    /// A metric's mean over the users with its standard error.
    pub fn estimate(&self, metric: Metric) -> Estimate {
        Estimate::of(&self.values(metric))
    }

    /// Every reported metric.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(|metric| self.estimate(metric))
    }

    /// Mean FLOPs a user, the router's included where one decided; `None` for a baseline without a network.
    pub fn flops(&self) -> Option<f64> {
        let draws: Option<Vec<&Spent>> = self.draws.iter().map(|draw| draw.spent.as_ref()).collect();
        Some(mean(draws?.into_iter().flat_map(|spent| &spent.flops)))
    }

    /// Mean FLOPs a user of the full model without a router.
    pub fn full_flops(&self) -> f64 {
        mean(&self.full_flops)
    }

    /// 1 - FLOPs spent / FLOPs of the full model; `None` for a baseline without a network.
    pub fn saved(&self) -> Option<f64> {
        self.flops().map(|flops| 1.0 - flops / self.full_flops())
    }

    /// What each route did that served at least one user, in the order of the routes.
    pub fn shares(&self, space: &RouteSpace) -> Vec<Share> {
        let mut served = vec![Vec::new(); space.len()];
        for draw in &self.draws {
            let Some(spent) = &draw.spent else { continue };
            for ((rank, route), flops) in draw.ranks.iter().zip(&spent.routes).zip(&spent.flops) {
                served[route.index()].push((*rank, *flops));
            }
        }
        let total = (self.draws.len() * self.users()) as f64;
        let share = |(route, served): (Route, Vec<(Option<u32>, Flops)>)| {
            let estimate = |metric: Metric| {
                let values: Vec<f64> = served.iter().map(|(rank, _)| metric.value(*rank)).collect();
                Estimate::of(&values)
            };
            (!served.is_empty()).then(|| Share {
                route,
                share: served.len() as f64 / total,
                ndcg: estimate(Metric::Ndcg(10)),
                hr: estimate(Metric::Hr(10)),
                flops: mean(served.iter().map(|(_, flops)| flops)),
            })
        };
        space.routes().zip(served).filter_map(share).collect()
    }
}

/// Sums exactly before it divides; 0 over nothing.
fn mean<'a>(flops: impl IntoIterator<Item = &'a Flops>) -> f64 {
    let (mut sum, mut count) = (0_u128, 0_u32);
    for flops in flops {
        sum += u128::from(*flops);
        count += 1;
    }
    if count == 0 { 0.0 } else { sum as f64 / f64::from(count) }
}
