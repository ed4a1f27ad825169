//! Why a request has no answer, told apart by what to do about it.

use super::{Attempt, Usage};
use crate::error::{Error, ErrorKind};

/// What kind of failure it is, after all tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The key is missing or wrong, or may not use this model: every request will fail the same way.
    Authentication,
    /// Credit, quota or a spend limit is exhausted: every request will fail the same way.
    Quota,
    /// The model does not exist there: every request for it will fail the same way.
    UnknownModel,
    /// The address is not one of this protocol, nobody's, or nobody's who can be trusted: every request will fail the same way.
    WrongAddress,
    /// The server takes none of these requests, each of the first ones being refused: every request will fail the same way.
    Misconfigured,
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

impl FailureKind {
    /// Whether every further request for the model will fail the same way, so that a run should end.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Authentication
                | Self::Quota
                | Self::UnknownModel
                | Self::WrongAddress
                | Self::Misconfigured
        )
    }

    /// Whether a repetition may succeed.
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Server | Self::Network)
    }

    /// The kind in the library's error.
    pub(super) fn error_kind(self) -> ErrorKind {
        match self {
            Self::Authentication | Self::Misconfigured | Self::ContextOverflow | Self::Rejected => {
                ErrorKind::InvalidArgument
            }
            Self::UnknownModel | Self::WrongAddress => ErrorKind::NotFound,
            Self::Quota | Self::RateLimited | Self::Server | Self::Network | Self::Protocol => {
                ErrorKind::Network
            }
        }
    }
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
    /// What is known of the tokens that the tries were billed.
    pub usage: Usage,
    /// Tries that may have been billed without a full account in `usage`.
    pub unmetered: u32,
}

impl Failure {
    /// Whether the server may have done what was asked all the same: it did not say no.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self.kind, FailureKind::Server | FailureKind::Network | FailureKind::Protocol)
    }

    /// A request that was never sent.
    pub(super) fn unsent(kind: FailureKind, error: Error) -> Self {
        Self { kind, error, attempts: Vec::new(), usage: Usage::default(), unmetered: 0 }
    }
}
