//! Zeroed, aligned memory whose failure to be there is an error and not an abort.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};

use crate::error::{Error, ErrorKind, Result};

/// Alignment of every buffer: a cache line and the widest vector.
const ALIGNMENT: usize = 64;
/// From here on a buffer starts at a huge page and asks for huge pages: weights are read in streams, and a TLB miss
/// every 4 KiB costs a tenth of the bandwidth.
const HUGE_PAGE: usize = 2 << 20;

/// Types for which all zero bits are a value.
///
/// # Safety
/// Every bit pattern is valid, and the type has no destructor.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}

/// A zeroed slice of fixed length, aligned to a cache line.
///
/// Large buffers take physical memory when they are first written.
pub struct Buffer<T: Plain> {
    allocation: *mut u8,
    layout: Layout,
    start: *mut T,
    len: usize,
}

// SAFETY: a buffer owns its memory like a Vec.
unsafe impl<T: Plain> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> Buffer<T> {
    /// A buffer of `len` zeros; `what` names it in the error.
    ///
    /// # Errors
    /// `OutOfMemory`, stating the bytes asked for.
    pub fn zeroed(len: usize, what: &str) -> Result<Self> {
        let out_of_memory = |bytes: String| {
            Error::new(ErrorKind::OutOfMemory, format!("cannot allocate {bytes} bytes for {what}"))
        };
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or_else(|| out_of_memory(format!("{len} x {}", size_of::<T>())))?;
        let alignment = if bytes >= 2 * HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        // Aligned by hand: the allocator gives lazily zeroed pages only at its own small alignment, and would touch all
        // pages at a larger one.
        let layout = Layout::array::<u8>(bytes.saturating_add(alignment))
            .and_then(|layout| layout.align_to(align_of::<T>()))
            .map_err(|_| out_of_memory(bytes.to_string()))?;
        // SAFETY: the layout's size is at least the alignment, so it is not zero.
        let allocation = unsafe { alloc_zeroed(layout) };
        if allocation.is_null() {
            return Err(out_of_memory(bytes.to_string()));
        }
        let start = allocation.map_addr(|address| address.next_multiple_of(alignment));
        #[cfg(target_os = "linux")]
        if alignment == HUGE_PAGE {
            // Advice only: its failure changes the speed at most.
            // SAFETY: the range lies within the allocation, which this buffer owns.
            unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { allocation, layout, start: start.cast(), len })
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.allocation, self.layout) };
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements from `start` lie within the allocation, zeroed and of a Plain type.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        for len in [0, 1, 63, 5000, 3 * HUGE_PAGE / 4] {
            let mut buffer = Buffer::<f32>::zeroed(len, "a test").unwrap();
            assert_eq!(buffer.as_ptr().addr() % ALIGNMENT, 0);
            assert!(buffer.len() == len && buffer.iter().all(|&x| x == 0.0));
            buffer.fill(1.0);
        }
    }

    #[test]
    fn too_much_is_an_error() {
        for len in [1 << 50, usize::MAX / 4, usize::MAX] {
            let error = Buffer::<f32>::zeroed(len, "a test").err().unwrap();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        }
    }
}
