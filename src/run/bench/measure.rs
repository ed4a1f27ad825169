//! One test on a decoder: the steps that it takes, their seconds and their least cost.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use crate::backend::{Batch, BatchEntry, LogitsRows, PeakRates};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::model::{Decoder, StepCost};

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    /// A prompt of `len` tokens, in chunks, up to the first logits.
    Prefill { len: usize },
    /// `new_tokens` tokens of each of `sequences` sequences after `depth` tokens of context.
    Decode { depth: usize, new_tokens: usize, sequences: usize },
}

impl Test {
    /// Tokens computed.
    pub(super) fn tokens(self) -> usize {
        match self {
            Self::Prefill { len } => len,
            Self::Decode { new_tokens, sequences, .. } => new_tokens * sequences,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefill { len } => write!(f, "pp{len}"),
            Self::Decode { depth, new_tokens, sequences: 1 } => write!(f, "tg{new_tokens}@{depth}"),
            Self::Decode { depth, new_tokens, sequences } => write!(f, "tg{new_tokens}@{depth}x{sequences}"),
        }
    }
}

/// What came out.
pub(super) struct Measurement {
    /// Seconds of each repetition, ascending; at least one.
    pub(super) seconds: Vec<f64>,
    /// The least cost of each step of a repetition.
    costs: Vec<StepCost>,
}

impl Measurement {
    /// Seconds that a repetition takes at least on a machine with these rates.
    pub(super) fn least_seconds(&self, rates: &PeakRates) -> f64 {
        self.costs.iter().map(|cost| cost.seconds(rates)).sum()
    }
}

/// A decoder under test.
pub(super) struct Bench<'a> {
    decoder: &'a mut dyn Decoder,
    cancel: &'a CancelToken,
    /// Blocks of the cache that each sequence owns.
    blocks: usize,
    batch: Batch,
    costs: Vec<StepCost>,
}

impl<'a> Bench<'a> {
    /// Shares out the cache among `sequences` sequences.
    pub(super) fn new(decoder: &'a mut dyn Decoder, cancel: &'a CancelToken, sequences: usize) -> Self {
        let blocks = decoder.kv_layout().num_blocks / sequences;
        Self { decoder, cancel, blocks, batch: Batch::default(), costs: Vec::new() }
    }

    /// Repeats a test, after one step that nobody times.
    pub(super) fn run(mut self, test: Test, repetitions: usize) -> Result<Measurement> {
        match test {
            Test::Prefill { len } => self.prefill(len.min(self.decoder.max_step_tokens()))?,
            // All sequences but the first then read cache that no prefill wrote: zeros take as long as keys.
            Test::Decode { depth, sequences, .. } => {
                self.prefill(depth)?;
                self.decode(depth, 1, sequences)?;
            }
        }
        let mut seconds = Vec::new();
        for _ in 0..repetitions.max(1) {
            self.costs.clear();
            let started = Instant::now();
            match test {
                Test::Prefill { len } => self.prefill(len)?,
                Test::Decode { depth, new_tokens, sequences } => self.decode(depth, new_tokens, sequences)?,
            }
            seconds.push(started.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Measurement { seconds, costs: self.costs })
    }

    fn prefill(&mut self, len: usize) -> Result<()> {
        let chunk = self.decoder.max_step_tokens();
        let tokens: Vec<u32> = (0..len).map(|position| token_id(position, 0)).collect();
        for (index, tokens) in tokens.chunks(chunk).enumerate() {
            let kv_len = index * chunk + tokens.len();
            self.batch.clear();
            self.push(0, tokens, kv_len, if kv_len == len { LogitsRows::Last } else { LogitsRows::None });
            self.step()?;
        }
        Ok(())
    }

    fn decode(&mut self, depth: usize, new_tokens: usize, sequences: usize) -> Result<()> {
        for position in depth..depth + new_tokens {
            self.batch.clear();
            for sequence in 0..sequences {
                self.push(sequence, &[token_id(position, sequence)], position + 1, LogitsRows::Last);
            }
            self.step()?;
        }
        Ok(())
    }

    /// Sequence `n` owns the `n`-th share of the blocks.
    fn push(&mut self, sequence: usize, tokens: &[u32], kv_len: usize, logits: LogitsRows) {
        let used = kv_len.div_ceil(self.decoder.kv_layout().block_size);
        let first = sequence * self.blocks;
        let block_table: Vec<u32> = (first..first + used).map(|block| block as u32).collect();
        let entry = BatchEntry { tokens, kv_len, block_table: &block_table, prompt_len: kv_len, logits };
        self.batch.push(entry);
    }

    fn step(&mut self) -> Result<()> {
        self.cancel.check()?;
        self.costs.push(self.decoder.cost(&self.batch));
        black_box(self.decoder.step(&self.batch)?);
        Ok(())
    }
}

/// Small ids of no meaning, which every vocabulary has.
fn token_id(position: usize, sequence: usize) -> u32 {
    ((position * 7 + sequence * 13) % 61) as u32
}
