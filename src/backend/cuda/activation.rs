//! Activation matrices in device memory.

use std::sync::Arc;

use half::{bf16, f16};

use super::buffer::{Buffer, Element, Matrix};
use super::launcher::Launcher;
use crate::backend::DType;
use crate::error::{Error, Result};

/// Elements that rows begin at multiples of: what one vector access takes of a 2-byte type.
const ROW_ALIGNMENT: usize = 8;

/// An activation matrix `[rows, cols]`, row-major.
#[derive(Debug)]
pub struct CudaActivation {
    buffer: Buffer,
    dtype: DType,
    rows: usize,
    cols: usize,
    row_stride: usize,
    /// Of a matrix that is read.
    host: Option<HostCopy>,
}

/// A matrix on its way to the host; memory that is never written to is never taken.
#[derive(Debug)]
struct HostCopy {
    /// As on the device.
    bytes: Vec<u8>,
    /// `[rows, cols]`.
    values: Vec<f32>,
}

impl CudaActivation {
    /// A zeroed matrix.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(launcher: &Arc<dyn Launcher>, dtype: DType, rows: usize, cols: usize) -> Result<Self> {
        let row_stride = cols.next_multiple_of(ROW_ALIGNMENT);
        let buffer = Buffer::zeroed(launcher, Element::Float(dtype), rows.saturating_mul(row_stride))?;
        Ok(Self { buffer, dtype, rows, cols, row_stride, host: None })
    }

    /// The same with room on the host to read it.
    pub(super) fn readable(self) -> Self {
        let bytes = vec![0; self.buffer.bytes()];
        let values = vec![0.0; self.rows * self.cols];
        Self { host: Some(HostCopy { bytes, values }), ..self }
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    /// The first `rows` rows.
    pub(super) fn matrix(&self, rows: usize) -> Result<Matrix<'_>> {
        self.buffer.matrix(0, rows, self.cols, self.row_stride)
    }

    /// Some columns of the first `rows` rows.
    pub(super) fn columns(&self, rows: usize, cols: usize) -> Result<Matrix<'_>> {
        self.buffer.matrix(0, rows, cols, self.row_stride)
    }

    /// The first `rows` rows on the host, once all work before has been done.
    pub(super) fn read(&mut self, rows: usize) -> Result<&[f32]> {
        let Some(host) = &mut self.host else {
            return Err(Error::internal("an activation that is not for the host to read"));
        };
        let row_bytes = self.row_stride * self.dtype.size();
        let bytes = &mut host.bytes[..rows * row_bytes];
        self.buffer.read_bytes(bytes)?;
        let values = &mut host.values[..rows * self.cols];
        for (values, bytes) in values.chunks_exact_mut(self.cols).zip(bytes.chunks_exact(row_bytes)) {
            widen(self.dtype, bytes, values);
        }
        Ok(values)
    }
}

/// The numbers that `bytes` begin with.
fn widen(dtype: DType, bytes: &[u8], values: &mut [f32]) {
    let halves = bytes.as_chunks::<2>().0;
    match dtype {
        DType::BF16 => values.iter_mut().zip(halves).for_each(|(v, b)| *v = bf16::from_le_bytes(*b).to_f32()),
        DType::F16 => values.iter_mut().zip(halves).for_each(|(v, b)| *v = f16::from_le_bytes(*b).to_f32()),
        DType::F32 => {
            values.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
        }
    }
}
