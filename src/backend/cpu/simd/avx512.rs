//! Vectors of sixteen f32 with AVX-512, with and without the bf16 dot product, and beside the tiles of AMX.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::{bf16, f16};

use super::{Kernel, Simd, TileUnit};

/// Proof of AVX-512 F, BW, DQ and VL, and of BF16 when `BF16`: made by [`run`] and [`run_bf16`] alone.
#[derive(Clone, Copy)]
pub struct Avx512<const BF16: bool, T: TileUnit>(T);

/// Runs a kernel compiled with AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn run<T: TileUnit, K: Kernel>(tiles: T, kernel: K) -> K::Output {
    kernel.run(Avx512::<false, T>(tiles))
}

/// Runs a kernel compiled with AVX-512 and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub fn run_bf16<T: TileUnit, K: Kernel>(tiles: T, kernel: K) -> K::Output {
    kernel.run(Avx512::<true, T>(tiles))
}

/// Methods that are one intrinsic on values.
macro_rules! values {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512),*) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { $body }
        }
    )*};
}

impl<const BF16: bool, T: TileUnit> Simd for Avx512<BF16, T> {
    type F32 = __m512;
    type Bf16Pairs = __m512i;
    type Tiles = T;

    const LANES: usize = 16;
    const HAS_DOT_BF16: bool = BF16;
    const TILE_ROWS_WIDE: usize = 12;
    const TILE_ROWS_DOT: usize = 14;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the features.
        unsafe { if BF16 { run_bf16(self.0, kernel) } else { run(self.0, kernel) } }
    }

    values! {
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        mul_add(a, b, c) = _mm512_fmadd_ps(a, b, c);
        max(a, b) = _mm512_max_ps(a, b);
        min(a, b) = _mm512_min_ps(a, b);
        round(a) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        scale_exp2(a, n) = _mm512_scalef_ps(a, n);
    }

    #[inline(always)]
    fn tiles(self) -> T {
        self.0
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn dot_bf16(self, acc: __m512, a: u32, b: __m512i) -> __m512 {
        if BF16 {
            // SAFETY: `self` proves the features; __m512i and __m512bh are both 512 bits without invalid values.
            unsafe {
                let a = _mm512_set1_epi32(a.cast_signed());
                _mm512_dpbf16_ps(acc, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b))
            }
        } else {
            let (first, second) = self.widen_bf16(b);
            let acc = self.mul_add(first, self.splat(f32::from_bits(a << 16)), acc);
            self.mul_add(second, self.splat(f32::from_bits(a & 0xffff_0000)), acc)
        }
    }

    #[inline(always)]
    fn widen_bf16(self, pairs: __m512i) -> (__m512, __m512) {
        // SAFETY: `self` proves the features.
        unsafe {
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
        }
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
    unsafe fn load_bf16_pairs(self, from: *const bf16) -> __m512i {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m512 {
        // SAFETY: `self` proves the features, the caller that the memory is readable.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, value: __m512) {
        if BF16 {
            // SAFETY: `self` proves the features, the caller that 32 bytes are writable; __m256bh is as large as __m256i.
            unsafe {
                let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
                _mm256_storeu_si256(to.cast(), rounded);
            }
        } else {
            let mut lanes = [0.0; 16];
            // SAFETY: `lanes` has sixteen elements, and the caller promises as many at `to`.
            unsafe {
                self.store(lanes.as_mut_ptr(), value);
                *to.cast() = lanes.map(bf16::from_f32);
            }
        }
    }

    #[inline(always)]
    fn reduce_sum(self, value: __m512) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_reduce_add_ps(value) }
    }

    #[inline(always)]
    fn reduce_max(self, value: __m512) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_reduce_max_ps(value) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}
