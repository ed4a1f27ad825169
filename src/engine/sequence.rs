//! One sequence's context as the scheduler sees it: its tokens and how many of them the KV cache holds.

use super::kv_cache::{BlockPool, BlockTable};

/// Number of a request in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SequenceId(pub(super) u64);

/// Prompt and generated tokens of one request, and their place in the KV cache.
#[derive(Debug)]
pub(super) struct Sequence {
    id: SequenceId,
    tokens: Vec<u32>,
    prompt_len: usize,
    /// How many of `tokens`, from the first, have their keys and values in the cache.
    computed: usize,
    blocks: BlockTable,
    /// A guess of the tokens that come next, for the next step to verify.
    draft: Vec<u32>,
}

impl Sequence {
    /// A sequence of which nothing is computed.
    pub(super) fn new(id: SequenceId, prompt: Vec<u32>) -> Self {
        assert!(!prompt.is_empty(), "a sequence has at least one token");
        Self {
            id,
            prompt_len: prompt.len(),
            tokens: prompt,
            computed: 0,
            blocks: BlockTable::default(),
            draft: Vec::new(),
        }
    }

    /// Its number.
    pub(super) fn id(&self) -> SequenceId {
        self.id
    }

    /// Prompt and generated tokens.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of the prompt.
    pub(super) fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// Tokens in the KV cache.
    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// The tokens that a step has to compute before the next one can be sampled; at least one.
    pub(super) fn pending(&self) -> &[u32] {
        &self.tokens[self.computed..]
    }

    /// Whether one more token is all that the next sample needs.
    pub(super) fn is_decoding(&self) -> bool {
        self.pending().len() == 1
    }

    /// The guess that the next step verifies behind the pending token; only a decoding sequence has one.
    pub(super) fn draft(&self) -> &[u32] {
        &self.draft
    }

    /// Replaces the draft by what `guess` writes, given the tokens so far.
    pub(super) fn set_draft(&mut self, guess: impl FnOnce(&[u32], &mut Vec<u32>)) {
        self.draft.clear();
        guess(&self.tokens, &mut self.draft);
    }

    /// Cuts the draft to at most `len` tokens.
    pub(super) fn truncate_draft(&mut self, len: usize) {
        self.draft.truncate(len);
    }

    /// Blocks of the first `tokens` tokens.
    pub(super) fn block_table(&self, pool: &BlockPool, tokens: usize) -> &[u32] {
        self.blocks.prefix(pool, tokens)
    }

    /// Takes blocks for `tokens` tokens, all or none.
    pub(super) fn reserve(&mut self, pool: &mut BlockPool, tokens: usize) -> bool {
        self.blocks.grow(pool, tokens)
    }

    /// Gives the blocks back; the tokens stay, to be computed again.
    pub(super) fn evict(&mut self, pool: &mut BlockPool) {
        self.blocks.release(pool);
        self.computed = 0;
        self.draft.clear();
    }

    /// Notes that a step has computed `count` more tokens, and returns how many of them are of the prompt.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        let prompt_left = self.prompt_len.saturating_sub(self.computed);
        self.computed += count;
        assert!(self.computed <= self.tokens.len(), "more computed than there is");
        count.min(prompt_left)
    }

    /// Appends a generated token.
    pub(super) fn append(&mut self, token: u32) {
        self.tokens.push(token);
    }
}
