//! Exclusive use of a handle: a second thread that enters at the same time is told so instead of corrupting it.

use std::sync::{Mutex, MutexGuard, TryLockError};

use crate::error::{Error, ErrorKind, Result};

/// State that one thread at a time may use.
#[derive(Debug, Default)]
pub(super) struct Exclusive<T>(Mutex<T>);

impl<T> Exclusive<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Enters without waiting.
    ///
    /// # Errors
    /// `Busy` while another thread is inside; `what` names the object.
    pub(super) fn enter(&self, what: &str) -> Result<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Ok(guard),
            // The thread that panicked was given an error already.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Busy, format!("{what} is in use by another thread")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_user_is_refused_until_the_first_has_left() {
        let exclusive = Exclusive::new(1);
        let guard = exclusive.enter("the job").unwrap();
        let error = exclusive.enter("the job").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        drop(guard);
        assert_eq!(*exclusive.enter("the job").unwrap(), 1);
    }
}
