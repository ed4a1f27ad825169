//! Text: borrowed UTF-8 with a length.

use std::ffi::{CStr, c_char};

use super::boundary::{enter_infallible, slice};
use crate::error::{Error, Result};

/// Borrowed UTF-8 text, not NUL-terminated. `{NULL, 0}` is the empty text. This struct is frozen: it never changes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Str {
    /// First byte, or NULL when `len` is 0.
    pub ptr: *const c_char,
    /// Length in bytes.
    pub len: usize,
}

impl Str {
    pub(super) const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// Lends `text` to the caller.
    pub(super) fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr().cast(), len: text.len() }
    }

    /// The caller's text; `name` is the parameter, for the message.
    ///
    /// # Safety
    /// A pointer that is not NULL must be valid for reads of `len` bytes during `'a`.
    pub(super) unsafe fn get<'a>(self, name: &str) -> Result<&'a str> {
        // SAFETY: by the contract of this function.
        let bytes = unsafe { slice(self.ptr.cast::<u8>(), self.len, name)? };
        std::str::from_utf8(bytes).map_err(|source| {
            Error::invalid_argument(format!("`{name}` is not valid UTF-8")).with_source(source)
        })
    }
}

/// Borrows a NUL-terminated string as a `swebench_str`; NULL gives the empty text.
///
/// The result lives as long as `text`. Example: `swebench_cstr("{\"path\": \"model\"}")`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_cstr(text: *const c_char) -> Str {
    enter_infallible(Str::EMPTY, || {
        if text.is_null() {
            return Str::EMPTY;
        }
        // SAFETY: not NULL, and NUL-terminated by contract.
        let len = unsafe { CStr::from_ptr(text) }.count_bytes();
        Str { ptr: text, len }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked() {
        let bad = [0xffu8, b'a'];
        // SAFETY: every pointer is NULL or a live array of that length.
        unsafe {
            assert_eq!(Str::EMPTY.get("text").unwrap(), "");
            assert_eq!(Str::new("diff é").get("text").unwrap(), "diff é");
            assert!(Str { ptr: std::ptr::null(), len: 3 }.get("text").is_err());
            let error = Str { ptr: bad.as_ptr().cast(), len: 2 }.get("text").unwrap_err();
            assert!(error.message().contains("UTF-8"));
            assert_eq!(swebench_cstr(c"four".as_ptr()).len, 4);
            assert_eq!(swebench_cstr(std::ptr::null()).len, 0);
        }
    }
}
