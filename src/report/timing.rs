use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_domain::{Candidates, Flops, History, Item, Route, Selection};
use canet_evaluation::RouteTable;
use canet_model::{ForwardError, Model, Query};

/// Number of timed histories, spread evenly over the lengths.
const SAMPLE: usize = 24;
/// Largest number of rounds over all routes. The first round only warms up.
const ROUNDS: usize = 25;
/// Number of rounds that run regardless of the time limit.
const MIN_ROUNDS: usize = 4;
/// No further round begins after this time.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Number of items that a timed request asks for.
const K: usize = 10;

/// Measured time of a request that runs alone on this machine: of the router, and of each route without the router.
pub(super) struct RequestTimes {
    pub(super) router: LinearTime,
    /// By route.
    pub(super) routes: Vec<LinearTime>,
}

/// Seconds of a request as a linear function of its FLOPs, which grow with the length of the history.
///
/// The fit uses the fastest round of each timed history. Other work on the machine disturbs long requests more often
/// than short ones, so a median would favour the small routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearTime {
    base: f64,
    per_flop: f64,
    /// Duration of the fastest and of the slowest round, relative to the median round.
    rounds: [f64; 2],
}

impl LinearTime {
    const ZERO: LinearTime = LinearTime { base: 0.0, per_flop: 0.0, rounds: [1.0; 2] };

    /// Mean seconds of requests with these FLOPs.
    pub(super) fn mean(&self, flops: impl Iterator<Item = Flops>) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for flops in flops {
            sum += self.base + self.per_flop * flops as f64;
            count += 1.0;
        }
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Duration of the fastest and of the slowest round, relative to the median round.
    pub(super) fn rounds(&self) -> [f64; 2] {
        self.rounds
    }

    /// Fits by least squares to each history's FLOPs and its seconds in each round.
    fn fit(timed: &[(Flops, Vec<f64>)]) -> LinearTime {
        let points: Vec<(f64, f64)> = timed.iter().map(|(flops, rounds)| (*flops as f64, fastest(rounds))).collect();
        let count = points.len().max(1) as f64;
        let x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let squares: f64 = points.iter().map(|(px, _)| (px - x).powi(2)).sum();
        let products: f64 = points.iter().map(|(px, py)| (px - x) * (py - y)).sum();
        // With histories of one length, or if noise makes longer ones faster, the fit is the mean.
        let slope = if squares > 0.0 { (products / squares).max(0.0) } else { 0.0 };
        let rounds = timed.first().map_or(0, |(_, rounds)| rounds.len());
        // The median over the requests of a round ignores a disturbance of a single request.
        let relative_time = |round: usize| {
            let ratios: Vec<f64> = timed.iter().map(|(_, rounds)| rounds[round] / median(rounds)).collect();
            median(&ratios)
        };
        let relative_times = || (0..rounds).map(relative_time);
        LinearTime {
            base: y - slope * x,
            per_flop: slope,
            rounds: [relative_times().fold(f64::INFINITY, f64::min), relative_times().fold(0.0, f64::max)],
        }
    }
}

fn fastest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl RequestTimes {
    /// Times the router and every route.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub(super) fn measure(model: &Model, histories: &[History]) -> Result<RequestTimes, ForwardError> {
        // In a model of one route no router runs.
        let is_routed = model.space().len() > 1;
        let router = is_routed.then_some(Pass::Router);
        let passes: Vec<Pass> = router.into_iter().chain(model.space().routes().map(Pass::Slice)).collect();
        let mut times = time_passes(model, &passes, histories)?;
        let router = if is_routed { times.remove(0) } else { LinearTime::ZERO };
        Ok(RequestTimes { router, routes: times })
    }

    /// Times one route.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub(super) fn of_route(model: &Model, route: Route, histories: &[History]) -> Result<LinearTime, ForwardError> {
        Ok(time_passes(model, &[Pass::Slice(route)], histories)?.pop().unwrap_or(LinearTime::ZERO))
    }

    /// Mean seconds by route, without the router.
    pub(super) fn by_route(&self, table: &RouteTable, routes: impl Iterator<Item = Route>) -> Vec<f64> {
        routes.map(|route| self.routes[route.index()].mean(table.flops(route).iter().copied())).collect()
    }

    /// Mean seconds of cases on the router's choices, including the router's own time.
    pub(super) fn routed(&self, table: &RouteTable, choices: &[Route]) -> f64 {
        let of_case = |(case, route): (usize, &Route)| {
            self.routes[route.index()].mean(std::iter::once(table.flops(*route)[case]))
        };
        let slices: f64 = choices.iter().enumerate().map(of_case).sum();
        slices / choices.len().max(1) as f64 + self.router(table)
    }

    /// Mean seconds of the router.
    pub(super) fn router(&self, table: &RouteTable) -> f64 {
        self.router.mean(table.router_flops().iter().copied())
    }
}

/// What is timed of a request.
#[derive(Clone, Copy)]
enum Pass {
    Router,
    Slice(Route),
}

/// Times requests one by one. Each round runs all passes in turn, so other work on the machine affects all of them.
fn time_passes(model: &Model, passes: &[Pass], histories: &[History]) -> Result<Vec<LinearTime>, ForwardError> {
    let sample = sample(histories);
    let excluded: Vec<HashSet<Item>> = sample.iter().map(|history| history.items().iter().copied().collect()).collect();
    let mut seconds = vec![vec![Vec::new(); sample.len()]; passes.len()];
    let started = Instant::now();
    for round in 0..ROUNDS {
        if round >= MIN_ROUNDS && started.elapsed() > TIME_LIMIT {
            break;
        }
        for (pass, seconds) in passes.iter().zip(&mut seconds) {
            for ((history, excluded), seconds) in sample.iter().zip(&excluded).zip(seconds) {
                let began = Instant::now();
                match pass {
                    Pass::Router => drop(model.forward().router_logits(&[history])?),
                    Pass::Slice(route) => {
                        let selection = Selection { k: K, excluded, candidates: Candidates::All };
                        drop(model.rank(&[(*route, Query { history, selection })])?);
                    }
                }
                if round > 0 {
                    seconds.push(began.elapsed().as_secs_f64());
                }
            }
        }
    }
    let flops = |pass: &Pass, history: &History| match pass {
        Pass::Router => model.cost(model.space().full(), history.len()).router,
        Pass::Slice(route) => model.cost(*route, history.len()).slice,
    };
    let fit = |(pass, seconds): (&Pass, Vec<Vec<f64>>)| {
        let timed: Vec<_> = sample.iter().map(|history| flops(pass, history)).zip(seconds).collect();
        LinearTime::fit(&timed)
    };
    Ok(passes.iter().zip(seconds).map(fit).collect())
}

/// Histories from the shortest to the longest, at even steps of the sorted list.
fn sample(histories: &[History]) -> Vec<&History> {
    let mut sorted: Vec<&History> = histories.iter().collect();
    sorted.sort_by_key(|history| history.len());
    let count = sorted.len().min(SAMPLE);
    (0..count).map(|place| sorted[(2 * place + 1) * sorted.len() / (2 * count)]).collect()
}
