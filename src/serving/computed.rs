use std::collections::BTreeMap;

use super::Generation;
use super::row::Routing;
use crate::domain::{Flops, Route};

/// What a batch computes, a route at a time, padding included; the router's work is not in it.
#[derive(Debug, Default)]
pub(super) struct Computed {
    /// The routes in the batch.
    pub(super) routes: BTreeMap<Route, Share>,
    /// What was computed for no row's use: the part of the embeddings that only wider rows read.
    padding: Flops,
}

/// One route's part of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// What its rows cost in this batch.
    pub(super) executed: Flops,
    /// What the full model would have cost for them.
    pub(super) full: Flops,
}

impl Computed {
    /// The cost of a batch of rows, each with the length of its history.
    pub(super) fn of(generation: &Generation, rows: &[(Routing, usize)]) -> Computed {
        let Generation { shape, space, forward, .. } = generation;
        let widest = rows.iter().map(|(routing, _)| space.slice(routing.route).embedding).max().unwrap_or_default();
        let mut computed = Computed::default();
        for (routing, length) in rows {
            let padding = match forward.shares_layers() {
                true => shape.embedding_padding(space.slice(routing.route), widest, *length),
                false => 0,
            };
            let share = computed.routes.entry(routing.route).or_default();
            share.executed += routing.slice_flops + padding;
            share.full += routing.full_flops;
            computed.padding += padding;
        }
        computed
    }

    /// All of it.
    pub(super) fn executed(&self) -> Flops {
        self.routes.values().map(|share| share.executed).sum()
    }

    /// The part of it that is padding, from 0 to 1.
    pub(super) fn padding_ratio(&self) -> f64 {
        // A slice never costs nothing.
        self.padding as f64 / self.executed().max(1) as f64
    }
}
