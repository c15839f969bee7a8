use std::array;
use std::hint::black_box;

use super::{Kernel, Simd};

/// Values in a cache line.
const LINE: usize = 16;

/// How far ahead of itself, in values, a tile of one row fetches.
const SHORTLY: usize = 1024;

/// Rows whose places a processor's address forms reach from one base: the row itself, the next, and the one after it.
const REACHED: usize = 3;

/// Bases for the rows of the tallest tile.
const BASES: usize = 5;

/// Rows of a tile's left operand.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    /// From the first row's first value on.
    pub(crate) data: &'a [f32],
    /// Distance of two rows.
    pub(crate) stride: usize,
}

/// A tile's left operand the other way round: its rows' first values beside each other, then their second ones.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// From the first row's first value on.
    pub(crate) data: &'a [f32],
    /// Distance of two values of a row.
    pub(crate) stride: usize,
}

/// A tile's left operand, however it lies in memory.
pub(crate) trait Rows {
    /// Whether two rows' distance is known at run time alone.
    const APART: bool;
    /// What it lies in.
    fn data(&self) -> &[f32];
    /// Distance of two rows' values.
    fn beside(&self) -> usize;
    /// Distance of a row's value and its next one.
    fn along(&self) -> usize;
}

impl Rows for Left<'_> {
    const APART: bool = true;

    #[inline(always)]
    fn data(&self) -> &[f32] {
        self.data
    }

    #[inline(always)]
    fn beside(&self) -> usize {
        self.stride
    }

    #[inline(always)]
    fn along(&self) -> usize {
        1
    }
}

impl Rows for Columns<'_> {
    const APART: bool = false;

    #[inline(always)]
    fn data(&self) -> &[f32] {
        self.data
    }

    #[inline(always)]
    fn beside(&self) -> usize {
        1
    }

    #[inline(always)]
    fn along(&self) -> usize {
        self.stride
    }
}

/// Columns of a tile's right operand, in panels beside each other.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    /// From the first panel's first value on.
    pub(crate) data: &'a [f32],
    /// Distance of two rows of a panel.
    pub(crate) stride: usize,
    /// Distance of two panels.
    pub(crate) panel: usize,
}

/// What the values of both operands are.
pub(crate) trait Multiply: Copy {
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
pub(crate) struct Singles;

/// Each value is a pair of bfloat16: two neighbours of the depth, as the bits of a float32.
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

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
pub(crate) struct Bytes;

impl Multiply for Bytes {
    const NARROW: bool = true;

    #[inline(always)]
    fn add<S: Simd>(self, simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
        simd.dot_bytes(b, a, sum)
    }
}

/// The same of a right operand that is not in the nearest caches. The processor's own prefetching ends with each page; what is
/// behind a tile's panels is fetched as the tile goes through its own. A single row is done with a panel before the next one could
/// come: it fetches what is [shortly ahead](SHORTLY).
#[derive(Clone, Copy)]
pub(crate) struct Streamed<M>(pub(crate) M);

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
pub(crate) struct Tile<'a, M, L, const R: usize, const P: usize, const C: usize> {
    pub(crate) multiply: M,
    pub(crate) left: L,
    pub(crate) right: Right<'a>,
    /// Values of both operands that each sum takes.
    pub(crate) depth: usize,
    /// What the sums of each column begin with.
    pub(crate) start: &'a [f32],
    /// Where the sums go: rows of `stride` values.
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
    /// Distance of two panels in `start` and in a row of `out`.
    pub(crate) panel: usize,
}

impl<M: Multiply, L: Rows, const R: usize, const P: usize, const C: usize> Tile<'_, M, L, R, P, C> {
    /// Computes in a function of its own, to which the compiler gives all registers.
    #[inline(always)]
    pub(crate) fn compute<S: Simd>(self, simd: S) {
        // Larger ones are never asked for, and need not be compiled.
        if R <= S::ROWS {
            simd.apart(self);
        }
    }
}

impl<M: Multiply, L: Rows, const R: usize, const P: usize, const C: usize> Kernel for Tile<'_, M, L, R, P, C> {
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
        const { assert!(R <= BASES * REACHED) }
        // Each is asked for once: what is asserted of them is what is read by them.
        let (values, apart, along) = (left.data(), left.beside(), left.along());
        // What the last row and the last panel reach is the most that anything below does.
        let reach = |steps: usize, stride: usize| steps.saturating_mul(stride);
        if depth > 0 {
            let (rows, panels) = (reach(R - 1, apart), reach(P - 1, right.panel));
            assert!(rows.saturating_add(reach(depth - 1, along)) < values.len());
            assert!(
                panels.saturating_add(reach(depth - 1, right.stride)).saturating_add(C * S::LANES) <= right.data.len()
            );
        }
        // Hidden from the compiler, which would add up each row's place between the multiply-adds, where some processors have
        // no time for it.
        let hidden = |place: usize| if L::APART { black_box(place) } else { place };
        let bases: [usize; BASES] = array::from_fn(|base| hidden((base * REACHED).wrapping_mul(apart)));
        let panels: [usize; P] = array::from_fn(|panel| panel * right.panel);
        let (mut below, mut beyond) = (0_usize, 0_usize);
        let behind = if R == 1 { SHORTLY } else { P.wrapping_mul(right.panel) };
        for _ in 0..depth {
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
            for (base, first) in bases.iter().enumerate() {
                let first = first.wrapping_add(beyond);
                for next in 0..REACHED {
                    let row = base * REACHED + next;
                    if row >= R {
                        continue;
                    }
                    let at = first.wrapping_add(next.wrapping_mul(apart));
                    // SAFETY: the row is one of `R` and `beyond` at most (depth - 1) values, so the first assertion bounds
                    // the place.
                    let value = unsafe { simd.splat_at(values, at) };
                    for panel in 0..P {
                        for column in 0..C {
                            let sum = &mut sums[row][panel][column];
                            *sum = multiply.add(simd, [value, columns[panel][column]], *sum);
                        }
                    }
                }
            }
            below = below.wrapping_add(right.stride);
            beyond = beyond.wrapping_add(along);
        }
        let reached = reach(R - 1, stride).saturating_add(reach(P - 1, beside)).saturating_add(C * S::LANES);
        assert!(reached <= out.len());
        for (row, sums) in sums.into_iter().enumerate() {
            for (panel, sums) in sums.into_iter().enumerate() {
                for (column, sum) in sums.into_iter().enumerate() {
                    let at = row.wrapping_mul(stride).wrapping_add(panel.wrapping_mul(beside));
                    // SAFETY: `reached` is what the last of these places reaches.
                    unsafe { simd.store_at(sum, out, at.wrapping_add(column * S::LANES)) };
                }
            }
        }
    }
}
