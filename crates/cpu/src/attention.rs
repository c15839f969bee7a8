use std::array;

use super::buffer::Buffer;
use super::elementary::exp;
use super::panels::{PANEL, padded};
use super::product::{split_into_tiles, with_rows};
use super::simd::{ColumnMajor, F32, Kernel, Rhs, RowMajor, Simd, Tile};
use canet_model::{ModelConfig, Positions, Weights, WeightsError};

/// The heads of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Number of heads.
    pub(crate) count: usize,
    /// Features a head.
    pub(crate) width: usize,
    /// Factor on the scores.
    pub(crate) scale: f32,
}

/// What a layer adds to the scaled scores of its heads, by distance: query position less key position. Keys after the
/// query have a negative distance and the bias minus infinity, which hides them.
///
/// Neighbouring queries have neighbouring distances from a key, so a vector of queries reads neighbouring biases.
pub(crate) struct PositionBiases {
    /// [heads or 1, [`MASKED`] + max_len + [`MASKED`]]. The last entries are for lanes without a query.
    rows: Buffer,
    /// Distance of two heads' rows, 0 if all heads share one row.
    head_stride: usize,
}

/// Negative distances that have an entry: at most the lanes of a vector.
const MASKED: usize = PANEL / 2;

impl PositionBiases {
    /// The biases of a layer of the backbone: zeros for absolute positions.
    pub(crate) fn load(weights: &Weights, config: &ModelConfig, layer: usize) -> Result<PositionBiases, WeightsError> {
        let length = config.max_len;
        if config.positions != Positions::Relative {
            return Ok(PositionBiases::none(length));
        }
        let stored = &weights.get("backbone.position_bias")?.data[layer * config.heads * length..];
        let mut biases = PositionBiases::zeros(length, config.heads);
        biases.head_stride = length + 2 * MASKED;
        for (row, stored) in biases.rows.chunks_exact_mut(biases.head_stride).zip(stored.chunks_exact(length)) {
            row[MASKED..][..length].copy_from_slice(stored);
        }
        Ok(biases)
    }

    /// Zeros for every distance, for histories of up to `length` items.
    pub(crate) fn none(length: usize) -> PositionBiases {
        PositionBiases::zeros(length, 1)
    }

    fn zeros(length: usize, count: usize) -> PositionBiases {
        let row = length + 2 * MASKED;
        let mut rows = Buffer::new(count * row);
        rows.chunks_exact_mut(row).for_each(|row| row[..MASKED].fill(f32::NEG_INFINITY));
        PositionBiases { rows, head_stride: 0 }
    }

    /// A head's biases from the distance of a query and a key on. The distance must be above -[`MASKED`].
    pub(crate) fn from(&self, head: usize, query: usize, key: usize) -> &[f32] {
        &self.rows[head * self.head_stride + MASKED + query - key..]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

/// Causal attention of the newest positions of one history: each sees itself and every position before it.
///
/// Each query's sums start with the oldest key and add the others in their order, whichever positions are computed with
/// it. So a position's result is the same to the bit, whether it is computed with all others or long after them.
pub(crate) struct Attention<'a> {
    pub(crate) heads: Heads,
    pub(crate) biases: &'a PositionBiases,
    /// Positions before the first query, which have keys and values alone.
    pub(crate) past: usize,
    /// Positions with a query.
    pub(crate) length: usize,
    /// Queries: [length, h]
    pub(crate) queries: RowMajor<'a>,
    /// Keys, and the values in the same rows, `values` further on: [past + length, h] each
    pub(crate) keys: RowMajor<'a>,
    pub(crate) values: usize,
    /// The result, heads beside each other: [length, h]
    pub(crate) mixed: &'a mut [f32],
    /// Distance of two rows of `mixed`.
    pub(crate) stride: usize,
    pub(crate) scratch: &'a mut AttentionScratch,
}

/// The scratch memory of attention for two vectors of queries of one head.
pub(crate) struct AttentionScratch {
    /// The scaled queries, transposed: [width, 32]
    queries: Vec<f32>,
    /// Scores, then weights, of each key: [length, 32]
    weights: Vec<f32>,
    /// A tile's sums over some features: [rows, 32]
    sums: Vec<f32>,
}

/// Queries that are transposed together.
const TRANSPOSED: usize = 4;

/// The most rows of a tile.
const MAX_TILE_ROWS: usize = 14;

impl AttentionScratch {
    /// For histories of up to `length` items and heads of up to `width` features.
    pub(crate) fn new(length: usize, width: usize) -> AttentionScratch {
        AttentionScratch {
            queries: vec![0.0; width * PANEL],
            weights: vec![0.0; padded(length) * PANEL],
            sums: vec![0.0; MAX_TILE_ROWS * PANEL],
        }
    }

