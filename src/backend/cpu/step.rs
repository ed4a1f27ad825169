//! A step's metadata, copied once at its start.

use crate::backend::{Batch, RopeAngles};

/// One sequence of the step.
#[derive(Debug, Clone, Copy)]
pub struct StepSequence {
    /// First row of its queries.
    pub first_row: usize,
    /// Number of its queries.
    pub query_len: usize,
    /// Tokens of its context, the queries included.
    pub kv_len: usize,
    /// Start of its block table in the step's.
    pub first_block: usize,
}

/// Tokens, sequences, block tables and angles of a step; the memory is kept between steps.
#[derive(Debug, Default)]
pub struct CpuStep {
    /// Query tokens.
    pub tokens: Vec<u32>,
    /// Sequences, in row order.
    pub sequences: Vec<StepSequence>,
    /// Block tables of all sequences, one after the other.
    pub block_tables: Vec<u32>,
    /// Rows whose logits are wanted.
    pub logits_rows: Vec<u32>,
    /// Cosines and sines of the query tokens.
    pub angles: RopeAngles,
}

impl CpuStep {
    /// Room for `max_tokens` query tokens; block tables and angles grow to what the model needs in its first steps.
    pub fn with_capacity(max_tokens: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(max_tokens),
            sequences: Vec::with_capacity(max_tokens),
            block_tables: Vec::with_capacity(max_tokens),
            logits_rows: Vec::with_capacity(max_tokens),
            angles: RopeAngles::default(),
        }
    }

    /// Copies a batch.
    pub fn fill(&mut self, batch: &Batch, angles: &RopeAngles) {
        replace(&mut self.tokens, batch.tokens());
        replace(&mut self.logits_rows, batch.logits_rows());
        replace(&mut self.angles.cos, &angles.cos);
        replace(&mut self.angles.sin, &angles.sin);
        self.sequences.clear();
        self.block_tables.clear();
        for sequence in batch.sequences() {
            self.sequences.push(StepSequence {
                first_row: sequence.query.start,
                query_len: sequence.query.len(),
                kv_len: sequence.kv_len,
                first_block: self.block_tables.len(),
            });
            self.block_tables.extend_from_slice(batch.block_table(sequence));
        }
    }

    /// The sequence that a row belongs to.
    pub fn sequence_of(&self, row: usize) -> &StepSequence {
        let after = self.sequences.partition_point(|sequence| sequence.first_row <= row);
        &self.sequences[after - 1]
    }

    /// The physical block of a token at `position`.
    pub fn block_at(&self, sequence: &StepSequence, position: usize, block_size: usize) -> usize {
        self.block_tables[sequence.first_block + position / block_size] as usize
    }
}

fn replace<T: Copy>(to: &mut Vec<T>, from: &[T]) {
    to.clear();
    to.extend_from_slice(from);
}
