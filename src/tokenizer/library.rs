//! Calls into the `tokenizers` crate, which panics on some hostile files.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// Runs `call`; its error or panic becomes an [`InvalidData`](crate::ErrorKind::InvalidData) error.
///
/// What `call` borrows must not be used after an error; all callers drop it or only read it.
pub(super) fn call<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::invalid_data("the tokenizer is malformed").with_source(error)),
        Err(_) => Err(Error::invalid_data("the tokenizer is malformed: its definition contradicts itself")),
    }
}
