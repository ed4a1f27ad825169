//! The 8-bit product in plain Rust: the compiler turns the loops into the baseline's vector instructions.

use std::array::from_fn;

use super::ByteSimd;
use crate::backend::cpu::simd::TileUnit;

const LANES: usize = 8;

/// Nothing beyond the target's baseline, but perhaps a unit of tiles.
#[derive(Clone, Copy)]
pub struct Portable<T: TileUnit>(pub T);

impl<T: TileUnit> ByteSimd for Portable<T> {
    type I32 = [i32; LANES];
    type F32 = [f32; LANES];
    type Quads = [[u8; 4]; LANES];
    type Tiles = T;

    const LANES: usize = LANES;
    const TILE_ROWS: usize = 2;
    const SIGNED_WEIGHTS: bool = false;

    #[inline(always)]
    fn tiles(self) -> T {
        self.0
    }

    #[inline(always)]
    fn splat(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn dot(self, acc: [i32; LANES], weights: [[u8; 4]; LANES], inputs: i32) -> [i32; LANES] {
        let inputs = inputs.to_ne_bytes().map(|input| i32::from(input.cast_signed()));
        from_fn(|lane| {
            let [a, b, c, d] = weights[lane].map(i32::from);
            acc[lane] + a * inputs[0] + b * inputs[1] + c * inputs[2] + d * inputs[3]
        })
    }

    #[inline(always)]
    fn add_scaled(
        self,
        acc: [f32; LANES],
        sum: [i32; LANES],
        scales: [f32; LANES],
        scale: f32,
    ) -> [f32; LANES] {
        from_fn(|lane| acc[lane] + sum[lane] as f32 * scales[lane] * scale)
    }

    #[inline(always)]
    unsafe fn load_quads(self, from: *const u8) -> [[u8; 4]; LANES] {
        // SAFETY: the caller promises that they are readable.
        unsafe { from.cast::<[[u8; 4]; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_sums(self, from: *const i32) -> [i32; LANES] {
        // SAFETY: the caller promises that they are readable.
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; LANES] {
        // SAFETY: the caller promises that they are readable.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: [f32; LANES]) {
        // SAFETY: the caller promises that they are writable.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(value) }
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}
}
