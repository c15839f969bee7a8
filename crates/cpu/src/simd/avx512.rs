use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Simd, dot_bf16_by_parts, dot_bytes_by_value, round_to_bf16_by_value};

/// Vectors of 16 lanes: AVX-512F. `VNNI` adds products of bytes, `BF16` products of bfloat16; CPUs with the latter have
/// the former. A value exists only if the CPU has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vectors<const VNNI: bool, const BF16: bool>(());

pub(super) type Avx512 = Avx512Vectors<false, false>;
pub(super) type Avx512Vnni = Avx512Vectors<true, false>;
pub(super) type Avx512Bf16 = Avx512Vectors<true, true>;

impl<const VNNI: bool, const BF16: bool> Avx512Vectors<VNNI, BF16> {
    /// The same lanes as integers.
    #[inline(always)]
    fn bits(self, lanes: __m512) -> __m512i {
        // SAFETY: `self` proves that the CPU has such vectors.
        unsafe { _mm512_castps_si512(lanes) }
    }

    pub(super) fn detect() -> Option<Avx512Vectors<VNNI, BF16>> {
        let foundation =
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let bytes = !VNNI || is_x86_feature_detected!("avx512vnni");
        let pairs = !BF16 || is_x86_feature_detected!("avx512bf16");
        (foundation && bytes && pairs).then_some(Avx512Vectors(()))
    }
}

impl<const VNNI: bool, const BF16: bool> Simd for Avx512Vectors<VNNI, BF16> {
    type Vector = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;
    const HAS_TABLE_LOOKUP: bool = true;

    #[inline(always)]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn with_instructions<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
        fn with_vnni<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bf16,avx512vnni,avx2,fma")]
        fn with_bf16<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` proves that the CPU has them.
        unsafe {
            match (VNNI, BF16) {
                (true, true) => with_bf16(self, kernel),
                (true, false) => with_vnni(self, kernel),
                (false, _) => with_instructions(self, kernel),
            }
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let from = &from[..16];
        // SAFETY: the slice has 16 values; `self` proves that the CPU has the instruction.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    // SAFETY: the trait bounds the access, and `self` proves that the CPU has the instruction.
    unsafe fn load_unchecked(self, from: &[f32], at: usize) -> __m512 {
        // SAFETY: the caller guarantees it.
        unsafe { _mm512_loadu_ps(from.as_ptr().add(at)) }
    }

    #[inline(always)]
    // SAFETY: the trait bounds the access, and `self` proves that the CPU has the instruction.
    unsafe fn splat_unchecked(self, from: &[f32], at: usize) -> __m512 {
        // SAFETY: the caller guarantees it.
        unsafe { _mm512_set1_ps(*from.get_unchecked(at)) }
    }

    #[inline(always)]
    fn prefetch<T>(self, from: &[T], at: usize) {
        let place = from.as_ptr().wrapping_add(at);
        // SAFETY: a prefetch may take any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512, to: &mut [f32]) {
        let to = &mut to[..16];
        // SAFETY: the slice has 16 places; `self` proves that the CPU has the instruction.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    // SAFETY: the trait bounds the access, and `self` proves that the CPU has the instruction.
    unsafe fn store_unchecked(self, vector: __m512, to: &mut [f32], at: usize) {
        // SAFETY: the caller guarantees it.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().add(at), vector) }
    }

    #[inline(always)]
    fn store_partial(self, vector: __m512, to: &mut [f32]) {
        let mut lanes = [0.0; 16];
        self.store(vector, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn table_lookup(self, table: &[f32; 32], places: __m512) -> __m512 {
        let [low, high] = [self.load(table), self.load(&table[16..])];
        // SAFETY: `self` proves that the CPU has the instruction; it reads five bits of each place.
        unsafe { _mm512_permutex2var_ps(low, _mm512_castps_si512(places), high) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(a) }
    }

    #[inline(always)]
    fn exp2(self, n: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }

    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe {
            // 14 correct bits, which one step of Newton's method doubles: y (2 - a y).
            let y = _mm512_rcp14_ps(a);
            _mm512_mul_ps(y, _mm512_fnmadd_ps(a, y, _mm512_set1_ps(2.0)))
        }
    }

    #[inline(always)]
    fn sum_lanes(self, a: __m512) -> f32 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    fn ge_mask(self, a: __m512, b: __m512) -> u32 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)) }
    }

    #[inline(always)]
    fn high_bf16(self, pairs: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x1_0000))) }
    }

    #[inline(always)]
    fn low_bf16(self, pairs: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pairs))) }
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if BF16 {
            // SAFETY: `self` proves that the CPU has the instruction; every bit pattern is a pair of bfloat16.
            return unsafe {
                _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b))
            };
        }
        dot_bf16_by_parts(self, [a, b], sum)
    }

    #[inline(always)]
    fn dot_bytes(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // Without the feature enabled, the intrinsic would be a call.
        if VNNI {
            let [a, b, sum] = [a, b, sum].map(|lanes| self.bits(lanes));
            // SAFETY: `self` proves that the CPU has the instructions; the lanes are bits.
            return unsafe { _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, a, b)) };
        }
        dot_bytes_by_value(self, [a, b], sum)
    }

    #[inline(always)]
    fn i32_lanes_to_f32(self, counts: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_cvtepi32_ps(self.bits(counts)) }
    }

    #[inline(always)]
    fn round_to_bf16(self, values: &[f32], pairs: &mut [f32]) {
        if BF16 {
            let [first, second] = [self.load(values), self.load(&values[Self::LANES..])];
            // SAFETY: `self` proves that the CPU has the instruction; every bit pattern is a float32.
            let narrowed = unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)) };
            self.store(narrowed, pairs);
            return;
        }
        round_to_bf16_by_value(&values[..2 * Self::LANES], &mut pairs[..Self::LANES]);
    }
}
