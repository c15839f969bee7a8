use std::array;

use super::buffer::Buffer;
use super::elementary::exp;
use super::panels::{PANEL, padded};
use super::product::{tiles, with_rows};
use super::simd::{Columns, Kernel, Left, Right, Simd, Singles, Tile};
use canet_model::{ModelConfig, Positions, Weights, WeightsError};

/// How a slice's attention mixes positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Number of heads.
    pub(crate) count: usize,
    /// Features a head.
    pub(crate) width: usize,
    /// Factor on the scores.
    pub(crate) scale: f32,
}

/// What is added to the scaled scores of a layer's heads, by distance: query position less key position. Later keys are at
/// distances below 0, where minus infinity hides them.
///
/// Neighbouring queries have neighbouring distances from a key: what a vector of queries adds lies beside each other.
pub(crate) struct Biases {
    /// [heads or 1, [`HIDDEN`] + max_len + [`HIDDEN`]]; the last ones are those of lanes without a query.
    rows: Buffer,
    /// Distance of two heads' rows; 0 where all heads share one.
    beside: usize,
}

/// Distances below 0 that have an entry: a vector's lanes are no more.
const HIDDEN: usize = PANEL / 2;

impl Biases {
    /// Those of a layer of the backbone, nothing where positions are absolute.
    pub(crate) fn load(weights: &Weights, config: &ModelConfig, layer: usize) -> Result<Biases, WeightsError> {
        let length = config.max_len;
        if config.positions != Positions::Relative {
            return Ok(Biases::none(length));
        }
        let stored = &weights.get("backbone.position_bias")?.data[layer * config.heads * length..];
        let mut biases = Biases::zeros(length, config.heads);
        biases.beside = length + 2 * HIDDEN;
        for (row, stored) in biases.rows.chunks_exact_mut(biases.beside).zip(stored.chunks_exact(length)) {
            row[HIDDEN..][..length].copy_from_slice(stored);
        }
        Ok(biases)
    }

    /// Nothing is added, whatever the distance, on histories of up to `length` items.
    pub(crate) fn none(length: usize) -> Biases {
        Biases::zeros(length, 1)
    }

    fn zeros(length: usize, count: usize) -> Biases {
        let row = length + 2 * HIDDEN;
        let mut rows = Buffer::new(count * row);
        rows.chunks_exact_mut(row).for_each(|row| row[..HIDDEN].fill(f32::NEG_INFINITY));
        Biases { rows, beside: 0 }
    }

    /// A head's biases from the distance of a query and a key on, which is above -[`HIDDEN`].
    pub(crate) fn from(&self, head: usize, query: usize, key: usize) -> &[f32] {
        &self.rows[head * self.beside + HIDDEN + query - key..]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

/// Causal attention of one history: each position sees itself and what came before it.
pub(crate) struct Attention<'a> {
    pub(crate) heads: Heads,
    pub(crate) biases: &'a Biases,
    /// Items in the history.
    pub(crate) length: usize,
    /// Queries: [length, h]
    pub(crate) queries: Left<'a>,
    /// Keys, and `values` further on in the same rows the values: [length, h] each
    pub(crate) keys: Left<'a>,
    pub(crate) values: usize,
    /// What each position takes in, heads beside each other: [length, h]
    pub(crate) mixed: &'a mut [f32],
    /// Distance of two rows of it.
    pub(crate) stride: usize,
    pub(crate) scratch: &'a mut Scratch,
}

/// What attention needs to compute two vectors of queries of one head.
pub(crate) struct Scratch {
    /// The queries, a feature's beside each other, scaled: [width, 32]
    queries: Vec<f32>,
    /// Scores, then weights, of each key for these queries: [length, 32]
    weights: Vec<f32>,
    /// What a tile's queries take in of some features: [rows, 32]
    sums: Vec<f32>,
}

/// Queries that change places with their features at a time.
const BESIDE: usize = 4;

/// The most rows of a tile.
const TALLEST: usize = 14;

impl Scratch {
    /// For histories of up to `length` items and heads of up to `width` features.
    pub(crate) fn new(length: usize, width: usize) -> Scratch {
        Scratch {
            queries: vec![0.0; width * PANEL],
            weights: vec![0.0; padded(length) * PANEL],
            sums: vec![0.0; TALLEST * PANEL],
        }
    }

    /// Room for the weights of a tile's rows on `length` positions, and the distance of two rows.
    pub(crate) fn weights(&mut self, length: usize) -> (&mut [f32], usize) {
        (&mut self.weights, padded(length))
    }
}

/// Queries are the lanes: what a softmax needs of all keys comes together lane by lane, and no vector is ever summed up.
impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for head in 0..self.heads.count {
            for first in (0..self.length).step_by(2 * S::LANES) {
                let count = (self.length - first).min(2 * S::LANES);
                self.enter(head, first, count);
                // What the first vector's last query does not see any more, only the second one's do.
                let both = (first + S::LANES).min(self.length);
                for (row, height) in tiles(both, S::ROWS) {
                    match count > S::LANES {
                        true => with_rows!(height, self.scores::<S, 2>(simd, head, row, 0)),
                        false => with_rows!(height, self.scores::<S, 1>(simd, head, row, 0)),
                    }
                }
                for (row, height) in tiles(self.length.min(first + count) - both, S::ROWS) {
                    with_rows!(height, self.scores::<S, 1>(simd, head, both + row, S::LANES));
                }
                let mut shares = [0.0; PANEL];
                for lane in (0..count).step_by(S::LANES) {
                    self.softmax(simd, head, (first, count), lane, &mut shares);
                }
                for (row, height) in tiles(count, S::ROWS) {
                    with_rows!(height, self.take_in::<S>(simd, head, first, row, &shares));
                }
            }
        }
    }
}

