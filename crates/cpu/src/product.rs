use super::elementary::gelu;
use super::panels::{Numbers, PANEL, Panels, padded};
use super::simd::{Bytes, Kernel, Left, Level, Multiply, Pairs, Right, Simd, Singles, Streamed, Tile};

/// What becomes of an output before it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    /// GELU, and as a layer of the same precision takes it: in bfloat16 pairs, which fill the first half of a row.
    Gelu,
}

/// A linear layer's slice over some rows: `y = f(W x + b)`.
pub(crate) struct Product<'a> {
    pub(crate) layer: &'a Panels,
    pub(crate) activation: Activation,
    /// Inputs that are read of each row.
    pub(crate) depth: usize,
    /// Rows of at least `depth` inputs, as the layer [takes](enter) them.
    pub(crate) input: Left<'a>,
    pub(crate) rows: usize,
    /// Outputs wanted: from `first`, a multiple of 32, `outputs` many.
    pub(crate) first: usize,
    pub(crate) outputs: usize,
}

impl<'a> Product<'a> {
    /// The layer's first outputs over the first inputs of some rows: `[depth, outputs]`.
    pub(crate) fn new(layer: &'a Panels, [depth, outputs]: [usize; 2], input: Left<'a>, rows: usize) -> Product<'a> {
        Product { layer, activation: Activation::None, depth, input, rows, first: 0, outputs }
    }

    /// Writes the outputs into rows of `stride` values, each of which has room for whole panels: what is beyond the outputs
    /// may be overwritten or stay.
    pub(crate) fn into(self, level: Level, out: &mut [f32], stride: usize) {
        // With less to compute, fetching costs more than it saves.
        if self.rows >= FETCHING_PAYS {
            return self.stream_into(level, out, stride);
        }
        match self.layer.numbers() {
            Numbers::Singles => level.run(Run { multiply: Singles, product: self, out, stride }),
            Numbers::Pairs => level.run(Run { multiply: Pairs, product: self, out, stride }),
            Numbers::Bytes => level.run(Run { multiply: Bytes, product: self, out, stride }),
        }
    }

    /// The same of a layer that is not in the nearest caches: the next panel is fetched while one is multiplied.
    pub(crate) fn stream_into(self, level: Level, out: &mut [f32], stride: usize) {
        match self.layer.numbers() {
            Numbers::Singles => level.run(Run { multiply: Streamed(Singles), product: self, out, stride }),
            Numbers::Pairs => level.run(Run { multiply: Streamed(Pairs), product: self, out, stride }),
            Numbers::Bytes => level.run(Run { multiply: Streamed(Bytes), product: self, out, stride }),
        }
    }
}

/// Rows from which a product fetches the next panel in any case: it hides the way from the third cache, and all layers do
/// not fit into the second.
const FETCHING_PAYS: usize = 4;

/// Rows of `depth` inputs as a layer takes them: rounded to pairs of bfloat16 in `pairs`, or as they are.
pub(crate) fn enter<'a>(
    level: Level,
    numbers: Numbers,
    (rows, [count, depth]): (Left<'a>, [usize; 2]),
    pairs: &'a mut [f32],
) -> Left<'a> {
    if numbers != Numbers::Pairs {
        return rows;
    }
    let stride = padded(depth) / 2;
    level.run(Narrow { rows, count, depth, pairs, stride });
    Left { data: pairs, stride }
}

struct Narrow<'a, 'o> {
    rows: Left<'a>,
    count: usize,
    depth: usize,
    pairs: &'o mut [f32],
    stride: usize,
}

impl Kernel for Narrow<'_, '_> {
    type Output = ();
    const NARROW: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let whole = self.depth - self.depth % (2 * S::LANES);
        for (row, pairs) in self.pairs.chunks_mut(self.stride).take(self.count).enumerate() {
            let row = &self.rows.data[row * self.rows.stride..][..self.depth];
            for at in (0..whole).step_by(2 * S::LANES) {
                simd.narrow(&row[at..], &mut pairs[at / 2..]);
            }
            if whole < self.depth {
                // A slice may end within a stored pair: what it does not read must count as zero.
                let mut last = [0.0; PANEL];
                last[..self.depth - whole].copy_from_slice(&row[whole..]);
                simd.narrow(&last, &mut pairs[whole / 2..]);
            }
        }
    }
}

