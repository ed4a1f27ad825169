//! What a caller asks for and what it gets back.

use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; of equal logits the lowest id is taken.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Only the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Same seed, same text, whatever else runs; `None` takes a seed from the system.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: None }
    }
}

/// When a generation ends, apart from the context's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRules {
    /// Most tokens to generate, at least one; the context's end may come first.
    pub max_new_tokens: usize,
    /// Token ids that end the text and are not part of it; the model's EOS ids.
    pub eos_token_ids: Vec<u32>,
    /// Strings that end the text and are not part of it, found across token boundaries; none may be empty.
    pub stop_strings: Vec<String>,
    /// Stop when the last 100 generated tokens hold at most this many distinct ones; 0 never.
    pub repetition_distinct: usize,
}

/// One generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Sampling parameters.
    pub sampling: Sampling,
    /// Stop rules.
    pub stop: StopRules,
    /// Record the logprob of every generated token, with this many alternatives.
    pub logprobs: Option<usize>,
}

impl Request {
    /// Checks all that does not depend on other requests: `vocab_size` is the model's, and `max_tokens` is the most that
    /// prompt and generated tokens may be together.
    pub(super) fn validate(&self, vocab_size: usize, max_tokens: usize) -> Result<()> {
        let refuse = |what: &str, expected: String, got: String| {
            Err(Error::invalid_argument(what.to_owned()).with_expected(expected, got))
        };
        let Sampling { temperature, top_p, .. } = self.sampling;
        if self.prompt.is_empty() {
            return refuse("the prompt is empty", "at least one token".into(), "none".into());
        }
        if let Some(index) = self.prompt.iter().position(|&token| token as usize >= vocab_size) {
            let got = format!("{} at position {index}", self.prompt[index]);
            return refuse("prompt token outside the vocabulary", format!("ids below {vocab_size}"), got);
        }
        if self.prompt.len() >= max_tokens {
            let expected =
                format!("at most {} tokens, to leave room for one more", max_tokens.saturating_sub(1));
            return refuse("the prompt can never fit", expected, self.prompt.len().to_string()).map_err(
                |error| {
                    error.with_hint(
                        "the limit is the model's context, the one asked for, or what the KV cache holds",
                    )
                },
            );
        }
        if !(temperature.is_finite() && temperature >= 0.0) {
            return refuse("`temperature` is out of range", "0 or more".into(), temperature.to_string());
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("`top_p` is out of range", "more than 0, at most 1".into(), top_p.to_string());
        }
        if self.stop.max_new_tokens == 0 {
            return refuse("`max_new_tokens` is out of range", "at least 1".into(), "0".into());
        }
        if self.stop.stop_strings.iter().any(String::is_empty) {
            return refuse("a stop string is empty", "at least one character".into(), "none".into());
        }
        if let Some(num_top) = self.logprobs.filter(|&num_top| num_top > vocab_size) {
            return refuse("too many `logprobs`", format!("at most {vocab_size}"), num_top.to_string());
        }
        Ok(())
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An EOS token or a stop string.
    Stop,
    /// The token limit or the context's end.
    Length,
    /// The repetition rule.
    Repetition,
    /// Cancelled by its owner.
    Cancelled,
}

impl FinishReason {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Repetition => "repetition",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Natural-log probability of a generated token and of the most probable alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The generated token.
    pub token_id: u32,
    /// Its logprob under the unmodified (temperature 1) distribution.
    pub logprob: f32,
    /// The most probable tokens, best first.
    pub top: Vec<(u32, f32)>,
}

/// Token counts and times of one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of the prompt's tokens that were not computed, as another request had left their keys and values.
    pub cached_tokens: usize,
    /// Tokens generated, EOS included.
    pub completion_tokens: usize,
    /// Milliseconds spent waiting for a place in the batch.
    pub queue_ms: f64,
    /// Milliseconds from the first prefill step to the first token.
    pub prefill_ms: f64,
    /// Milliseconds from the first token to the last.
    pub decode_ms: f64,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The whole text, without EOS and stop string.
    pub text: String,
    /// Generated ids, without EOS; those that made a stop string are kept, as a token may hold text from before it.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One per generated id, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Counts and times.
    pub usage: Usage,
}

/// What a generation reports while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Prefill has advanced to this many of the prompt's tokens.
    Prefill {
        /// Prompt tokens computed.
        done: usize,
        /// Prompt tokens in all.
        total: usize,
    },
    /// New text with the ids that made it; text may lag behind ids until a character is complete.
    Delta {
        /// UTF-8 text, never half a character.
        text: String,
        /// The ids since the last delta.
        token_ids: Vec<u32>,
    },
    /// The last event.
    Finished(Box<Completion>),
}
