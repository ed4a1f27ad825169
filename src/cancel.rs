//! A flag that any thread may raise to stop work that another thread does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Shared by the owner of some work and the threads that do it; clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop; may be called from any thread and more than once.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// `Err` of kind [`ErrorKind::Cancelled`] once cancelled: the check between two pieces of work.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "cancelled")) } else { Ok(()) }
    }

    /// Whether work ended because it was cancelled, which is how its owner wanted it and no failure.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) fn interrupted(&self, outcome: Result<()>) -> Result<bool> {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Cancelled && self.is_cancelled() => Ok(true),
            outcome => outcome.map(|()| false),
        }
    }
}
