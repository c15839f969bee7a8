//! Attention of the newest position alone, for the last block and the router.
//!
//! With one query q a head, neither keys nor values of the other positions are needed:
//!
//! - `q·(W_K x + b_K) = (W_Kᵀ q)·x + q·b_K`. The last term is the same for every position, so the softmax cancels it,
//!   with or without a bias by distance on the scores.
//! - Weights w that sum to 1 give `Σ w (W_V x + b_V) = W_V (Σ w x) + b_V`.
//!
//! So the query is compared with the positions' features themselves, and their weighted sum goes through W_V once. A
//! history costs two products of one row instead of two products of all its rows. The result is exact up to the order
//! of the sums.

use std::array;

use super::attention::{AttentionScratch, Heads, PositionBiases};
use super::elementary::exp;
use super::panels::{PANEL, Packer, Panels};
use super::product::{LayerInput, Product, Shape, split_into_tiles, with_rows};
use super::simd::{F32, Kernel, Rhs, RowMajor, RowMajorMut, Simd, Tile};
use super::workspace::Workspace;
use canet_model::WeightsError;

/// The keys' weights of a block, transposed.
pub(crate) struct NewestAttention {
    /// W_Kᵀ of each head: [D, D / heads]
    keys: Vec<Panels>,
}

/// What the attention of a slice's newest positions reads beside the workspace.
#[derive(Clone, Copy)]
pub(crate) struct NewestInputs<'a> {
    pub(crate) heads: Heads,
    /// h
    pub(crate) width: usize,
    /// W_K above W_V: [2h, h]
    pub(crate) key_value: &'a Panels,
    pub(crate) biases: &'a PositionBiases,
}

/// Where the inputs of the last block lie: one row a position.
pub(crate) enum Features<'a> {
    /// In the workspace's `x`, one history after the other, with these lengths.
    InWorkspace(&'a [usize]),
    /// Outside, each history with its length.
    Kept(&'a [(usize, RowMajor<'a>)]),
}

impl Features<'_> {
    /// Number of histories.
    pub(crate) fn histories(&self) -> usize {
        match self {
            Features::InWorkspace(lengths) => lengths.len(),
            Features::Kept(histories) => histories.len(),
        }
    }

    /// Calls `take` with each history's number, its length and its rows. `x` is the workspace's.
    #[inline]
    pub(crate) fn for_each(&self, x: RowMajor<'_>, mut take: impl FnMut(usize, usize, RowMajor<'_>)) {
        match self {
            Features::InWorkspace(lengths) => {
                let mut token = 0;
                for (history, length) in lengths.iter().enumerate() {
                    take(history, *length, RowMajor { data: &x.data[token * x.stride..], ..x });
                    token += length;
                }
            }
            Features::Kept(histories) => {
                for (history, (length, rows)) in histories.iter().enumerate() {
                    take(history, *length, *rows);
                }
            }
        }
    }
}

impl NewestAttention {
    /// Packs the keys of the block of this name, stored `width` wide.
    pub(crate) fn load(
        packer: Packer<'_>,
        block: &str,
        width: usize,
        heads: usize,
    ) -> Result<NewestAttention, WeightsError> {
        let (name, kept) = (format!("{block}.attention.key"), width / heads);
        let keys = (0..heads).map(|head| packer.transposed(&name, head * kept..(head + 1) * kept));
        Ok(NewestAttention { keys: keys.collect::<Result<_, _>>()? })
    }

