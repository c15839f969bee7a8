use super::elementary::gelu;
use super::panels::{PANEL, Panels, WeightFormat, padded};
use super::simd::{Bf16Pairs, ByteQuads, F32, Kernel, Level, Multiply, Prefetching, Rhs, RowMajor, Simd, Tile};

/// What a product applies to its outputs before it stores them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    /// GELU. A bfloat16 layer also rounds the result to pairs, the format of the next layer's input, which fill the
    /// first half of a row.
    Gelu,
}

/// How much of a layer a product computes.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// The inputs of a row that are read.
    pub(crate) inputs: usize,
    /// The outputs of a row that are computed.
    pub(crate) outputs: usize,
}

impl Shape {
    /// As many outputs as inputs.
    #[inline]
    pub(crate) fn square(width: usize) -> Shape {
        Shape { inputs: width, outputs: width }
    }
}

/// A slice of a linear layer over some rows: `y = f(W x + b)`.
pub(crate) struct Product<'a> {
    pub(crate) layer: &'a Panels,
    pub(crate) activation: Activation,
    pub(crate) shape: Shape,
    /// Rows of at least the shape's inputs, in the [format](LayerInput::in_format) of the layer.
    pub(crate) input: RowMajor<'a>,
    pub(crate) rows: usize,
    /// The first output to compute, a multiple of 32.
    pub(crate) first: usize,
}

impl<'a> Product<'a> {
    /// The first outputs over the first inputs.
    #[inline]
    pub(crate) fn new(layer: &'a Panels, shape: Shape, input: RowMajor<'a>, rows: usize) -> Product<'a> {
        Product { layer, activation: Activation::None, shape, input, rows, first: 0 }
    }

    /// Writes the outputs into rows of `stride` values, each with room for whole panels. Values behind the outputs may
    /// change.
    pub(crate) fn write(self, level: Level, out: &mut [f32], stride: usize) {
        // For fewer rows, prefetching costs more than it saves.
        if self.rows >= PREFETCH_FROM_ROWS {
            return self.write_prefetching(level, out, stride);
        }
        match self.layer.format() {
            WeightFormat::F32 => level.run(RunProduct { multiply: F32, product: self, out, stride }),
            WeightFormat::Bf16Pairs => level.run(RunProduct { multiply: Bf16Pairs, product: self, out, stride }),
            WeightFormat::ByteQuads => level.run(RunProduct { multiply: ByteQuads, product: self, out, stride }),
        }
    }

    /// The same, for a layer that is not in the nearest caches: prefetches the next panel while it multiplies one.
    pub(crate) fn write_prefetching(self, level: Level, out: &mut [f32], stride: usize) {
        match self.layer.format() {
            WeightFormat::F32 => level.run(RunProduct { multiply: Prefetching(F32), product: self, out, stride }),
            WeightFormat::Bf16Pairs => {
                level.run(RunProduct { multiply: Prefetching(Bf16Pairs), product: self, out, stride });
            }
            WeightFormat::ByteQuads => {
                level.run(RunProduct { multiply: Prefetching(ByteQuads), product: self, out, stride });
            }
        }
    }
}

/// From so many rows on, every product prefetches: all layers together do not fit into the second-level cache.
const PREFETCH_FROM_ROWS: usize = 4;

/// Rows of `depth` inputs, before a layer multiplies them.
pub(crate) struct LayerInput<'a> {
    pub(crate) rows: RowMajor<'a>,
    pub(crate) count: usize,
    pub(crate) depth: usize,
}

impl<'a> LayerInput<'a> {
    /// The rows in the format of a layer's weights: rounded to bfloat16 in `pairs`, or unchanged.
    pub(crate) fn in_format(self, level: Level, format: WeightFormat, pairs: &'a mut [f32]) -> RowMajor<'a> {
        if format != WeightFormat::Bf16Pairs {
            return self.rows;
        }
        let stride = padded(self.depth) / 2;
        level.run(RoundRows { input: self, pairs, stride });
        RowMajor { data: pairs, stride }
    }
}

struct RoundRows<'a, 'o> {
    input: LayerInput<'a>,
    pairs: &'o mut [f32],
    stride: usize,
}

impl Kernel for RoundRows<'_, '_> {
    type Output = ();
    const LOW_PRECISION: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let LayerInput { rows, count, depth } = self.input;
        let whole = depth - depth % (2 * S::LANES);
        for (row, pairs) in self.pairs.chunks_mut(self.stride).take(count).enumerate() {
            let row = &rows.data[row * rows.stride..][..depth];
            for at in (0..whole).step_by(2 * S::LANES) {
                simd.round_to_bf16(&row[at..], &mut pairs[at / 2..]);
            }
            if whole < depth {
                // A slice may end within a stored pair. The half that it does not read must count as zero.
                let mut last = [0.0; PANEL];
                last[..depth - whole].copy_from_slice(&row[whole..]);
                simd.round_to_bf16(&last, &mut pairs[whole / 2..]);
            }
        }
    }
}

