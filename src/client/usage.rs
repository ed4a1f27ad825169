//! Token counts that mean the same whatever the provider.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Tokens of one request, or a sum over some.
///
/// OpenAI counts cached tokens within its input, Anthropic beside it; here `input_tokens` is always the whole prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The whole prompt, cached tokens included.
    pub input_tokens: u64,
    /// Of these, tokens that were read from the provider's cache.
    pub cached_tokens: u64,
    /// Of `input_tokens`, tokens that were written to the provider's cache at its surcharge.
    pub cache_write_tokens: u64,
    /// The whole answer, reasoning included.
    pub output_tokens: u64,
    /// Of these, tokens of reasoning that is not in the text.
    pub reasoning_tokens: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(other.cache_write_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
    }
}
