//! Ranks a large catalogue by a first look at a quarter of its bytes.
//!
//! An output layer that no cache holds has a second copy, rounded to bytes with one scale an item. The scan multiplies
//! bytes and sums them in `i32`. Each sum bounds the item's score from below and above: the bound covers the rounding
//! of the weights, of the row and of float32 itself. The layer itself scores only items whose highest possible score
//! reaches the k-th best of the lowest possible scores. So the ranking equals the ranking of all scores, to the bit.
//!
//! The scan gives a row up if more than one item in 64 remains or if the request lists its candidates. Every score is
//! then computed. Items outside a set of candidates are dropped before their bounds are compared further, so the k-th best
//! is that of the set. CPUs without products of bytes do not scan at all.

use std::ops::Range;

use super::panels::{PANEL, Packer, Panels, WeightFormat};
use super::product::{Product, Shape};
use super::scores::{ScorePass, allowed_lanes};
use super::simd::{Kernel, RowMajor, Simd, bf16_pair};
use super::workspace::{ROW_BLOCK, Workspace, block_columns};
use canet_domain::{Candidates, Item, ItemSet, TopK};
use canet_model::{Precision, Query, WeightsError};

/// An output layer in bytes. A weight of an item is about `scale (code - 128)`.
pub(crate) struct QuantizedOutput {
    /// [N + 1, D]
    codes: Panels,
    /// One an item: [N + 1 padded]
    scales: Vec<f32>,
    /// The Euclidean norm of an item's weights: [N + 1 padded]
    norms: Vec<f32>,
    precision: Precision,
}

/// The widest layer whose sums of byte products fit an `i32`.
const MAX_WIDTH: usize = 1 << 15;

/// The largest code of either sign.
const LARGEST: f32 = 127.0;

/// Added to a signed code to make it unsigned.
const ZERO: f32 = 128.0;

/// One in so many scanned items may be scored again. A single item costs the product of its whole panel.
const RESCORED_ONE_IN: usize = 64;

/// Twice the relative error of a float32 operation.
const ROUNDING: f32 = 1.2e-7;

/// Norms and biases up to this value cannot make a score overflow float32.
const HUGE: f32 = 1e18;

/// The smallest quantization step. It exceeds every loss by numbers that are too small for float32.
const TINY: f32 = 1e-30;

/// Widens bounds by a ten-thousandth, because they are computed in float32 themselves.
const MARGIN: f32 = 1.0001;

impl QuantizedOutput {
    /// Quantizes a layer as its precision packs it. Returns `None` if the layer is too wide or its numbers are huge.
    pub(crate) fn load(packer: Packer<'_>, name: &str) -> Result<Option<QuantizedOutput>, WeightsError> {
        let weight = packer.weights.get(&format!("{name}.weight"))?;
        let [outputs, depth] = weight.shape[..] else { return Err(WeightsError::Missing(name.to_owned())) };
        if depth > MAX_WIDTH {
            return Ok(None);
        }
        let mut codes = Panels::zeros(WeightFormat::ByteQuads, outputs, depth);
        let [mut scales, mut norms] = [(); 2].map(|()| vec![0.0; outputs.next_multiple_of(PANEL)]);
        let mut row = vec![0.0; depth];
        for (output, stored) in weight.data.chunks_exact(depth).enumerate() {
            row.iter_mut().zip(stored).for_each(|(value, stored)| *value = rounded(packer.precision, *stored));
            let scale = quantization_step(&row);
            codes.set_words(output, pack_codes(&row, scale, |code| (code + ZERO) as u8));
            (scales[output], norms[output]) = (scale, euclidean_norm(&row));
        }
        let bias = packer.weights.get(&format!("{name}.bias"))?;
        // NaN fails this comparison too.
        let bounded = norms.iter().chain(&bias.data).all(|value| value.abs() <= HUGE);
        Ok(bounded.then_some(QuantizedOutput { codes, scales, norms, precision: packer.precision }))
    }

    /// Ranks rows over `columns`. Returns `None` for a row whose scan does not pay.
    pub(crate) fn rank<'a>(
        &self,
        scores: &ScorePass<'_>,
        columns: &Range<usize>,
        queries: &[Query<'a>],
        workspace: &mut Workspace,
    ) -> Vec<Option<TopK<'a>>> {
        let level = workspace.level;
        let max_candidates = columns.len() / RESCORED_ONE_IN;
        let mut searches: Vec<RowSearch<'a>> = queries
            .iter()
            .enumerate()
            .map(|(row, query)| {
                let newest = &scores.newest.data[row * scores.newest.stride..][..scores.width];
                RowSearch::new(self, newest, query, max_candidates)
            })
            .collect();
        let stride = WeightFormat::ByteQuads.words(scores.width);
        let codes: Vec<f32> = searches.iter_mut().flat_map(|search| std::mem::take(&mut search.codes)).collect();
        let width = block_columns(searches.len());
        for first in columns.clone().step_by(width) {
            let outputs = width.min(columns.end - first);
            for (searches, codes) in searches.chunks_mut(ROW_BLOCK).zip(codes.chunks(ROW_BLOCK * stride)) {
                if !searches.iter().any(|search| search.open) {
                    continue;
                }
                level.run(PrefetchSets { searches, column: first + outputs });
                let input = RowMajor { data: codes, stride };
                let shape = Shape { inputs: scores.width, outputs };
                let product = Product::new(&self.codes, shape, input, searches.len());
                Product { first, ..product }.write_prefetching(level, &mut workspace.score_block, width);
                for (search, sums) in searches.iter_mut().zip(workspace.score_block.chunks(width)) {
                    if search.open {
                        level.run(BoundBlock { layer: self, scores, sums, items: first..first + outputs, search });
                    }
                }
            }
        }
        let found = searches.into_iter().enumerate();
        found.map(|(row, search)| search.finish(scores, row, &queries[row], workspace)).collect()
    }

    /// Bytes of the codes, scales and norms.
    pub(crate) fn bytes(&self) -> usize {
        self.codes.bytes() + size_of::<f32>() * (self.scales.len() + self.norms.len())
    }
}

