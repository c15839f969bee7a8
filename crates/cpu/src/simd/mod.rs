//! Vectors of the CPU at hand: one set of operations over AVX-512, AVX2 with FMA, and plain Rust.
//!
//! A kernel is written once, generic over [`Simd`], and runs at the highest [`Level`] of the CPU. GELU alone differs by
//! level: with AVX-512 its coefficients come from tables in registers, elsewhere it is a quotient of polynomials.
//!
//! # Safety
//!
//! This is the only module of the crate with `unsafe` code.
//!
//! - A value of [`Avx512`](avx512::Avx512) or [`Avx2`](avx2::Avx2) exists only if the CPU has the instructions. So its
//!   operations are safe to call.
//! - Loads and stores check their slices. Only [`Tile`] checks its operands as a whole and then accesses them
//!   unchecked.
//! - [`Portable`] checks every access. With the lanes of a vector it is the checked twin of that vector's kernels:
//!   tests compare both, and Miri can run it.

#![expect(unsafe_code, reason = "vector instructions, which not every CPU has, and accesses checked once a tile")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod tile;

use std::fmt;

#[cfg(target_arch = "x86_64")]
use self::{
    avx2::Avx2,
    avx512::{Avx512, Avx512Bf16, Avx512Vnni},
};

use self::portable::Portable;
pub(super) use self::tile::{
    Bf16Pairs, ByteQuads, ColumnMajor, F32, LINE, Multiply, Prefetching, Rhs, RowMajor, RowMajorMut, Tile,
};

/// Operations on vectors of float32. A value proves that the CPU has them.
pub(super) trait Simd: Copy {
    /// A vector.
    type Vector: Copy;
    /// Values in a vector, a divisor of [`PANEL`](super::panels::PANEL) by at least 2.
    const LANES: usize;
    /// Rows of the largest tile whose sums, two vectors a row, fit the registers.
    const TILE_ROWS: usize;

    /// Whether [`table_lookup`](Self::table_lookup) takes one or two instructions, not one a lane.
    const HAS_TABLE_LOOKUP: bool;

    /// Runs a kernel in a function of its own, compiled with the instructions enabled.
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output;
    /// The value in every lane.
    fn splat(self, value: f32) -> Self::Vector;
    /// The first `LANES` values.
    fn load(self, from: &[f32]) -> Self::Vector;
    /// The `LANES` values from `at` on.
    ///
    /// # Safety
    /// `at + LANES` must be at most `from.len()`.
    unsafe fn load_unchecked(self, from: &[f32], at: usize) -> Self::Vector;
    /// The value at a place in every lane.
    ///
    /// # Safety
    /// `at` must be below `from.len()`.
    unsafe fn splat_unchecked(self, from: &[f32], at: usize) -> Self::Vector;
    /// Prefetches the cache line of a place into the second-level cache. Places outside the slice are allowed.
    fn prefetch<T>(self, from: &[T], at: usize);
    /// Writes the lanes to the first `LANES` places.
    fn store(self, vector: Self::Vector, to: &mut [f32]);
    /// Writes the lanes to the `LANES` places from `at` on.
    ///
    /// # Safety
    /// `at + LANES` must be at most `to.len()`.
    unsafe fn store_unchecked(self, vector: Self::Vector, to: &mut [f32], at: usize);
    /// Writes the first lanes to fewer than `LANES` places.
    fn store_partial(self, vector: Self::Vector, to: &mut [f32]);
    /// a + b
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a - b
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b + c
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The greater of each pair, or `b` if one of them is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The lesser of each pair.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// |a|
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// The table's entries at the lowest five bits of each lane.
    fn table_lookup(self, table: &[f32; 32], places: Self::Vector) -> Self::Vector;
    /// The nearest whole numbers.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// 2ⁿ for whole numbers n from -126 to 127.
    fn exp2(self, n: Self::Vector) -> Self::Vector;
    /// 1 / a, to a few units in the last place.
    fn reciprocal(self, a: Self::Vector) -> Self::Vector;
    /// The sum of the lanes.
    fn sum_lanes(self, a: Self::Vector) -> f32;
    /// The greatest lane.
    fn max_lane(self, a: Self::Vector) -> f32;
    /// Whether a >= b in each lane, as bits, the first lane lowest. A comparison with NaN is false.
    fn ge_mask(self, a: Self::Vector, b: Self::Vector) -> u32;
    /// The second value of each pair of bfloat16, as float32.
    fn high_bf16(self, pairs: Self::Vector) -> Self::Vector;
    /// The first value of each pair of bfloat16, as float32.
    fn low_bf16(self, pairs: Self::Vector) -> Self::Vector;