struct Run<'a, 'o, M> {
    multiply: M,
    product: Product<'a>,
    out: &'o mut [f32],
    stride: usize,
}

impl<M: Multiply> Kernel for Run<'_, '_, M> {
    type Output = ();
    const NARROW: bool = M::NARROW;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let panels = self.product.outputs.div_ceil(PANEL);
        // With one or two rows a panel has too few sums to hide the latency of an addition: several at a time have not. Memory is
        // slower than either, and is read fastest in one line after another.
        let group = match self.product.rows {
            _ if M::STREAMED => 1,
            1 => 4,
            2 => 2,
            _ => 1,
        };
        let whole = panels - panels % group;
        for panel in (0..whole).step_by(group) {
            match group {
                4 => self.tile_of::<S, 1, 4>(simd, panel, 0),
                2 => self.tile_of::<S, 2, 2>(simd, panel, 0),
                _ => self.column(simd, panel),
            }
        }
        for panel in whole..panels {
            self.column(simd, panel);
        }
    }
}

/// Calls a method with the number of rows as a constant, for as many as a tile can have.
macro_rules! with_rows {
    ($rows:expr, $this:ident.$method:ident::<$simd:ident $(, $rest:literal)*>($($argument:expr),*)) => {
        match $rows {
            1 => $this.$method::<$simd, 1 $(, $rest)*>($($argument),*),
            2 => $this.$method::<$simd, 2 $(, $rest)*>($($argument),*),
            3 => $this.$method::<$simd, 3 $(, $rest)*>($($argument),*),
            4 => $this.$method::<$simd, 4 $(, $rest)*>($($argument),*),
            5 => $this.$method::<$simd, 5 $(, $rest)*>($($argument),*),
            6 => $this.$method::<$simd, 6 $(, $rest)*>($($argument),*),
            7 => $this.$method::<$simd, 7 $(, $rest)*>($($argument),*),
            8 => $this.$method::<$simd, 8 $(, $rest)*>($($argument),*),
            9 => $this.$method::<$simd, 9 $(, $rest)*>($($argument),*),
            10 => $this.$method::<$simd, 10 $(, $rest)*>($($argument),*),
            11 => $this.$method::<$simd, 11 $(, $rest)*>($($argument),*),
            12 => $this.$method::<$simd, 12 $(, $rest)*>($($argument),*),
            13 => $this.$method::<$simd, 13 $(, $rest)*>($($argument),*),
            _ => $this.$method::<$simd, 14 $(, $rest)*>($($argument),*),
        }
    };
}
pub(crate) use with_rows;

/// Cuts rows into tiles of about equal height, none above `most`: where each begins, and how many rows it has.
#[inline(always)]
pub(crate) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most).max(1);
    let (height, taller) = (rows / count, rows % count);
    (0..count).map(move |tile| (tile * height + tile.min(taller), height + usize::from(tile < taller)))
}

impl<M: Multiply> Run<'_, '_, M> {
    /// One panel for all rows: it stays in the nearest cache while the rows pass.
    #[inline(always)]
    fn column<S: Simd>(&mut self, simd: S, panel: usize) {
        for (row, height) in tiles(self.product.rows, S::ROWS) {
            with_rows!(height, self.tile_of::<S, 1>(simd, panel, row));
        }
    }

