//! How a batch uses the history cache: which rows reuse states, which ones leave states behind, and which run as if
//! there were no cache.

use std::cmp::Reverse;

use super::extension::{Extension, HeldStates};
use super::forward::CpuForward;
use super::history_cache::{Found, Request, StateCache};
use super::kept_states::KeptStates;
use super::parallel::{run_parallel, split_by_cost, threads_for};
use super::sync::Arc;
use canet_domain::{Flops, History, ModelShape, Route, RouteSpace};
use canet_model::{HistoryCache, HistoryCacheStats, ModelConfig, Positions};

/// The kept states of a forward, with the sizes of its model. The sizes tell which states a row asks for and what these
/// save.
pub(crate) struct HistoryStates {
    states: StateCache,
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

impl CpuForward {
    /// The slices' outputs at the newest positions of rows that are sorted by route.
    pub(crate) fn newest_reusing(&self, cache: &HistoryStates, rows: &[(Route, &History)]) -> Reused {
        let requests: Vec<Option<Request<'_>>> =
            rows.iter().map(|(route, history)| cache.request(*route, history)).collect();
        let mut found = cache.states.look_up(requests.iter().flatten().copied()).into_iter();
        let (mut extensions, mut plain) = (Vec::new(), Vec::new());
        for (place, request) in requests.into_iter().enumerate() {
            match request.and_then(|Request { items, .. }| Some((items, held(found.next()?)?))) {
                Some((items, states)) => {
                    let route = rows[place].0;
                    let reused = cache.saved_by(states.get(), items.len(), route, items.len());
                    extensions.push(Extension { place, route, items, states, reused });
                }
                None => plain.push(place),
            }
        }
        let stride = self.workspaces().sizes().stride();
        let mut reused = Reused { newest: Vec::new(), flops: vec![0; rows.len()] };
        if extensions.is_empty() {
            reused.newest = self.newest(rows);
            return reused;
        }
        reused.newest = vec![0.0; rows.len() * stride];
        let plain_rows: Vec<(Route, &History)> = plain.iter().map(|place| rows[*place]).collect();
        for (place, newest) in plain.iter().zip(self.newest(&plain_rows).chunks(stride)) {
            reused.newest[place * stride..][..stride].copy_from_slice(newest);
        }
        let mut kept = Vec::with_capacity(extensions.len());
        for (extensions, newest) in self.run_extensions(extensions) {
            for (extension, newest) in extensions.into_iter().zip(newest.chunks(stride)) {
                let Extension { place, route, items, states, reused: flops } = extension;
                reused.newest[place * stride..][..stride].copy_from_slice(newest);
                reused.flops[place] = flops;
                if let HeldStates::Own(states) = states {
                    kept.push((cache.slice_place(route), items, states));
                }
            }
        }
        cache.states.store(kept.into_iter());
        reused
    }

    /// Runs extensions in chunks that fit a workspace. Returns those of each chunk with their outputs.
    fn run_extensions<'a>(&self, mut extensions: Vec<Extension<'a>>) -> Vec<(Vec<Extension<'a>>, Vec<f32>)> {
        let (space, stride) = (self.space(), self.workspaces().sizes().stride());
        extensions.sort_by_key(|extension| {
            let [width, depth, embedding] = space.place(extension.route);
            (width, Reverse(depth), embedding)
        });
        let cost = |chunk: &Vec<Extension<'a>>| chunk.iter().map(|extension| self.extension_flops(extension)).sum();
        let chunks = self.extension_chunks(extensions);
        let threads = threads_for(self.threads(), chunks.iter().map(cost).sum());
        let done = run_parallel(split_by_cost(chunks, threads, cost), |chunks| {
            self.workspaces().with(|workspace| {
                let run = |mut extensions: Vec<Extension<'a>>| {
                    let mut newest = vec![0.0; extensions.len() * stride];
                    self.backbone().extend(&mut extensions, workspace, &mut newest);
                    (extensions, newest)
                };
                chunks.into_iter().map(run).collect::<Vec<_>>()
            })
        });
        done.into_iter().flatten().collect()
    }

    /// Splits sorted extensions into chunks of one width that fit a workspace.
    fn extension_chunks<'a>(&self, extensions: Vec<Extension<'a>>) -> Vec<Vec<Extension<'a>>> {
        let most = self.workspaces().sizes().tokens();
        let width_of = |extension: &Extension<'_>| self.space().place(extension.route)[0];
        let (mut chunks, mut tokens) = (Vec::<Vec<Extension<'a>>>::new(), 0);
        for extension in extensions {
            // Deeper blocks never have more positions than the blocks before them.
            let lacking = extension.lacking(self.space().place(extension.route)[1]).max(1);
            tokens += lacking;
            match chunks.last_mut() {
                Some(chunk) if tokens <= most && width_of(&chunk[0]) == width_of(&extension) => chunk.push(extension),
                _ => {
                    tokens = lacking;
                    chunks.push(vec![extension]);
                }
            }
        }
        chunks
    }

    fn extension_flops(&self, Extension { route, items, reused, .. }: &Extension<'_>) -> Flops {
        self.shape().route_flops(self.space(), *route, items.len()).saturating_sub(*reused)
    }
}

impl HistoryStates {
    /// States of at most `budget` bytes. `None` if the budget is 0, or if a model's positions count from the newest item:
    /// each new item then changes the states of all positions. Otherwise a state depends on the items up to it alone.
    pub(crate) fn new(budget: usize, config: &ModelConfig, space: &RouteSpace) -> Option<HistoryStates> {
        if budget == 0 || config.positions == Positions::Newest {
            return None;
        }
        let slices = u32::try_from(space.hidden().len() * space.embedding().len()).unwrap_or(u32::MAX);
        Some(HistoryStates {
            states: StateCache::new(budget, slices),
            space: space.clone(),
            shape: config.shape(),
            max_len: config.max_len,
        })
    }

    /// The place of a route's width and embedding among all such pairs.
    fn slice_place(&self, route: Route) -> u32 {
        let [width, _, embedding] = self.space.place(route);
        u32::try_from(width * self.space.embedding().len() + embedding).unwrap_or(u32::MAX)
    }

    /// What a row asks for; `None` for a route that has only a last block, of which nothing is kept.
    fn request<'a>(&self, route: Route, history: &'a History) -> Option<Request<'a>> {
        let [_, depth, _] = self.space.place(route);
        // The model reads only the newest items of a longer history.
        let items = &history.items()[history.len().saturating_sub(self.max_len)..];
        (self.space.layers()[depth] > 1).then(|| Request { slice: self.slice_place(route), depth, items })
    }

    /// What the states of the oldest `positions` save a row of `length` items.
    fn saved_by(&self, states: &KeptStates, positions: usize, route: Route, length: usize) -> Flops {
        let slice = self.space.slice(route);
        let kept = states.blocks.iter().take(slice.layers - 1).map(|block| block.tokens().min(positions));
        self.shape.reused_flops(slice, length, kept)
    }
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

/// The states with which a row runs; `None` if it runs without.
fn held(found: Found) -> Option<HeldStates> {
    match found {
        Found::Complete(states) => Some(HeldStates::Shared(states)),
        // Another row may still read a taken entry.
        Found::Taken(states) => {
            Some(HeldStates::Own(Arc::try_unwrap(states).unwrap_or_else(|states| (*states).clone())))
        }
        Found::Prefix(states, tokens) => Some(HeldStates::Own(states.prefix(tokens))),
        Found::Store => Some(HeldStates::Own(KeptStates::new())),
        Found::Skip => None,
    }
}
