//! Lists of numbers that kernels use as addresses: their largest value is known on the host, so that a launch can refuse what would reach outside.

use std::sync::Arc;

use super::buffer::{Buffer, Stored, Vector};
use super::launcher::Launcher;
use super::sequences::store;
use crate::error::{Error, Result};

/// Numbers of rows, tokens (`i32`) or cache slots (`i64`) in device memory.
#[derive(Debug)]
pub struct Indices {
    buffer: Buffer,
    len: usize,
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
        let mut indices = Self { buffer: Buffer::new(launcher, T::ELEMENT, values.len())?, len: 0, end: 0 };
        indices.fill(launcher, values)?;
        Ok(indices)
    }

    /// Replaces them, in the same memory when they fit.
    ///
    /// # Errors
    /// As [`Indices::new`].
    pub fn fill<T: Index>(&mut self, launcher: &Arc<dyn Launcher>, values: &[T]) -> Result<()> {
        let mut end = 0;
        for (position, &value) in values.iter().enumerate() {
            let value: usize = value.try_into().map_err(|_| {
                Error::invalid_argument(format!("index {position} of a list for the device"))
                    .with_expected("0 or more", "a negative number")
            })?;
            end = end.max(value + 1);
        }
        store(launcher, &mut self.buffer, values)?;
        (self.len, self.end) = (values.len(), end);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the largest.
    pub fn end(&self) -> usize {
        self.end
    }

    /// As kernels get them.
    pub(super) fn vector(&self) -> Vector<'_> {
        self.buffer.vector()
    }
}
