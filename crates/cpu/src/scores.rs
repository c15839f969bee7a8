use std::ops::Range;

use super::panels::{PANEL, Panels};
use super::product::{Product, enter};
use super::simd::{Kernel, Left, Level, Simd};
use super::workspace::{BOARD, ROWS, board_width};
use canet_domain::{Item, TopK};

/// Bytes of an output layer that stay in a cache from one batch to the next; a larger one is streamed from memory.
const CACHED: usize = 16 << 20;

/// The output layer over the newest positions of some rows.
pub(crate) struct Scores<'a> {
    /// [N + 1, D]
    pub(crate) output: &'a Panels,
    /// Features that are read.
    pub(crate) width: usize,
    /// [rows, width]
    pub(crate) newest: Left<'a>,
    pub(crate) rows: usize,
}

impl<'a> Scores<'a> {
    /// The same of one row alone.
    pub(crate) fn row(&self, row: usize) -> Scores<'a> {
        let newest = Left { data: &self.newest.data[row * self.newest.stride..], ..self.newest };
        Scores { output: self.output, width: self.width, newest, rows: 1 }
    }

    /// Whether no cache holds the layer from one batch to the next.
    pub(crate) fn streamed(output: &Panels) -> bool {
        output.bytes() > CACHED
    }

    /// Computes `columns`, which begin at a multiple of a panel, a block at a time: `take` gets each row's number, the
    /// first column of the block, and the scores. Nothing as large as rows x columns is ever there.
    pub(crate) fn blocks(
        &self,
        level: Level,
        columns: Range<usize>,
        (board, pairs): (&mut [f32], &mut [f32]),
        mut take: impl FnMut(usize, usize, &[f32]),
    ) {
        let width = board_width(self.rows);
        for first in columns.clone().step_by(width) {
            let outputs = width.min(columns.end - first);
            for above in (0..self.rows).step_by(ROWS) {
                let rows = ROWS.min(self.rows - above);
                let input = Left { data: &self.newest.data[above * self.newest.stride..], ..self.newest };
                let input = enter(level, self.output.numbers(), (input, [rows, self.width]), pairs);
                let product = Product::new(self.output, [self.width, outputs], input, rows);
                let product = Product { first, ..product };
                match Scores::streamed(self.output) {
                    true => product.stream_into(level, board, width),
                    false => product.into(level, board, width),
                }
                for (row, scores) in board.chunks(width).take(rows).enumerate() {
                    take(above + row, first, &scores[..outputs]);
                }
            }
        }
    }
}

/// Offers to a ranking, out of a block of scores that begins at column `first`, those that may enter it.
pub(crate) fn screen(level: Level, scores: &[f32], first: usize, best: &mut TopK<'_>) {
    level.run(Screen { scores, first, best });
}

struct Screen<'a, 'b> {
    scores: &'a [f32],
    first: usize,
    best: &'a mut TopK<'b>,
}

impl Screen<'_, '_> {
    fn offer(&mut self, place: usize) {
        let column = u32::try_from(self.first + place).ok();
        // Column 0 is padding, which is no item.
        if let Some(item) = column.and_then(Item::new) {
            self.best.offer(item, self.scores[place]);
        }
    }
}

impl Kernel for Screen<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let whole = self.scores.len() - self.scores.len() % S::LANES;
        let mut bar = simd.splat(self.best.bar());
        for at in (0..whole).step_by(S::LANES) {
            let mut bits = simd.at_least(simd.load(&self.scores[at..]), bar);
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

/// Where the parts begin and end into which `columns` are cut for as many threads, each a multiple of a block long.
pub(crate) fn parts(columns: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    let each = columns.div_ceil(threads.max(1)).next_multiple_of(BOARD.max(PANEL));
    (0..columns).step_by(each).map(move |first| first..columns.min(first + each))
}
