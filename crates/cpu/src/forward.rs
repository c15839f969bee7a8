use std::ops::Range;

use super::backbone::Backbone;
use super::history_states::{HistoryStates, Reused};
use super::panels::Packer;
use super::parallel::{run_parallel, split_by_cost, threads_for};
use super::router::Router;
use super::scan::QuantizedOutput;
use super::scores::{ScorePass, column_ranges, is_streamed, offer_block};
use super::simd::{Level, RowMajor};
use super::workspace::{Sizes, Workspace, Workspaces};
use canet_domain::{Flops, History, ModelShape, Ranked, Route, RouteSpace, TopK};
use canet_model::{
    Forward, ForwardError, HistoryCache, LoadError, ModelConfig, Precision, Query, RankedBatch, Rows, Weights,
};

/// One set of weights in host memory, computed by the kernels of this crate.
pub struct CpuForward {
    level: Level,
    threads: usize,
    space: RouteSpace,
    shape: ModelShape,
    backbone: Backbone,
    router: Router,
    /// A copy in bytes of an output layer that no cache holds.
    scan: Option<QuantizedOutput>,
    workspaces: Workspaces,
    cache: Option<HistoryStates>,
}

/// How a [`CpuForward`] computes.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// The vectors of its kernels. Every available level computes every precision; a level without the
    /// [instructions](Level::multiplies_bf16) for it is slow.
    pub level: Level,
    /// The precision of the backbone's linear layers.
    pub precision: Precision,
    /// The most threads that one call uses, at least one.
    pub threads: usize,
    /// Whether a copy in bytes of a large output layer rules items out before they are scored. Answers are the same
    /// without it.
    pub byte_scan: bool,
    /// The most bytes that states of histories may take from one request to the next. 0 keeps none, and so does a model
    /// that counts positions from the newest item.
    pub history_cache: usize,
}

/// Histories of one route that run together.
struct Chunk {
    route: Route,
    /// Their places among the rows of the call.
    rows: Range<usize>,
}

impl CpuOptions {
    /// The fastest level of this CPU, with the byte scan if the level has instructions for it.
    pub fn fastest(precision: Precision, threads: usize) -> CpuOptions {
        let level = Level::best();
        CpuOptions { level, precision, threads, byte_scan: level.multiplies_bytes(), history_cache: 0 }
    }
}

impl CpuForward {
    /// Packs weights for the kernels.
    ///
    /// # Errors
    /// [`LoadError`] if the configuration is not valid or the weights do not fit it.
    pub fn load(config: &ModelConfig, weights: &Weights, options: CpuOptions) -> Result<CpuForward, LoadError> {
        let CpuOptions { level, precision, threads, byte_scan, history_cache } = options;
        let space = config.check()?;
        weights.check(config)?;
        let shape = config.shape();
        let router = config.router;
        let sizes = Sizes {
            width: config.width().max(config.embedding_width()).max(router.dim),
            ffn: shape.ffn_width(config.width()).max(router.ffn),
            heads: config.heads.max(router.heads),
            head: (config.width() / config.heads).max(router.dim / router.heads),
            length: config.max_len,
        };
        let packer = Packer { weights, precision };
        let backbone = Backbone::load(level, packer, config, &space)?;
        let scan = match byte_scan && is_streamed(backbone.output()) {
            true => QuantizedOutput::load(packer, "backbone.output")?,
            false => None,
        };
        Ok(CpuForward {
            level,
            threads: threads.max(1),
            backbone,
            scan,
            router: Router::load(weights, config)?,
            workspaces: Workspaces::new(level, sizes),
            cache: HistoryStates::new(history_cache, config, &space),
            space,
            shape,
        })
    }

    /// The vectors of its kernels.
    pub fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    pub(crate) fn workspaces(&self) -> &Workspaces {
        &self.workspaces
    }

    pub(crate) fn space(&self) -> &RouteSpace {
        &self.space
    }

