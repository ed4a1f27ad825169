//! The 8-bit product with AVX2, without saturation.

use std::arch::x86_64::*;

use super::{ByteKernel, ByteSimd};
use crate::backend::cpu::simd::NoTiles;

/// Proof of AVX2 and FMA: made by [`run`] alone.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Runs a kernel compiled with the features.
#[target_feature(enable = "avx2,fma")]
pub fn run<K: ByteKernel>(kernel: K) {
    kernel.run(Avx2(()));
}

impl ByteSimd for Avx2 {
    type I32 = __m256i;
    type F32 = __m256;
    type Quads = __m256i;
    type Tiles = NoTiles;

    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;
    const SIGNED_WEIGHTS: bool = true;

    #[inline(always)]
    fn tiles(self) -> NoTiles {
        NoTiles
    }

    #[inline(always)]
    fn splat(self, x: i32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_epi32(a, b) }
    }

    /// `vpmaddubsw` saturates at 16 bits, which two products of unsigned by signed bytes exceed. Of magnitudes by bytes of
    /// -127..=127 they do not: at most 2 · 127² = 32258.
    #[inline(always)]
    fn dot(self, acc: __m256i, weights: __m256i, inputs: i32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe {
            let inputs = _mm256_set1_epi32(inputs);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(inputs), _mm256_sign_epi8(weights, inputs));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn add_scaled(self, acc: __m256, sum: __m256i, scales: __m256, scale: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe {
            let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scales);
            _mm256_fmadd_ps(scaled, _mm256_set1_ps(scale), acc)
        }
    }

    #[inline(always)]
    unsafe fn load_quads(self, from: *const u8) -> __m256i {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm256_xor_si256(_mm256_loadu_si256(from.cast()), _mm256_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn load_sums(self, from: *const i32) -> __m256i {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm256_loadu_si256(from.cast()) }
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
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}
