//! Vectors of the CPU at hand: one set of operations over AVX-512, AVX2 with FMA, and plain Rust.
//!
//! A kernel is written once, generic over [`Simd`], and runs in the widest form that the CPU has ([`Level::run`]). This
//! module alone has `unsafe` code. A value of [`Avx512`](avx512::Avx512) or [`Avx2`](avx2::Avx2) exists only where the CPU
//! has the instructions, so its operations are safe to call; loads and stores check their slices, but for [`Tile`], which
//! checks its operands as a whole. [`Portable`] checks every single access: with as many lanes as a vector has it is the
//! checked twin of that vector's kernels.

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
    avx512::{Avx512, Avx512Bytes, Avx512Pairs},
};

use self::portable::Portable;
pub(super) use self::tile::{Bytes, Columns, Left, Multiply, Pairs, Right, Singles, Streamed, Tile};

/// Operations on vectors of float32. The value is a proof that the CPU has them.
pub(super) trait Simd: Copy {
    /// A vector.
    type Vector: Copy;
    /// Values in a vector; divides [`PANEL`](super::panels::PANEL) by 2 at least.
    const LANES: usize;
    /// Rows of the largest tile whose sums, two vectors a row, stay in registers.
    const ROWS: usize;

    /// Whether [`look_up`](Self::look_up) takes an instruction or two, and not one a lane.
    const LOOKS_UP: bool;

    /// Computes in a function of its own that has the instructions switched on.
    fn apart<K: Kernel>(self, kernel: K) -> K::Output;
    /// The value in every lane.
    fn splat(self, value: f32) -> Self::Vector;
    /// The first `LANES` values.
    fn load(self, from: &[f32]) -> Self::Vector;
    /// The `LANES` values from `at` on.
    ///
    /// SAFETY: `at + LANES` must be at most `from.len()`.
    unsafe fn load_at(self, from: &[f32], at: usize) -> Self::Vector;
    /// The value at a place in every lane.
    ///
    /// SAFETY: `at` must be below `from.len()`.
    unsafe fn splat_at(self, from: &[f32], at: usize) -> Self::Vector;
    /// Fetches the cache line of a place into the second cache, for later; nothing where there is no such place.
    fn prefetch(self, from: &[f32], at: usize);
    /// Writes the lanes to the first `LANES` places.
    fn store(self, vector: Self::Vector, to: &mut [f32]);
    /// Writes the lanes to the `LANES` places from `at` on.
    ///
    /// SAFETY: `at + LANES` must be at most `to.len()`.
    unsafe fn store_at(self, vector: Self::Vector, to: &mut [f32], at: usize);
    /// Writes as many of the first lanes as there are places, where these are fewer than `LANES`.
    fn store_partial(self, vector: Self::Vector, to: &mut [f32]);
    /// a + b
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a - b
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b + c
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The greater of each pair.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The lesser of each pair.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// |a|
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// Of a table the entries whose numbers are the lowest five bits of the lanes.
    fn look_up(self, table: &[f32; 32], places: Self::Vector) -> Self::Vector;
    /// The nearest whole numbers.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// 2ⁿ of whole numbers from -126 to 127.
    fn exp2(self, n: Self::Vector) -> Self::Vector;
    /// 1 / a, to a few units in the last place.
    fn reciprocal(self, a: Self::Vector) -> Self::Vector;
    /// The sum of the lanes.
    fn sum(self, a: Self::Vector) -> f32;
    /// The greatest lane.
    fn greatest(self, a: Self::Vector) -> f32;
    /// A bit a lane, the first lane's lowest: whether a >= b there. A comparison with what is no number fails.
    fn at_least(self, a: Self::Vector, b: Self::Vector) -> u32;
    /// Of lanes that hold a pair of bfloat16 each, the second ones as float32.
    fn second(self, pairs: Self::Vector) -> Self::Vector;
    /// Of lanes that hold a pair of bfloat16 each, the first ones as float32.
    fn first(self, pairs: Self::Vector) -> Self::Vector;

