//! How a batch uses the history cache: which rows reuse states, which ones leave states behind, and which run as if
//! there were no cache.

use std::cmp::Reverse;

use super::extension::{Extension, HeldStates};
use super::forward::CpuForward;
use super::history_cache::{Found, Request};
use super::history_states::{HistoryStates, Reused};
use super::kept_states::KeptStates;
use super::parallel::{run_parallel, split_by_cost, threads_for};
use super::sync::Arc;
use canet_domain::{Flops, History, Route};

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
                    kept.push((cache.key(route, rows[place].1), items, states));
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
