//! A linear layer's weights in either form: packed in a dtype, or quantized.

use super::int8::Int8Weights;
use super::weights::PackedLinear;

/// A linear layer `[out_features, in_features]` with its optional bias.
pub enum CpuLinear {
    /// In the backend's dtype.
    Packed(PackedLinear),
    /// In 8-bit integers with scales.
    Int8(Int8Weights),
}

impl CpuLinear {
    /// Columns of the weight.
    pub fn in_features(&self) -> usize {
        match self {
            Self::Packed(weights) => weights.in_features(),
            Self::Int8(weights) => weights.in_features(),
        }
    }

    /// Bytes of memory that the layer takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Packed(weights) => weights.bytes(),
            Self::Int8(weights) => weights.bytes(),
        }
    }

    /// Gathers row `row` of the weight, `[in_features]`: an embedding.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Packed(weights) => weights.read_row(row, out),
            Self::Int8(weights) => weights.read_row(row, out),
        }
    }
}
