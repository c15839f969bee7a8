use std::time::Instant;

use super::cost::Ran;
use canet_domain::{Candidates, Flops, History, ModelShape, Route, RouteSpace, Selection};
use canet_model::{Forward, ForwardError, Query};

/// Rows of the larger batch that is timed: enough to tell what a row costs from what a batch does.
const ROWS: usize = 8;

/// Items that are asked for: the default of a request.
const ITEMS: usize = 10;

/// What batches took while a model was warmed up: what its predicted costs start from.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    /// The router's micro-batches.
    pub router: Vec<Ran>,
    /// The batches of each route.
    pub routes: Vec<(Route, Ran)>,
}

impl Timings {
    /// Times the router and every route on the longest history, alone and in a batch of up to `max_batch`, after a run
    /// that does not count.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn measure(
        forward: &dyn Forward,
        (shape, space): (&ModelShape, &RouteSpace),
        longest: &History,
        max_batch: usize,
    ) -> Result<Timings, ForwardError> {
        let length = longest.len();
        let router_flops = shape.router_flops(space.len(), length);
        let batches = [vec![longest], vec![longest; ROWS.min(max_batch)]];
        let excluded = longest.items().iter().copied().collect();
        let selection = Selection { k: ITEMS, excluded: &excluded, candidates: Candidates::All };
        let router = timed(&batches, router_flops, |rows| forward.router_logits(rows).map(drop))?;
        let mut timings = Timings { router: router.into(), routes: Vec::new() };
        for route in space.routes() {
            let flops = shape.route_flops(space, route, length);
            let ran = timed(&batches, flops, |rows| {
                let rows: Vec<(Route, Query<'_>)> =
                    rows.iter().map(|history| (route, Query { history, selection })).collect();
                forward.rank_mixed(&rows).map(drop)
            })?;
            timings.routes.extend(ran.map(|ran| (route, ran)));
        }
        Ok(timings)
    }
}

/// Runs the smaller batch once without counting it, then both; a row costs `flops`.
fn timed(
    batches: &[Vec<&History>; 2],
    flops: Flops,
    run: impl Fn(&[&History]) -> Result<(), ForwardError>,
) -> Result<[Ran; 2], ForwardError> {
    run(&batches[0])?;
    let time = |rows: &[&History]| -> Result<Ran, ForwardError> {
        let started = Instant::now();
        run(rows)?;
        Ok(Ran { flops: flops * rows.len() as Flops, took: started.elapsed() })
    };
    Ok([time(&batches[0])?, time(&batches[1])?])
}
