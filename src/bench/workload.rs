use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use canet_domain::{Route, RouteSpace};

/// Which routes the requests of a measurement run.
pub(super) struct Workload {
    name: String,
    routes: Routes,
}

/// The source of a request's route.
pub(super) enum Routes {
    /// The router's choice.
    Own,
    /// Drawn at random. Each route comes with the sum of the shares up to its own.
    Drawn(Vec<(Route, f64)>),
    /// The router's choice, for users who return.
    Sessions,
    /// No route runs, only the router.
    None,
}

/// No workload has this name.
#[derive(Debug, thiserror::Error)]
#[error("--workload {0:?} is unknown: use own, full, smallest, uniform, zipf, sessions, router, or a route as {1}")]
pub(super) struct UnknownWorkload(String, String);

impl Workload {
    /// The workload of a name; `seed` shuffles the routes of `zipf`.
    pub(super) fn parse(space: &RouteSpace, name: &str, seed: u64) -> Result<Workload, UnknownWorkload> {
        let mut all: Vec<Route> = space.routes().collect();
        let routes = match name {
            "own" => Routes::Own,
            "sessions" => Routes::Sessions,
            "router" => Routes::None,
            "full" => drawn(&[space.full()], |_| 1.0),
            "smallest" => drawn(&[space.smallest()], |_| 1.0),
            "uniform" => drawn(&all, |_| 1.0),
            "zipf" => {
                all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                drawn(&all, |place| 1.0 / (place + 1) as f64)
            }
            _ => {
                let unknown = || UnknownWorkload(name.to_owned(), space.name(space.full()).to_owned());
                drawn(&[space.parse(name).ok_or_else(unknown)?], |_| 1.0)
            }
        };
        Ok(Workload { name: name.to_owned(), routes })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }
}

fn drawn(routes: &[Route], share: impl Fn(usize) -> f64) -> Routes {
    let sums = routes.iter().enumerate().scan(0.0, |sum, (place, route)| {
        *sum += share(place);
        Some((*route, *sum))
    });
    Routes::Drawn(sums.collect())
}

/// Draws a route by the shares.
pub(super) fn draw(shares: &[(Route, f64)], rng: &mut ChaCha8Rng) -> Option<Route> {
    let all = shares.last().map_or(0.0, |(_, sum)| *sum);
    let place = rng.gen_range(0.0..1.0) * all;
    shares.iter().find(|(_, sum)| place < *sum).or(shares.last()).map(|(route, _)| *route)
}
