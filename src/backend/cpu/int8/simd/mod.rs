//! The vector operations of the 8-bit product, one implementation for each instruction set.
//!
//! A ladder of its own beside [`crate::backend::cpu::simd`]: VNNI comes with and without the bf16 dot product.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::backend::cpu::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::amx;
#[cfg(test)]
use crate::backend::cpu::simd::emulated::Emulated;
use crate::backend::cpu::simd::{Configured, NoTiles, TileUnit};

/// A computation that is compiled once for each instruction set; implementations are `#[inline(always)]`.
pub trait ByteKernel {
    /// Computes.
    fn run<S: ByteSimd>(self, simd: S);
}

/// Proof that an instruction set is there, and vectors of [`ByteSimd::LANES`] 32-bit lanes in it.
///
/// Weights lie in memory as unsigned bytes, offset by 128, as VNNI wants one operand; inputs are signed, -127..=127.
pub trait ByteSimd: Copy {
    /// A vector of i32.
    type I32: Copy;
    /// A vector of f32.
    type F32: Copy;
    /// Four weights along k for each lane, ready to multiply.
    type Quads: Copy;
    /// The unit that multiplies matrices of bytes, or [`TileUnit::PRESENT`] is false.
    type Tiles: TileUnit;

    /// Lanes of a vector: 8 or 16.
    const LANES: usize;
    /// Rows of the largest register tile of two vectors of columns.
    const TILE_ROWS: usize;
    /// Whether [`ByteSimd::load_quads`] takes the offset off the weights; else it stays in the sums.
    const SIGNED_WEIGHTS: bool;

    /// The unit, configured while the kernel runs.
    fn tiles(self) -> Self::Tiles;

    /// All lanes `x`.
    fn splat(self, x: i32) -> Self::I32;
    /// `a + b`.
    fn add(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `acc + Σ weights[lane][i] · inputs[i]` over the four bytes of `inputs`, exactly.
    fn dot(self, acc: Self::I32, weights: Self::Quads, inputs: i32) -> Self::I32;
    /// `acc + (sum · scales) · scale`.
    fn add_scaled(self, acc: Self::F32, sum: Self::I32, scales: Self::F32, scale: f32) -> Self::F32;

    /// Reads four bytes for each lane.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_quads(self, from: *const u8) -> Self::Quads;
    /// Reads `LANES` i32.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_sums(self, from: *const i32) -> Self::I32;
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

    /// Asks for the cache line at `address`, which need not be valid.
    fn prefetch(self, address: *const u8);
}

/// The instruction set of the 8-bit product, found on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteDispatch(ByteIsa);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteIsa {
    Portable,
    #[cfg(test)]
    PortableTiles,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// `Avx512Vnni` with tiles for many rows.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl ByteDispatch {
    /// The best beside `isa`, which this machine has: VNNI with any AVX-512, AVX2 where AVX-512 comes without it.
    pub fn beside(isa: Isa) -> Self {
        assert!(isa.is_supported(), "{isa} was to be detected before");
        #[cfg(target_arch = "x86_64")]
        {
            if isa >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni") {
                return Self(if isa == Isa::Amx { ByteIsa::Amx } else { ByteIsa::Avx512Vnni });
            }
            if isa >= Isa::Avx2 {
                return Self(ByteIsa::Avx2);
            }
        }
        #[cfg(test)]
        if isa == Isa::PortableTiles {
            return Self(ByteIsa::PortableTiles);
        }
        Self(ByteIsa::Portable)
    }

    /// Whether many rows are multiplied on tiles.
    pub fn has_tiles(self) -> bool {
        match self.0 {
            #[cfg(test)]
            ByteIsa::PortableTiles => true,
            #[cfg(target_arch = "x86_64")]
            ByteIsa::Amx => true,
            _ => false,
        }
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self.0 {
            ByteIsa::Portable => "portable",
            #[cfg(test)]
            ByteIsa::PortableTiles => "portable-tiles",
            #[cfg(target_arch = "x86_64")]
            ByteIsa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            ByteIsa::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            ByteIsa::Amx => "amx",
        }
    }

    /// Runs the kernel's version for this instruction set; holds this thread's tiles meanwhile, so kernels do not nest.
    pub fn run<K: ByteKernel>(self, kernel: K) {
        match self.0 {
            ByteIsa::Portable => kernel.run(portable::Portable(NoTiles)),
            #[cfg(test)]
            ByteIsa::PortableTiles => {
                let _configured = Configured::new(Emulated);
                kernel.run(portable::Portable(Emulated));
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `beside` takes an instruction set that was detected and has AVX2 and FMA.
            ByteIsa::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `beside` detected VNNI, with an instruction set that has AVX-512 F, BW, DQ and VL.
            ByteIsa::Avx512Vnni => unsafe { avx512::run(NoTiles, kernel) },
            #[cfg(target_arch = "x86_64")]
            ByteIsa::Amx => {
                let Some(unit) = amx::unit() else { unreachable!("`beside` takes what the machine has") };
                let _configured = Configured::new(unit);
                // SAFETY: as for VNNI alone.
                unsafe { avx512::run(unit, kernel) }
            }
        }
    }
}
