//! The forward for CPUs: no library, one file a mechanism.
//!
//! Weights are packed once into panels of which every slice is a prefix ([`panels`]); a register-blocked kernel
//! multiplies rows with them ([`product`], [`simd`]); a history's rows go through a block while they are in the nearest
//! caches ([`block`], [`attention`], [`norm`]); the newest position alone leaves the last one ([`newest`]), and its scores are
//! looked at in blocks ([`scores`]), of a large catalogue only where a scan over bytes cannot rule them out ([`scan`]). A
//! row's sums are taken in one order whatever stands beside it: its answer alone and in a batch is the same to the bit.

mod attention;
mod backbone;
mod backend;
mod block;
mod buffer;
mod elementary;
mod input;
mod newest;
mod norm;
mod panels;
mod peak;
mod pieces;
mod product;
mod router;
mod scan;
mod scores;
mod simd;
mod spread;
mod tables;
mod workspace;

pub use self::backend::{CpuBackend, NoBf16};
pub use self::peak::{fma_peak, gemm_peak, read_peak};
pub use self::pieces::Pieces;
pub use self::simd::Level;

use std::ops::Range;

use self::backbone::Backbone;
use self::panels::Packer;
use self::router::Router;
use self::scan::Codes;
use self::scores::{Scores, parts, screen};
use self::simd::Left;
use self::spread::{shares, spread, threads_for};
use self::workspace::{Sizes, Workspace, Workspaces};
use canet_domain::{Flops, History, ModelShape, Ranked, Route, RouteSpace, TopK};
use canet_model::{Forward, ForwardError, LoadError, ModelConfig, Precision, Query, Rows, Weights};

/// One set of weights in this machine's memory, run by kernels for its CPU.
pub struct Native {
    level: Level,
    threads: usize,
    space: RouteSpace,
    shape: ModelShape,
    backbone: Backbone,
    router: Router,
    /// Of an output layer that no cache holds.
    codes: Option<Codes>,
    workspaces: Workspaces,
}

/// Histories of one route that run together, and where they stand among the rows of a call.
struct Chunk {
    route: Route,
    rows: Range<usize>,
}

impl Native {
    /// Packs weights for vectors of the best kind that this CPU has; a call computes on up to `threads` threads.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration is not sane or the weights do not fit it.
    pub fn load(
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
        threads: usize,
    ) -> Result<Native, LoadError> {
        let level = Level::best();
        Native::load_with((level, precision), config, weights, threads, level.multiplies_bytes())
    }

    /// The same without the copy in bytes of a large output layer: every score is computed.
    pub fn without_scan(self) -> Native {
        Native { codes: None, ..self }
    }

    /// The same for vectors of a kind, whether or not it [has instructions](Level::multiplies_bf16) for bfloat16 and bytes.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_at(
        how: (Level, Precision),
        config: &ModelConfig,
        weights: &Weights,
        threads: usize,
    ) -> Result<Native, LoadError> {
        Native::load_with(how, config, weights, threads, true)
    }

    fn load_with(
        (level, precision): (Level, Precision),
        config: &ModelConfig,
        weights: &Weights,
        threads: usize,
        scans: bool,
    ) -> Result<Native, LoadError> {
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
        let codes = match scans && Scores::streamed(backbone.output()) {
            true => Codes::load(packer, "backbone.output")?,
            false => None,
        };
        Ok(Native {
            level,
            threads: threads.max(1),
            backbone,
            codes,
            router: Router::load(weights, config)?,
            workspaces: Workspaces::new(sizes),
            space,
            shape,
        })
    }

    /// The vectors that it computes with.
    pub fn level(&self) -> Level {
        self.level
    }

    fn width(&self, route: Route) -> usize {
        self.space.slice(route).hidden
    }

    /// Cuts histories, those of a route beside each other, into chunks that fit a workspace.
    fn chunks(&self, rows: &[(Route, &History)]) -> Vec<Chunk> {
        let most = self.workspaces.sizes().tokens();
        let (mut chunks, mut tokens) = (Vec::<Chunk>::new(), 0);
        for (place, (route, history)) in rows.iter().enumerate() {
            // What a history is longer than the model reads is cut.
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

    /// What the slices make of the newest positions: [rows, stride]. Those of a route stand beside each other.
    fn newest(&self, rows: &[(Route, &History)]) -> Vec<f32> {
        let stride = self.workspaces.sizes().stride();
        let cost = |chunk: &Chunk| -> Flops {
            let rows = rows[chunk.rows.clone()].iter();
            rows.map(|(route, history)| self.shape.route_flops(&self.space, *route, history.len())).sum()
        };
        let chunks = self.chunks(rows);
        let threads = threads_for(self.threads, chunks.iter().map(cost).sum());
        let mut newest = vec![0.0; rows.len() * stride];
        let (mut rest, mut tasks) = (newest.as_mut_slice(), Vec::with_capacity(threads));
        for chunks in shares(chunks, threads, cost) {
            let count: usize = chunks.iter().map(|chunk| chunk.rows.len()).sum();
            let (own, behind) = rest.split_at_mut(count * stride);
            rest = behind;
            tasks.push((chunks, own));
        }
        spread(tasks, |(chunks, mut newest)| {
            self.workspaces.with(|workspace| {
                for chunk in chunks {
                    let histories: Vec<&History> = rows[chunk.rows].iter().map(|(_, history)| *history).collect();
                    let (own, behind) = newest.split_at_mut(histories.len() * stride);
                    self.backbone.newest(self.level, (&self.space, chunk.route), &histories, (workspace, own));
                    newest = behind;
                }
            });
        });
        newest
    }

    /// The output layer over neighbouring rows of one width.
    fn output<'a>(&'a self, route: Route, newest: &'a [f32]) -> Scores<'a> {
        let stride = self.workspaces.sizes().stride();
        Scores {
            output: self.backbone.output(),
            width: self.width(route),
            newest: Left { data: newest, stride },
            rows: newest.len() / stride,
        }
    }

    /// Ranks neighbouring rows of one width over some columns.
    fn best_of<'a>(
        &self,
        scores: &Scores<'_>,
        queries: &[Query<'a>],
        columns: &Range<usize>,
        workspace: &mut Workspace,
    ) -> Vec<TopK<'a>> {
        let Some(codes) = &self.codes else {
            let mut best: Vec<TopK<'a>> = queries.iter().map(|query| TopK::new(&query.selection)).collect();
            let buffers: (&mut [f32], &mut [f32]) = (&mut workspace.board, &mut workspace.pairs);
            scores.blocks(self.level, columns.clone(), buffers, |row, first, scores| {
                screen(self.level, scores, first, &mut best[row]);
            });
            return best;
        };
        let scanned = codes.best(self.level, scores, columns, queries, workspace);
        let scored = |(row, best): (usize, Option<TopK<'a>>)| {
            best.unwrap_or_else(|| {
                let mut best = TopK::new(&queries[row].selection);
                let buffers: (&mut [f32], &mut [f32]) = (&mut workspace.board, &mut workspace.pairs);
                scores.row(row).blocks(self.level, columns.clone(), buffers, |_, first, scores| {
                    screen(self.level, scores, first, &mut best);
                });
                best
            })
        };
        scanned.into_iter().enumerate().map(scored).collect()
    }

    /// Ranks neighbouring rows of one width: every thread a part of the catalogue.
    fn best(&self, scores: &Scores<'_>, queries: &[Query<'_>]) -> Vec<Vec<Ranked>> {
        let columns = self.backbone.output().outputs();
        let work = 2 * (scores.width * scores.rows) as Flops * columns as Flops;
        let ranked = |columns: Range<usize>| {
            self.workspaces.with(|workspace| self.best_of(scores, queries, &columns, workspace))
        };
        let tasks: Vec<Range<usize>> = parts(columns, threads_for(self.threads, work)).collect();
        let mut parts = spread(tasks, ranked).into_iter();
        let mut best = parts.next().unwrap_or_default();
        for part in parts {
            best.iter_mut().zip(part).for_each(|(best, part)| best.merge(part));
        }
        best.into_iter().map(TopK::into_ranking).collect()
    }
}

