//! Linear layers and norms in device memory, converted to the model's type on their way there.

use std::sync::Arc;

use half::{bf16, f16};

use super::buffer::{Buffer, Element, Matrix, Vector};
use super::launcher::Launcher;
use crate::backend::{DType, HostTensor};
use crate::error::{Error, Result};

/// Elements that are converted at a time.
const CHUNK: usize = 1 << 20;

/// Elements that one vector access takes of a 2-byte type: rows of weights are multiples of it.
const VECTOR_ELEMENTS: usize = 8;

/// A linear layer `[out_features, in_features]` with its optional bias.
#[derive(Debug)]
pub struct CudaLinear {
    weight: Buffer,
    bias: Option<Buffer>,
    out_features: usize,
    in_features: usize,
}

/// A norm's weight.
#[derive(Debug)]
pub struct CudaVector(Buffer);

impl CudaLinear {
    /// Uploads `weights`, stacked along their rows, and their biases, likewise.
    ///
    /// # Errors
    /// `InvalidData` when widths differ or the biases do not cover the rows, `Unsupported` for a width that kernels cannot read, `OutOfMemory`,
    /// `Device`.
    pub(super) fn load(
        launcher: &Arc<dyn Launcher>,
        dtype: DType,
        weights: &[HostTensor<'_>],
        bias: &[HostTensor<'_>],
    ) -> Result<Self> {
        let shapes = weights.iter().map(HostTensor::rows_cols).collect::<Result<Vec<_>>>()?;
        let in_features = shapes.first().map_or(0, |shape| shape.1);
        let out_features = shapes.iter().map(|shape| shape.0).sum();
        if out_features == 0 || in_features == 0 || shapes.iter().any(|shape| shape.1 != in_features) {
            return Err(Error::invalid_data("cannot stack the weights of a linear layer")
                .with_expected("matrices of one width, none empty", format_args!("{shapes:?}")));
        }
        if !in_features.is_multiple_of(VECTOR_ELEMENTS) {
            return Err(Error::unsupported("a linear layer of this width does not run on CUDA devices")
                .with_expected(format_args!("a multiple of {VECTOR_ELEMENTS}"), in_features)
                .with_hint("use --device cpu"));
        }
        let bias_len: usize = bias.iter().map(HostTensor::len).sum();
        if !bias.is_empty() && bias_len != out_features {
            return Err(Error::invalid_data("the bias of a linear layer does not match its weight")
                .with_expected(format_args!("{out_features} elements"), bias_len));
        }
        Ok(Self {
            weight: upload(launcher, dtype, weights)?,
            bias: if bias.is_empty() { None } else { Some(upload(launcher, dtype, bias)?) },
            out_features,
            in_features,
        })
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.out_features, self.in_features)
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, Buffer::bytes)
    }

    /// `[out_features, in_features]`.
    pub(super) fn weight(&self) -> Result<Matrix<'_>> {
        self.weight.matrix(0, self.out_features, self.in_features, self.in_features)
    }

    /// `[out_features]`.
    pub(super) fn bias(&self) -> Option<Vector<'_>> {
        self.bias.as_ref().map(Buffer::vector)
    }
}

impl CudaVector {
    /// Uploads a norm's weight.
    ///
    /// # Errors
    /// `OutOfMemory`, `Device`.
    pub(super) fn load(launcher: &Arc<dyn Launcher>, dtype: DType, weight: &HostTensor<'_>) -> Result<Self> {
        upload(launcher, dtype, std::slice::from_ref(weight)).map(Self)
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// `[n]`.
    pub(super) fn vector(&self) -> Vector<'_> {
        self.0.vector()
    }
}

/// The elements of all tensors in `dtype`, one after the other.
fn upload(launcher: &Arc<dyn Launcher>, dtype: DType, tensors: &[HostTensor<'_>]) -> Result<Buffer> {
    let len = tensors.iter().map(HostTensor::len).sum();
    let buffer = Buffer::new(launcher, Element::Float(dtype), len)?;
    let mut offset = 0;
    for tensor in tensors {
        if tensor.dtype() == dtype {
            buffer.write_bytes(offset, tensor.bytes())?;
            offset += tensor.bytes().len();
            continue;
        }
        let mut values = vec![0.0; CHUNK.min(tensor.len())];
        let mut converted = Vec::with_capacity(values.len() * dtype.size());
        for start in (0..tensor.len()).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(tensor.len() - start)];
            tensor.read_f32(start, values);
            converted.clear();
            narrow(dtype, values, &mut converted);
            buffer.write_bytes(offset, &converted)?;
            offset += converted.len();
        }
    }
    Ok(buffer)
}

/// Appends `values` as the device stores them.
fn narrow(dtype: DType, values: &[f32], bytes: &mut Vec<u8>) {
    match dtype {
        DType::BF16 => bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
        DType::F16 => bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
        DType::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
}
