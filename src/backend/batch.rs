//! One step's ragged batch: the query tokens of several sequences, side by side, each with its own paged context.

use std::ops::Range;

/// One sequence's part of a [`Batch`].
///
/// Its query tokens are the last `query_len` of `kv_len` tokens: causal and bottom-right aligned, so a prefill chunk, a
/// decoded token and the tokens of a draft that is to be verified are the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSequence {
    /// Rows of the batch that hold this sequence's query tokens.
    pub query: Range<usize>,
    /// Tokens in the context after this step, the query tokens included.
    pub kv_len: usize,
    /// The sequence's entries in [`Batch::block_tables`]: at least `kv_len.div_ceil(block_size)` physical block numbers.
    pub blocks: Range<usize>,
}

impl BatchSequence {
    /// Position of the first query token.
    pub fn first_position(&self) -> usize {
        self.kv_len - self.query.len()
    }
}

/// The input of one forward step. Buffers are kept between steps: [`Batch::clear`] and [`Batch::push`].
#[derive(Debug, Clone, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    rope_lens: Vec<u32>,
    sequences: Vec<BatchSequence>,
    block_tables: Vec<u32>,
    logits_rows: Vec<u32>,
}

/// Which query rows of a sequence the step returns logits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsRows {
    /// None: a prefill chunk that is not the prompt's last.
    None,
    /// The last query token: the next token is sampled from it.
    Last,
    /// Every query token: prompt logprobs, and the verification of a draft.
    All,
}

/// What [`Batch::push`] adds.
#[derive(Debug, Clone, Copy)]
pub struct BatchEntry<'a> {
    /// The query tokens, at least one.
    pub tokens: &'a [u32],
    /// Tokens in the context after this step, `tokens` included.
    pub kv_len: usize,
    /// Physical blocks of the context, in logical order.
    pub block_table: &'a [u32],
    /// Tokens of the prompt: the least length for length-dependent RoPE scalings.
    ///
    /// A token of the prompt is rotated for the prompt's whole length, a later one for the length of its own context, so
    /// that it makes no difference how tokens are cut into steps.
    pub prompt_len: usize,
    /// Rows whose logits are wanted.
    pub logits: LogitsRows,
}

impl Batch {
    /// Removes all sequences and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.rope_lens.clear();
        self.sequences.clear();
        self.block_tables.clear();
        self.logits_rows.clear();
    }

    /// Appends one sequence and returns the range of its rows in the step's logits.
    ///
    /// # Panics
    /// When there are no query tokens or more of them than `kv_len`: the scheduler's bug, not a caller's input.
    pub fn push(&mut self, entry: BatchEntry<'_>) -> Range<usize> {
        let query_len = entry.tokens.len();
        assert!(query_len >= 1 && query_len <= entry.kv_len, "query {query_len} of kv {}", entry.kv_len);
        let start = self.tokens.len();
        let first_logits = self.logits_rows.len();
        self.tokens.extend_from_slice(entry.tokens);
        for position in entry.kv_len - query_len..entry.kv_len {
            self.positions.push(position as u32);
            self.rope_lens.push(entry.prompt_len.max(position + 1) as u32);
        }
        let end = self.tokens.len();
        match entry.logits {
            LogitsRows::None => {}
            LogitsRows::Last => self.logits_rows.push(end as u32 - 1),
            LogitsRows::All => self.logits_rows.extend(start as u32..end as u32),
        }
        let first_block = self.block_tables.len();
        self.block_tables.extend_from_slice(entry.block_table);
        self.sequences.push(BatchSequence {
            query: start..end,
            kv_len: entry.kv_len,
            blocks: first_block..self.block_tables.len(),
        });
        first_logits..self.logits_rows.len()
    }

    /// Query tokens of all sequences, `[n]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Position of each query token in its sequence, `[n]`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Length for length-dependent RoPE scalings of each query token, `[n]`: the larger of the prompt's length and the
    /// token's own. So a token is rotated alike whether it is decoded, verified in a draft or computed again.
    pub fn rope_lens(&self) -> &[u32] {
        &self.rope_lens
    }

    /// The sequences, in row order.
    pub fn sequences(&self) -> &[BatchSequence] {
        &self.sequences
    }

    /// Physical block numbers of one sequence, in logical order.
    pub fn block_table(&self, sequence: &BatchSequence) -> &[u32] {
        &self.block_tables[sequence.blocks.clone()]
    }

    /// Rows whose logits the step returns, ascending.
    pub fn logits_rows(&self) -> &[u32] {
        &self.logits_rows
    }

    /// Number of query tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
