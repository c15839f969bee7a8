use std::time::Instant;

use super::scheduler::BatchTiming;
use canet_domain::{Candidates, Flops, History, Route, Selection};
use canet_model::{ForwardError, Model, Query};

/// Rows of the larger timed batch. It must be large enough to separate the cost of a row from the cost of a batch.
const ROWS: usize = 8;

/// Items to rank: the default of a request.
const ITEMS: usize = 10;

/// Times of batches that ran during the warm-up. Predicted costs start from them.
#[derive(Clone, Debug)]
pub struct Timings {
    /// The router's micro-batches.
    pub router: Vec<BatchTiming>,
    /// The batches of each route.
    pub routes: Vec<(Route, BatchTiming)>,
}

impl Timings {
    /// Times the router and every route on the longest history: alone, and in a batch of up to `max_batch` rows.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    pub fn measure(model: &Model, longest: &History, max_batch: usize) -> Result<Timings, ForwardError> {
        let batches = [vec![longest], vec![longest; ROWS.min(max_batch)]];
        let excluded = longest.items().iter().copied().collect();
        let selection = Selection { k: ITEMS, excluded: &excluded, candidates: Candidates::All };
        let cost = |route| model.cost(route, longest.len());
        let router_flops = cost(model.space().full()).router;
        let router = timed(&batches, router_flops, |rows| model.forward().router_logits(rows).map(drop))?;
        let mut timings = Timings { router: router.into(), routes: Vec::new() };
        for route in model.space().routes() {
            let ran = timed(&batches, cost(route).slice, |rows| {
                let rows: Vec<(Route, Query<'_>)> =
                    rows.iter().map(|history| (route, Query { history, selection })).collect();
                model.rank(&rows).map(drop)
            })?;
            timings.routes.extend(ran.map(|ran| (route, ran)));
        }
        Ok(timings)
    }
}

/// Times both batches, after one run of the smaller that does not count. A row costs `flops`.
fn timed(
    batches: &[Vec<&History>; 2],
    flops: Flops,
    run: impl Fn(&[&History]) -> Result<(), ForwardError>,
) -> Result<[BatchTiming; 2], ForwardError> {
    run(&batches[0])?;
    let time = |rows: &[&History]| -> Result<BatchTiming, ForwardError> {
        let started = Instant::now();
        run(rows)?;
        Ok(BatchTiming { flops: flops * rows.len() as Flops, took: started.elapsed() })
    };
    Ok([time(&batches[0])?, time(&batches[1])?])
}
