//! A step's lists on their way to the device: side by side in host memory, sent by one copy.

use std::slice;
use std::sync::Arc;

use super::buffer::{Buffer, Element, Stored};
use super::launcher::Launcher;
use crate::error::{Error, Result};

/// Every list begins at a multiple of this, for kernels read 16 bytes at a time.
const ALIGNMENT: usize = 16;

/// Memory for lists of several types, on the host and on the device.
///
/// [`Upload::place`] gives out pieces of the device's memory before [`Upload::send`] has filled them: who places lists sends them before a kernel
/// reads them, and forgets the pieces of one step before the lists of the next are placed.
#[derive(Debug)]
pub(super) struct Upload {
    device: Buffer,
    /// In units that are aligned for every [`Stored`] type.
    host: Vec<u64>,
    used: usize,
}

impl Upload {
    /// Bytes that a list takes.
    pub(super) fn bytes<T: Stored>(len: usize) -> usize {
        (len * size_of::<T>()).next_multiple_of(ALIGNMENT)
    }

    /// Room for lists of `bytes` bytes in all.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(launcher: &Arc<dyn Launcher>, bytes: usize) -> Result<Self> {
        let words = bytes.div_ceil(size_of::<u64>());
        Ok(Self { device: Buffer::new(launcher, Element::U64, words)?, host: vec![0; words], used: 0 })
    }

    /// Bytes of either memory.
    pub(super) fn capacity(&self) -> usize {
        self.device.bytes()
    }

    /// Forgets all lists.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// A list of `len` elements that `fill` writes; they begin as anything.
    ///
    /// # Errors
    /// `fill`'s, and `InvalidArgument` when there is no room.
    pub(super) fn place<T: Stored>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<Buffer> {
        let end = self.used + Self::bytes::<T>(len);
        let room = size_of_val(&self.host[..]);
        if end > room {
            return Err(Error::invalid_argument("a step's lists for the device")
                .with_expected(format_args!("at most {room} bytes"), end));
        }
        // SAFETY: the list lies in `host`, aligned for its type, and every bit pattern of a `Stored` type is a value.
        let values = unsafe {
            let start = self.host.as_mut_ptr().cast::<u8>().add(self.used);
            slice::from_raw_parts_mut(start.cast::<T>(), len)
        };
        fill(values)?;
        let piece = self.device.piece(self.used, T::ELEMENT, len)?;
        self.used = end;
        Ok(piece)
    }

    /// A list of `values`.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no room.
    pub(super) fn place_slice<T: Stored>(&mut self, values: &[T]) -> Result<Buffer> {
        self.place(values.len(), |list| {
            list.copy_from_slice(values);
            Ok(())
        })
    }

    /// Copies all lists to the device.
    ///
    /// # Errors
    /// `Device`.
    pub(super) fn send(&self) -> Result<()> {
        // SAFETY: plain numbers, all of them initialised.
        let bytes = unsafe { slice::from_raw_parts(self.host.as_ptr().cast(), self.used) };
        self.device.write_bytes(0, bytes)
    }
}
