//! The best of a large catalogue by a first look at a quarter of its bytes.
//!
//! Beside an output layer that no cache holds stand its weights rounded to bytes. A scan over those gives each item's score
//! within a bound that holds for certain; only items that may be among the best are then scored by the layer itself. The
//! ranking is the one that all scores give, to the bit; where too many items may be among the best, the scan gives up.

use std::ops::Range;

use super::panels::{Numbers, PANEL, Packer, Panels};
use super::product::Product;
use super::scores::Scores;
use super::simd::{Kernel, Left, Level, Simd, pair_of};
use super::workspace::{ROWS, Workspace, board_width};
use canet_domain::{Candidates, Item, TopK};
use canet_model::{Precision, Query, WeightsError};

/// An output layer in bytes: a weight w of an item is about `scale (code - 128)`.
pub(crate) struct Codes {
    /// [N + 1, D]
    codes: Panels,
    /// One an item: [N + 1 padded]
    scales: Vec<f32>,
    /// Euclidean length of an item's weights: [N + 1 padded]
    lengths: Vec<f32>,
    precision: Precision,
}

/// The widest layer whose sums of products of bytes stay within an `i32`.
const WIDEST: usize = 1 << 15;

/// The largest code of either sign: codes are symmetrical.
const LARGEST: f32 = 127.0;

/// What makes a signed code one that counts from 0.
const ZERO: f32 = 128.0;

/// One in so many of the items that are scanned may be scored again: one alone takes the product of its whole panel.
const ONE_IN: usize = 64;

/// What a float32 operation may err by, of its result, doubled.
const ROUNDING: f32 = 1.2e-7;

/// Lengths and biases up to here cannot make a score that float32 does not hold.
const HUGE: f32 = 1e18;

/// The least unit of codes, and more than all that is lost where numbers become too small for float32.
const TINY: f32 = 1e-30;

impl Codes {
    /// The codes of a layer as it is packed; `None` where it is too wide for them or its numbers are huge.
    pub(crate) fn load(packer: Packer<'_>, name: &str) -> Result<Option<Codes>, WeightsError> {
        let weight = packer.weights.get(&format!("{name}.weight"))?;
        let [outputs, depth] = weight.shape[..] else { return Err(WeightsError::Missing(name.to_owned())) };
        if depth > WIDEST {
            return Ok(None);
        }
        let mut codes = Panels::zeros(Numbers::Bytes, outputs, depth);
        let [mut scales, mut lengths] = [(); 2].map(|()| vec![0.0; outputs.next_multiple_of(PANEL)]);
        let mut row = vec![0.0; depth];
        for (output, stored) in weight.data.chunks_exact(depth).enumerate() {
            row.iter_mut().zip(stored).for_each(|(value, stored)| *value = packed(packer.precision, *stored));
            let scale = unit(&row);
            codes.set_words(output, words(&row, scale, |code| (code + ZERO) as u8));
            (scales[output], lengths[output]) = (scale, length(&row));
        }
        let bias = packer.weights.get(&format!("{name}.bias"))?;
        // What is no number is not below it either.
        let bounded = lengths.iter().chain(&bias.data).all(|value| value.abs() <= HUGE);
        Ok(bounded.then_some(Codes { codes, scales, lengths, precision: packer.precision }))
    }

    /// Ranks some rows over `columns`; `None` for a row where the scan does not pay.
    pub(crate) fn best<'a>(
        &self,
        level: Level,
        scores: &Scores<'_>,
        columns: &Range<usize>,
        queries: &[Query<'a>],
        workspace: &mut Workspace,
    ) -> Vec<Option<TopK<'a>>> {
        let most = columns.len() / ONE_IN;
        let mut searches: Vec<Search<'a>> = queries
            .iter()
            .enumerate()
            .map(|(row, query)| {
                let newest = &scores.newest.data[row * scores.newest.stride..][..scores.width];
                Search::new(self, newest, query, most)
            })
            .collect();
        let stride = Numbers::Bytes.words(scores.width);
        let codes: Vec<f32> = searches.iter_mut().flat_map(|search| std::mem::take(&mut search.codes)).collect();
        let width = board_width(searches.len());
        for first in columns.clone().step_by(width) {
            let outputs = width.min(columns.end - first);
            for (searches, codes) in searches.chunks_mut(ROWS).zip(codes.chunks(ROWS * stride)) {
                if !searches.iter().any(|search| search.open) {
                    continue;
                }
                let input = Left { data: codes, stride };
                let product = Product::new(&self.codes, [scores.width, outputs], input, searches.len());
                Product { first, ..product }.stream_into(level, &mut workspace.board, width);
                for (search, counts) in searches.iter_mut().zip(workspace.board.chunks(width)) {
                    if search.open {
                        level.run(Look { layer: self, scores, counts, items: first..first + outputs, search });
                    }
                }
            }
        }
        let found = searches.into_iter().enumerate();
        found.map(|(row, search)| search.finish(level, scores, row, &queries[row], workspace)).collect()
    }

    /// Bytes of codes and of what bounds them.
    pub(crate) fn bytes(&self) -> usize {
        self.codes.bytes() + size_of::<f32>() * (self.scales.len() + self.lengths.len())
    }
}

