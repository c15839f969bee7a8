use std::array;
use std::hint::black_box;

use super::{Kernel, Simd};

/// Values in a cache line.
pub(crate) const LINE: usize = 16;

/// How far ahead, in values, a tile of one row prefetches.
const PREFETCH_AHEAD: usize = 1024;

/// Rows that a processor's addressing modes reach from one base: the row itself, the next and the one after it.
const ROWS_PER_BASE: usize = 3;

/// Bases for the rows of the tallest tile.
const BASES: usize = 5;

/// Rows of values, for example a tile's left operand.
#[derive(Clone, Copy)]
pub(crate) struct RowMajor<'a> {
    /// From the first row's first value on.
    pub(crate) data: &'a [f32],
    /// Distance of two rows.
    pub(crate) stride: usize,
}

/// Rows of values to be written.
pub(crate) struct RowMajorMut<'a> {
    pub(crate) data: &'a mut [f32],
    /// Distance of two rows.
    pub(crate) stride: usize,
}

/// A tile's left operand in columns: the rows' first values lie beside each other, then their second values.
#[derive(Clone, Copy)]
pub(crate) struct ColumnMajor<'a> {
    /// From the first row's first value on.
    pub(crate) data: &'a [f32],
    /// Distance of two values of a row.
    pub(crate) stride: usize,
}

/// A tile's left operand, in either layout.
pub(crate) trait Lhs {
    /// Whether the distance of two rows is known only at run time.
    const DYNAMIC_ROW_STRIDE: bool;
    /// The memory of the operand.
    fn data(&self) -> &[f32];
    /// Distance of two rows.
    fn row_stride(&self) -> usize;
    /// Distance of two neighbouring values of a row.
    fn depth_stride(&self) -> usize;
}

impl Lhs for RowMajor<'_> {
    const DYNAMIC_ROW_STRIDE: bool = true;

    #[inline(always)]
    fn data(&self) -> &[f32] {
        self.data
    }

    #[inline(always)]
    fn row_stride(&self) -> usize {
        self.stride
    }

    #[inline(always)]
    fn depth_stride(&self) -> usize {
        1
    }
}

impl Lhs for ColumnMajor<'_> {
    const DYNAMIC_ROW_STRIDE: bool = false;

    #[inline(always)]
    fn data(&self) -> &[f32] {
        self.data
    }

    #[inline(always)]
    fn row_stride(&self) -> usize {
        1
    }

    #[inline(always)]
    fn depth_stride(&self) -> usize {
        self.stride
    }
}

/// A tile's right operand: neighbouring panels.
#[derive(Clone, Copy)]
pub(crate) struct Rhs<'a> {
    /// From the first panel's first value on.
    pub(crate) data: &'a [f32],
    /// Distance of two rows of a panel.
    pub(crate) stride: usize,
    /// Distance of two panels.
    pub(crate) panel: usize,
}

/// How a tile multiplies the values of both operands.
pub(crate) trait Multiply: Copy {
    /// Whether the values are pairs of bfloat16.
    const BF16: bool = false;
    /// Whether the values hold numbers narrower than float32.
    const LOW_PRECISION: bool = Self::BF16;
    /// Whether the right operand comes from memory, so that the next panels are prefetched.
    const PREFETCHES: bool = false;
    /// Adds the product of two factors to a sum.
    fn accumulate<S: Simd>(self, simd: S, factors: [S::Vector; 2], sum: S::Vector) -> S::Vector;
}

/// Each value is a float32.
#[derive(Clone, Copy)]
pub(crate) struct F32;

/// Each value is a pair of bfloat16, two neighbours of the depth, as the bits of a float32.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Pairs;

impl Multiply for F32 {
    #[inline(always)]
    fn accumulate<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.fma(a, b, sum)
    }
}

impl Multiply for Bf16Pairs {
    const BF16: bool = true;

    #[inline(always)]
    fn accumulate<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.dot_bf16(a, b, sum)
    }
}

/// Each value is four bytes, neighbours of the depth. Bytes of the right operand are unsigned, bytes of the left one
/// signed. Sums are the bits of an `i32`.
#[derive(Clone, Copy)]
pub(crate) struct ByteQuads;

impl Multiply for ByteQuads {
    const LOW_PRECISION: bool = true;

    #[inline(always)]
    fn accumulate<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.dot_bytes(b, a, sum)
    }
}

/// Multiplies like `M`, for a right operand that is not in the nearest caches. The processor's own prefetcher stops at
/// the end of each page, so a tile prefetches the next panels while it reads its own. A tile of one row would finish
/// before they arrive and prefetches [a little ahead](PREFETCH_AHEAD) instead.
#[derive(Clone, Copy)]
pub(crate) struct Prefetching<M>(pub(crate) M);

impl<M: Multiply> Multiply for Prefetching<M> {
    const BF16: bool = M::BF16;
    const LOW_PRECISION: bool = M::LOW_PRECISION;
    const PREFETCHES: bool = true;

    #[inline(always)]
    fn accumulate<S: Simd>(self, simd: S, factors: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        self.0.accumulate(simd, factors, sum)
    }
}

