//! Random weights for benchmarks: any configuration runs without a checkpoint.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use half::{bf16, f16};

use super::TensorSource;
use crate::backend::{DType, HostTensor};
use crate::error::Result;

/// Values of a scale that keeps activations finite, the same for the same name in every run.
#[derive(Debug)]
pub struct RandomWeights {
    dtype: DType,
}

impl RandomWeights {
    /// A source of tensors of this dtype.
    pub fn new(dtype: DType) -> Self {
        Self { dtype }
    }
}

impl TensorSource for RandomWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        // An odd state never becomes zero, which xorshift could not leave.
        let mut state = hasher.finish() | 1;
        let len: usize = shape.iter().product();
        // Norms are one dimensional and sit around 1; the variance of a projection's output is that of its input.
        let (center, width) = match shape {
            [_] => (1.0, 0.1),
            _ => (0.0, (12.0 / shape[shape.len() - 1] as f32).sqrt()),
        };
        let mut bytes = Vec::with_capacity(len * self.dtype.size());
        for _ in 0..len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let uniform = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            let value = center + width * uniform;
            match self.dtype {
                DType::F32 => bytes.extend(value.to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
            }
        }
        HostTensor::new(self.dtype, shape.to_vec(), Cow::Owned(bytes))
    }
}
