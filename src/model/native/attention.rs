use super::elementary::exp;
use super::panels::{PANEL, padded};
use super::product::{tiles, with_rows};
use super::simd::{Kernel, Left, Right, Simd, Singles, Tile};

/// How a slice's attention mixes positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    /// Number of heads.
    pub(super) count: usize,
    /// Features a head.
    pub(super) width: usize,
    /// Factor on the scores.
    pub(super) scale: f32,
}

/// Causal attention of one history: each position sees itself and what came before it.
pub(super) struct Attention<'a> {
    pub(super) heads: Heads,
    /// Items in the history.
    pub(super) length: usize,
    /// Queries: [length, h]
    pub(super) queries: Left<'a>,
    /// Keys, and `values` further on in the same rows the values: [length, h] each
    pub(super) keys: Left<'a>,
    pub(super) values: usize,
    /// What each position takes in, heads beside each other: [length, h]
    pub(super) mixed: &'a mut [f32],
    /// Distance of two rows of it.
    pub(super) stride: usize,
    pub(super) scratch: &'a mut Scratch,
}

/// What attention needs to compute one head.
pub(super) struct Scratch {
    /// Keys of a head, position by position beside each other: [length / 32][width][32]
    keys: Vec<f32>,
    /// Weights of a tile's positions on all others: [rows, length padded]
    weights: Vec<f32>,
    /// What a tile's positions take in of some features: [rows, 32]
    sums: Vec<f32>,
}

/// The most rows of a tile.
const TALLEST: usize = 14;

impl Scratch {
    /// For histories of up to `length` items and heads of up to `width` features.
    pub(super) fn new(length: usize, width: usize) -> Scratch {
        Scratch {
            keys: vec![0.0; padded(length) * width],
            weights: vec![0.0; padded(length) * TALLEST],
            sums: vec![0.0; TALLEST * PANEL],
        }
    }

    /// Room for the weights of a tile's rows on `length` positions, and the distance of two rows.
    pub(super) fn weights(&mut self, length: usize) -> (&mut [f32], usize) {
        (&mut self.weights, padded(length))
    }
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for head in 0..self.heads.count {
            self.transpose_keys(head);
            for (row, height) in tiles(self.length, S::ROWS) {
                with_rows!(height, self.positions::<S>(simd, head, row));
            }
        }
    }
}

impl Attention<'_> {
    #[inline(always)]
    fn transpose_keys(&mut self, head: usize) {
        let width = self.heads.width;
        for position in 0..self.length {
            let key = &self.keys.data[position * self.keys.stride + head * width..][..width];
            let column = &mut self.scratch.keys[position / PANEL * width * PANEL + position % PANEL..];
            for (value, place) in key.iter().zip(column.iter_mut().step_by(PANEL)) {
                *place = *value;
            }
        }
    }

    /// `R` positions from the `row`-th asked one on: scores, softmax, and the weighted sum of the values.
    #[inline(always)]
    fn positions<S: Simd, const R: usize>(&mut self, simd: S, head: usize, row: usize) {
        let Heads { width, scale, .. } = self.heads;
        let first = head * width;
        let stride = padded(self.length);
        // What the first of these positions sees, and the last.
        let (least, most) = (row + 1, row + R);

        // Q Kᵀ: [R, most]
        let queries = Left { data: &self.queries.data[row * self.queries.stride + first..], ..self.queries };
        for column in (0..padded(most)).step_by(2 * S::LANES) {
            let keys = &self.scratch.keys[column / PANEL * width * PANEL + column % PANEL..];
            let keys = Right { data: keys, stride: PANEL, panel: 0 };
            let (out, start) = (&mut self.scratch.weights[column..], &[0.0; PANEL][..]);
            let multiply = Singles;
            Tile::<_, R, 1, 2> { multiply, left: queries, right: keys, depth: width, start, out, stride, panel: 0 }
                .compute(simd);
        }

        let mut shares = [0.0; R];
        for (place, share) in shares.iter_mut().enumerate() {
            let weights = &mut self.scratch.weights[place * stride..][..stride];
            *share = 1.0 / softmax(simd, weights, least + place, scale);
            weights[least + place..most].fill(0.0);
        }

        // The weights times V: [R, width]
        let weights = Left { data: &self.scratch.weights, stride };
        for column in (0..width).step_by(2 * S::LANES) {
            let values = &self.keys.data[self.values + first + column..];
            let right = Right { data: values, stride: self.keys.stride, panel: 0 };
            let (out, start, stride) = (&mut self.scratch.sums[..], &[0.0; PANEL][..], PANEL);
            let multiply = Singles;
            if width - column > S::LANES {
                Tile::<_, R, 1, 2> { multiply, left: weights, right, depth: most, start, out, stride, panel: 0 }
                    .compute(simd);
            } else {
                Tile::<_, R, 1, 1> { multiply, left: weights, right, depth: most, start, out, stride, panel: 0 }
                    .compute(simd);
            }
            let features = (width - column).min(2 * S::LANES);
            for (place, (sums, share)) in self.scratch.sums.chunks_exact(PANEL).zip(shares).enumerate() {
                let mixed = &mut self.mixed[(row + place) * self.stride + first + column..][..features];
                for (mixed, sums) in mixed.chunks_mut(S::LANES).zip(sums.chunks_exact(S::LANES)) {
                    let taken_in = simd.mul(simd.load(sums), simd.splat(share));
                    match mixed.len() == S::LANES {
                        true => simd.store(taken_in, mixed),
                        false => simd.store_partial(taken_in, mixed),
                    }
                }
            }
        }
    }
}

/// The first `seen` scores become e^(scale (score - greatest)); returns their sum. What is beyond is overwritten.
#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, scores: &mut [f32], seen: usize, scale: f32) -> f32 {
    let end = seen.next_multiple_of(S::LANES);
    scores[seen..end].fill(f32::NEG_INFINITY);
    let mut greatest = simd.splat(f32::NEG_INFINITY);
    for at in (0..end).step_by(S::LANES) {
        greatest = simd.max(greatest, simd.load(&scores[at..]));
    }
    let greatest = simd.splat(simd.greatest(greatest));
    let (scale, mut sums) = (simd.splat(scale), simd.splat(0.0));
    for at in (0..end).step_by(S::LANES) {
        let weight = exp(simd, simd.mul(simd.sub(simd.load(&scores[at..]), greatest), scale));
        simd.store(weight, &mut scores[at..]);
        sums = simd.add(sums, weight);
    }
    simd.sum(sums)
}
