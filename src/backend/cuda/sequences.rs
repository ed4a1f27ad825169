//! A step's sequences on the device: row starts, lengths and block tables, checked on the host before kernels follow them.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::Buffer;
use super::launcher::Launcher;
use super::params::Sequences;
use super::upload::Upload;
use crate::backend::{Batch, BatchSequence};
use crate::error::{Error, Result};

/// Sequences of one step, side by side in its batch, where kernels can reach them.
#[derive(Debug)]
pub struct DeviceSequences {
    launcher: Arc<dyn Launcher>,
    lists: Option<Lists>,
    block_size: usize,
    lens: Vec<(usize, usize)>,
    rows: usize,
    highest_block: usize,
}

/// What kernels read.
#[derive(Debug)]
struct Lists {
    query_starts: Buffer,
    kv_lens: Buffer,
    /// `[sequences, block_table_stride]`.
    block_tables: Buffer,
    block_table_stride: usize,
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
    /// `InvalidArgument` when `block_size` is no power of two from 16 to 128.
    pub fn new(launcher: &Arc<dyn Launcher>, block_size: usize) -> Result<Self> {
        if !block_size.is_power_of_two() || !(16..=128).contains(&block_size) {
            return Err(Error::invalid_argument("block_size of a cache on the device")
                .with_expected("16, 32, 64 or 128", block_size));
        }
        Ok(Self {
            launcher: Arc::clone(launcher),
            lists: None,
            block_size,
            lens: Vec::new(),
            rows: 0,
            highest_block: 0,
        })
    }

    /// Takes all sequences of a step, by a copy of their own.
    ///
    /// # Errors
    /// `InvalidArgument` for a block table that is shorter than its context or numbers that do not fit, `OutOfMemory`, `Device`.
    pub fn fill(&mut self, batch: &Batch) -> Result<()> {
        let sequences = batch.sequences();
        let most_blocks = sequences.iter().map(|sequence| self.blocks_of(sequence)).max().unwrap_or(0);
        let mut upload = Upload::new(&self.launcher, Self::upload_bytes(sequences.len(), most_blocks))?;
        self.place(batch, 0..sequences.len(), &mut upload)?;
        upload.send().inspect_err(|_| self.clear())
    }

    /// Bytes of an upload that some sequences with contexts of up to `most_blocks` blocks take.
    pub(super) fn upload_bytes(sequences: usize, most_blocks: usize) -> usize {
        let lists = [sequences + 1, sequences, sequences * most_blocks];
        lists.into_iter().map(Upload::bytes::<i32>).sum()
    }

    /// Takes the sequences `part` of a step; whoever sends `upload` makes them usable.
    ///
    /// # Errors
    /// `InvalidArgument` for a block table that is shorter than its context or numbers that do not fit. There are no sequences then.
    pub(super) fn place(&mut self, batch: &Batch, part: Range<usize>, upload: &mut Upload) -> Result<()> {
        // Nobody may launch with the lengths of one step and the lists of another: until all are there, there are no sequences.
        self.clear();
        let sequences = &batch.sequences()[part];
        let stride = sequences.iter().map(|sequence| self.blocks_of(sequence)).max().unwrap_or(0);
        let query_starts = upload.place::<i32>(sequences.len() + 1, |starts| {
            starts[0] = number(sequences.first().map_or(0, |first| first.query.start))?;
            for (start, sequence) in starts[1..].iter_mut().zip(sequences) {
                *start = number(sequence.query.end)?;
            }
            Ok(())
        })?;
        let kv_lens = upload.place::<i32>(sequences.len(), |lens| {
            for (len, sequence) in lens.iter_mut().zip(sequences) {
                *len = number(sequence.kv_len)?;
            }
            Ok(())
        })?;
        let mut highest_block = 0;
        let block_tables = upload.place::<i32>(sequences.len() * stride, |tables| {
            for (row, (index, sequence)) in
                tables.chunks_exact_mut(stride.max(1)).zip(sequences.iter().enumerate())
            {
                let (table, needed) = (batch.block_table(sequence), self.blocks_of(sequence));
                if table.len() < needed {
                    return Err(Error::invalid_argument(format!("the block table of sequence {index}"))
                        .with_expected(
                            format_args!(
                                "{needed} blocks of {} for {} tokens",
                                self.block_size, sequence.kv_len
                            ),
                            table.len(),
                        ));
                }
                row.fill(0);
                for (to, &block) in row.iter_mut().zip(&table[..needed]) {
                    *to = number(block as usize)?;
                    highest_block = highest_block.max(block as usize);
                }
            }
            Ok(())
        })?;
        self.lists = Some(Lists { query_starts, kv_lens, block_tables, block_table_stride: stride });
        self.lens.extend(sequences.iter().map(|sequence| (sequence.query.len(), sequence.kv_len)));
        self.rows = sequences.last().map_or(0, |last| last.query.end);
        self.highest_block = highest_block;
        Ok(())
    }

    /// Forgets the sequences.
    pub(super) fn clear(&mut self) {
        self.lists = None;
        self.lens.clear();
        self.rows = 0;
        self.highest_block = 0;
    }

    /// `(query_len, kv_len)` of each.
    pub fn lens(&self) -> &[(usize, usize)] {
        &self.lens
    }

    /// Rows of the step up to the last of these sequences.
    pub fn tokens(&self) -> usize {
        self.rows
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
        let Some(lists) = &self.lists else { return Sequences::default() };
        let from =
            |buffer: &Buffer, element: usize| buffer.vector().address + (element * size_of::<i32>()) as u64;
        Sequences {
            query_starts: from(&lists.query_starts, part.start),
            kv_lens: from(&lists.kv_lens, part.start),
            block_tables: from(&lists.block_tables, part.start * lists.block_table_stride),
            block_table_stride: lists.block_table_stride as i64,
            num_sequences: part.len() as i32,
            reserved: 0,
        }
    }

    fn blocks_of(&self, sequence: &BatchSequence) -> usize {
        sequence.kv_len.div_ceil(self.block_size)
    }
}

/// As kernels hold it.
fn number(value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| {
        Error::invalid_argument("a step's number on the device")
            .with_expected(format_args!("at most {}", i32::MAX), value)
    })
}