/// The micro-kernel: `R` rows of a product over `C` vectors of each of `P` panels, with all sums in registers.
///
/// Each sum starts with its `start` and adds `depth` products in their order. So a row's values do not depend on how
/// rows are split into tiles.
///
/// Two details keep the sums in registers and the multiply-adds busy:
///
/// - The tile is compiled as a function of its own. Inlined into a larger function, the compiler spills the sums.
/// - Three rows share the base of their addresses. So processors that decode only four instructions a cycle have time
///   for the multiply-adds.
pub(crate) struct Tile<'a, M, L, const R: usize, const P: usize, const C: usize> {
    pub(crate) multiply: M,
    pub(crate) left: L,
    pub(crate) right: Rhs<'a>,
    /// Values of both operands that each sum reads.
    pub(crate) depth: usize,
    /// The start of each column's sums.
    pub(crate) start: &'a [f32],
    /// The sums: rows of `stride` values.
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
    /// Distance of two panels in `start` and in a row of `out`.
    pub(crate) panel: usize,
}

impl<M: Multiply, L: Lhs, const R: usize, const P: usize, const C: usize> Tile<'_, M, L, R, P, C> {
    /// Computes in a function of its own, which gets all registers.
    #[inline(always)]
    pub(crate) fn compute<S: Simd>(self, simd: S) {
        // Larger tiles are never requested and need no code.
        if R <= S::TILE_ROWS {
            simd.dispatch(self);
        }
    }
}

impl<M: Multiply, L: Lhs, const R: usize, const P: usize, const C: usize> Kernel for Tile<'_, M, L, R, P, C> {
    type Output = ();
    const LOW_PRECISION: bool = M::LOW_PRECISION;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tile { multiply, left, right, depth, start, out, stride, panel: panel_stride } = self;
        let mut sums = [[[simd.splat(0.0); C]; P]; R];
        for panel in 0..P {
            for column in 0..C {
                let start = simd.load(&start[panel * panel_stride + column * S::LANES..]);
                for row in &mut sums {
                    row[panel][column] = start;
                }
            }
        }
        const { assert!(R <= BASES * ROWS_PER_BASE) }
        // Each is read once, so that the assertions and the accesses see the same values.
        let (values, row_stride, depth_stride) = (left.data(), left.row_stride(), left.depth_stride());
        // The last row and the last panel reach furthest of all accesses below.
        let reach = |steps: usize, stride: usize| steps.saturating_mul(stride);
        if depth > 0 {
            let (rows, panels) = (reach(R - 1, row_stride), reach(P - 1, right.panel));
            assert!(rows.saturating_add(reach(depth - 1, depth_stride)) < values.len());
            assert!(
                panels.saturating_add(reach(depth - 1, right.stride)).saturating_add(C * S::LANES) <= right.data.len()
            );
        }
        // Hidden from the compiler. It would otherwise compute each row's place between the multiply-adds, and some
        // processors have no time for that.
        let hidden = |place: usize| if L::DYNAMIC_ROW_STRIDE { black_box(place) } else { place };
        let bases: [usize; BASES] = array::from_fn(|base| hidden((base * ROWS_PER_BASE).wrapping_mul(row_stride)));
        let panels: [usize; P] = array::from_fn(|panel| panel * right.panel);
        let (mut rhs_offset, mut lhs_offset) = (0_usize, 0_usize);
        let ahead = if R == 1 { PREFETCH_AHEAD } else { P.wrapping_mul(right.panel) };
        for _ in 0..depth {
            if M::PREFETCHES {
                for first in &panels {
                    let ahead = first.wrapping_add(rhs_offset).wrapping_add(ahead);
                    for column in (0..C * S::LANES).step_by(LINE) {
                        simd.prefetch(right.data, ahead.wrapping_add(column));
                    }
                }
            }
            let mut columns = [[simd.splat(0.0); C]; P];
            for panel in 0..P {
                for (column, vector) in columns[panel].iter_mut().enumerate() {
                    let at = panels[panel].wrapping_add(rhs_offset).wrapping_add(column * S::LANES);
                    // SAFETY: `rhs_offset` is at most (depth - 1) strides, so the second assertion bounds the place.
                    *vector = unsafe { simd.load_unchecked(right.data, at) };
                }
            }
            for (base, first) in bases.iter().enumerate() {
                let first = first.wrapping_add(lhs_offset);
                for next in 0..ROWS_PER_BASE {
                    let row = base * ROWS_PER_BASE + next;
                    if row >= R {
                        continue;
                    }
                    let at = first.wrapping_add(next.wrapping_mul(row_stride));
                    // SAFETY: the row is one of `R` and `lhs_offset` is at most (depth - 1) steps, so the first
                    // assertion bounds the place.
                    let value = unsafe { simd.splat_unchecked(values, at) };
                    for panel in 0..P {
                        for column in 0..C {
                            let sum = &mut sums[row][panel][column];
                            *sum = multiply.accumulate(simd, [value, columns[panel][column]], *sum);
                        }
                    }
                }
            }
            rhs_offset = rhs_offset.wrapping_add(right.stride);
            lhs_offset = lhs_offset.wrapping_add(depth_stride);
        }
        let reached = reach(R - 1, stride).saturating_add(reach(P - 1, panel_stride)).saturating_add(C * S::LANES);
        assert!(reached <= out.len());
        for (row, sums) in sums.into_iter().enumerate() {
            for (panel, sums) in sums.into_iter().enumerate() {
                for (column, sum) in sums.into_iter().enumerate() {
                    let at = row.wrapping_mul(stride).wrapping_add(panel.wrapping_mul(panel_stride));
                    // SAFETY: `reached` bounds the last of these places.
                    unsafe { simd.store_unchecked(sum, out, at.wrapping_add(column * S::LANES)) };
                }
            }
        }
    }
}
