//! Why a request has no answer, told apart by what to do about it.

use super::{Attempt, Usage};
use crate::error::Error;

/// What kind of failure it is, after all tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The key is missing or wrong, or may not use this model: every request will fail the same way.
    Authentication,
    /// Credit, quota or a spend limit is exhausted: every request will fail the same way.
    Quota,
    /// The model does not exist there: every request will fail the same way.
    UnknownModel,
    /// The prompt, or the prompt with room for the answer, is longer than the model's context.
    ContextOverflow,
    /// The server refuses this request for another reason that a repetition will not change.
    Rejected,
    /// Too many requests, until the last try.
    RateLimited,
    /// The server failed or was overloaded, until the last try.
    Server,
    /// No connection, no answer in time, or an answer that broke off, until the last try.
    Network,
    /// An answer that is not what the protocol says.
    Protocol,
}

/// A request that failed.
#[derive(Debug)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The message with status, the provider's code and words, and what the user can do; without secrets.
    pub error: Error,
    /// Every try.
    pub attempts: Vec<Attempt>,
    /// What the tries may have been billed.
    pub usage: Usage,
}