    /// Adds the products of two pairs of bfloat16 to each lane of a sum, the second product first, as the instruction
    /// does.
    ///
    /// A product of two bfloat16 is exact in float32, so each of the two additions rounds once.
    #[inline(always)]
    fn dot_bf16(self, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector {
        dot_bf16_by_parts(self, [a, b], sum)
    }

    /// Adds the products of four bytes to each lane of a sum, which holds the bits of an `i32`. Bytes of `a` are
    /// unsigned, bytes of `b` signed.
    #[inline(always)]
    fn dot_bytes(self, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector {
        dot_bytes_by_value(self, [a, b], sum)
    }

    /// The value of the `i32` whose bits each lane holds.
    #[inline(always)]
    fn i32_lanes_to_f32(self, counts: Self::Vector) -> Self::Vector {
        let mut lanes = [0.0; WIDEST];
        self.store(counts, &mut lanes[..Self::LANES]);
        self.load(&lanes.map(|count| count.to_bits().cast_signed() as f32))
    }

    /// Rounds `2 LANES` values to bfloat16 and writes them as `LANES` pairs.
    #[inline(always)]
    fn round_to_bf16(self, values: &[f32], pairs: &mut [f32]) {
        round_to_bf16_by_value(&values[..2 * Self::LANES], &mut pairs[..Self::LANES]);
    }
}

/// [`Simd::dot_bytes`] without its instruction.
#[inline(always)]
fn dot_bytes_by_value<S: Simd>(simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
    let mut lanes = [[0.0; WIDEST]; 3];
    for (lanes, vector) in lanes.iter_mut().zip([a, b, sum]) {
        simd.store(vector, &mut lanes[..S::LANES]);
    }
    let [a, b, sum] = &mut lanes;
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        let products = a.to_bits().to_ne_bytes().into_iter().zip(b.to_bits().to_ne_bytes());
        let products = products.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>();
        *sum = f32::from_bits(sum.to_bits().wrapping_add(products.cast_unsigned()));
    }
    simd.load(sum)
}

/// Lanes of the widest vector.
const WIDEST: usize = 16;

/// [`Simd::dot_bf16`] without its instruction.
#[inline(always)]
fn dot_bf16_by_parts<S: Simd>(simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
    let sum = simd.fma(simd.high_bf16(a), simd.high_bf16(b), sum);
    simd.fma(simd.low_bf16(a), simd.low_bf16(b), sum)
}

/// [`Simd::round_to_bf16`] without its instruction.
#[inline(always)]
fn round_to_bf16_by_value(values: &[f32], pairs: &mut [f32]) {
    for (values, pair) in values.chunks_exact(2).zip(pairs) {
        *pair = bf16_pair([values[0], values[1]]);
    }
}

/// A computation over vectors of any level.
///
/// `run` and every function that it calls must be `#[inline(always)]`. The operations become instructions only inside
/// [`Simd::dispatch`], whose function has them enabled.
pub(super) trait Kernel {
    /// The result.
    type Output;
    /// Whether it multiplies numbers narrower than float32. Some CPUs have instructions for them.
    const LOW_PRECISION: bool = false;
    /// Computes.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Rounds two values to the nearest bfloat16, ties to even, and returns the pair as the bits of a float32, the first
/// value in the lower half. Like the instruction, it treats subnormal values as zero.
pub(super) fn bf16_pair(values: [f32; 2]) -> f32 {
    let [first, second] = values.map(|value| {
        let value = if value.is_subnormal() { 0.0_f32.copysign(value) } else { value };
        u32::from(half::bf16::from_f32(value).to_bits())
    });
    f32::from_bits(second << 16 | first)
}

/// A SIMD level: the vector instructions that kernels use. A value proves that the CPU has them.
#[derive(Clone, Copy)]
pub struct Level(Vectors);

#[derive(Clone, Copy)]
enum Vectors {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512, Option<Avx512Vnni>, Option<Avx512Bf16>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable16(Portable<16>),
    Portable8(Portable<8>),
}

impl Level {
    /// The levels of this CPU, the fastest first. The last two are plain Rust with 8 and 16 lanes, which every CPU has.
    pub fn available() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        let native = [
            Avx512::detect().map(|simd| Vectors::Avx512(simd, Avx512Vnni::detect(), Avx512Bf16::detect())),
            Avx2::detect().map(Vectors::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let native = [];
        let portable = [Some(Vectors::Portable8(Portable)), Some(Vectors::Portable16(Portable))];
        native.into_iter().chain(portable).flatten().map(Level).collect()
    }

    /// The fastest level of this CPU.
    pub fn best() -> Level {
        Level::available().first().copied().unwrap_or(Level(Vectors::Portable8(Portable)))
    }

    /// Whether the level has an instruction for products of bfloat16. Other levels split each pair, with the same
    /// result but slower than float32.
    pub fn multiplies_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.0, Vectors::Avx512(_, _, Some(_)));
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Whether the level has an instruction for products of bytes.
    pub(super) fn multiplies_bytes(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.0, Vectors::Avx512(_, Some(_), _));
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Runs a kernel at this level.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(simd, bytes, pairs) => match (bytes, pairs) {
                (_, Some(simd)) if K::LOW_PRECISION => simd.dispatch(kernel),
                (Some(simd), None) if K::LOW_PRECISION => simd.dispatch(kernel),
                _ => simd.dispatch(kernel),
            },
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(simd) => simd.dispatch(kernel),
            Vectors::Portable16(simd) => simd.dispatch(kernel),
            Vectors::Portable8(simd) => simd.dispatch(kernel),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(..) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(_) => "avx2",
            Vectors::Portable16(_) => "portable, 16 lanes",
            Vectors::Portable8(_) => "portable, 8 lanes",
        })
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
