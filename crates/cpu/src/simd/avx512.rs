use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Simd, dot_bytes_by_value, narrow_by_value, taken_apart};

/// Vectors of 16 lanes: the AVX-512 foundation instructions and, where `BYTES` and `PAIRS` say so, those for products of
/// bytes and of bfloat16, which came later one after the other. A value exists only where the CPU has them.
#[derive(Clone, Copy)]
pub(super) struct Vectors<const BYTES: bool, const PAIRS: bool>(());

pub(super) type Avx512 = Vectors<false, false>;
pub(super) type Avx512Bytes = Vectors<true, false>;
pub(super) type Avx512Pairs = Vectors<true, true>;

impl<const BYTES: bool, const PAIRS: bool> Vectors<BYTES, PAIRS> {
    /// The same lanes as whole numbers.
    #[inline(always)]
    fn bits(self, lanes: __m512) -> __m512i {
        // SAFETY: `self` is the proof that this CPU has such vectors.
        unsafe { _mm512_castps_si512(lanes) }
    }

    pub(super) fn detect() -> Option<Vectors<BYTES, PAIRS>> {
        let foundation =
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let bytes = !BYTES || is_x86_feature_detected!("avx512vnni");
        let pairs = !PAIRS || is_x86_feature_detected!("avx512bf16");
        (foundation && bytes && pairs).then_some(Vectors(()))
    }
}

impl<const BYTES: bool, const PAIRS: bool> Simd for Vectors<BYTES, PAIRS> {
    type Vector = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 14;
    const LOOKS_UP: bool = true;

    #[inline(always)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn with_instructions<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
        fn with_bytes<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bf16,avx512vnni,avx2,fma")]
        fn with_pairs<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` is the proof that this CPU has them.
        unsafe {
            match (BYTES, PAIRS) {
                (true, true) => with_pairs(self, kernel),
                (true, false) => with_bytes(self, kernel),
                (false, _) => with_instructions(self, kernel),
            }
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let from = &from[..16];
        // SAFETY: the slice has 16 values; `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    // SAFETY: as the trait says; `self` is the proof that the CPU has the instruction.
    unsafe fn load_at(self, from: &[f32], at: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from.as_ptr().add(at)) }
    }

    #[inline(always)]
    // SAFETY: as the trait says; `self` is the proof that the CPU has the instruction.
    unsafe fn splat_at(self, from: &[f32], at: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_ps(*from.get_unchecked(at)) }
    }

    #[inline(always)]
    fn prefetch(self, from: &[f32], at: usize) {
        let place = from.as_ptr().wrapping_add(at);
        // SAFETY: a prefetch reads nothing, and an address of nothing does no harm.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512, to: &mut [f32]) {
        let to = &mut to[..16];
        // SAFETY: the slice has 16 places; `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    // SAFETY: as the trait says; `self` is the proof that the CPU has the instruction.
    unsafe fn store_at(self, vector: __m512, to: &mut [f32], at: usize) {
        // SAFETY: the caller's.
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
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 32], places: __m512) -> __m512 {
        let [low, high] = [self.load(table), self.load(&table[16..])];
        // SAFETY: `self` is the proof that this CPU has the instruction; it reads five bits of each place.
        unsafe { _mm512_permutex2var_ps(low, _mm512_castps_si512(places), high) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(a) }
    }

    #[inline(always)]
    fn exp2(self, n: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }

    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe {
            // 14 bits, which one step of Newton's doubles: y (2 - a y).
            let y = _mm512_rcp14_ps(a);
            _mm512_mul_ps(y, _mm512_fnmadd_ps(a, y, _mm512_set1_ps(2.0)))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn greatest(self, a: __m512) -> f32 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    fn at_least(self, a: __m512, b: __m512) -> u32 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)) }
    }

    #[inline(always)]
    fn second(self, pairs: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x1_0000))) }
    }

    #[inline(always)]
    fn first(self, pairs: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pairs))) }
    }

    #[inline(always)]
    fn dot(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if PAIRS {
            // SAFETY: `self` is the proof that this CPU has the instruction; any bits are pairs of bfloat16.
            return unsafe {
                _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b))
            };
        }
        taken_apart(self, [a, b], sum)
    }

    #[inline(always)]
    fn dot_bytes(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // Compiled without the instruction it would be a call.
        if BYTES {
            let [a, b, sum] = [a, b, sum].map(|lanes| self.bits(lanes));
            // SAFETY: `self` is the proof that this CPU has the instructions; the lanes are bits.
            return unsafe { _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, a, b)) };
        }
        dot_bytes_by_value(self, [a, b], sum)
    }

    #[inline(always)]
    fn counted(self, counts: __m512) -> __m512 {
        // SAFETY: `self` is the proof that this CPU has the instruction.
        unsafe { _mm512_cvtepi32_ps(self.bits(counts)) }
    }

    #[inline(always)]
    fn narrow(self, values: &[f32], pairs: &mut [f32]) {
        if PAIRS {
            let [first, second] = [self.load(values), self.load(&values[Self::LANES..])];
            // SAFETY: `self` is the proof that this CPU has the instruction; pairs of bfloat16 are kept as any bits.
            let narrowed = unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)) };
            self.store(narrowed, pairs);
            return;
        }
        narrow_by_value(&values[..2 * Self::LANES], &mut pairs[..Self::LANES]);
    }
}