/// The search for one row's best items.
struct RowSearch<'a> {
    /// The row in bytes, until the scan takes all rows together: [width / 4]
    codes: Vec<f32>,
    /// The row's quantization step.
    step: f32,
    /// The excess of each sum that comes from the unsigned codes.
    offset: f32,
    /// The bound on a score's error, per unit of the item's scale, norm and bias.
    per_scale: f32,
    per_norm: f32,
    per_bias: f32,
    /// The best items by their lowest possible scores.
    lowest: TopK<'a>,
    /// Columns that may be among the best, with their highest possible scores.
    candidates: Vec<(usize, f32)>,
    max_candidates: usize,
    /// Whether the scan still pays.
    open: bool,
}

impl<'a> RowSearch<'a> {
    fn new(layer: &QuantizedOutput, newest: &[f32], query: &Query<'a>, max_candidates: usize) -> RowSearch<'a> {
        let row: Vec<f32> = newest.iter().map(|value| rounded(layer.precision, *value)).collect();
        let (width, step) = (row.len() as f32, quantization_step(&row));
        let code = |value: f32| quantize(value, step);
        let (mut sum, mut sizes, mut rest) = (0.0, 0.0, Vec::with_capacity(row.len()));
        for value in &row {
            sum += code(*value);
            sizes += code(*value).abs();
            rest.push(value - step * code(*value));
        }
        // A sum of n float32 products errs by at most n roundings of the product of the norms, and of the bias.
        let rounding = (width + 16.0) * ROUNDING;
        RowSearch {
            codes: pack_codes(&row, step, |code| (code as i8).cast_unsigned()).collect(),
            step,
            offset: ZERO * sum,
            // A weight errs by at most half a step. Sums beyond 2²⁴ are rounded twice.
            per_scale: MARGIN * step * (0.5 * sizes + 0.004 * width),
            per_norm: MARGIN * (euclidean_norm(&rest) + rounding * euclidean_norm(&row)),
            per_bias: MARGIN * rounding,
            lowest: TopK::new(&query.selection),
            candidates: Vec::new(),
            max_candidates,
            // Named candidates may put the k-th best anywhere, and NaN bounds nothing.
            open: !matches!(query.selection.candidates, Candidates::Only(_)) && euclidean_norm(&row) <= HUGE,
        }
    }

    /// Takes an item whose score lies between two bounds.
    fn take(&mut self, column: usize, [low, high]: [f32; 2]) {
        // Column 0 is padding and makes no item.
        let Some(item) = u32::try_from(column).ok().and_then(Item::new) else { return };
        self.candidates.push((column, high));
        self.lowest.offer(item, low);
        if self.candidates.len() > 4 * self.max_candidates.max(PANEL) {
            self.prune();
            self.open = self.candidates.len() <= self.max_candidates;
        }
    }

    /// Drops candidates that can no longer be among the best.
    fn prune(&mut self) {
        let bar = self.lowest.bar();
        self.candidates.retain(|(_, high)| *high >= bar);
    }

    /// Scores the candidates by the layer itself.
    fn finish(
        mut self,
        scores: &ScorePass<'_>,
        row: usize,
        query: &Query<'a>,
        workspace: &mut Workspace,
    ) -> Option<TopK<'a>> {
        self.prune();
        if !self.open || self.candidates.len() > self.max_candidates {
            return None;
        }
        let mut best = TopK::new(&query.selection);
        for panel in self.candidates.chunk_by(|(a, _), (b, _)| a / PANEL == b / PANEL) {
            let first = panel[0].0 / PANEL * PANEL;
            scores.row(row).for_each_block(first..first + PANEL, workspace, |_, _, scores| {
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

/// Prefetches what the rows' sets have from a column on. Between two blocks a row's set leaves the nearest caches if many
/// rows have sets of their own.
struct PrefetchSets<'a, 'b> {
    searches: &'a [RowSearch<'b>],
    column: usize,
}

impl Kernel for PrefetchSets<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for set in self.searches.iter().filter_map(|search| search.lowest.set()) {
            simd.prefetch(set.words(), ItemSet::word_of(self.column));
        }
    }
}

/// Bounds one row's scores on a block of items.
struct BoundBlock<'a, 'b, 'c> {
    layer: &'a QuantizedOutput,
    scores: &'a ScorePass<'a>,
    /// The sums of byte products, as the bits of an `i32` each: [block columns]. Those behind the items are not read.
    sums: &'a [f32],
    /// The items' columns.
    items: Range<usize>,
    search: &'b mut RowSearch<'c>,
}

impl Kernel for BoundBlock<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let BoundBlock { layer, scores, sums, items, search } = self;
        let first = items.start;
        let [scales, norms] = [&layer.scales, &layer.norms].map(|of| &of[first..]);
        let biases = &scores.output.from(first).1;
        let [step, offset] = [search.step, search.offset].map(|value| simd.splat(value));
        let [per_scale, per_norm, per_bias] =
            [search.per_scale, search.per_norm, search.per_bias].map(|value| simd.splat(value));
        let set = search.lowest.set();
        let mut bar = simd.splat(search.lowest.bar());
        let mut bounds = [[0.0; PANEL]; 2];
        for at in (0..items.len()).step_by(S::LANES) {
            let [scale, bias] = [simd.load(&scales[at..]), simd.load(&biases[at..])];
            let sum = simd.sub(simd.i32_lanes_to_f32(simd.load(&sums[at..])), offset);
            let score = simd.fma(sum, simd.mul(scale, step), bias);
            let error = simd.fma(simd.abs(bias), per_bias, simd.splat(TINY));
            let error = simd.fma(simd.load(&norms[at..]), per_norm, error);
            let error = simd.fma(scale, per_scale, error);
            let high = simd.add(score, error);
            let mut bits = allowed_lanes(set, first + at, simd.ge_mask(high, bar));
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

/// A value as a layer of this precision multiplies it.
fn rounded(precision: Precision, value: f32) -> f32 {
    match precision {
        Precision::Fp32 => value,
        Precision::Bf16 => f32::from_bits(bf16_pair([0.0, value]).to_bits()),
    }
}

/// The code of a value: a whole number from -127 to 127.
fn quantize(value: f32, step: f32) -> f32 {
    (value / step).round().clamp(-LARGEST, LARGEST)
}

/// The codes of a row, four as the bits of one value.
fn pack_codes(row: &[f32], step: f32, byte: impl Fn(f32) -> u8) -> impl Iterator<Item = f32> {
    row.chunks(4).map(move |values| {
        let mut bytes = [byte(0.0); 4];
        values.iter().zip(&mut bytes).for_each(|(value, place)| *place = byte(quantize(*value, step)));
        f32::from_bits(u32::from_ne_bytes(bytes))
    })
}

/// The difference of two neighbouring codes in a row.
fn quantization_step(row: &[f32]) -> f32 {
    let greatest = row.iter().fold(0.0, |greatest: f32, value| greatest.max(value.abs()));
    (greatest / LARGEST).max(TINY)
}

fn euclidean_norm(row: &[f32]) -> f32 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::simd::Level;
    use super::super::workspace::{Sizes, Workspaces};
    use super::*;
    use canet_domain::{History, Selection};
    use canet_model::{HostTensor, Weights};

    /// How many of four rows a scan over items with these weights ranks.
    fn answered(weight: impl Fn(&mut ChaCha8Rng) -> f32) -> usize {
        let (items, depth) = (20_000, 64);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut weights = Weights::default();
        let data = (0..items * depth).map(|_| weight(&mut rng)).collect();
        weights.insert("layer.weight", HostTensor { shape: vec![items, depth], data });
        weights.insert("layer.bias", HostTensor { shape: vec![items], data: vec![0.0; items] });
        let packer = Packer { weights: &weights, precision: Precision::Fp32 };
        let Some(codes) = QuantizedOutput::load(packer, "layer").unwrap() else { return 0 };
        let layer = packer.layer("layer").unwrap();
        let newest: Vec<f32> = (0..4 * depth).map(|_| rng.gen_range(-1.0..1.0)).collect();
        let scores =
            ScorePass { output: &layer, width: depth, newest: RowMajor { data: &newest, stride: depth }, rows: 4 };
        let nothing = HashSet::new();
        let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
        let history = History::new(&[Item::new(1).unwrap()], 1).unwrap();
        let queries = [(); 4].map(|()| Query { history: &history, selection });
        let sizes = Sizes { width: depth, ffn: depth, heads: 1, head: depth, length: 1 };
        Workspaces::new(Level::best(), sizes).with(|workspace| {
            let found = codes.rank(&scores, &(0..items), &queries, workspace);
            found.iter().filter(|best| best.is_some()).count()
        })
    }

    #[test]
    fn the_scan_ranks_distinct_items_and_gives_up_on_equal_or_huge_ones() {
        assert_eq!(answered(|rng| rng.gen_range(-1.0..1.0)), 4);
        assert_eq!(answered(|_| 0.5), 0);
        assert_eq!(answered(|rng| rng.gen_range(-1.0..1.0) * 1e20), 0);
    }
}
