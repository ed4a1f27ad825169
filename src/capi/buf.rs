//! Buffers: text that the library hands to the caller.

use std::ffi::c_char;

use super::boundary::enter_infallible;

/// Text owned by the caller, UTF-8, followed by a NUL that `len` does not count; it may hold NULs itself. Free it with
/// swebench_buf_free(). This struct is frozen: it never changes.
#[repr(C)]
#[derive(Debug)]
pub struct Buf {
    /// First byte; never NULL in a buffer that the library has written.
    pub ptr: *mut c_char,
    /// Length in bytes, without the final NUL.
    pub len: usize,
    /// For the library's use.
    pub reserved: usize,
}

impl Buf {
    /// Moves `text` to the heap for the caller; `reserved` keeps the size of the allocation.
    pub(super) fn new(text: impl Into<String>) -> Self {
        let mut bytes = text.into().into_bytes();
        let len = bytes.len();
        bytes.push(0);
        let bytes = Box::leak(bytes.into_boxed_slice());
        Self { reserved: bytes.len(), ptr: bytes.as_mut_ptr().cast(), len }
    }
}

/// Frees a buffer and empties the struct, so that freeing it again is harmless. NULL and `{NULL, 0, 0}` are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_buf_free(buf: *mut Buf) {
    enter_infallible((), || {
        // SAFETY: NULL or a struct that the caller owns, by contract.
        let Some(buf) = (unsafe { buf.as_mut() }) else { return };
        if !buf.ptr.is_null() {
            let bytes = std::ptr::slice_from_raw_parts_mut(buf.ptr.cast::<u8>(), buf.reserved);
            // SAFETY: pointer and size are those that `Buf::new` leaked; the struct is emptied below.
            drop(unsafe { Box::from_raw(bytes) });
        }
        *buf = Buf { ptr: std::ptr::null_mut(), len: 0, reserved: 0 };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_terminated_and_freed_once() {
        let mut buf = Buf::new("patch");
        // SAFETY: the buffer was made here.
        unsafe {
            assert_eq!(std::slice::from_raw_parts(buf.ptr.cast::<u8>(), buf.len + 1), b"patch\0");
            swebench_buf_free(&raw mut buf);
            assert!(buf.ptr.is_null());
            swebench_buf_free(&raw mut buf);
            swebench_buf_free(std::ptr::null_mut());
        }
    }
}
