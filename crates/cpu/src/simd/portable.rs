use super::{Kernel, Simd};

/// Vectors of `N` lanes in plain Rust. Every access is checked.
#[derive(Clone, Copy)]
pub(super) struct Portable<const N: usize>;

impl<const N: usize> Portable<N> {
    #[inline(always)]
    fn lanes(self, a: [f32; N], b: [f32; N], of: impl Fn(f32, f32) -> f32) -> [f32; N] {
        let mut out = [0.0; N];
        for lane in 0..N {
            out[lane] = of(a[lane], b[lane]);
        }
        out
    }
}

impl<const N: usize> Simd for Portable<N> {
    type Vector = [f32; N];
    const LANES: usize = N;
    // The sums fit 16 registers of 8 lanes, or 32 of 16.
    const TILE_ROWS: usize = if N == 16 { 14 } else { 6 };
    // The same as the vector with these lanes.
    const HAS_TABLE_LOOKUP: bool = N == 16;

    #[inline(never)]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; N] {
        [value; N]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> [f32; N] {
        let mut out = [0.0; N];
        out.copy_from_slice(&from[..N]);
        out
    }

    // SAFETY: the access is checked.
    #[inline(always)]
    unsafe fn load_unchecked(self, from: &[f32], at: usize) -> [f32; N] {
        self.load(&from[at..])
    }

    // SAFETY: the access is checked.
    #[inline(always)]
    unsafe fn splat_unchecked(self, from: &[f32], at: usize) -> [f32; N] {
        [from[at]; N]
    }

    #[inline(always)]
    fn prefetch<T>(self, _: &[T], _: usize) {}

    #[inline(always)]
    fn store(self, vector: [f32; N], to: &mut [f32]) {
        to[..N].copy_from_slice(&vector);
    }

    // SAFETY: the access is checked.
    #[inline(always)]
    unsafe fn store_unchecked(self, vector: [f32; N], to: &mut [f32], at: usize) {
        to[at..at + N].copy_from_slice(&vector);
    }

    #[inline(always)]
    fn store_partial(self, vector: [f32; N], to: &mut [f32]) {
        to.copy_from_slice(&vector[..to.len()]);
    }

    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        self.lanes(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        self.lanes(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        self.lanes(a, b, |a, b| a * b)
    }

    /// Rounds twice: a fused operation without the instruction would cost one call a lane.
    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        self.lanes(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        self.lanes(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: [f32; N]) -> [f32; N] {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn table_lookup(self, table: &[f32; 32], places: [f32; N]) -> [f32; N] {
        places.map(|place| table[(place.to_bits() & 31) as usize])
    }

    #[inline(always)]
    fn round(self, a: [f32; N]) -> [f32; N] {
        // Adding and subtracting 1.5·2²³ removes the fraction. Values here are far below that.
        let whole = self.splat(12_582_912.0);
        self.sub(self.add(a, whole), whole)
    }

    #[inline(always)]
    fn exp2(self, n: [f32; N]) -> [f32; N] {
        let mut out = [0.0; N];
        for lane in 0..N {
            // The cast saturates and maps NaN to 0, so the sum cannot overflow.
            out[lane] = f32::from_bits((((n[lane] as i32).clamp(-126, 127) + 127) as u32) << 23);
        }
        out
    }

    #[inline(always)]
    fn reciprocal(self, a: [f32; N]) -> [f32; N] {
        self.lanes(a, a, |a, _| 1.0 / a)
    }

    #[inline(always)]
    fn sum_lanes(self, a: [f32; N]) -> f32 {
        a.iter().sum()
    }

    #[inline(always)]
    fn max_lane(self, a: [f32; N]) -> f32 {
        a.iter().fold(f32::NEG_INFINITY, |most, value| if *value > most { *value } else { most })
    }

    #[inline(always)]
    fn ge_mask(self, a: [f32; N], b: [f32; N]) -> u32 {
        let mut bits = 0;
        for lane in 0..N {
            bits |= u32::from(a[lane] >= b[lane]) << lane;
        }
        bits
    }

    #[inline(always)]
    fn high_bf16(self, pairs: [f32; N]) -> [f32; N] {
        self.lanes(pairs, pairs, |pair, _| f32::from_bits(pair.to_bits() & 0xffff_0000))
    }

    #[inline(always)]
    fn low_bf16(self, pairs: [f32; N]) -> [f32; N] {
        self.lanes(pairs, pairs, |pair, _| f32::from_bits(pair.to_bits() << 16))
    }
}
