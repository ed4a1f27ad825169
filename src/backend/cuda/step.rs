//! A step's metadata on the device, sent by one copy into memory that is sized when the model is loaded.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buffer, Matrix};
use super::indices::Indices;
use super::launch::{MAX_DECODE_ROWS, PrefillTiles};
use super::launcher::Launcher;
use super::sequences::DeviceSequences;
use super::upload::Upload;
use crate::backend::{Batch, BatchSequence, RopeAngles, StepLimits};
use crate::error::{Error, Result};

/// Query rows, padded to the longest query, of one launch of decode attention: they bound its workspace, and fill any device.
pub(super) const MAX_GROUP_ROWS: usize = 256;

/// Tokens, sequences, block tables and angles of a step.
#[derive(Debug)]
pub struct CudaStep {
    launcher: Arc<dyn Launcher>,
    limits: StepLimits,
    /// Query rows of a tile of prefill attention.
    tile_rows: usize,
    upload: Upload,
    lists: Option<Lists>,
    /// Those of this step first; the others keep their memory.
    groups: Vec<Group>,
    num_groups: usize,
}

/// What kernels read of every token.
#[derive(Debug)]
struct Lists {
    tokens: Indices,
    slots: Indices,
    logits_rows: Indices,
    cos: Buffer,
    sin: Buffer,
}

/// Sequences side by side that one launch of attention computes.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) sequences: DeviceSequences,
    tiles: PrefillTiles,
    kind: Kind,
}

/// Which attention computes a sequence. Its own query decides, whatever else is in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decode,
    Prefill,
}

impl Kind {
    fn of(sequence: &BatchSequence) -> Self {
        if sequence.query.len() <= MAX_DECODE_ROWS { Self::Decode } else { Self::Prefill }
    }
}

impl Group {
    /// The tiles of sequences that prefill attention computes; `None` for those of decode attention.
    pub(super) fn tiles(&self) -> Option<&PrefillTiles> {
        (self.kind == Kind::Prefill).then_some(&self.tiles)
    }
}

impl CudaStep {
    /// Room for steps within `limits`, whose prefill attention takes tiles of `tile_rows` query rows.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(launcher: &Arc<dyn Launcher>, limits: &StepLimits, tile_rows: usize) -> Result<Self> {
        let tokens = limits.max_tokens;
        let most_blocks = limits.max_context.div_ceil(limits.block_size);
        let lists = Upload::bytes::<i32>(tokens)
            + Upload::bytes::<i64>(tokens)
            + Upload::bytes::<i32>(tokens)
            + 2 * Upload::bytes::<f32>(tokens * limits.heads.head_dim / 2);
        // As if each token were a sequence, a tile and a group of its own, but for the one table that all of them fill.
        let groups = tokens * (DeviceSequences::upload_bytes(1, 1) + PrefillTiles::upload_bytes(1))
            + DeviceSequences::upload_bytes(tokens, most_blocks);
        Ok(Self {
            launcher: Arc::clone(launcher),
            limits: *limits,
            tile_rows,
            upload: Upload::new(launcher, lists + groups)?,
            lists: None,
            groups: Vec::new(),
            num_groups: 0,
        })
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> usize {
        self.upload.capacity()
    }

    /// Takes a step. After an error there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for a block table that is shorter than its context, a step beyond the limits or numbers that do not fit, `Device`.
    pub(super) fn fill(&mut self, batch: &Batch, angles: &RopeAngles) -> Result<()> {
        self.clear();
        let filled = self.place(batch, angles).and_then(|()| self.upload.send());
        filled.inspect_err(|_| self.clear())
    }

    fn clear(&mut self) {
        self.upload.clear();
        self.lists = None;
        for group in &mut self.groups[..self.num_groups] {
            group.sequences.clear();
        }
        self.num_groups = 0;
    }

