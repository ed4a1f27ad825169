//! Linear layers with 8-bit weights: exact integer products within a group of inputs, scaled and summed in f32.
//!
//! Inputs are quantized row by row, in the same groups of [`GROUP_LEN`](crate::backend::quantization::GROUP_LEN) along k as
//! the weights, when the layer is called. A row's result is one chain of multiply-adds over its groups in ascending order,
//! whatever rows are multiplied with it.
//!
//! | module | holds |
//! | --- | --- |
//! | `simd` | the integer dot product of each instruction set |
//! | `weights`, `inputs` | both operands as they lie in memory |
//! | `multiply`, `tile_product` | the product of one panel, on vectors and on tiles |
//! | `linear` | the operation on all threads |
//! | `peak` | what the dot product could do at best |

mod inputs;
mod linear;
mod multiply;
mod peak;
mod simd;
mod tile_product;
mod weights;

pub use linear::{Int8Linear, THREAD_SCRATCH, input_bytes};
pub use peak::ByteChains;
pub use simd::ByteDispatch;
pub use weights::Int8Weights;

#[cfg(test)]
mod tests;
