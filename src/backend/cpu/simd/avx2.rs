//! Vectors of eight f32 with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, NoTiles, Simd};

/// Proof of AVX2, FMA and F16C: made by [`run`] alone.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Runs a kernel compiled with the features.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Methods that are one intrinsic on values.
macro_rules! values {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m256),*) -> __m256 {
            // SAFETY: `self` proves the features.
            unsafe { $body }
        }
    )*};
}

impl Simd for Avx2 {
    type F32 = __m256;
    type Bf16Pairs = __m256i;
    type Tiles = NoTiles;

    const LANES: usize = 8;
    const HAS_DOT_BF16: bool = false;
    const TILE_ROWS_WIDE: usize = 6;
    const TILE_ROWS_DOT: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the features.
        unsafe { run(kernel) }
    }

    values! {
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        mul_add(a, b, c) = _mm256_fmadd_ps(a, b, c);
        max(a, b) = _mm256_max_ps(a, b);
        min(a, b) = _mm256_min_ps(a, b);
        round(a) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        scale_exp2(a, n) = {
            // Two factors, because 2^n itself may be out of range where the product is a subnormal.
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias));
            _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second))
        };
    }

    #[inline(always)]
    fn tiles(self) -> NoTiles {
        NoTiles
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn dot_bf16(self, acc: __m256, a: u32, b: __m256i) -> __m256 {
        let (first, second) = self.widen_bf16(b);
        let acc = self.mul_add(first, self.splat(f32::from_bits(a << 16)), acc);
        self.mul_add(second, self.splat(f32::from_bits(a & 0xffff_0000)), acc)
    }

    #[inline(always)]
    fn widen_bf16(self, pairs: __m256i) -> (__m256, __m256) {
        // SAFETY: `self` proves the features.
        unsafe {
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second))
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: `self` proves the features, the caller that the memory is writable.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, from: *const bf16) -> __m256i {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m256 {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, value: __m256) {
        let mut lanes = [0.0; 8];
        // SAFETY: `lanes` has eight elements, and the caller promises as many at `to`.
        unsafe {
            self.store(lanes.as_mut_ptr(), value);
            *to.cast() = lanes.map(bf16::from_f32);
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}
