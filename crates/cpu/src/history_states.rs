use std::collections::BTreeSet;

use super::history_cache::{Key, Request, StateCache};
use super::kept_states::KeptStates;
use canet_domain::{Flops, History, ModelShape, Route, RouteSpace};
use canet_model::{HistoryCache, HistoryCacheStats, ModelConfig, Positions};

/// The kept states of a forward, with the sizes of its model. The sizes tell which states a row asks for and what these
/// save.
pub(crate) struct HistoryStates {
    pub(super) states: StateCache,
    space: RouteSpace,
    shape: ModelShape,
    /// The most items of a history that the model reads.
    max_len: usize,
}

/// What rows computed with the cache.
pub(crate) struct Reused {
    /// The outputs at the newest positions: [rows, stride]
    pub(crate) newest: Vec<f32>,
    /// What each row did not compute.
    pub(crate) flops: Vec<Flops>,
}

impl HistoryStates {
    /// States of at most `budget` bytes. `None` if the budget is 0, or if a model's positions count from the newest item:
    /// each new item then changes the states of all positions. Otherwise a state depends on the items up to it alone.
    pub(crate) fn new(budget: usize, config: &ModelConfig, space: &RouteSpace) -> Option<HistoryStates> {
        if budget == 0 || config.positions == Positions::Newest {
            return None;
        }
        let slices: BTreeSet<u32> = space.routes().map(|route| slice_of(space, route)).collect();
        Some(HistoryStates {
            states: StateCache::new(budget, slices.into_iter().collect()),
            space: space.clone(),
            shape: config.shape(),
            max_len: config.max_len,
        })
    }

    /// Which histories may share the states of a row.
    pub(super) fn key(&self, route: Route, history: &History) -> Key {
        Key { owner: history.owner(), slice: slice_of(&self.space, route) }
    }

    /// What a row asks for; `None` for a route that has only a last block, of which nothing is kept.
    pub(super) fn request<'a>(&self, route: Route, history: &'a History) -> Option<Request<'a>> {
        let [_, depth, _] = self.space.place(route);
        // The model reads only the newest items of a longer history.
        let items = &history.items()[history.len().saturating_sub(self.max_len)..];
        (self.space.layers()[depth] > 1).then(|| Request { key: self.key(route, history), depth, items })
    }

    /// What the states of the oldest `positions` save a row of `length` items.
    pub(super) fn saved_by(&self, states: &KeptStates, positions: usize, route: Route, length: usize) -> Flops {
        let slice = self.space.slice(route);
        let kept = states.blocks.iter().take(slice.layers - 1).map(|block| block.tokens().min(positions));
        self.shape.reused_flops(slice, length, kept)
    }
}

/// The place of a route's width and embedding among all pairs.
fn slice_of(space: &RouteSpace, route: Route) -> u32 {
    let [width, _, embedding] = space.place(route);
    u32::try_from(width * space.embedding().len() + embedding).unwrap_or(u32::MAX)
}

impl HistoryCache for HistoryStates {
    fn reusable(&self, route: Route, history: &History) -> Flops {
        let Some(request) = self.request(route, history) else { return 0 };
        let length = request.items.len();
        let saved = self.states.peek(request, |states, positions| self.saved_by(states, positions, route, length));
        saved.unwrap_or_default()
    }

    fn stats(&self) -> HistoryCacheStats {
        self.states.stats()
    }

    fn close(&self) {
        self.states.close();
    }
}