    pub(crate) fn shape(&self) -> &ModelShape {
        &self.shape
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    fn width(&self, route: Route) -> usize {
        self.space.slice(route).hidden
    }

    /// Splits rows, sorted by route, into chunks that fit a workspace.
    fn chunks(&self, rows: &[(Route, &History)]) -> Vec<Chunk> {
        let most = self.workspaces.sizes().tokens();
        let (mut chunks, mut tokens) = (Vec::<Chunk>::new(), 0);
        for (place, (route, history)) in rows.iter().enumerate() {
            // The model reads only the newest items of a longer history.
            let length = history.len().min(self.workspaces.sizes().length);
            tokens += length;
            match chunks.last_mut() {
                Some(chunk) if chunk.route == *route && tokens <= most => chunk.rows.end += 1,
                _ => {
                    tokens = length;
                    chunks.push(Chunk { route: *route, rows: place..place + 1 });
                }
            }
        }
        chunks
    }

    /// The slices' outputs at the newest positions of rows that are sorted by route: [rows, stride]
    pub(crate) fn newest(&self, rows: &[(Route, &History)]) -> Vec<f32> {
        let stride = self.workspaces.sizes().stride();
        let cost = |chunk: &Chunk| -> Flops {
            let rows = rows[chunk.rows.clone()].iter();
            rows.map(|(route, history)| self.shape.route_flops(&self.space, *route, history.len())).sum()
        };
        let chunks = self.chunks(rows);
        let threads = threads_for(self.threads, chunks.iter().map(cost).sum());
        let mut newest = vec![0.0; rows.len() * stride];
        let (mut rest, mut tasks) = (newest.as_mut_slice(), Vec::with_capacity(threads));
        for chunks in split_by_cost(chunks, threads, cost) {
            let count: usize = chunks.iter().map(|chunk| chunk.rows.len()).sum();
            let (own, others) = rest.split_at_mut(count * stride);
            rest = others;
            tasks.push((chunks, own));
        }
        run_parallel(tasks, |(chunks, mut newest)| {
            self.workspaces.with(|workspace| {
                for chunk in chunks {
                    let histories: Vec<&History> = rows[chunk.rows].iter().map(|(_, history)| *history).collect();
                    let (own, others) = newest.split_at_mut(histories.len() * stride);
                    self.backbone.newest(chunk.route, &histories, workspace, own);
                    newest = others;
                }
            });
        });
        newest
    }

    /// The output layer over neighbouring rows of one width.
    fn output<'a>(&'a self, route: Route, newest: &'a [f32]) -> ScorePass<'a> {
        let stride = self.workspaces.sizes().stride();
        ScorePass {
            output: self.backbone.output(),
            width: self.width(route),
            newest: RowMajor { data: newest, stride },
            rows: newest.len() / stride,
        }
    }

    /// Ranks neighbouring rows of one width over some columns.
    fn rank_columns<'a>(
        &self,
        scores: &ScorePass<'_>,
        queries: &[Query<'a>],
        columns: &Range<usize>,
        workspace: &mut Workspace,
    ) -> Vec<TopK<'a>> {
        let Some(scan) = &self.scan else {
            let mut best: Vec<TopK<'a>> = queries.iter().map(|query| TopK::new(&query.selection)).collect();
            scores.for_each_block(columns.clone(), workspace, |row, first, scores| {
                offer_block(self.level, scores, first, &mut best[row]);
            });
            return best;
        };
        let scanned = scan.rank(scores, columns, queries, workspace);
        let scored = |(row, best): (usize, Option<TopK<'a>>)| {
            best.unwrap_or_else(|| {
                let mut best = TopK::new(&queries[row].selection);
                scores.row(row).for_each_block(columns.clone(), workspace, |_, first, scores| {
                    offer_block(self.level, scores, first, &mut best);
                });
                best
            })
        };
        scanned.into_iter().enumerate().map(scored).collect()
    }

