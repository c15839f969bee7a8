use std::collections::BTreeMap;
use std::time::Duration;

use super::Generation;
use super::row::Routing;
use crate::metrics::Spent;
use canet_domain::{Flops, Route};

/// What a batch computes, a route at a time, padding included; the router's work is not in it.
#[derive(Debug, Default)]
pub(crate) struct Computed {
    /// The routes in the batch.
    pub(crate) routes: BTreeMap<Route, Share>,
    /// What was computed for no row's use: the part of the embeddings that only wider rows read.
    padding: Flops,
}

/// One row of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) routing: Routing,
    /// Items of its history.
    pub(crate) length: usize,
    /// Its part of the time of the router's micro-batch.
    pub(crate) router: Duration,
}

/// One route's part of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    /// What its rows cost in this batch.
    pub(crate) executed: Flops,
    /// What the full model would have cost for them.
    pub(crate) full: Flops,
    /// Its rows' part of the router's time.
    router: Duration,
}

impl Computed {
    /// The cost of a batch.
    pub(crate) fn of(generation: &Generation, rows: &[Part]) -> Computed {
        let model = &generation.model;
        let (shape, space) = (model.shape(), model.space());
        let widest = rows.iter().map(|row| space.slice(row.routing.route).embedding).max().unwrap_or_default();
        let mut computed = Computed::default();
        for Part { routing, length, router } in rows {
            let padding = match model.forward().shares_layers() {
                true => shape.embedding_padding(space.slice(routing.route), widest, *length),
                false => 0,
            };
            let share = computed.routes.entry(routing.route).or_default();
            share.executed += routing.slice_flops + padding;
            share.full += routing.full_flops;
            share.router += *router;
            computed.padding += padding;
        }
        computed
    }

    /// All of it.
    pub(crate) fn executed(&self) -> Flops {
        self.routes.values().map(|share| share.executed).sum()
    }

    /// What the full model would have cost.
    pub(crate) fn full(&self) -> Flops {
        self.routes.values().map(|share| share.full).sum()
    }

    /// The seconds of a route's share of the batch: its part of the time `full` that the full model would have taken, and
    /// its part of the time `forward` that the batch took, the router's beside it.
    pub(crate) fn seconds(&self, share: &Share, forward: Duration, full: Duration) -> Spent {
        let part = |time: Duration, flops: Flops, all: Flops| time.as_secs_f64() * flops as f64 / all.max(1) as f64;
        Spent {
            full: part(full, share.full, self.full()),
            executed: part(forward, share.executed, self.executed()) + share.router.as_secs_f64(),
        }
    }

    /// The part of it that is padding, from 0 to 1.
    pub(crate) fn padding_ratio(&self) -> f64 {
        // A slice never costs nothing.
        self.padding as f64 / self.executed().max(1) as f64
    }
}