impl Attention<'_> {
    /// Puts queries beside each other, feature by feature.
    #[inline(always)]
    fn enter(&mut self, head: usize, first: usize, count: usize) {
        if count < BESIDE {
            return (0..count).for_each(|lane| self.enter_beside::<1>(head, first, lane));
        }
        // The last ones may have been there already.
        for lane in (0..count).step_by(BESIDE) {
            self.enter_beside::<BESIDE>(head, first, lane.min(count - BESIDE));
        }
    }

    /// The same of `Q` queries from a lane on: as many features of each at a time change places in registers.
    #[inline(always)]
    fn enter_beside<const Q: usize>(&mut self, head: usize, first: usize, lane: usize) {
        let Heads { width, scale, .. } = self.heads;
        let Left { data, stride } = self.queries;
        let queries: [&[f32]; Q] =
            array::from_fn(|query| &data[(first + lane + query) * stride + head * width..][..width]);
        let lanes = &mut self.scratch.queries[lane..];
        let whole = width - width % Q;
        for feature in (0..whole).step_by(Q) {
            // Loops, as the closures of array methods may end up as functions, which lack the instructions.
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

    /// `K Qᵀ` of `R` keys from the `row`-th on, and `C` vectors of queries from a lane on.
    #[inline(always)]
    fn scores<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, head: usize, row: usize, lane: usize) {
        let width = self.heads.width;
        let left = Left { data: &self.keys.data[row * self.keys.stride + head * width..], ..self.keys };
        let right = Right { data: &self.scratch.queries[lane..], stride: PANEL, panel: 0 };
        let (out, start, stride) = (&mut self.scratch.weights[row * PANEL + lane..], &[0.0; PANEL][..], PANEL);
        Tile::<_, _, R, 1, C> { multiply: Singles, left, right, depth: width, start, out, stride, panel: 0 }
            .compute(simd);
    }

    /// The scores of a vector of queries, from a lane on, become e^(score + bias - greatest); their sums' reciprocals go to
    /// `shares`. A key after the query gets the least weight that [`exp`] knows, which no sum of weights shows.
    #[inline(always)]
    fn softmax<S: Simd>(
        &mut self,
        simd: S,
        head: usize,
        (first, count): (usize, usize),
        lane: usize,
        shares: &mut [f32; PANEL],
    ) {
        // Keys that the last one of these queries sees.
        let end = first + count.min(lane + S::LANES);
        let weights = &mut self.scratch.weights[lane..];
        // From the first query's distance to the last key on, which may be below 0.
        let biases = self.biases.from(head, first + lane, end - 1);

        let mut greatest = simd.splat(f32::NEG_INFINITY);
        for key in 0..end {
            let weights = &mut weights[key * PANEL..];
            let score = simd.add(simd.load(weights), simd.load(&biases[end - 1 - key..]));
            simd.store(score, weights);
            greatest = simd.max(greatest, score);
        }
        let mut sums = simd.splat(0.0);
        for key in 0..end {
            let weights = &mut weights[key * PANEL..];
            let weight = exp(simd, simd.sub(simd.load(weights), greatest));
            simd.store(weight, weights);
            sums = simd.add(sums, weight);
        }
        for key in end..first + count {
            simd.store(simd.splat(0.0), &mut weights[key * PANEL..]);
        }
        simd.store(simd.reciprocal(sums), &mut shares[lane..]);
    }

    /// What `R` queries from the `row`-th of these on take in: the weights times V.
    #[inline(always)]
    fn take_in<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        head: usize,
        first: usize,
        row: usize,
        shares: &[f32; PANEL],
    ) {
        let width = self.heads.width;
        let left = Columns { data: &self.scratch.weights[row..], stride: PANEL };
        let depth = first + row + R;
        for column in (0..width).step_by(2 * S::LANES) {
            let feature = head * width + column;
            let right = Right { data: &self.keys.data[self.values + feature..], stride: self.keys.stride, panel: 0 };
            let (out, start, stride) = (&mut self.scratch.sums[..], &[0.0; PANEL][..], PANEL);
            let multiply = Singles;
            if width - column > S::LANES {
                Tile::<_, _, R, 1, 2> { multiply, left, right, depth, start, out, stride, panel: 0 }.compute(simd);
            } else {
                Tile::<_, _, R, 1, 1> { multiply, left, right, depth, start, out, stride, panel: 0 }.compute(simd);
            }
            let features = (width - column).min(2 * S::LANES);
            for (place, sums) in self.scratch.sums.chunks_exact(PANEL).take(R).enumerate() {
                let share = simd.splat(shares[row + place]);
                let mixed = &mut self.mixed[(first + row + place) * self.stride + feature..][..features];
                for (mixed, sums) in mixed.chunks_mut(S::LANES).zip(sums.chunks_exact(S::LANES)) {
                    let taken_in = simd.mul(simd.load(sums), share);
                    match mixed.len() == S::LANES {
                        true => simd.store(taken_in, mixed),
                        false => simd.store_partial(taken_in, mixed),
                    }
                }
            }
        }
    }
}
