use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_domain::{Candidates, Flops, History, Item, Route, Selection};
use canet_evaluation::RouteTable;
use canet_model::{ForwardError, Model, Query};

/// Histories that are timed, spread evenly over their lengths.
const SAMPLE: usize = 24;
/// Rounds over all routes, of which the first only warms up.
const ROUNDS: usize = 25;
/// Rounds that are run however long they take.
const LEAST: usize = 4;
/// No further round begins after this.
const LIMIT: Duration = Duration::from_secs(20);
/// Items asked for.
const TOP: usize = 10;

/// What a request alone takes on this machine: the router, and each route without it.
pub(super) struct Times {
    pub(super) router: Line,
    /// One a route.
    pub(super) routes: Vec<Line>,
}

/// Seconds of a request by its FLOPs, as its length has it: a line through the timed histories, of each the fastest of the
/// rounds. On a busy machine a median would flatter routing, since a long request is disturbed more often than a short
/// one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    base: f64,
    per_flop: f64,
    /// The fastest and the slowest round, as a share of the median one.
    rounds: [f64; 2],
}

impl Line {
    const NOTHING: Line = Line { base: 0.0, per_flop: 0.0, rounds: [1.0; 2] };

    /// Mean seconds of requests that cost so much.
    pub(super) fn mean(&self, flops: impl Iterator<Item = Flops>) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for flops in flops {
            sum += self.base + self.per_flop * flops as f64;
            count += 1.0;
        }
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// The fastest and the slowest round, as a share of the median one.
    pub(super) fn rounds(&self) -> [f64; 2] {
        self.rounds
    }

    /// A line by least squares through (FLOPs, seconds in each round).
    fn through(timed: &[(Flops, Vec<f64>)]) -> Line {
        let points: Vec<(f64, f64)> = timed.iter().map(|(flops, rounds)| (*flops as f64, fastest(rounds))).collect();
        let count = points.len().max(1) as f64;
        let x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let squares: f64 = points.iter().map(|(px, _)| (px - x).powi(2)).sum();
        let products: f64 = points.iter().map(|(px, py)| (px - x) * (py - y)).sum();
        // Histories of one length, or noise that says that longer is faster: the mean alone.
        let slope = if squares > 0.0 { (products / squares).max(0.0) } else { 0.0 };
        let rounds = timed.first().map_or(0, |(_, rounds)| rounds.len());
        // What a round was slower by as a whole: not what hit one of its requests.
        let of_round = |round: usize| {
            let ratios: Vec<f64> = timed.iter().map(|(_, rounds)| rounds[round] / median(rounds)).collect();
            median(&ratios)
        };
        let means = || (0..rounds).map(of_round);
        Line {
            base: y - slope * x,
            per_flop: slope,
            rounds: [means().fold(f64::INFINITY, f64::min), means().fold(0.0, f64::max)],
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

impl Times {
    /// Times the router and every route.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub(super) fn measure(model: &Model, histories: &[History]) -> Result<Times, ForwardError> {
        let kinds: Vec<Option<Route>> = std::iter::once(None).chain(model.space().routes().map(Some)).collect();
        let mut lines = lines(model, &kinds, histories)?;
        let routes = lines.split_off(1);
        Ok(Times { router: lines.pop().unwrap_or(Line::NOTHING), routes })
    }

    /// Times one route.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub(super) fn of_route(model: &Model, route: Route, histories: &[History]) -> Result<Line, ForwardError> {
        Ok(lines(model, &[Some(route)], histories)?.pop().unwrap_or(Line::NOTHING))
    }

    /// Mean seconds by route, without the router.
    pub(super) fn by_route(&self, table: &RouteTable, routes: impl Iterator<Item = Route>) -> Vec<f64> {
        routes.map(|route| self.routes[route.index()].mean(table.flops(route).iter().copied())).collect()
    }

    /// Mean seconds of cases on the routes that the router chose for them, the router's own time included.
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

/// Times requests one by one, of the router (`None`) or a route: in each round every kind in turn, so that what disturbs
/// the machine for a while disturbs all of them.
fn lines(model: &Model, kinds: &[Option<Route>], histories: &[History]) -> Result<Vec<Line>, ForwardError> {
    let sample = sample(histories);
    let excluded: Vec<HashSet<Item>> = sample.iter().map(|history| history.items().iter().copied().collect()).collect();
    let mut seconds = vec![vec![Vec::new(); sample.len()]; kinds.len()];
    let started = Instant::now();
    for round in 0..ROUNDS {
        if round >= LEAST && started.elapsed() > LIMIT {
            break;
        }
        for (kind, seconds) in kinds.iter().zip(&mut seconds) {
            for ((history, excluded), seconds) in sample.iter().zip(&excluded).zip(seconds) {
                let began = Instant::now();
                match kind {
                    None => drop(model.forward().router_logits(&[history])?),
                    Some(route) => {
                        let selection = Selection { k: TOP, excluded, candidates: Candidates::All };
                        drop(model.forward().rank(*route, &[Query { history, selection }])?);
                    }
                }
                if round > 0 {
                    seconds.push(began.elapsed().as_secs_f64());
                }
            }
        }
    }
    let flops = |kind: &Option<Route>, history: &History| match kind {
        None => model.cost(model.space().full(), history.len()).router,
        Some(route) => model.cost(*route, history.len()).slice,
    };
    let line = |(kind, seconds): (&Option<Route>, Vec<Vec<f64>>)| {
        let timed: Vec<_> = sample.iter().map(|history| flops(kind, history)).zip(seconds).collect();
        Line::through(&timed)
    };
    Ok(kinds.iter().zip(seconds).map(line).collect())
}

/// Histories from the shortest to the longest, in even steps.
fn sample(histories: &[History]) -> Vec<&History> {
    let mut sorted: Vec<&History> = histories.iter().collect();
    sorted.sort_by_key(|history| history.len());
    let count = sorted.len().min(SAMPLE);
    (0..count).map(|place| sorted[(2 * place + 1) * sorted.len() / (2 * count)]).collect()
}
