use std::collections::BTreeMap;
use std::time::Duration;

use super::{Generation, Routing};
use crate::metrics::DeviceSeconds;
use canet_domain::{Flops, Route};

/// What a batch computes by route, padding included. The router's work is not in it.
#[derive(Debug, Default)]
pub(crate) struct BatchCost {
    /// The routes in the batch.
    pub(crate) routes: BTreeMap<Route, RouteCost>,
    /// Computed for no row: embedding columns that only wider rows read.
    padding: Flops,
}

/// A row of a batch, as far as its cost goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowCost {
    pub(crate) routing: Routing,
    /// Items of its history.
    pub(crate) length: usize,
    /// The part of its slice that was not computed, because the history cache had it.
    pub(crate) reused: Flops,
    /// The cost of a second run, 0 without one. It reuses nothing.
    pub(crate) second_run: Flops,
    /// Its share of the time of the router's micro-batch.
    pub(crate) router: Duration,
}

/// What a batch computes for the rows of one route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteCost {
    /// What its rows computed in this batch.
    pub(crate) executed: Flops,
    /// What they did not compute, because the history cache had it.
    pub(crate) reused: Flops,
    /// The full model's cost for the same rows.
    pub(crate) full: Flops,
    /// Its rows' share of the router's time.
    router: Duration,
}

impl BatchCost {
    /// The cost of a batch.
    pub(crate) fn new<'a>(generation: &Generation, rows: impl Iterator<Item = &'a RowCost> + Clone) -> BatchCost {
        let model = &generation.model;
        let (shape, space) = (model.shape(), model.space());
        let widest = rows.clone().map(|row| space.slice(row.routing.route).embedding).max().unwrap_or_default();
        let mut batch = BatchCost::default();
        for RowCost { routing, length, reused, second_run, router } in rows {
            let padding = match model.forward().shares_layers() {
                true => shape.embedding_padding(space.slice(routing.route), widest, *length),
                false => 0,
            };
            let route = batch.routes.entry(routing.route).or_default();
            route.executed += routing.slice_flops.saturating_sub(*reused) + second_run + padding;
            route.reused += reused;
            route.full += routing.full_flops;
            route.router += *router;
            batch.padding += padding;
        }
        batch
    }

    /// The cost of the whole batch.
    fn executed(&self) -> Flops {
        self.routes.values().map(|route| route.executed).sum()
    }

    /// What the batch computed without padding.
    pub(crate) fn computed(&self) -> Flops {
        self.executed() - self.padding
    }

    /// The full model's cost for the same rows.
    pub(crate) fn full(&self) -> Flops {
        self.routes.values().map(|route| route.full).sum()
    }

    /// The device time of one route's rows: their share of `forward`, the batch's time, and of the router's time.
    ///
    /// Beside it stands their share of `full`, the time that the full model would have taken for the batch.
    pub(crate) fn seconds(&self, route: &RouteCost, forward: Duration, full: Duration) -> DeviceSeconds {
        let part = |time: Duration, flops: Flops, all: Flops| time.as_secs_f64() * flops as f64 / all.max(1) as f64;
        DeviceSeconds {
            full: part(full, route.full, self.full()),
            executed: part(forward, route.executed, self.executed()) + route.router.as_secs_f64(),
        }
    }

    /// The share of the batch that is padding, from 0 to 1.
    pub(crate) fn padding_ratio(&self) -> f64 {
        // Every slice costs something; the `max` only rules out a division by zero.
        self.padding as f64 / self.executed().max(1) as f64
    }
}