    /// `R` rows from `row` on, `P` panels from `panel` on.
    #[inline(always)]
    fn tile_of<S: Simd, const R: usize, const P: usize>(&mut self, simd: S, panel: usize, row: usize) {
        let Product { layer, activation, depth, input, first, .. } = self.product;
        let left = Left { data: &input.data[row * input.stride..], ..input };
        let (right, bias) = layer.from(first + panel * PANEL);
        let (multiply, depth) = (self.multiply, layer.numbers().words(depth));
        // A narrow slice has few outputs: vectors of a single panel that hold none of them are left out.
        let wanted = if P == 1 { PANEL.min(self.product.outputs - panel * PANEL) } else { PANEL };
        for half in (0..wanted).step_by(2 * S::LANES) {
            let right = Right { data: &right.data[half..], ..right };
            let out = &mut self.out[row * self.stride + panel * PANEL + half..];
            let (start, stride) = (&bias[half..], self.stride);
            if P == 1 && wanted - half <= S::LANES {
                Tile::<M, _, R, P, 1> { multiply, left, right, depth, start, out, stride, panel: PANEL }.compute(simd);
            } else {
                Tile::<M, _, R, P, 2> { multiply, left, right, depth, start, out, stride, panel: PANEL }.compute(simd);
            }
        }
        if activation == Activation::Gelu {
            for row in row..row + R {
                let row = &mut self.out[row * self.stride..][..(panel + P) * PANEL];
                let out = &mut row[panel * PANEL..];
                for out in out.chunks_exact_mut(S::LANES) {
                    simd.store(gelu(simd, simd.load(out)), out);
                }
                if M::PAIRS {
                    narrow_in_place(simd, row, panel * PANEL);
                }
            }
        }
    }
}

/// Rounds the values of a row from `first` on to pairs of bfloat16, which go where those of the values before it end: no
/// further than half as far, so that nothing is overwritten that is still to be read.
#[inline(always)]
fn narrow_in_place<S: Simd>(simd: S, row: &mut [f32], first: usize) {
    let mut values = [0.0; PANEL];
    for at in (first..row.len()).step_by(2 * S::LANES) {
        let values = &mut values[..2 * S::LANES];
        values.copy_from_slice(&row[at..][..2 * S::LANES]);
        simd.narrow(values, &mut row[at / 2..]);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::panels::{Numbers, Packer};
    use super::super::simd::{Left, Level};
    use super::{Product, enter};
    use canet_model::{HostTensor, Precision, Weights};

    /// As a float32, by another library's rounding.
    fn rounded(value: f32) -> f32 {
        bf16::from_f32(value).to_f32()
    }

    /// Every kind of vector, the instruction for pairs included, gives the sum that is taken here value by value: pair by
    /// pair, of each the second product first, rounded to float32 after every addition.
    #[test]
    fn products_of_bfloat16_are_the_same_to_the_bit_on_every_kind_of_vector() {
        let (outputs, stored, rows) = (45, 70, 17);
        // Of many sizes, so that the order of additions shows.
        let value = |place: usize| {
            let bits = (place as u32).wrapping_mul(2_654_435_761);
            ((bits >> 8) as f32 / 8_388_608.0 - 1.0) * f32::powi(2.0, (bits % 13) as i32 - 6)
        };
        let tensor = |shape: Vec<usize>, first: usize| {
            let count: usize = shape.iter().product();
            HostTensor { shape, data: (first..first + count).map(value).collect() }
        };
        let mut weights = Weights::default();
        weights.insert("layer.weight", tensor(vec![outputs, stored], 0));
        weights.insert("layer.bias", tensor(vec![outputs], 1 << 20));
        let layer = Packer { weights: &weights, precision: Precision::Bf16 }.layer("layer").unwrap();
        let [weight, bias] = ["weight", "bias"].map(|part| &weights.get(&format!("layer.{part}")).unwrap().data);
        let input: Vec<f32> = (0..rows * stored).map(|place| value(place + (1 << 24))).collect();
        // A slice may end within a pair.
        for depth in [1, 2, 31, 33, 64, 69, 70] {
            for level in Level::available() {
                let mut pairs = vec![f32::NAN; rows * 48];
                let entering = (Left { data: &input, stride: stored }, [rows, depth]);
                let entered = enter(level, Numbers::Pairs, entering, &mut pairs);
                let mut found = vec![0.0; rows * 64];
                Product::new(&layer, [depth, outputs], entered, rows).into(level, &mut found, 64);
                for (row, output) in (0..rows).flat_map(|row| (0..outputs).map(move |output| (row, output))) {
                    let product = |place: usize| {
                        if place == depth {
                            return 0.0;
                        }
                        rounded(input[row * stored + place]) * rounded(weight[output * stored + place])
                    };
                    let sum = (0..depth)
                        .step_by(2)
                        .fold(bias[output], |sum, first| sum + product(first + 1) + product(first));
                    let found = found[row * 64 + output];
                    assert_eq!(found.to_bits(), sum.to_bits(), "{level}, depth {depth}: {found}, {sum}");
                }
            }
        }
    }
}
