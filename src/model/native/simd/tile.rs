use std::array;

use super::{Kernel, Simd};

/// Values in a cache line.
const LINE: usize = 16;

/// Rows of a tile's left operand.
#[derive(Clone, Copy)]
pub(in crate::model::native) struct Left<'a> {
    /// From the first row's first value on.
    pub(in crate::model::native) data: &'a [f32],
    /// Distance of two rows.
    pub(in crate::model::native) stride: usize,
}

/// Columns of a tile's right operand, in panels beside each other.
#[derive(Clone, Copy)]
pub(in crate::model::native) struct Right<'a> {
    /// From the first panel's first value on.
    pub(in crate::model::native) data: &'a [f32],
    /// Distance of two rows of a panel.
    pub(in crate::model::native) stride: usize,
    /// Distance of two panels.
    pub(in crate::model::native) panel: usize,
}

/// What the values of both operands are.
pub(in crate::model::native) trait Multiply: Copy {
    /// Whether they are pairs of bfloat16.
    const PAIRS: bool = false;
    /// Whether they are numbers narrower than float32.
    const NARROW: bool = Self::PAIRS;
    /// Whether the right operand comes from memory, and the panels behind a tile's are to be fetched meanwhile.
    const STREAMED: bool = false;
    /// Takes the product of two factors into a sum.
    fn add<S: Simd>(self, simd: S, factors: [S::Vector; 2], sum: S::Vector) -> S::Vector;
}

/// Each value is a float32.
#[derive(Clone, Copy)]
pub(in crate::model::native) struct Singles;

/// Each value is a pair of bfloat16: two neighbours of the depth, as the bits of a float32.
#[derive(Clone, Copy)]
pub(in crate::model::native) struct Pairs;

impl Multiply for Singles {
    #[inline(always)]
    fn add<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.fma(a, b, sum)
    }
}

impl Multiply for Pairs {
    const PAIRS: bool = true;

    #[inline(always)]
    fn add<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.dot(a, b, sum)
    }
}

/// Each value is four bytes, neighbours of the depth: of the right operand they count from 0 to 255, of the left one from
/// -128 to 127. Sums are the bits of an `i32`.
#[derive(Clone, Copy)]
pub(in crate::model::native) struct Bytes;

impl Multiply for Bytes {
    const NARROW: bool = true;

    #[inline(always)]
    fn add<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.dot_bytes(b, a, sum)
    }
}

/// The same of a right operand that is not in the nearest caches. The processor's own prefetching ends with each page; what is
/// behind a tile's panels is fetched as the tile goes through its own.
#[derive(Clone, Copy)]
pub(in crate::model::native) struct Streamed<M>(pub(in crate::model::native) M);

impl<M: Multiply> Multiply for Streamed<M> {
    const PAIRS: bool = M::PAIRS;
    const NARROW: bool = M::NARROW;
    const STREAMED: bool = true;

    #[inline(always)]
    fn add<S: Simd>(self, simd: S, factors: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        self.0.add(simd, factors, sum)
    }
}

/// The micro-kernel: `R` rows of a product, over `C` vectors of each of `P` panels, all sums in registers.
///
/// Each sum begins with its `start` and takes the `depth` products in their order, so that a row's values do not depend
/// on how rows are cut into tiles.
pub(in crate::model::native) struct Tile<'a, M, const R: usize, const P: usize, const C: usize> {
    pub(in crate::model::native) multiply: M,
    pub(in crate::model::native) left: Left<'a>,
    pub(in crate::model::native) right: Right<'a>,
    /// Values of both operands that each sum takes.
    pub(in crate::model::native) depth: usize,
    /// What the sums of each column begin with.
    pub(in crate::model::native) start: &'a [f32],
    /// Where the sums go: rows of `stride` values.
    pub(in crate::model::native) out: &'a mut [f32],
    pub(in crate::model::native) stride: usize,
    /// Distance of two panels in `start` and in a row of `out`.
    pub(in crate::model::native) panel: usize,
}

impl<M: Multiply, const R: usize, const P: usize, const C: usize> Tile<'_, M, R, P, C> {
    /// Computes in a function of its own, to which the compiler gives all registers.
    #[inline(always)]
    pub(in crate::model::native) fn compute<S: Simd>(self, simd: S) {
        // Larger ones are never asked for, and need not be compiled.
        if R <= S::ROWS {
            simd.apart(self);
        }
    }
}

impl<M: Multiply, const R: usize, const P: usize, const C: usize> Kernel for Tile<'_, M, R, P, C> {
    type Output = ();
    const NARROW: bool = M::NARROW;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tile { multiply, left, right, depth, start, out, stride, panel: beside } = self;
        let mut sums = [[[simd.splat(0.0); C]; P]; R];
        for panel in 0..P {
            for column in 0..C {
                let start = simd.load(&start[panel * beside + column * S::LANES..]);
                for row in &mut sums {
                    row[panel][column] = start;
                }
            }
        }
        if depth > 0 {
            // What the last row and the last panel reach, and so the most that anything below does.
            let reach = |steps: usize, stride: usize| steps.saturating_mul(stride);
            let (rows, panels) = (reach(R - 1, left.stride), reach(P - 1, right.panel));
            assert!(rows.saturating_add(depth) <= left.data.len());
            assert!(
                panels.saturating_add(reach(depth - 1, right.stride)).saturating_add(C * S::LANES) <= right.data.len()
            );
        }
        let rows: [usize; R] = array::from_fn(|row| row * left.stride);
        let panels: [usize; P] = array::from_fn(|panel| panel * right.panel);
        let mut below = 0_usize;
        let behind = P.wrapping_mul(right.panel);
        for place in 0..depth {
            if M::STREAMED {
                for first in &panels {
                    let behind = first.wrapping_add(below).wrapping_add(behind);
                    for column in (0..C * S::LANES).step_by(LINE) {
                        simd.prefetch(right.data, behind.wrapping_add(column));
                    }
                }
            }
            let mut columns = [[simd.splat(0.0); C]; P];
            for panel in 0..P {
                for (column, vector) in columns[panel].iter_mut().enumerate() {
                    let at = panels[panel].wrapping_add(below).wrapping_add(column * S::LANES);
                    // SAFETY: `below` is at most (depth - 1) strides, so the second assertion bounds the place.
                    *vector = unsafe { simd.load_at(right.data, at) };
                }
            }
            for row in 0..R {
                // SAFETY: `place` is below `depth`, so the first assertion bounds the place.
                let value = unsafe { simd.splat_at(left.data, rows[row].wrapping_add(place)) };
                for panel in 0..P {
                    for column in 0..C {
                        let sum = &mut sums[row][panel][column];
                        *sum = multiply.add(simd, [value, columns[panel][column]], *sum);
                    }
                }
            }
            below = below.wrapping_add(right.stride);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let out = &mut out[row * stride..];
            for (panel, sums) in sums.into_iter().enumerate() {
                for (column, sum) in sums.into_iter().enumerate() {
                    simd.store(sum, &mut out[panel * beside + column * S::LANES..]);
                }
            }
        }
    }
}
