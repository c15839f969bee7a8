use std::array;

use super::attention::{Biases, Heads, Scratch};
use super::elementary::exp;
use super::panels::{PANEL, Packer, Panels};
use super::product::{Product, enter, tiles, with_rows};
use super::simd::{Kernel, Left, Level, Right, Simd, Singles, Tile};
use super::workspace::Workspace;
use canet_model::WeightsError;

/// Attention of the newest position of each history, for which no other position's key or value is computed.
///
/// With one query q a head, `q·(W_K x + b_K) = (W_Kᵀ q)·x + q·b_K`, whose last term is the same for every position and
/// drops out of the softmax, also where a bias by distance is added to the scores; and weights w that sum to one take in `Σ w (W_V x + b_V) = W_V (Σ w x) + b_V`. So the
/// positions' features are compared and mixed as they are, and a history costs two products for one row instead of two
/// for all of its rows. Nothing is approximated; sums are taken in another order.
pub(crate) struct Newest {
    /// W_Kᵀ of each head: [D, D / heads]
    keys: Vec<Panels>,
}

impl Newest {
    /// Of the block of a name, `width` wide.
    pub(crate) fn load(packer: Packer<'_>, block: &str, width: usize, heads: usize) -> Result<Newest, WeightsError> {
        let (name, kept) = (format!("{block}.attention.key"), width / heads);
        let keys = (0..heads).map(|head| packer.transposed(&name, head * kept..(head + 1) * kept));
        Ok(Newest { keys: keys.collect::<Result<_, _>>()? })
    }

    /// Mixes what the histories' queries, rows of the workspace's `y`, find in its `x`: rows of `mixed`, heads beside each
    /// other. W_V is the last `width` outputs of `key_value`.
    pub(crate) fn mix(
        &self,
        level: Level,
        (heads, width): (Heads, usize),
        (key_value, biases): (&Panels, &Biases),
        lengths: &[usize],
        workspace: &mut Workspace,
    ) {
        let Workspace { stride, x, projected, mixed, y, pairs, scratch, .. } = workspace;
        let (stride, rows, numbers) = (*stride, lengths.len(), key_value.numbers());
        // A row of each head, one under the other.
        let row = heads.count * stride;
        for (head, keys) in self.keys.iter().enumerate() {
            let query = Left { data: &y[head * heads.width..], stride };
            let query = enter(level, numbers, (query, [rows, heads.width]), pairs);
            Product::new(keys, [heads.width, width], query, rows).into(level, &mut projected[head * stride..], row);
        }
        let mut token = 0;
        for (length, asked) in lengths.iter().zip(projected.chunks_mut(row)) {
            let seen = Left { data: &x[token * stride..], stride };
            level.run(TakeIn { heads, biases, width, length: *length, seen, asked, scratch });
            token += length;
        }
        for head in 0..heads.count {
            let taken_in = Left { data: &projected[head * stride..], stride: row };
            let taken_in = enter(level, numbers, (taken_in, [rows, width]), pairs);
            // The head's outputs may begin within a panel.
            let start = width + head * heads.width;
            let (first, before) = (start - start % PANEL, start % PANEL);
            let product = Product::new(key_value, [width, before + heads.width], taken_in, rows);
            let beside = stride + PANEL;
            Product { first, ..product }.into(level, y, beside);
            for (values, mixed) in y.chunks(beside).zip(mixed.chunks_mut(stride)).take(rows) {
                mixed[head * heads.width..][..heads.width].copy_from_slice(&values[before..][..heads.width]);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.keys.iter().map(Panels::bytes).sum()
    }
}

/// What every head of one query takes in of a history.
struct TakeIn<'a> {
    heads: Heads,
    biases: &'a Biases,
    width: usize,
    /// Items in the history.
    length: usize,
    /// Its features: [length, h]
    seen: Left<'a>,
    /// What each head asks of the features, then what it takes in of them: rows as far apart as those of `seen`.
    asked: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Kernel for TakeIn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for (head, count) in tiles(self.heads.count, S::ROWS) {
            with_rows!(count, self.take_in::<S>(simd, head));
        }
    }
}

impl TakeIn<'_> {
    /// `R` heads from `head` on: scores, softmax, and the weighted sum of the features.
    #[inline(always)]
    fn take_in<S: Simd, const R: usize>(&mut self, simd: S, head: usize) {
        let Left { data: seen, stride } = self.seen;
        let (weights, beside) = self.scratch.weights(self.length);
        let asked = &mut self.asked[head * stride..];
        let biases: [&[f32]; R] = array::from_fn(|place| self.biases.from(head + place, 0, 0));
        for (position, features) in seen.chunks(stride).take(self.length).enumerate() {
            let distance = self.length - 1 - position;
            for (place, biases) in biases.iter().enumerate() {
                let asked = &asked[place * stride..][..self.width];
                let score = dot(simd, asked, &features[..self.width]);
                weights[place * beside + position] = score * self.heads.scale + biases[distance];
            }
        }
        for weights in weights.chunks_mut(beside).take(R) {
            let share = simd.splat(1.0 / softmax(simd, weights, self.length));
            for weights in weights[..self.length.next_multiple_of(S::LANES)].chunks_exact_mut(S::LANES) {
                simd.store(simd.mul(simd.load(weights), share), weights);
            }
        }
        let left = Left { data: weights, stride: beside };
        for column in (0..self.width).step_by(2 * S::LANES) {
            let right = Right { data: &seen[column..], stride, panel: 0 };
            let (depth, start, out) = (self.length, &[0.0; PANEL][..], &mut asked[column..]);
            Tile::<_, _, R, 1, 2> { multiply: Singles, left, right, depth, start, out, stride, panel: 0 }.compute(simd);
        }
    }
}

/// The first `seen` scores become e^(score - greatest); returns their sum. What is beyond is overwritten.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32], seen: usize) -> f32 {
    let end = seen.next_multiple_of(S::LANES);
    scores[seen..end].fill(f32::NEG_INFINITY);
    let mut greatest = simd.splat(f32::NEG_INFINITY);
    for at in (0..end).step_by(S::LANES) {
        greatest = simd.max(greatest, simd.load(&scores[at..]));
    }
    let greatest = simd.splat(simd.greatest(greatest));
    let mut sums = simd.splat(0.0);
    for at in (0..end).step_by(S::LANES) {
        let weight = exp(simd, simd.sub(simd.load(&scores[at..]), greatest));
        simd.store(weight, &mut scores[at..]);
        sums = simd.add(sums, weight);
    }
    simd.sum(sums)
}

/// The sum of the products of two rows.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() - a.len() % S::LANES;
    let mut sums = simd.splat(0.0);
    for (a, b) in a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES)) {
        sums = simd.fma(simd.load(a), simd.load(b), sums);
    }
    a[whole..].iter().zip(&b[whole..]).fold(simd.sum(sums), |sum, (a, b)| sum + a * b)
}
