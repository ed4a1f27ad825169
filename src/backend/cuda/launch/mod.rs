//! One function a kernel: it checks every shape, stride, address and index, says which value is wrong, and launches.
//!
//! What a kernel computes is said in `kernels/params.h`; all memory views come from [`super::Buffer`]s, so a launch that passes its checks stays inside.

mod attention_decode;
mod attention_prefill;
mod bias_add;
mod cache;
mod embedding;
mod gather_rows;
mod linear_skinny;
mod rms_norm;
mod rotary_append;
mod sample;
mod silu_mul;
#[cfg(test)]
mod tests;

pub use attention_decode::{AttentionDecode, DecodeWorkspace, MAX_DECODE_ROWS, attention_decode};
pub use attention_prefill::{AttentionPrefill, PrefillKernel, PrefillTiles, attention_prefill};
pub use bias_add::bias_add;
pub use cache::{Cache, CacheMaps, KvScales};
pub use embedding::embedding;
pub use gather_rows::gather_rows;
pub use linear_skinny::{LinearSkinny, MAX_SKINNY_ROWS, SkinnyWorkspace, linear_skinny};
pub use rms_norm::{RmsNorm, rms_norm};
pub use rotary_append::{QkNormWeights, RotaryAppend, rotary_append};
pub use sample::{Sample, SampleWorkspace, sample};
pub use silu_mul::silu_mul;

use super::buffer::Element;
use super::geometry::Kernel;
use super::launcher::{Launcher, ParamsRef};
use super::params::Params;
use crate::backend::DType;
use crate::error::{Error, Result};

/// The largest number that kernels' 32-bit fields hold.
const MOST: usize = i32::MAX as usize;

/// Blocks in the second and third dimension of a grid.
const MOST_GRID_Y: usize = 65_535;

/// The 16-bit type of an argument, which names the entry.
fn half_type(operation: &str, argument: &str, element: Element) -> Result<DType> {
    match element {
        Element::Float(dtype @ (DType::BF16 | DType::F16)) => Ok(dtype),
        other => Err(Error::invalid_argument(format!("{operation}: {argument}"))
            .with_expected("elements of bf16 or f16", other)),
    }
}

/// Launches a kernel whose parameters have been checked.
///
/// # Safety
/// All that the kernel reaches through `params` lies in live memory of `launcher`.
unsafe fn start<P: Params>(
    launcher: &dyn Launcher,
    kernel: Kernel,
    grid: [usize; 3],
    params: &P,
) -> Result<()> {
    let grid = grid.map(|blocks| blocks as u32);
    // SAFETY: by this function's contract.
    unsafe { launcher.launch(kernel, kernel.block(), grid, ParamsRef::new(params)) }
}
