//! How a batch uses the history cache: which rows reuse states, which ones leave states behind, and which run as if
//! there were no cache.

use super::extension::{Extension, HeldStates};
use super::forward::CpuForward;
use super::history_cache::{Found, HistoryCache, Request};
use super::kept_states::KeptStates;
use super::parallel::{run_parallel, split_by_cost, threads_for};
use super::sync::Arc;
use canet_domain::{Flops, History, Route, RouteSpace};
use canet_model::{HistoryCacheStats, ModelConfig, Positions};

/// Whether a position's state depends on the items up to it alone. With positions counted from the newest item, each new
/// item changes all of them.
pub(crate) fn states_stay_right(config: &ModelConfig) -> bool {
    config.positions != Positions::Newest
}

/// The number of slices whose states are kept apart.
pub(crate) fn slices(space: &RouteSpace) -> u32 {
    u32::try_from(space.hidden().len() * space.embedding().len()).unwrap_or(u32::MAX)
}

/// What rows computed with the cache.
pub(crate) struct Reused {
    /// The outputs at the newest positions: [rows, stride]
    pub(crate) newest: Vec<f32>,
    /// What each row did not compute.
    pub(crate) flops: Vec<Flops>,
}

/// A row that reuses or leaves states.
struct Job<'a> {
    /// Its place among the rows of the call.
    place: usize,
    slice: u32,
    extension: Extension<'a>,
    reused: Flops,
}

impl CpuForward {
    /// The slices' outputs at the newest positions of rows that are sorted by route.
    pub(crate) fn newest_reusing(&self, cache: &HistoryCache, rows: &[(Route, &History)]) -> Reused {
        let requests: Vec<Option<Request<'_>>> =
            rows.iter().map(|(route, history)| self.request(*route, history)).collect();
        let mut found = cache.look_up(requests.iter().flatten().copied()).into_iter();
        let (mut jobs, mut plain) = (Vec::new(), Vec::new());
        for (place, request) in requests.into_iter().enumerate() {
            let states = request.and_then(|request| Some((request, held(found.next()?)?)));
            match states {
                Some((Request { slice, items, .. }, states)) => {
                    let route = rows[place].0;
                    let reused = self.saved_by(states.get(), items.len(), route, items.len());
                    jobs.push(Job { place, slice, extension: Extension { route, items, states }, reused });
                }
                None => plain.push(place),
            }
        }
        let stride = self.workspaces().sizes().stride();
        let mut reused = Reused { newest: Vec::new(), flops: vec![0; rows.len()] };
        if jobs.is_empty() {
            reused.newest = self.newest(rows);
            return reused;
        }
        reused.newest = vec![0.0; rows.len() * stride];
        let plain_rows: Vec<(Route, &History)> = plain.iter().map(|place| rows[*place]).collect();
        for (place, newest) in plain.iter().zip(self.newest(&plain_rows).chunks(stride)) {
            reused.newest[place * stride..][..stride].copy_from_slice(newest);
        }
        let mut kept = Vec::with_capacity(jobs.len());
        for (Job { place, slice, extension, reused: flops }, newest) in self.run_jobs(jobs) {
            reused.newest[place * stride..][..stride].copy_from_slice(&newest);
            reused.flops[place] = flops;
            if let HeldStates::Own(states) = extension.states {
                kept.push((slice, extension.items, states));
            }
        }
        cache.store(kept.into_iter());
        reused
    }

    /// What the cache is asked for; `None` for a route that has only a last block, of which nothing is kept.
    fn request<'a>(&self, route: Route, history: &'a History) -> Option<Request<'a>> {
        let [width, depth, embedding] = self.space().place(route);
        let slice = u32::try_from(width * self.space().embedding().len() + embedding).ok()?;
        // The model reads only the newest items of a longer history.
        let items = &history.items()[history.len().saturating_sub(self.workspaces().sizes().length)..];
        (self.space().layers()[depth] > 1).then_some(Request { slice, depth, items })
    }

    /// What the states of the oldest `positions` save a row of `length` items.
    fn saved_by(&self, states: &KeptStates, positions: usize, route: Route, length: usize) -> Flops {
        let slice = self.space().slice(route);
        let kept = states.blocks.iter().take(slice.layers - 1).map(|block| block.tokens().min(positions));
        self.shape().reused_flops(slice, length, kept)
    }

    /// Runs jobs in chunks that fit a workspace. Returns each with its output.
    fn run_jobs<'a>(&self, mut jobs: Vec<Job<'a>>) -> Vec<(Job<'a>, Vec<f32>)> {
        let (space, stride) = (self.space(), self.workspaces().sizes().stride());
        jobs.sort_by_key(|job| {
            let [width, depth, embedding] = space.place(job.extension.route);
            (width, std::cmp::Reverse(depth), embedding)
        });
        let cost = |chunk: &Vec<Job<'a>>| chunk.iter().map(|job| self.cost(job)).sum();
        let chunks = self.job_chunks(jobs);
        let threads = threads_for(self.threads(), chunks.iter().map(cost).sum());
        let done = run_parallel(split_by_cost(chunks, threads, cost), |chunks| {
            self.workspaces().with(|workspace| {
                let mut done = Vec::new();
                for chunk in chunks {
                    let (places, mut rows): (Vec<_>, Vec<Extension<'_>>) =
                        chunk.into_iter().map(|job| ((job.place, job.slice, job.reused), job.extension)).unzip();
                    let mut newest = vec![0.0; rows.len() * stride];
                    self.backbone().extend(&mut rows, workspace, &mut newest);
                    let outputs = newest.chunks(stride).map(<[f32]>::to_vec);
                    done.extend(places.into_iter().zip(rows).zip(outputs).map(
                        |(((place, slice, reused), extension), newest)| {
                            (Job { place, slice, extension, reused }, newest)
                        },
                    ));
                }
                done
            })
        });
        done.into_iter().flatten().collect()
    }

    /// Splits sorted jobs into chunks of one width that fit a workspace.
    fn job_chunks<'a>(&self, jobs: Vec<Job<'a>>) -> Vec<Vec<Job<'a>>> {
        let most = self.workspaces().sizes().tokens();
        let (mut chunks, mut tokens) = (Vec::<Vec<Job<'a>>>::new(), 0);
        for job in jobs {
            let [width, depth, _] = self.space().place(job.extension.route);
            // Deeper blocks never have more positions than the blocks before them.
            let lacking = job.extension.lacking(depth).max(1);
            tokens += lacking;
            match chunks.last_mut() {
                Some(chunk) if tokens <= most && self.space().place(chunk[0].extension.route)[0] == width => {
                    chunk.push(job);
                }
                _ => {
                    tokens = lacking;
                    chunks.push(vec![job]);
                }
            }
        }
        chunks
    }

    fn cost(&self, job: &Job<'_>) -> Flops {
        let all = self.shape().route_flops(self.space(), job.extension.route, job.extension.items.len());
        all.saturating_sub(job.reused)
    }
}

impl canet_model::HistoryCache for CpuForward {
    fn reusable(&self, route: Route, history: &History) -> Flops {
        let (Some(cache), Some(request)) = (self.cache(), self.request(route, history)) else { return 0 };
        let length = request.items.len();
        cache.peek(request, |states, positions| self.saved_by(states, positions, route, length)).unwrap_or_default()
    }

    fn stats(&self) -> HistoryCacheStats {
        self.cache().map(HistoryCache::stats).unwrap_or_default()
    }

    fn close(&self) {
        if let Some(cache) = self.cache() {
            cache.close();
        }
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