impl Forward for Native {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        let rows: Vec<(Route, &History)> = histories.iter().map(|history| (self.space.full(), *history)).collect();
        let cost = |chunk: &Chunk| -> Flops {
            let own = histories[chunk.rows.clone()].iter();
            own.map(|history| self.shape.router_flops(self.space.len(), history.len())).sum()
        };
        let chunks = self.chunks(&rows);
        let threads = threads_for(self.threads, chunks.iter().map(cost).sum());
        let parts = spread(shares(chunks, threads, cost), |chunks| {
            let mut logits = Vec::new();
            self.workspaces.with(|workspace| {
                for chunk in chunks {
                    self.router.logits(self.level, &histories[chunk.rows], workspace, &mut logits);
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
        spread(tasks, |(newest, data)| {
            self.workspaces.with(|workspace| {
                self.output(route, newest).blocks(
                    self.level,
                    0..columns,
                    (&mut workspace.board, &mut workspace.pairs),
                    |row, first, scores| {
                        data[row * columns + first..][..scores.len()].copy_from_slice(scores);
                    },
                );
            });
        });
        Rows::new(columns, data)
    }

    fn rank(&self, route: Route, queries: &[Query<'_>]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let rows: Vec<(Route, &History)> = queries.iter().map(|query| (route, query.history)).collect();
        let newest = self.newest(&rows);
        Ok(self.best(&self.output(route, &newest), queries))
    }

    /// Each row runs its own slice; rows of one route share their passes, those of one width the output layer's.
    fn rank_mixed(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| rows[*row].0);
        let sorted: Vec<(Route, &History)> = order.iter().map(|row| (rows[*row].0, rows[*row].1.history)).collect();
        let (newest, stride) = (self.newest(&sorted), self.workspaces.sizes().stride());
        let mut answers = vec![Vec::new(); rows.len()];
        let mut first = 0;
        for lane in order.chunk_by(|a, b| self.width(rows[*a].0) == self.width(rows[*b].0)) {
            let queries: Vec<Query<'_>> = lane.iter().map(|row| rows[*row].1).collect();
            let newest = &newest[first * stride..][..lane.len() * stride];
            let ranked = self.best(&self.output(rows[lane[0]].0, newest), &queries);
            for (row, ranked) in lane.iter().zip(ranked) {
                answers[*row] = ranked;
            }
            first += lane.len();
        }
        Ok(answers)
    }

    fn chooses_by_shape(&self) -> bool {
        false
    }

    fn backend(&self) -> &'static str {
        "native"
    }

    fn weight_bytes(&self) -> usize {
        self.backbone.bytes() + self.router.bytes() + self.codes.as_ref().map_or(0, Codes::bytes)
    }
}