    /// Room for the weights of a tile's rows on `length` positions, and the distance of two rows.
    pub(crate) fn weights(&mut self, length: usize) -> (&mut [f32], usize) {
        (&mut self.weights, padded(length))
    }
}

/// The lanes of a vector are queries. So the maxima and sums of a softmax form lane by lane, and no vector is ever
/// reduced to one value. The weights then are a tile's left operand as they lie, column by column.
impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for head in 0..self.heads.count {
            for first in (0..self.length).step_by(2 * S::LANES) {
                let count = (self.length - first).min(2 * S::LANES);
                let group = QueryGroup { head, first, count };
                self.load_queries(group);
                // Keys up to here concern both vectors of queries. Only the second vector sees the keys behind them.
                let both = self.past + (first + S::LANES).min(self.length);
                for (row, height) in split_into_tiles(both, S::TILE_ROWS) {
                    match count > S::LANES {
                        true => with_rows!(height, self.scores::<S, 2>(simd, head, row, 0)),
                        false => with_rows!(height, self.scores::<S, 1>(simd, head, row, 0)),
                    }
                }
                for (row, height) in split_into_tiles(self.past + first + count - both, S::TILE_ROWS) {
                    with_rows!(height, self.scores::<S, 1>(simd, head, both + row, S::LANES));
                }
                let mut reciprocals = [0.0; PANEL];
                for lane in (0..count).step_by(S::LANES) {
                    self.softmax(simd, group, lane, &mut reciprocals);
                }
                for (row, height) in split_into_tiles(count, S::TILE_ROWS) {
                    with_rows!(height, self.mix_values::<S>(simd, group, row, &reciprocals));
                }
            }
        }
    }
}

/// The queries of one head that two vectors hold.
#[derive(Clone, Copy)]
struct QueryGroup {
    head: usize,
    /// The first query's place among the queries.
    first: usize,
    count: usize,
}

/// Factors on the weights of keys around a query's own. From place `MASKED - n` on, the first n lanes are hidden.
const VISIBLE: [f32; 2 * MASKED] = {
    let mut factors = [0.0; 2 * MASKED];
    let mut lane = MASKED;
    while lane < factors.len() {
        factors[lane] = 1.0;
        lane += 1;
    }
    factors
};

