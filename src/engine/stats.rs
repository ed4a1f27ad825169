//! Counters of an engine.

/// What an engine has done and what it is doing, as of the end of its last step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Steps run.
    pub steps: u64,
    /// Prompt tokens computed; those computed again after a preemption count again.
    pub prompt_tokens: u64,
    /// Prompt tokens that were found in the KV cache instead; those found again after a preemption count again.
    pub cached_tokens: u64,
    /// Tokens generated, EOS included.
    pub generated_tokens: u64,
    /// Tokens guessed by prompt lookup.
    pub drafted_tokens: u64,
    /// Guessed tokens that were right.
    pub accepted_tokens: u64,
    /// Times that a sequence lost its KV blocks to an older one.
    pub preemptions: u64,
    /// Sequences that hold KV blocks.
    pub running: usize,
    /// Sequences that wait for KV blocks.
    pub waiting: usize,
    /// KV blocks that nobody holds.
    pub free_blocks: usize,
    /// Those of the free blocks that keep a prefix for later prompts.
    pub cached_blocks: usize,
    /// KV blocks in all.
    pub num_blocks: usize,
}

impl EngineStats {
    /// Share of the prompt tokens that were found in the KV cache, 0 to 1.
    pub fn cache_hit_rate(&self) -> f64 {
        let all = self.cached_tokens + self.prompt_tokens;
        if all == 0 { 0.0 } else { self.cached_tokens as f64 / all as f64 }
    }
}
