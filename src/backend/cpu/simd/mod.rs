//! The vector operations that kernels are written in, one implementation for each instruction set.
//!
//! A kernel is a [`Kernel`] value whose `run` is generic over [`Simd`] and marked `#[inline(always)]`, like everything
//! that it calls. [`Dispatch::run`] compiles it once for each instruction set inside a function that has the target
//! features, and picks one at run time. Closures are avoided inside kernels: they would not inherit the features.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
pub mod emulated;
pub mod math;
mod portable;
mod tiles;

pub use tiles::{
    Bf16Product, ByteProduct, Configured, NoTiles, Product, TILE_ROW_BYTES, TILE_ROWS, TileUnit,
};

use half::{bf16, f16};

use super::isa::Isa;
use crate::error::{Error, Result};

/// Most lanes of any implementation's vector.
pub const MAX_LANES: usize = 16;

/// A computation that is compiled once for each instruction set.
pub trait Kernel {
    /// What it returns.
    type Output;

    /// Computes. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Proof that an instruction set is there, and vectors of [`Simd::LANES`] f32 in it.
///
/// A value exists only where the instruction set was detected, so only operations on pointers are unsafe.
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of f32.
    type F32: Copy;
    /// A vector of pairs of bf16, one pair a lane.
    type Bf16Pairs: Copy;
    /// The unit that multiplies matrices, or [`TileUnit::PRESENT`] is false.
    type Tiles: TileUnit;

    /// Lanes of a vector: 8 or 16.
    const LANES: usize;
    /// Whether matrices of bf16 meet inputs of bf16, by [`Simd::dot_bf16`] as an instruction or by tiles.
    const HAS_DOT_BF16: bool;
    /// Rows of the largest register tile when a column vector of weights is widened to two vectors of f32.
    const TILE_ROWS_WIDE: usize;
    /// Rows of the largest register tile of [`Simd::dot_bf16`].
    const TILE_ROWS_DOT: usize;

    /// Runs a kernel in a function of its own that has the target features; keeps large kernels from being inlined
    /// at every use.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// The unit, configured while the kernel runs.
    fn tiles(self) -> Self::Tiles;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger; `b` when either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` when either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `a · 2^n` for integral `n` in -200..=200, with gradual underflow.
    fn scale_exp2(self, a: Self::F32, n: Self::F32) -> Self::F32;
    /// `acc + a.0 · b.0 + a.1 · b.1`, `a` being one pair for all lanes with its first element in the low half.
    fn dot_bf16(self, acc: Self::F32, a: u32, b: Self::Bf16Pairs) -> Self::F32;
    /// First and second elements of the pairs.
    fn widen_bf16(self, pairs: Self::Bf16Pairs) -> (Self::F32, Self::F32);

    /// Reads `LANES` f32.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Writes `LANES` f32.
    ///
    /// # Safety
    /// They are writable.
    unsafe fn store(self, to: *mut f32, value: Self::F32);
    /// Reads `LANES` pairs.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_bf16_pairs(self, from: *const bf16) -> Self::Bf16Pairs;
    /// Reads `LANES` f16 and widens them.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_f16(self, from: *const f16) -> Self::F32;
    /// Rounds to bf16 (nearest even) and writes `LANES` of them.
    ///
    /// # Safety
    /// They are writable.
    unsafe fn store_bf16(self, to: *mut bf16, value: Self::F32);

    /// Asks for the cache line at `address`, which need not be valid.
    fn prefetch(self, address: *const u8);

    /// Sum of the lanes, in a fixed order.
    #[inline(always)]
    fn reduce_sum(self, value: Self::F32) -> f32 {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: a vector has at most MAX_LANES lanes.
        unsafe { self.store(lanes.as_mut_ptr(), value) };
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
        }
        lanes[0]
    }

    /// Largest lane.
    #[inline(always)]
    fn reduce_max(self, value: Self::F32) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
        // SAFETY: a vector has at most MAX_LANES lanes.
        unsafe { self.store(lanes.as_mut_ptr(), value) };
        let mut max = lanes[0];
        for lane in &lanes[1..] {
            max = if *lane > max { *lane } else { max };
        }
        max
    }
}

/// An instruction set that was found on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Dispatch(Isa);

impl Dispatch {
    /// Checks that this machine has `isa`.
    ///
    /// # Errors
    /// `Unsupported`, listing what the machine has.
    pub fn new(isa: Isa) -> Result<Self> {
        if isa.is_supported() {
            return Ok(Self(isa));
        }
        Err(Error::unsupported("this machine lacks the instruction set")
            .with_expected(Isa::supported_names(), isa))
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.0
    }

    /// Whether bf16 matrices are multiplied on tiles.
    pub fn has_tiles(self) -> bool {
        self.0.has_tiles()
    }

    /// Runs the kernel's version for this instruction set; holds this thread's tiles meanwhile, so kernels do not nest.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Isa::Portable => kernel.run(portable::Portable(NoTiles)),
            #[cfg(test)]
            Isa::PortableTiles => {
                let _configured = Configured::new(emulated::Emulated);
                kernel.run(portable::Portable(emulated::Emulated))
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` detected AVX2, FMA and F16C.
            Isa::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` detected AVX-512 F, BW, DQ and VL.
            Isa::Avx512 => unsafe { avx512::run(NoTiles, kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` detected AVX-512 F, BW, DQ, VL and BF16.
            Isa::Avx512Bf16 => unsafe { avx512::run_bf16(NoTiles, kernel) },
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                let Some(unit) = amx::unit() else { unreachable!("`new` found the unit") };
                let _configured = Configured::new(unit);
                // SAFETY: `new` detected AVX-512 F, BW, DQ, VL and BF16 beside the unit.
                unsafe { avx512::run_bf16(unit, kernel) }
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => kernel.run(portable::Portable(NoTiles)),
        }
    }
}

#[cfg(test)]
mod tests;