    /// Attends with the histories' queries, rows of the workspace's `y`, to their positions' features. Writes one row a
    /// history into `mixed`, heads beside each other.
    pub(crate) fn attend(&self, inputs: NewestInputs<'_>, features: &Features<'_>, workspace: &mut Workspace) {
        let NewestInputs { heads, width, key_value, biases } = inputs;
        let Workspace { level, stride, x, projected, mixed, y, pairs, scratch, .. } = workspace;
        let (level, stride, count, format) = (*level, *stride, features.histories(), key_value.format());
        // `projected` holds a row of each head for each history.
        let row = heads.count * stride;
        for (head, keys) in self.keys.iter().enumerate() {
            let rows = RowMajor { data: &y[head * heads.width..], stride };
            let query = LayerInput { rows, count, depth: heads.width }.in_format(level, format, pairs);
            let shape = Shape { inputs: heads.width, outputs: width };
            Product::new(keys, shape, query, count).write(level, &mut projected[head * stride..], row);
        }
        features.for_each(RowMajor { data: x, stride }, |history, length, features| {
            let queries = RowMajorMut { data: &mut projected[history * row..], stride };
            level.run(MixFeatures { heads, biases, width, length, features, queries, scratch });
        });
        for head in 0..heads.count {
            let rows = RowMajor { data: &projected[head * stride..], stride: row };
            let mix = LayerInput { rows, count, depth: width }.in_format(level, format, pairs);
            // The head's values are the outputs from here on, which may lie within a panel.
            let start = width + head * heads.width;
            let (first, before) = (start - start % PANEL, start % PANEL);
            let shape = Shape { inputs: width, outputs: before + heads.width };
            let product = Product::new(key_value, shape, mix, count);
            let y_stride = stride + PANEL;
            Product { first, ..product }.write(level, y, y_stride);
            for (values, mixed) in y.chunks(y_stride).zip(mixed.chunks_mut(stride)).take(count) {
                mixed[head * heads.width..][..heads.width].copy_from_slice(&values[before..][..heads.width]);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.keys.iter().map(Panels::bytes).sum()
    }
}

/// Mixes the features of one history for every head.
struct MixFeatures<'a> {
    heads: Heads,
    biases: &'a PositionBiases,
    width: usize,
    /// Items in the history.
    length: usize,
    /// [length, h]
    features: RowMajor<'a>,
    /// `W_Kᵀ q` of each head, then the features that the head mixed.
    queries: RowMajorMut<'a>,
    scratch: &'a mut AttentionScratch,
}

impl Kernel for MixFeatures<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for (head, count) in split_into_tiles(self.heads.count, S::TILE_ROWS) {
            with_rows!(count, self.mix_heads::<S>(simd, head));
        }
    }
}

impl MixFeatures<'_> {
    /// Scores, softmax and the weighted sum of the features, for `R` heads from `head` on.
    #[inline(always)]
    fn mix_heads<S: Simd, const R: usize>(&mut self, simd: S, head: usize) {
        let RowMajor { data, stride } = self.features;
        let (weights, weights_stride) = self.scratch.weights(self.length);
        let RowMajorMut { data: queries, stride: queries_stride } = &mut self.queries;
        let (queries, queries_stride) = (&mut queries[head * *queries_stride..], *queries_stride);
        let biases: [&[f32]; R] = array::from_fn(|place| self.biases.from(head + place, 0, 0));
        for (position, features) in data.chunks(stride).take(self.length).enumerate() {
            let distance = self.length - 1 - position;
            for (place, biases) in biases.iter().enumerate() {
                let queries = &queries[place * queries_stride..][..self.width];
                let score = dot(simd, queries, &features[..self.width]);
                weights[place * weights_stride + position] = score * self.heads.scale + biases[distance];
            }
        }
        for weights in weights.chunks_mut(weights_stride).take(R) {
            let reciprocal = simd.splat(1.0 / softmax(simd, weights, self.length));
            for weights in weights[..self.length.next_multiple_of(S::LANES)].chunks_exact_mut(S::LANES) {
                simd.store(simd.mul(simd.load(weights), reciprocal), weights);
            }
        }
        let left = RowMajor { data: weights, stride: weights_stride };
        for column in (0..self.width).step_by(2 * S::LANES) {
            let right = Rhs { data: &data[column..], stride, panel: 0 };
            let (depth, start, out) = (self.length, &[0.0; PANEL][..], &mut queries[column..]);
            let tile = Tile::<_, _, R, 1, 2> {
                multiply: F32,
                left,
                right,
                depth,
                start,
                out,
                stride: queries_stride,
                panel: 0,
            };
            tile.compute(simd);
        }
    }
}

/// Turns the first `count` scores into e^(score - greatest) and returns their sum. Scores behind them are overwritten.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32], count: usize) -> f32 {
    let end = count.next_multiple_of(S::LANES);
    scores[count..end].fill(f32::NEG_INFINITY);
    let mut greatest = simd.splat(f32::NEG_INFINITY);
    for at in (0..end).step_by(S::LANES) {
        greatest = simd.max(greatest, simd.load(&scores[at..]));
    }
    let greatest = simd.splat(simd.max_lane(greatest));
    let mut sums = simd.splat(0.0);
    for at in (0..end).step_by(S::LANES) {
        let weight = exp(simd, simd.sub(simd.load(&scores[at..]), greatest));
        simd.store(weight, &mut scores[at..]);
        sums = simd.add(sums, weight);
    }
    simd.sum_lanes(sums)
}

/// The dot product of two rows.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() - a.len() % S::LANES;
    let mut sums = simd.splat(0.0);
    for (a, b) in a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES)) {
        sums = simd.fma(simd.load(a), simd.load(b), sums);
    }
    a[whole..].iter().zip(&b[whole..]).fold(simd.sum_lanes(sums), |sum, (a, b)| sum + a * b)
}
