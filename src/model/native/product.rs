use super::elementary::gelu;
use super::panels::{PANEL, Panels};
use super::simd::{Kernel, Left, Level, Right, Simd, Tile};

/// What becomes of an output before it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Gelu,
}

/// A linear layer's slice over some rows: `y = f(W x + b)`.
pub(super) struct Product<'a> {
    pub(super) layer: &'a Panels,
    pub(super) activation: Activation,
    /// Inputs that are read of each row.
    pub(super) depth: usize,
    /// Rows of at least `depth` inputs.
    pub(super) input: Left<'a>,
    pub(super) rows: usize,
    /// Outputs wanted: from `first`, a multiple of 32, `outputs` many.
    pub(super) first: usize,
    pub(super) outputs: usize,
}

impl<'a> Product<'a> {
    /// The layer's first outputs over the first inputs of some rows: `[depth, outputs]`.
    pub(super) fn new(layer: &'a Panels, [depth, outputs]: [usize; 2], input: Left<'a>, rows: usize) -> Product<'a> {
        Product { layer, activation: Activation::None, depth, input, rows, first: 0, outputs }
    }

    /// Writes the outputs, padded to whole panels, into rows of `stride` values.
    pub(super) fn into(self, level: Level, out: &mut [f32], stride: usize) {
        level.run(Run { product: self, out, stride });
    }
}

struct Run<'a, 'o> {
    product: Product<'a>,
    out: &'o mut [f32],
    stride: usize,
}

impl Kernel for Run<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let panels = self.product.outputs.div_ceil(PANEL);
        // With one or two rows a panel has too few sums to hide the latency of an addition: several at a time have not.
        let group = match self.product.rows {
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
pub(super) use with_rows;

/// Cuts rows into tiles of about equal height, none above `most`: where each begins, and how many rows it has.
#[inline(always)]
pub(super) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most).max(1);
    let (height, taller) = (rows / count, rows % count);
    (0..count).map(move |tile| (tile * height + tile.min(taller), height + usize::from(tile < taller)))
}

impl Run<'_, '_> {
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
        for half in (0..PANEL).step_by(2 * S::LANES) {
            let right = Right { data: &right.data[half..], ..right };
            let out = &mut self.out[row * self.stride + panel * PANEL + half..];
            let (start, stride) = (&bias[half..], self.stride);
            Tile::<R, P, 2> { left, right, depth, start, out, stride, panel: PANEL }.compute(simd);
        }
        if activation == Activation::Gelu {
            for row in row..row + R {
                let out = &mut self.out[row * self.stride + panel * PANEL..][..P * PANEL];
                for out in out.chunks_exact_mut(S::LANES) {
                    simd.store(gelu(simd, simd.load(out)), out);
                }
            }
        }
    }
}
