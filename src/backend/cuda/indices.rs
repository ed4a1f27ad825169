//! Lists of numbers that kernels use as addresses: their largest value is known on the host, so that a launch can refuse what would reach outside.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buffer, Stored, Vector};
use super::launcher::Launcher;
use super::upload::Upload;
use crate::error::{Error, Result};

/// Numbers of rows, tokens (`i32`) or cache slots (`i64`) in device memory.
#[derive(Debug)]
pub struct Indices {
    buffer: Buffer,
    end: usize,
}

/// The types of indices.
pub trait Index: Stored + TryInto<usize> {}

impl Index for i32 {}
impl Index for i64 {}

impl Indices {
    /// A copy of `values`.
    ///
    /// # Errors
    /// `InvalidArgument` for a negative number, `OutOfMemory`, `Device`.
    pub fn new<T: Index>(launcher: &Arc<dyn Launcher>, values: &[T]) -> Result<Self> {
        let mut upload = Upload::new(launcher, Upload::bytes::<T>(values.len()))?;
        let indices = Self::place(&mut upload, values.len(), values.iter().copied())?;
        upload.send()?;
        Ok(indices)
    }

    /// `len` numbers of an upload, which has to be sent before they are used.
    ///
    /// # Errors
    /// `InvalidArgument` for a negative number or without room.
    pub(super) fn place<T: Index>(
        upload: &mut Upload,
        len: usize,
        values: impl Iterator<Item = T>,
    ) -> Result<Self> {
        let mut end = 0;
        let buffer = upload.place::<T>(len, |list| {
            for (position, (to, value)) in list.iter_mut().zip(values).enumerate() {
                let number: usize = value.try_into().map_err(|_| {
                    Error::invalid_argument(format!("index {position} of a list for the device"))
                        .with_expected("0 or more", "a negative number")
                })?;
                end = end.max(number + 1);
                *to = value;
            }
            Ok(())
        })?;
        Ok(Self { buffer, end })
    }

    /// Some of them.
    ///
    /// # Errors
    /// `InvalidArgument` when they are not all there.
    pub(super) fn part(&self, part: Range<usize>) -> Result<Self> {
        let element = self.buffer.vector().element;
        let buffer = self.buffer.piece(part.start * element.size(), element, part.len())?;
        Ok(Self { buffer, end: self.end })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// More than the largest.
    pub fn end(&self) -> usize {
        self.end
    }

    /// As kernels get them.
    pub(super) fn vector(&self) -> Vector<'_> {
        self.buffer.vector()
    }
}