    /// Ranks neighbouring rows of one width. Each thread takes a part of the catalogue.
    fn rank_rows(&self, scores: &ScorePass<'_>, queries: &[Query<'_>]) -> Vec<Vec<Ranked>> {
        let columns = self.backbone.output().outputs();
        let work = 2 * (scores.width * scores.rows) as Flops * columns as Flops;
        let ranked = |columns: Range<usize>| {
            self.workspaces.with(|workspace| self.rank_columns(scores, queries, &columns, workspace))
        };
        let tasks: Vec<Range<usize>> = column_ranges(columns, threads_for(self.threads, work)).collect();
        let mut parts = run_parallel(tasks, ranked).into_iter();
        let mut best = parts.next().unwrap_or_default();
        for part in parts {
            best.iter_mut().zip(part).for_each(|(best, part)| best.merge(part));
        }
        best.into_iter().map(TopK::into_ranking).collect()
    }

    /// Ranks rows from their outputs at the newest position, which are in this `order`, sorted by route.
    fn rank_sorted(&self, rows: &[(Route, Query<'_>)], order: &[usize], newest: &[f32]) -> Vec<Vec<Ranked>> {
        let stride = self.workspaces.sizes().stride();
        let mut answers = vec![Vec::new(); rows.len()];
        let mut first = 0;
        for lane in order.chunk_by(|a, b| self.width(rows[*a].0) == self.width(rows[*b].0)) {
            let queries: Vec<Query<'_>> = lane.iter().map(|row| rows[*row].1).collect();
            let newest = &newest[first * stride..][..lane.len() * stride];
            let ranked = self.rank_rows(&self.output(rows[lane[0]].0, newest), &queries);
            for (row, ranked) in lane.iter().zip(ranked) {
                answers[*row] = ranked;
            }
            first += lane.len();
        }
        answers
    }
}

/// The rows' places sorted by route, and their routes and histories in that order.
fn by_route<'a>(rows: &[(Route, Query<'a>)]) -> (Vec<usize>, Vec<(Route, &'a History)>) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|row| rows[*row].0);
    let sorted = order.iter().map(|row| (rows[*row].0, rows[*row].1.history)).collect();
    (order, sorted)
}

impl Forward for CpuForward {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        let rows: Vec<(Route, &History)> = histories.iter().map(|history| (self.space.full(), *history)).collect();
        let cost = |chunk: &Chunk| -> Flops {
            let own = histories[chunk.rows.clone()].iter();
            own.map(|history| self.shape.router_flops(self.space.len(), history.len())).sum()
        };
        let chunks = self.chunks(&rows);
        let threads = threads_for(self.threads, chunks.iter().map(cost).sum());
        let parts = run_parallel(split_by_cost(chunks, threads, cost), |chunks| {
            let mut logits = Vec::new();
            self.workspaces.with(|workspace| {
                for chunk in chunks {
                    self.router.append_logits(&histories[chunk.rows], workspace, &mut logits);
                }
            });
            logits
        });
        Rows::new(self.space.len(), parts.concat())
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        let rows: Vec<(Route, &History)> = histories.iter().map(|history| (route, *history)).collect();
        let (newest, columns) = (self.newest(&rows), self.backbone.output().outputs());
        let mut data = vec![0.0; rows.len() * columns];
        let work = 2 * (self.width(route) * rows.len()) as Flops * columns as Flops;
        let each = rows.len().div_ceil(threads_for(self.threads, work)).max(1);
        let stride = self.workspaces.sizes().stride();
        let tasks: Vec<_> = newest.chunks(each * stride).zip(data.chunks_mut(each * columns)).collect();
        run_parallel(tasks, |(newest, data)| {
            self.workspaces.with(|workspace| {
                self.output(route, newest).for_each_block(0..columns, workspace, |row, first, scores| {
                    data[row * columns + first..][..scores.len()].copy_from_slice(scores);
                });
            });
        });
        Rows::new(columns, data)
    }

    /// Each row runs its own slice. Rows of one width share the passes over the output layer.
    fn rank(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let (order, sorted) = by_route(rows);
        Ok(self.rank_sorted(rows, &order, &self.newest(&sorted)))
    }

    fn rank_reusing(&self, rows: &[(Route, Query<'_>)]) -> Result<RankedBatch, ForwardError> {
        let Some(cache) = &self.cache else {
            return Ok(RankedBatch { rankings: self.rank(rows)?, reused: Vec::new() });
        };
        let (order, sorted) = by_route(rows);
        let Reused { newest, flops } = self.newest_reusing(cache, &sorted);
        let mut reused = vec![0; rows.len()];
        order.iter().zip(flops).for_each(|(row, flops)| reused[*row] = flops);
        Ok(RankedBatch { rankings: self.rank_sorted(rows, &order, &newest), reused })
    }

    fn history_cache(&self) -> Option<&dyn HistoryCache> {
        self.cache.as_ref().map(|cache| cache as &dyn HistoryCache)
    }

    fn chooses_by_shape(&self) -> bool {
        false
    }

    fn backend(&self) -> &'static str {
        "native"
    }

    fn weight_bytes(&self) -> usize {
        self.backbone.bytes() + self.router.bytes() + self.scan.as_ref().map_or(0, QuantizedOutput::bytes)
    }
}
