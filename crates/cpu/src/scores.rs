//! Scores of the catalogue. Nothing as large as rows x columns is stored: a block of columns is computed, its scores
//! that beat the row's k-th best are offered to the ranking, and the next block overwrites it.

use std::ops::Range;

use super::panels::{PANEL, Panels};
use super::product::{LayerInput, Product, Shape};
use super::simd::{Kernel, Level, RowMajor, Simd};
use super::workspace::{BLOCK_COLUMNS, ROW_BLOCK, Workspace, block_columns};
use canet_domain::{Item, ItemSet, TopK};

/// The most bytes of an output layer that stay in a cache from one batch to the next.
const CACHED: usize = 16 << 20;

/// Whether the output layer is too large for a cache, so that each batch streams it from memory.
pub(crate) fn is_streamed(output: &Panels) -> bool {
    output.bytes() > CACHED
}

/// The output layer over the newest positions of some rows.
pub(crate) struct ScorePass<'a> {
    /// [N + 1, D]
    pub(crate) output: &'a Panels,
    /// The features of a row that the layer reads.
    pub(crate) width: usize,
    /// [rows, width]
    pub(crate) newest: RowMajor<'a>,
    pub(crate) rows: usize,
}

impl<'a> ScorePass<'a> {
    /// The same for one row alone.
    pub(crate) fn row(&self, row: usize) -> ScorePass<'a> {
        let newest = RowMajor { data: &self.newest.data[row * self.newest.stride..], ..self.newest };
        ScorePass { output: self.output, width: self.width, newest, rows: 1 }
    }

    /// Computes `columns`, which start at a multiple of a panel, a block at a time. `take` gets the row's number, the
    /// block's first column and the scores.
    pub(crate) fn for_each_block(
        &self,
        columns: Range<usize>,
        workspace: &mut Workspace,
        mut take: impl FnMut(usize, usize, &[f32]),
    ) {
        let Workspace { level, score_block, pairs, .. } = workspace;
        let level = *level;
        let width = block_columns(self.rows);
        for first in columns.clone().step_by(width) {
            let outputs = width.min(columns.end - first);
            for above in (0..self.rows).step_by(ROW_BLOCK) {
                let count = ROW_BLOCK.min(self.rows - above);
                let rows = RowMajor { data: &self.newest.data[above * self.newest.stride..], ..self.newest };
                let input = LayerInput { rows, count, depth: self.width }.in_format(level, self.output.format(), pairs);
                let shape = Shape { inputs: self.width, outputs };
                let product = Product { first, ..Product::new(self.output, shape, input, count) };
                match is_streamed(self.output) {
                    true => product.write_prefetching(level, score_block, width),
                    false => product.write(level, score_block, width),
                }
                for (row, scores) in score_block.chunks(width).take(count).enumerate() {
                    take(above + row, first, &scores[..outputs]);
                }
            }
        }
    }
}

/// Offers the scores of a block, whose first column is `first`, to a ranking.
pub(crate) fn offer_block(level: Level, scores: &[f32], first: usize, best: &mut TopK<'_>) {
    level.run(OfferBlock { scores, first, best });
}

struct OfferBlock<'a, 'b> {
    scores: &'a [f32],
    first: usize,
    best: &'a mut TopK<'b>,
}

impl OfferBlock<'_, '_> {
    fn offer(&mut self, place: usize) {
        let column = u32::try_from(self.first + place).ok();
        // Column 0 is padding and makes no item.
        if let Some(item) = column.and_then(Item::new) {
            self.best.offer(item, self.scores[place]);
        }
    }
}

impl Kernel for OfferBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let whole = self.scores.len() - self.scores.len() % S::LANES;
        let set = self.best.set();
        let mut bar = simd.splat(self.best.bar());
        for at in (0..whole).step_by(S::LANES) {
            let mut bits = allowed_lanes(set, self.first + at, simd.ge_mask(simd.load(&self.scores[at..]), bar));
            if bits == 0 {
                continue;
            }
            while bits != 0 {
                self.offer(at + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
            bar = simd.splat(self.best.bar());
        }
        for place in whole..self.scores.len() {
            self.offer(place);
        }
    }
}

/// The lanes of `bits` whose items a set has. A vector's columns begin at a multiple of its lanes, so one word of the set
/// has all of them.
#[inline(always)]
pub(crate) fn allowed_lanes(set: Option<&ItemSet>, column: usize, bits: u32) -> u32 {
    match set {
        // Most vectors have no lane left here.
        Some(set) if bits != 0 => bits & set.bits_from(column) as u32,
        _ => bits,
    }
}

/// Splits the columns for as many threads, at multiples of a block.
pub(crate) fn column_ranges(columns: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    let each = columns.div_ceil(threads.max(1)).next_multiple_of(BLOCK_COLUMNS.max(PANEL));
    (0..columns).step_by(each).map(move |first| first..columns.min(first + each))
}