impl Attention<'_> {
    /// Transposes the queries into the scratch, feature by feature.
    #[inline(always)]
    fn load_queries(&mut self, group: QueryGroup) {
        let count = group.count;
        if count < TRANSPOSED {
            return (0..count).for_each(|lane| self.transpose_queries::<1>(group, lane));
        }
        // The last step may repeat queries.
        for lane in (0..count).step_by(TRANSPOSED) {
            self.transpose_queries::<TRANSPOSED>(group, lane.min(count - TRANSPOSED));
        }
    }

    /// Transposes `Q` queries from a lane on, `Q` features at a time in registers.
    #[inline(always)]
    fn transpose_queries<const Q: usize>(&mut self, QueryGroup { head, first, .. }: QueryGroup, lane: usize) {
        let Heads { width, scale, .. } = self.heads;
        let RowMajor { data, stride } = self.queries;
        let queries: [&[f32]; Q] =
            array::from_fn(|query| &data[(first + lane + query) * stride + head * width..][..width]);
        let lanes = &mut self.scratch.queries[lane..];
        let whole = width - width % Q;
        for feature in (0..whole).step_by(Q) {
            // Plain loops: the compiler may make the closures of array methods functions of their own, which lack the
            // instructions.
            let mut block = [[0.0; Q]; Q];
            for (lane, query) in queries.iter().enumerate() {
                for (next, value) in query[feature..feature + Q].iter().enumerate() {
                    block[next][lane] = value * scale;
                }
            }
            let lanes = &mut lanes[feature * PANEL..][..(Q - 1) * PANEL + Q];
            for (next, values) in block.iter().enumerate() {
                lanes[next * PANEL..][..Q].copy_from_slice(values);
            }
        }
        for feature in whole..width {
            lanes[feature * PANEL..][..Q].copy_from_slice(&queries.map(|query| query[feature] * scale));
        }
    }

    /// `K Qᵀ` of `R` keys from `row` on and `C` vectors of queries from a lane on.
    #[inline(always)]
    fn scores<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, head: usize, row: usize, lane: usize) {
        let width = self.heads.width;
        let left = RowMajor { data: &self.keys.data[row * self.keys.stride + head * width..], ..self.keys };
        let right = Rhs { data: &self.scratch.queries[lane..], stride: PANEL, panel: 0 };
        let (out, start, stride) = (&mut self.scratch.weights[row * PANEL + lane..], &[0.0; PANEL][..], PANEL);
        Tile::<_, _, R, 1, C> { multiply: F32, left, right, depth: width, start, out, stride, panel: 0 }.compute(simd);
    }

    /// Turns the scores of one vector of queries into e^(score + bias - greatest) and stores the reciprocals of their
    /// sums. A key after the query gets the weight 0, so that it changes no bit of the query's result.
    #[inline(always)]
    fn softmax<S: Simd>(
        &mut self,
        simd: S,
        QueryGroup { head, first, count }: QueryGroup,
        lane: usize,
        reciprocals: &mut [f32; PANEL],
    ) {
        // The first query's own key, and the end of the keys that the last query sees.
        let (own, end) = (self.past + first + lane, self.past + first + count.min(lane + S::LANES));
        let weights = &mut self.scratch.weights[lane..];
        // Starts at the first query's distance from the last key, which may be negative.
        let biases = self.biases.from(head, own, end - 1);

        let mut greatest = simd.splat(f32::NEG_INFINITY);
        for key in 0..end {
            let weights = &mut weights[key * PANEL..];
            let score = simd.add(simd.load(weights), simd.load(&biases[end - 1 - key..]));
            simd.store(score, weights);
            greatest = simd.max(greatest, score);
        }
        let mut sums = simd.splat(0.0);
        for key in 0..=own {
            let weights = &mut weights[key * PANEL..];
            let weight = exp(simd, simd.sub(simd.load(weights), greatest));
            simd.store(weight, weights);
            sums = simd.add(sums, weight);
        }
        for key in own + 1..end {
            let weights = &mut weights[key * PANEL..];
            let weight = exp(simd, simd.sub(simd.load(weights), greatest));
            let weight = simd.mul(weight, simd.load(&VISIBLE[MASKED - (key - own)..]));
            simd.store(weight, weights);
            sums = simd.add(sums, weight);
        }
        for key in end..self.past + first + count {
            simd.store(simd.splat(0.0), &mut weights[key * PANEL..]);
        }
        simd.store(simd.reciprocal(sums), &mut reciprocals[lane..]);
    }

    /// The weights times V for `R` queries of the group from `row` on.
    #[inline(always)]
    fn mix_values<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        QueryGroup { head, first, .. }: QueryGroup,
        row: usize,
        reciprocals: &[f32; PANEL],
    ) {
        let width = self.heads.width;
        let left = ColumnMajor { data: &self.scratch.weights[row..], stride: PANEL };
        let depth = self.past + first + row + R;
        for column in (0..width).step_by(2 * S::LANES) {
            let feature = head * width + column;
            let right = Rhs { data: &self.keys.data[self.values + feature..], stride: self.keys.stride, panel: 0 };
            let (out, start, stride) = (&mut self.scratch.sums[..], &[0.0; PANEL][..], PANEL);
            let multiply = F32;
            if width - column > S::LANES {
                Tile::<_, _, R, 1, 2> { multiply, left, right, depth, start, out, stride, panel: 0 }.compute(simd);
            } else {
                Tile::<_, _, R, 1, 1> { multiply, left, right, depth, start, out, stride, panel: 0 }.compute(simd);
            }
            let features = (width - column).min(2 * S::LANES);
            for (place, sums) in self.scratch.sums.chunks_exact(PANEL).take(R).enumerate() {
                let reciprocal = simd.splat(reciprocals[row + place]);
                let mixed = &mut self.mixed[(first + row + place) * self.stride + feature..][..features];
                for (mixed, sums) in mixed.chunks_mut(S::LANES).zip(sums.chunks_exact(S::LANES)) {
                    let mix = simd.mul(simd.load(sums), reciprocal);
                    match mixed.len() == S::LANES {
                        true => simd.store(mix, mixed),
                        false => simd.store_partial(mix, mixed),
                    }
                }
            }
        }
    }
}