/// The search for one row's best.
struct Search<'a> {
    /// The row in bytes, `step` a unit, until the scan takes all rows together: [width / 4]
    codes: Vec<f32>,
    step: f32,
    /// What the products with codes count too much, since these count from 0.
    offset: f32,
    /// By how much a score may differ, for each unit of an item's scale, of its length, and of its bias.
    per_scale: f32,
    per_length: f32,
    per_bias: f32,
    /// The best of the lowest that scores may be.
    lowest: TopK<'a>,
    /// Items that may be among the best, and the highest that their scores may be.
    may_be: Vec<(usize, f32)>,
    /// Most items that are worth it.
    most: usize,
    /// Whether the scan is worth going on with.
    open: bool,
}

impl<'a> Search<'a> {
    fn new(layer: &Codes, newest: &[f32], query: &Query<'a>, most: usize) -> Search<'a> {
        let row: Vec<f32> = newest.iter().map(|value| packed(layer.precision, *value)).collect();
        let (width, step) = (row.len() as f32, unit(&row));
        let code = |value: f32| coded(value, step);
        let (mut sum, mut sizes, mut rest) = (0.0, 0.0, Vec::with_capacity(row.len()));
        for value in &row {
            sum += code(*value);
            sizes += code(*value).abs();
            rest.push(value - step * code(*value));
        }
        // A sum of n float32 products errs by at most n roundings of the lengths' product, and of the bias.
        let rounding = (width + 16.0) * ROUNDING;
        Search {
            codes: words(&row, step, |code| (code as i8).cast_unsigned()).collect(),
            step,
            offset: ZERO * sum,
            // A weight is off by at most half a unit; and sums beyond 2²⁴ are rounded twice.
            per_scale: MARGIN * step * (0.5 * sizes + 0.004 * width),
            per_length: MARGIN * (length(&rest) + rounding * length(&row)),
            per_bias: MARGIN * rounding,
            lowest: TopK::new(&query.selection),
            may_be: Vec::new(),
            most,
            // Among a few items alone the k-th best may lie anywhere; and what is no number bounds nothing.
            open: matches!(query.selection.candidates, Candidates::All) && length(&row) <= HUGE,
        }
    }

    /// Takes an item whose score lies between two bounds.
    fn take(&mut self, column: usize, [low, high]: [f32; 2]) {
        // Column 0 is padding, which is no item.
        let Some(item) = u32::try_from(column).ok().and_then(Item::new) else { return };
        self.may_be.push((column, high));
        self.lowest.offer(item, low);
        if self.may_be.len() > 4 * self.most.max(PANEL) {
            self.narrow();
            self.open = self.may_be.len() <= self.most;
        }
    }

    /// Leaves out what can no longer be among the best.
    fn narrow(&mut self) {
        let bar = self.lowest.bar();
        self.may_be.retain(|(_, high)| *high >= bar);
    }

    /// Scores what may be among the best by the layer itself.
    fn finish(
        mut self,
        level: Level,
        scores: &Scores<'_>,
        row: usize,
        query: &Query<'a>,
        workspace: &mut Workspace,
    ) -> Option<TopK<'a>> {
        self.narrow();
        if !self.open || self.may_be.len() > self.most {
            return None;
        }
        let mut best = TopK::new(&query.selection);
        for panel in self.may_be.chunk_by(|(a, _), (b, _)| a / PANEL == b / PANEL) {
            let first = panel[0].0 / PANEL * PANEL;
            let alone = scores.row(row);
            alone.blocks(level, first..first + PANEL, (&mut workspace.board, &mut workspace.pairs), |_, _, scores| {
                for (column, _) in panel {
                    if let Some(item) = u32::try_from(*column).ok().and_then(Item::new) {
                        best.offer(item, scores[column - first]);
                    }
                }
            });
        }
        Some(best)
    }
}

/// Bounds are widened by a ten-thousandth: they are computed in float32 themselves.
const MARGIN: f32 = 1.0001;

/// One row's look at a block of items.
struct Look<'a, 'b, 'c> {
    layer: &'a Codes,
    scores: &'a Scores<'a>,
    /// Bits of the sums of products of codes; what stands behind the items' is not looked at: [width of the board]
    counts: &'a [f32],
    /// The items' columns.
    items: Range<usize>,
    search: &'b mut Search<'c>,
}

