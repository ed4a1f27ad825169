//! The 8-bit product with AVX-512 VNNI, and beside the tiles of AMX.

use std::arch::x86_64::*;

use super::{ByteKernel, ByteSimd};
use crate::backend::cpu::simd::TileUnit;

/// Proof of AVX-512 F, BW, DQ, VL and VNNI: made by [`run`] alone.
#[derive(Clone, Copy)]
pub struct Avx512Vnni<T: TileUnit>(T);

/// Runs a kernel compiled with the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn run<T: TileUnit, K: ByteKernel>(tiles: T, kernel: K) {
    kernel.run(Avx512Vnni(tiles));
}

impl<T: TileUnit> ByteSimd for Avx512Vnni<T> {
    type I32 = __m512i;
    type F32 = __m512;
    type Quads = __m512i;
    type Tiles = T;

    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;
    const SIGNED_WEIGHTS: bool = false;

    #[inline(always)]
    fn tiles(self) -> T {
        self.0
    }

    #[inline(always)]
    fn splat(self, x: i32) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, weights: __m512i, inputs: i32) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_dpbusd_epi32(acc, weights, _mm512_set1_epi32(inputs)) }
    }

    #[inline(always)]
    fn add_scaled(self, acc: __m512, sum: __m512i, scales: __m512, scale: f32) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scales);
            _mm512_fmadd_ps(scaled, _mm512_set1_ps(scale), acc)
        }
    }

    #[inline(always)]
    unsafe fn load_quads(self, from: *const u8) -> __m512i {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_sums(self, from: *const i32) -> __m512i {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: `self` proves the features, the caller that the memory is writable.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}
