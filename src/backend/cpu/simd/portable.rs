//! Vectors as arrays: the compiler turns the loops into the baseline's vector instructions.

use std::array::from_fn;

use half::{bf16, f16};

use super::{Kernel, Simd, TileUnit};

const LANES: usize = 8;

/// Nothing beyond the target's baseline, but perhaps a unit of tiles.
#[derive(Clone, Copy)]
pub struct Portable<T: TileUnit>(pub T);

impl<T: TileUnit> Simd for Portable<T> {
    type F32 = [f32; LANES];
    type Bf16Pairs = [u32; LANES];
    type Tiles = T;

    const LANES: usize = LANES;
    const HAS_DOT_BF16: bool = T::PRESENT;
    const TILE_ROWS_WIDE: usize = 2;
    const TILE_ROWS_DOT: usize = 2;

    #[inline(never)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn tiles(self) -> T {
        self.0
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| a[i] / b[i])
    }

    /// Two roundings: without the instruction a fused one is a slow library call.
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        // Adding and taking away 1.5 · 2^23 leaves no fraction bits; beyond 2^22 every caller has clamped.
        const MAGIC: f32 = 12_582_912.0;
        from_fn(|i| (a[i] + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn scale_exp2(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        from_fn(|i| {
            // Two factors, because 2^n itself may be out of range where the product is a subnormal.
            let n = n[i] as i32;
            let half = n >> 1;
            let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
            a[i] * power(half) * power(n - half)
        })
    }

    #[inline(always)]
    fn dot_bf16(self, acc: Self::F32, a: u32, b: Self::Bf16Pairs) -> Self::F32 {
        let (first, second) = self.widen_bf16(b);
        let acc = self.mul_add(first, self.splat(f32::from_bits(a << 16)), acc);
        self.mul_add(second, self.splat(f32::from_bits(a & 0xffff_0000)), acc)
    }

    #[inline(always)]
    fn widen_bf16(self, pairs: Self::Bf16Pairs) -> (Self::F32, Self::F32) {
        (from_fn(|i| f32::from_bits(pairs[i] << 16)), from_fn(|i| f32::from_bits(pairs[i] & 0xffff_0000)))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: the caller's promise; an array of f32 has the alignment of f32.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::F32) {
        // SAFETY: the caller's promise; an array of f32 has the alignment of f32.
        unsafe { *to.cast() = value };
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, from: *const bf16) -> Self::Bf16Pairs {
        // SAFETY: the caller's promise; the read is unaligned.
        let pairs: Self::Bf16Pairs = unsafe { from.cast::<Self::Bf16Pairs>().read_unaligned() };
        pairs.map(u32::from_le)
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::F32 {
        // SAFETY: the caller's promise.
        let halves: [f16; LANES] = unsafe { *from.cast() };
        halves.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, value: Self::F32) {
        // SAFETY: the caller's promise.
        unsafe { *to.cast() = value.map(bf16::from_f32) };
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}
}
