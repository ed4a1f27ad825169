//! One sequence's context as the scheduler sees it: its tokens and how many of them the KV cache holds.

use super::kv_cache::{BlockPool, BlockTable, Found};
use super::prefix_hash::{BlockHash, HashChain};

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
    /// Names of the full blocks; `None` when the sequence shares none.
    hashes: Option<HashChain>,
    /// Most tokens that ever had their keys and values in the cache: what is computed again is not new.
    most_computed: usize,
    /// Tokens of the prompt that were not computed for this sequence, but found.
    cached: usize,
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
            hashes: None,
            most_computed: 0,
            cached: 0,
            draft: Vec::new(),
        }
    }

    /// Shares full blocks with sequences of the same `rotation_class`.
    pub(super) fn share_blocks(&mut self, rotation_class: usize) {
        self.hashes = Some(HashChain::new(rotation_class));
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

    /// Tokens of the prompt that were found in the KV cache instead of being computed.
    pub(super) fn cached(&self) -> usize {
        self.cached
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

    /// Replaces the draft by what `guess` returns, given the tokens so far.
    pub(super) fn set_draft<'a>(&mut self, guess: impl FnOnce(&[u32]) -> &'a [u32]) {
        self.draft.clear();
        self.draft.extend_from_slice(guess(&self.tokens));
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

    /// How many of the blocks that are not computed yet, from the first, could be shared, and how many of these are free.
    pub(super) fn count_shareable(&mut self, pool: &BlockPool) -> (usize, usize) {
        let (mut shareable, mut free) = (0, 0);
        while let Some(hash) = self.next_hash(pool, shareable)
            && let Some(found) = pool.find(&hash)
        {
            shareable += 1;
            free += usize::from(found == Found::Free);
        }
        (shareable, free)
    }

    /// Shares the blocks that come next as far as they exist, and returns how many tokens of the prompt they saved.
    pub(super) fn share(&mut self, pool: &mut BlockPool) -> usize {
        let before = self.computed;
        while let Some(hash) = self.next_hash(pool, 0)
            && self.blocks.share(pool, self.computed / pool.block_size(), &hash)
        {
            self.computed = (self.computed / pool.block_size() + 1) * pool.block_size();
        }
        let of_prompt = |from: usize| self.computed.min(self.prompt_len).saturating_sub(from);
        let (saved, new) = (of_prompt(before), of_prompt(before.max(self.most_computed)));
        self.cached += new;
        self.most_computed = self.most_computed.max(self.computed);
        saved
    }

    /// What the block with the next token to compute will hold, when it is full of tokens that are known, and is not the
    /// last one: a token is left to be computed, as its logits are needed, and no shared block is ever written.
    pub(super) fn next_block(&mut self, pool: &BlockPool) -> Option<BlockHash> {
        self.next_hash(pool, 0)
    }

    /// The hash of the block that is `ahead` blocks behind the one with the next token to compute.
    fn next_hash(&mut self, pool: &BlockPool, ahead: usize) -> Option<BlockHash> {
        let block = self.computed / pool.block_size() + ahead;
        if (block + 1) * pool.block_size() >= self.tokens.len() {
            return None;
        }
        let hashes = self.hashes.as_mut()?;
        hashes.extend(&self.tokens, pool.block_size());
        hashes.get(block).copied()
    }

    /// Lets others share the full blocks that are computed, when before the last step `computed_before` tokens were.
    pub(super) fn publish(&mut self, pool: &mut BlockPool, computed_before: usize) {
        let Some(hashes) = &mut self.hashes else { return };
        hashes.extend(&self.tokens, pool.block_size());
        for block in computed_before / pool.block_size()..self.computed / pool.block_size() {
            if let Some(&hash) = hashes.get(block) {
                self.blocks.register(pool, block, hash);
            }
        }
    }

    /// Keeps others from sharing what was computed for this sequence from now on.
    pub(super) fn withdraw(&self, pool: &mut BlockPool) {
        self.blocks.forget(pool);
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
        self.most_computed = self.most_computed.max(self.computed);
        assert!(self.computed <= self.tokens.len(), "more computed than there is");
        count.min(prompt_left)
    }

    /// Appends a generated token.
    pub(super) fn append(&mut self, token: u32) {
        self.tokens.push(token);
    }
}