impl Kernel for Look<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Look { layer, scores, counts, items, search } = self;
        let first = items.start;
        let [scales, lengths] = [&layer.scales, &layer.lengths].map(|of| &of[first..]);
        let biases = &scores.output.from(first).1;
        let [step, offset] = [search.step, search.offset].map(|value| simd.splat(value));
        let [per_scale, per_length, per_bias] =
            [search.per_scale, search.per_length, search.per_bias].map(|value| simd.splat(value));
        let mut bar = simd.splat(search.lowest.bar());
        let mut bounds = [[0.0; PANEL]; 2];
        for at in (0..items.len()).step_by(S::LANES) {
            let [scale, bias] = [simd.load(&scales[at..]), simd.load(&biases[at..])];
            let count = simd.sub(simd.counted(simd.load(&counts[at..])), offset);
            let score = simd.fma(count, simd.mul(scale, step), bias);
            let error = simd.fma(simd.abs(bias), per_bias, simd.splat(TINY));
            let error = simd.fma(simd.load(&lengths[at..]), per_length, error);
            let error = simd.fma(scale, per_scale, error);
            let high = simd.add(score, error);
            let mut bits = simd.at_least(high, bar);
            if bits == 0 {
                continue;
            }
            let [lows, highs] = &mut bounds;
            simd.store(simd.sub(score, error), lows);
            simd.store(high, highs);
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                if at + lane < items.len() {
                    search.take(first + at + lane, [lows[lane], highs[lane]]);
                }
                bits &= bits - 1;
            }
            bar = simd.splat(search.lowest.bar());
        }
    }
}

/// A value as a layer of a precision multiplies it.
fn packed(precision: Precision, value: f32) -> f32 {
    match precision {
        Precision::Fp32 => value,
        Precision::Bf16 => f32::from_bits(pair_of([0.0, value]).to_bits()),
    }
}

/// The code of a value: a whole number from -127 to 127.
fn coded(value: f32, scale: f32) -> f32 {
    (value / scale).round().clamp(-LARGEST, LARGEST)
}

/// Codes of a row, four as the bits of a value.
fn words(row: &[f32], scale: f32, byte: impl Fn(f32) -> u8) -> impl Iterator<Item = f32> {
    row.chunks(4).map(move |values| {
        let mut bytes = [byte(0.0); 4];
        values.iter().zip(&mut bytes).for_each(|(value, place)| *place = byte(coded(*value, scale)));
        f32::from_bits(u32::from_ne_bytes(bytes))
    })
}

/// What one code is worth in a row.
fn unit(row: &[f32]) -> f32 {
    let greatest = row.iter().fold(0.0, |greatest: f32, value| greatest.max(value.abs()));
    (greatest / LARGEST).max(TINY)
}

fn length(row: &[f32]) -> f32 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::workspace::{Sizes, Workspaces};
    use super::*;
    use canet_domain::{History, Selection};
    use canet_model::{HostTensor, Weights};

    /// How many rows of four a scan over items with these weights answers.
    fn answered(weight: impl Fn(&mut ChaCha8Rng) -> f32) -> usize {
        let (items, depth) = (20_000, 64);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut weights = Weights::default();
        let data = (0..items * depth).map(|_| weight(&mut rng)).collect();
        weights.insert("layer.weight", HostTensor { shape: vec![items, depth], data });
        weights.insert("layer.bias", HostTensor { shape: vec![items], data: vec![0.0; items] });
        let packer = Packer { weights: &weights, precision: Precision::Fp32 };
        let Some(codes) = Codes::load(packer, "layer").unwrap() else { return 0 };
        let layer = packer.layer("layer").unwrap();
        let newest: Vec<f32> = (0..4 * depth).map(|_| rng.gen_range(-1.0..1.0)).collect();
        let scores = Scores { output: &layer, width: depth, newest: Left { data: &newest, stride: depth }, rows: 4 };
        let nothing = HashSet::new();
        let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
        let history = History::new(&[Item::new(1).unwrap()], 1).unwrap();
        let queries = [(); 4].map(|()| Query { history: &history, selection });
        Workspaces::new(Sizes { width: depth, ffn: depth, heads: 1, head: depth, length: 1 }).with(|workspace| {
            let found = codes.best(Level::best(), &scores, &(0..items), &queries, workspace);
            found.iter().filter(|best| best.is_some()).count()
        })
    }

    #[test]
    fn items_that_differ_are_told_apart_by_their_bytes_and_items_that_do_not_are_not() {
        assert_eq!(answered(|rng| rng.gen_range(-1.0..1.0)), 4);
        assert_eq!(answered(|_| 0.5), 0);
        assert_eq!(answered(|rng| rng.gen_range(-1.0..1.0) * 1e20), 0);
    }
}