struct RunProduct<'a, 'o, M> {
    multiply: M,
    product: Product<'a>,
    out: &'o mut [f32],
    stride: usize,
}

impl<M: Multiply> Kernel for RunProduct<'_, '_, M> {
    type Output = ();
    const LOW_PRECISION: bool = M::LOW_PRECISION;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let panels = self.product.shape.outputs.div_ceil(PANEL);
        // With one or two rows, one panel has too few sums to hide the latency of an addition, so several panels run at
        // a time. Memory is slower still, and is read fastest one panel after the other.
        let group = match self.product.rows {
            _ if M::PREFETCHES => 1,
            1 => 4,
            2 => 2,
            _ => 1,
        };
        let whole = panels - panels % group;
        for panel in (0..whole).step_by(group) {
            match group {
                4 => self.run_tile::<S, 1, 4>(simd, panel, 0),
                2 => self.run_tile::<S, 2, 2>(simd, panel, 0),
                _ => self.run_panel(simd, panel),
            }
        }
        for panel in whole..panels {
            self.run_panel(simd, panel);
        }
    }
}

/// Calls a method with the number of rows as a constant.
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

/// Splits rows into tiles of about equal height, at most `most`. Yields each tile's first row and height, at least 1.
#[inline(always)]
pub(crate) fn split_into_tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most);
    let (height, taller) = (rows.checked_div(count).unwrap_or(0), rows.checked_rem(count).unwrap_or(0));
    (0..count).map(move |tile| (tile * height + tile.min(taller), height + usize::from(tile < taller)))
}

impl<M: Multiply> RunProduct<'_, '_, M> {
    /// Computes one panel for all rows: it stays in the nearest cache meanwhile.
    #[inline(always)]
    fn run_panel<S: Simd>(&mut self, simd: S, panel: usize) {
        for (row, height) in split_into_tiles(self.product.rows, S::TILE_ROWS) {
            with_rows!(height, self.run_tile::<S, 1>(simd, panel, row));
        }
    }

    /// Computes `R` rows from `row` on and `P` panels from `panel` on.
    #[inline(always)]
    fn run_tile<S: Simd, const R: usize, const P: usize>(&mut self, simd: S, panel: usize, row: usize) {
        let Product { layer, activation, shape, input, first, .. } = self.product;
        let left = RowMajor { data: &input.data[row * input.stride..], ..input };
        let (right, bias) = layer.from(first + panel * PANEL);
        let (multiply, depth) = (self.multiply, layer.format().words(shape.inputs));
        // A narrow slice has few outputs. Vectors of a single panel that hold none of them are skipped.
        let wanted = if P == 1 { PANEL.min(shape.outputs - panel * PANEL) } else { PANEL };
        for half in (0..wanted).step_by(2 * S::LANES) {
            let right = Rhs { data: &right.data[half..], ..right };
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
                if M::BF16 {
                    round_row_to_bf16(simd, row, panel * PANEL);
                }
            }
        }
    }
}

/// Rounds the values of a row from `first` on to pairs of bfloat16, which follow the pairs of the values before them.
/// Pairs take half the room, so they never overwrite a value that is still to be read.
#[inline(always)]
fn round_row_to_bf16<S: Simd>(simd: S, row: &mut [f32], first: usize) {
    let mut values = [0.0; PANEL];
    for at in (first..row.len()).step_by(2 * S::LANES) {
        let values = &mut values[..2 * S::LANES];
        values.copy_from_slice(&row[at..][..2 * S::LANES]);
        simd.round_to_bf16(values, &mut row[at / 2..]);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::panels::{Packer, WeightFormat};
    use super::super::simd::{Level, RowMajor};
    use super::{LayerInput, Product, Shape};
    use canet_model::{HostTensor, Precision, Weights};

    /// Rounds by another library.
    fn rounded(value: f32) -> f32 {
        bf16::from_f32(value).to_f32()
    }

    /// Every level gives the same sum as this loop: pair by pair, the second product of each pair first, rounded to
    /// float32 after every addition.
    #[test]
    fn products_of_bfloat16_are_bit_identical_on_every_level() {
        let (outputs, stored, rows) = (45, 70, 17);
        // Values of many magnitudes, so that the order of additions shows.
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
        // Odd depths end within a pair.
        for depth in [1, 2, 31, 33, 64, 69, 70] {
            for level in Level::available() {
                let mut pairs = vec![f32::NAN; rows * 48];
                let input_rows = LayerInput { rows: RowMajor { data: &input, stride: stored }, count: rows, depth };
                let rounded_rows = input_rows.in_format(level, WeightFormat::Bf16Pairs, &mut pairs);
                let mut found = vec![0.0; rows * 64];
                let shape = Shape { inputs: depth, outputs };
                Product::new(&layer, shape, rounded_rows, rows).write(level, &mut found, 64);
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
