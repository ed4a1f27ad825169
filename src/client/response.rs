//! What came back, in no provider's words.

use std::time::Duration;

use super::Usage;

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done, or met a stop string.
    Stop,
    /// The token limit of the request.
    Length,
    /// The model's context was full.
    ContextWindow,
    /// The model or a filter refused.
    Refusal,
    /// The model called a tool.
    ToolUse,
    /// What else the provider says, in its words.
    Other(String),
}

impl FinishReason {
    /// The word for it in predictions.
    pub fn name(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContextWindow => "context_window",
            Self::Refusal => "refusal",
            Self::ToolUse => "tool_use",
            Self::Other(reason) => reason,
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The text, joined over content blocks; reasoning is left out.
    pub text: String,
    /// Why it ended; `None` where the server does not say.
    pub finish_reason: Option<FinishReason>,
}

/// One try of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The HTTP status; `None` when no answer came.
    pub status: Option<u16>,
    /// What went wrong, without secrets; `None` for the one that succeeded.
    pub error: Option<String>,
    /// From sending to the end of the answer.
    pub duration: Duration,
    /// The wait before the next one.
    pub wait: Duration,
    /// Tokens that were billed for it, as far as is known; each try has a price of its own, because tiers go by one prompt.
    pub usage: Usage,
}

/// A finished request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The answers, as many as were asked for.
    pub choices: Vec<Choice>,
    /// The model that the server says answered.
    pub model: Option<String>,
    /// Tokens, over all answers and all tries that were billed.
    pub usage: Usage,
    /// Tries, successful ones included, that may have been billed without a full account in `usage`.
    pub unmetered: u32,
    /// Every try, the last one succeeded.
    pub attempts: Vec<Attempt>,
}
