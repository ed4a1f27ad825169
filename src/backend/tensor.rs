//! A tensor on the host as a checkpoint holds it: a dtype, a shape and little-endian bytes.

use std::borrow::Cow;

use half::{bf16, f16};

use super::DType;
use crate::error::{Error, Result};

/// A dense row-major tensor in host memory, borrowed from a mapped checkpoint or owned after a conversion.
///
/// The bytes are little-endian and need not be aligned to the element size.
#[derive(Debug, Clone)]
pub struct HostTensor<'a> {
    dtype: DType,
    shape: Vec<usize>,
    data: Cow<'a, [u8]>,
}

impl<'a> HostTensor<'a> {
    /// A tensor over `data`.
    ///
    /// # Errors
    /// `InvalidData` when the byte length is not the shape's element count times the element size.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Cow<'a, [u8]>) -> Result<Self> {
        let bytes = shape.iter().try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim));
        if bytes != Some(data.len()) {
            return Err(Error::invalid_data("a tensor's byte length does not match its shape")
                .with_expected(format_args!("{dtype} {shape:?}"), format_args!("{} bytes", data.len())));
        }
        Ok(Self { dtype, shape, data })
    }

    /// An owned f32 tensor; panics never, errors when the lengths disagree.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<HostTensor<'static>> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        HostTensor::new(DType::F32, shape, Cow::Owned(bytes))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The raw little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Rows and columns of a matrix; a vector is one row.
    ///
    /// # Errors
    /// `InvalidData` for other ranks.
    pub fn rows_cols(&self) -> Result<(usize, usize)> {
        match self.shape[..] {
            [cols] => Ok((1, cols)),
            [rows, cols] => Ok((rows, cols)),
            _ => Err(Error::invalid_data("expected a matrix")
                .with_expected("rank 2", format_args!("{:?}", self.shape))),
        }
    }

    /// Converts elements `start .. start + out.len()` to f32.
    pub fn read_f32(&self, start: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        let bytes = &self.data[start * size..(start + out.len()) * size];
        match self.dtype {
            DType::F32 => {
                for (out, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*b);
                }
            }
            DType::F16 => {
                for (out, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f16::from_le_bytes(*b).to_f32();
                }
            }
            DType::BF16 => {
                for (out, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.read_f32(0, &mut out);
        out
    }
}
