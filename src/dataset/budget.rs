//! Bounds on what a data file may become in memory: what a small hostile file can cost is limited.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, Result};

/// Real columns compress at most tenfold; a dictionary of one long string repeated for ever has no bound.
const MAX_EXPANSION: u64 = 100;
const ALWAYS_ALLOWED: u64 = 256 << 20;

/// Bytes that the rows of one file may still take.
pub(super) struct ExpansionBudget {
    left: u64,
}

impl ExpansionBudget {
    /// The budget of a file of `file_len` bytes.
    pub(super) fn for_file(file_len: u64) -> Self {
        Self { left: file_len.saturating_mul(MAX_EXPANSION).max(ALWAYS_ALLOWED) }
    }

    /// Takes `bytes` of it.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Error::invalid_data(format!("the file expands to more than {MAX_EXPANSION} times its size"))
        })?;
        Ok(())
    }
}

/// Runs a decoder of another crate over a file that may be corrupt, and turns its panics into errors.
pub(super) fn guard_decoder<T>(path: &Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|payload| {
        let reason = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Err(Error::invalid_data(format!("the file is corrupt: its decoder gave up ({reason})"))
            .with_path(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_budget_is_spent_once() {
        let mut budget = ExpansionBudget::for_file(10);
        budget.charge(ALWAYS_ALLOWED - 1).unwrap();
        budget.charge(1).unwrap();
        assert_eq!(budget.charge(1).unwrap_err().kind(), ErrorKind::InvalidData);

        let mut large = ExpansionBudget::for_file(ALWAYS_ALLOWED);
        large.charge(ALWAYS_ALLOWED * MAX_EXPANSION).unwrap();
        large.charge(1).unwrap_err();
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_reason() {
        let error =
            guard_decoder::<()>(Path::new("x.arrow"), || panic!("offset {} is past the end", 7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("offset 7 is past the end"), "{error}");
    }
}