    fn place(&mut self, batch: &Batch, angles: &RopeAngles) -> Result<()> {
        let (tokens, most) = (batch.len(), self.limits.max_tokens);
        if tokens > most {
            return Err(Error::invalid_argument("a step of too many tokens")
                .with_expected(format_args!("at most {most}"), tokens));
        }
        let sequences = batch.sequences();
        let mut start = 0;
        while start < sequences.len() {
            let end = start + group_len(&sequences[start..]);
            self.place_group(batch, start..end)?;
            start = end;
        }
        let upload = &mut self.upload;
        let block_size = self.limits.block_size;
        // The groups have checked that the tables are as long as their contexts.
        let slots = sequences.iter().flat_map(|sequence| {
            let table = batch.block_table(sequence);
            let slot = move |position: usize| {
                i64::from(table[position / block_size]) * block_size as i64 + (position % block_size) as i64
            };
            (sequence.first_position()..sequence.kv_len).map(slot)
        });
        // What is beyond 31 bits turns negative and is refused.
        self.lists = Some(Lists {
            slots: Indices::place(upload, tokens, slots)?,
            tokens: Indices::place(upload, tokens, batch.tokens().iter().map(|&token| token as i32))?,
            logits_rows: Indices::place(
                upload,
                batch.logits_rows().len(),
                batch.logits_rows().iter().map(|&row| row as i32),
            )?,
            cos: upload.place_slice(&angles.cos)?,
            sin: upload.place_slice(&angles.sin)?,
        });
        Ok(())
    }

    fn place_group(&mut self, batch: &Batch, part: Range<usize>) -> Result<()> {
        if self.num_groups == self.groups.len() {
            self.groups.push(Group {
                sequences: DeviceSequences::new(&self.launcher, self.limits.block_size)?,
                tiles: PrefillTiles::new(&self.launcher),
                kind: Kind::Decode,
            });
        }
        let group = &mut self.groups[self.num_groups];
        self.num_groups += 1;
        group.kind = Kind::of(&batch.sequences()[part.start]);
        group.sequences.place(batch, part, &mut self.upload)?;
        match group.kind {
            Kind::Decode => Ok(()),
            Kind::Prefill => group.tiles.place(&group.sequences, self.tile_rows, &mut self.upload),
        }
    }

    /// Sequences by the attention that computes them, in row order.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups[..self.num_groups]
    }

    /// Query tokens of the step.
    pub(super) fn num_tokens(&self) -> usize {
        self.lists.as_ref().map_or(0, |lists| lists.tokens.len())
    }

    /// The token of each row.
    pub(super) fn tokens(&self) -> Result<&Indices> {
        Ok(&self.lists()?.tokens)
    }

    /// The slot of the cache that each row's key and value go to.
    pub(super) fn slots(&self) -> Result<&Indices> {
        Ok(&self.lists()?.slots)
    }

    /// Rows whose logits are wanted.
    pub(super) fn logits_rows(&self) -> Result<&Indices> {
        Ok(&self.lists()?.logits_rows)
    }

    /// Cosines and sines, `[tokens, head_dim / 2]`.
    pub(super) fn angles(&self) -> Result<[Matrix<'_>; 2]> {
        let Lists { cos, sin, tokens, .. } = self.lists()?;
        let width = self.limits.heads.head_dim / 2;
        Ok([cos.matrix(0, tokens.len(), width, width)?, sin.matrix(0, tokens.len(), width, width)?])
    }

    fn lists(&self) -> Result<&Lists> {
        self.lists.as_ref().ok_or_else(|| Error::internal("a step that was not begun"))
    }
}

/// How many of the first sequences one launch computes.
fn group_len(sequences: &[BatchSequence]) -> usize {
    let kind = Kind::of(&sequences[0]);
    let mut longest = 0;
    let fits = |(index, sequence): &(usize, &BatchSequence)| {
        longest = longest.max(sequence.query.len());
        Kind::of(sequence) == kind && (kind == Kind::Prefill || (index + 1) * longest <= MAX_GROUP_ROWS)
    };
    sequences.iter().enumerate().take_while(fits).count().max(1)
}
