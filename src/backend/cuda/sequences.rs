//! A step's sequences on the device: row starts, lengths and block tables, checked on the host before kernels follow them.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buffer, Element, Stored};
use super::launcher::Launcher;
use super::params::Sequences;
use crate::backend::{Batch, BatchSequence};
use crate::error::{Error, Result};

/// The sequences of one step where kernels can reach them.
///
/// Buffers grow to the largest step seen and are kept between steps.
#[derive(Debug)]
pub struct DeviceSequences {
    launcher: Arc<dyn Launcher>,
    query_starts: Buffer,
    kv_lens: Buffer,
    block_tables: Buffer,
    block_table_stride: usize,
    block_size: usize,
    lens: Vec<(usize, usize)>,
    tokens: usize,
    highest_block: usize,
}

impl std::fmt::Debug for dyn Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Launcher({:?})", self.properties())
    }
}

impl DeviceSequences {
    /// No sequences, of caches whose blocks hold `block_size` tokens.
    ///
    /// # Errors
    /// `OutOfMemory`; `InvalidArgument` when `block_size` is no power of two from 16 to 128.
    pub fn new(launcher: &Arc<dyn Launcher>, block_size: usize) -> Result<Self> {
        if !block_size.is_power_of_two() || !(16..=128).contains(&block_size) {
            return Err(Error::invalid_argument("block_size of a cache on the device")
                .with_expected("16, 32, 64 or 128", block_size));
        }
        let empty = || Buffer::new(launcher, Element::I32, 0);
        Ok(Self {
            launcher: Arc::clone(launcher),
            query_starts: empty()?,
            kv_lens: empty()?,
            block_tables: empty()?,
            block_table_stride: 0,
            block_size,
            lens: Vec::new(),
            tokens: 0,
            highest_block: 0,
        })
    }

    /// Takes a step's sequences.
    ///
    /// # Errors
    /// `InvalidArgument` for a block table that is shorter than its context or numbers that do not fit, `OutOfMemory`, `Device`.
    pub fn fill(&mut self, batch: &Batch) -> Result<()> {
        let sequences = batch.sequences();
        let blocks = |sequence: &BatchSequence| sequence.kv_len.div_ceil(self.block_size);
        let stride = sequences.iter().map(blocks).max().unwrap_or(0);
        let number = |value: usize| {
            i32::try_from(value).map_err(|_| {
                Error::invalid_argument("a step's number on the device")
                    .with_expected(format_args!("at most {}", i32::MAX), value)
            })
        };
        let mut starts = vec![0];
        let mut kv_lens = Vec::with_capacity(sequences.len());
        let mut tables = vec![0; sequences.len() * stride];
        let mut lens = Vec::with_capacity(sequences.len());
        let mut highest_block = 0;
        for (index, sequence) in sequences.iter().enumerate() {
            let table = batch.block_table(sequence);
            let needed = blocks(sequence);
            if table.len() < needed {
                return Err(Error::invalid_argument(format!("the block table of sequence {index}"))
                    .with_expected(
                        format_args!("{needed} blocks of {} for {} tokens", self.block_size, sequence.kv_len),
                        table.len(),
                    ));
            }
            for (to, &block) in tables[index * stride..].iter_mut().zip(&table[..needed]) {
                *to = number(block as usize)?;
                highest_block = highest_block.max(block as usize);
            }
            starts.push(number(sequence.query.end)?);
            kv_lens.push(number(sequence.kv_len)?);
            lens.push((sequence.query.len(), sequence.kv_len));
        }
        // Nobody may launch with the lengths of one step and the lists of another: until all are there, there are no sequences.
        self.lens.clear();
        self.tokens = 0;
        store(&self.launcher, &mut self.query_starts, &starts)?;
        store(&self.launcher, &mut self.kv_lens, &kv_lens)?;
        store(&self.launcher, &mut self.block_tables, &tables)?;
        self.lens = lens;
        self.tokens = batch.len();
        self.block_table_stride = stride;
        self.highest_block = highest_block;
        Ok(())
    }

    /// `(query_len, kv_len)` of each.
    pub fn lens(&self) -> &[(usize, usize)] {
        &self.lens
    }

    /// Query tokens of all.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of a cache block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The highest physical block that is read.
    pub(super) fn highest_block(&self) -> usize {
        self.highest_block
    }

    /// What kernels get for some of them; row numbers stay those of the batch.
    pub(super) fn params(&self, part: Range<usize>) -> Sequences {
        let from =
            |buffer: &Buffer, element: usize| buffer.vector().address + (element * size_of::<i32>()) as u64;
        Sequences {
            query_starts: from(&self.query_starts, part.start),
            kv_lens: from(&self.kv_lens, part.start),
            block_tables: from(&self.block_tables, part.start * self.block_table_stride),
            block_table_stride: self.block_table_stride as i64,
            num_sequences: part.len() as i32,
            reserved: 0,
        }
    }
}

/// Writes `values`, into a larger buffer when they do not fit.
pub(super) fn store<T: Stored>(
    launcher: &Arc<dyn Launcher>,
    buffer: &mut Buffer,
    values: &[T],
) -> Result<()> {
    if buffer.len() < values.len() {
        *buffer = Buffer::new(launcher, T::ELEMENT, values.len().next_power_of_two())?;
    }
    buffer.write(values)
}
