//! Errors of the library, copied out of its objects.

use std::fmt;

use super::sys::{self, swebench_error};
use super::{borrow, copy};

/// The result of calls into the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, Clone)]
pub struct Error {
    code: i32,
    message: String,
    json: String,
}

impl Error {
    /// Takes over an error object; NULL gives an error that only knows its status.
    pub(super) fn take(code: i32, object: *mut swebench_error) -> Self {
        if object.is_null() {
            return Self { code, message: format!("status {code}"), json: "{}".into() };
        }
        // SAFETY: a live error object, freed once, below.
        unsafe {
            let message = borrow(sys::swebench_error_message(object)).to_owned();
            let json = copy(sys::swebench_error_json(object));
            sys::swebench_error_free(object);
            Self { code, message, json }
        }
    }

    /// The status, `SWEBENCH_ERROR_*`.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The details: `kind`, `message`, `line`, `causes` and, when known, `path`, `expected`, `got`, `hint`.
    pub fn json(&self) -> &str {
        &self.json
    }
}

impl fmt::Display for Error {
    /// The message with its causes on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