    /// Takes the products of two pairs of bfloat16 a lane into a sum: the second ones' first, as the instruction does.
    ///
    /// A product of two bfloat16 is exact in float32, so each of the two additions rounds once.
    #[inline(always)]
    fn dot(self, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector {
        taken_apart(self, [a, b], sum)
    }

    /// Takes into a sum, the bits of an `i32` a lane, the products of four bytes a lane: of the first factor they count from
    /// 0 to 255, of the second from -128 to 127.
    #[inline(always)]
    fn dot_bytes(self, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector {
        dot_bytes_by_value(self, [a, b], sum)
    }

    /// The bits of an `i32` a lane as its value.
    #[inline(always)]
    fn counted(self, counts: Self::Vector) -> Self::Vector {
        let mut lanes = [0.0; WIDEST];
        self.store(counts, &mut lanes[..Self::LANES]);
        self.load(&lanes.map(|count| count.to_bits().cast_signed() as f32))
    }

    /// Rounds `2 LANES` values to bfloat16 and writes them as `LANES` pairs.
    #[inline(always)]
    fn narrow(self, values: &[f32], pairs: &mut [f32]) {
        narrow_by_value(&values[..2 * Self::LANES], &mut pairs[..Self::LANES]);
    }
}

/// Products of bytes taken into sums, without an instruction for it.
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

/// Lanes of the widest vectors.
const WIDEST: usize = 16;

/// A pair's products taken into a sum, without an instruction for it.
#[inline(always)]
fn taken_apart<S: Simd>(simd: S, [a, b]: [S::Vector; 2], sum: S::Vector) -> S::Vector {
    let sum = simd.fma(simd.second(a), simd.second(b), sum);
    simd.fma(simd.first(a), simd.first(b), sum)
}

/// Values two by two as pairs, without an instruction for it.
#[inline(always)]
fn narrow_by_value(values: &[f32], pairs: &mut [f32]) {
    for (values, pair) in values.chunks_exact(2).zip(pairs) {
        *pair = pair_of([values[0], values[1]]);
    }
}

/// A computation that is written for every kind of vector.
///
/// `run` and all that it calls must be `#[inline(always)]`: only in the function of [`Simd::apart`], which has the
/// instructions switched on, do the operations become instructions.
pub(super) trait Kernel {
    /// What it gives.
    type Output;
    /// Whether it multiplies numbers narrower than float32, for which some CPUs have instructions.
    const NARROW: bool = false;
    /// Computes.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Two values, rounded to the nearest bfloat16 (ties to the even one), as the bits of one float32: the first in its lower
/// half. As for the instruction, what is too small for float32's own exponents counts as zero.
pub(super) fn pair_of(values: [f32; 2]) -> f32 {
    let [first, second] = values.map(|value| {
        let value = if value.is_subnormal() { 0.0_f32.copysign(value) } else { value };
        u32::from(half::bf16::from_f32(value).to_bits())
    });
    f32::from_bits(second << 16 | first)
}

/// A kind of vector that this CPU has.
#[derive(Clone, Copy)]
pub struct Level(Vectors);

#[derive(Clone, Copy)]
enum Vectors {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512, Option<Avx512Bytes>, Option<Avx512Pairs>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Wide(Portable<16>),
    Narrow(Portable<8>),
}

impl Level {
    /// Those that this CPU has, the fastest first; the last two are plain Rust of 16 and 8 lanes and always there.
    pub fn available() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        let native = [
            Avx512::detect().map(|simd| Vectors::Avx512(simd, Avx512Bytes::detect(), Avx512Pairs::detect())),
            Avx2::detect().map(Vectors::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let native = [];
        let portable = [Some(Vectors::Narrow(Portable)), Some(Vectors::Wide(Portable))];
        native.into_iter().chain(portable).flatten().map(Level).collect()
    }

    /// The fastest that this CPU has.
    pub fn best() -> Level {
        Level::available().first().copied().unwrap_or(Level(Vectors::Narrow(Portable)))
    }

    /// Whether this kind has an instruction for products of bfloat16. The others take them apart, which is slower than
    /// float32.
    pub fn multiplies_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.0, Vectors::Avx512(_, _, Some(_)));
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Whether this kind has an instruction for products of bytes.
    pub(super) fn multiplies_bytes(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.0, Vectors::Avx512(_, Some(_), _));
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Computes with vectors of this kind.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(simd, bytes, pairs) => match (bytes, pairs) {
                (_, Some(simd)) if K::NARROW => simd.apart(kernel),
                (Some(simd), None) if K::NARROW => simd.apart(kernel),
                _ => simd.apart(kernel),
            },
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(simd) => simd.apart(kernel),
            Vectors::Wide(simd) => simd.apart(kernel),
            Vectors::Narrow(simd) => simd.apart(kernel),
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
            Vectors::Wide(_) => "portable, 16 lanes",
            Vectors::Narrow(_) => "portable, 8 lanes",
        })
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
