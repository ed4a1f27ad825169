//! Decode attention: few query rows a sequence over a long context, cut into splits that are combined by the last block to finish.

use std::sync::Arc;

use super::super::buffer::{Buffer, Element, Matrix};
use super::super::check::Check;
use super::super::geometry::{CacheFormat, DECODE_MOST_SPLITS, DECODE_ROWS, Kernel};
use super::super::launcher::Launcher;
use super::super::params::AttentionDecodeParams;
use super::super::schedule::{MIN_SPLIT_LEN, decode_splits, max_decode_splits};
use super::super::sequences::DeviceSequences;
use super::attention_prefill::{check_heads, check_window};
use super::cache::Cache;
use super::{MOST_GRID_Y, half_type, start};
use crate::backend::{DType, HeadLayout};
use crate::error::Result;

/// Query rows of a sequence that the kernel takes: one decoded token, or a draft that is verified.
pub const MAX_DECODE_ROWS: usize = 16;

/// What decode attention reads and writes.
#[derive(Debug)]
pub struct AttentionDecode<'a> {
    /// Rotated queries `[tokens, num_heads · head_dim]`; rows may be those of a fused QKV matrix.
    pub q: Matrix<'a>,
    /// `[tokens, num_heads · head_dim]`.
    pub out: Matrix<'a>,
    /// Keys and values, those of the step appended.
    pub cache: Cache<'a>,
    /// The step's sequences, of 1 to 16 query rows each.
    pub sequences: &'a DeviceSequences,
    /// Head counts.
    pub heads: HeadLayout,
    /// A query at position `i` sees keys `j` with `j <= i` and, when set, `i - j < window`.
    pub window: Option<usize>,
    /// Factor on QKᵀ.
    pub softmax_scale: f32,
}

/// Splits' results until they are combined; grows to the largest step seen.
#[derive(Debug)]
pub struct DecodeWorkspace {
    launcher: Arc<dyn Launcher>,
    partial_out: Buffer,
    partial_lse: Buffer,
    counters: Buffer,
}

impl DecodeWorkspace {
    /// Without room yet.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(launcher: &Arc<dyn Launcher>) -> Result<Self> {
        let float = Element::Float(DType::F32);
        Ok(Self {
            launcher: Arc::clone(launcher),
            partial_out: Buffer::new(launcher, float, 0)?,
            partial_lse: Buffer::new(launcher, float, 0)?,
            counters: Buffer::new(launcher, Element::I32, 0)?,
        })
    }

    /// Makes room for launches of which `sequences · max_query_len` is at most `rows`.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn reserve_rows(
        &mut self,
        dtype: DType,
        cache: CacheFormat,
        heads: &HeadLayout,
        rows: usize,
    ) -> Result<()> {
        for max_query_len in 1..=MAX_DECODE_ROWS {
            let cut = Cut::new(self.launcher.as_ref(), dtype, cache, heads, max_query_len);
            self.reserve(&cut, heads, rows.div_ceil(max_query_len), max_query_len)?;
        }
        Ok(())
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.partial_out.bytes() + self.partial_lse.bytes() + self.counters.bytes()
    }

    fn reserve(
        &mut self,
        cut: &Cut,
        heads: &HeadLayout,
        sequences: usize,
        max_query_len: usize,
    ) -> Result<()> {
        let partial_rows = sequences * heads.num_heads * cut.max_splits * max_query_len;
        let (head_dim, counters) = (heads.head_dim, sequences * cut.blocks);
        let float = Element::Float(DType::F32);
        if self.partial_lse.len() < partial_rows {
            self.partial_lse = Buffer::new(&self.launcher, float, partial_rows)?;
        }
        if self.partial_out.len() < partial_rows * head_dim {
            self.partial_out = Buffer::new(&self.launcher, float, partial_rows * head_dim)?;
        }
        if self.counters.len() < counters {
            self.counters = Buffer::zeroed(&self.launcher, Element::I32, counters)?;
        }
        Ok(())
    }
}

/// How the work of a launch is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    kernel: Kernel,
    /// Tiles of query rows of all key/value heads.
    blocks: usize,
    /// Most splits of a context.
    max_splits: usize,
}

impl Cut {
    fn new(
        launcher: &dyn Launcher,
        dtype: DType,
        cache: CacheFormat,
        heads: &HeadLayout,
        max_query_len: usize,
    ) -> Self {
        let max_shared_bytes = launcher.properties().max_shared_bytes;
        let kernel_of =
            |rows| Kernel::attention_decode(dtype, heads.head_dim as u32, rows, cache, max_shared_bytes);
        let query_rows = max_query_len * heads.num_heads / heads.num_kv_heads.max(1);
        let rows = DECODE_ROWS.into_iter().find(|&rows| query_rows <= rows as usize);
        let rows = rows.unwrap_or(DECODE_ROWS[1]);
        // As if all sequences decoded one token: with the step's own tiles, a draft in the batch would move where its neighbours are cut.
        let slots = launcher.resident_blocks(kernel_of(DECODE_ROWS[0]));
        Self {
            kernel: kernel_of(rows),
            blocks: heads.num_kv_heads * query_rows.div_ceil(rows as usize),
            max_splits: max_decode_splits(heads.num_kv_heads, slots, DECODE_MOST_SPLITS),
        }
    }
}

/// `out = softmax(q · kᵀ · scale) · v`, causal, over each sequence's context.
///
/// A sequence is cut by its own length, the model and the device, never by what else is in the batch.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, `OutOfMemory` for the workspace, and the launcher's.
pub fn attention_decode(
    launcher: &dyn Launcher,
    arguments: &AttentionDecode<'_>,
    workspace: &mut DecodeWorkspace,
) -> Result<()> {
    let AttentionDecode { q, out, cache, sequences, heads, window, softmax_scale } = *arguments;
    let dtype = half_type("attention_decode", "q", q.element)?;
    let lens = sequences.lens();
    let max_query_len = lens.iter().map(|&(query_len, _)| query_len).max().unwrap_or(0);
    let cut = Cut::new(launcher, dtype, cache.format(), &heads, max_query_len);
    let Cut { kernel, blocks, max_splits } = cut;
    let check = Check(kernel);
    check_heads(check, &heads, &cache)?;
    let element = Element::Float(dtype);
    check.matrix("q", &q, element, sequences.tokens(), heads.q_width())?;
    check.matrix("out", &out, element, sequences.tokens(), heads.q_width())?;
    let cache_params = cache.params(check, dtype)?;
    cache.holds(check, sequences)?;
    check.count("sequences", lens.len(), MOST_GRID_Y)?;
    check.count("query_len", max_query_len, MAX_DECODE_ROWS)?;
    check.that(
        softmax_scale.is_finite() && softmax_scale > 0.0,
        "softmax_scale",
        "a positive number",
        softmax_scale,
    )?;
    let window_len = check_window(check, window)?;

    check.count("key/value heads and tiles of query rows", blocks, MOST_GRID_Y)?;
    let used_splits = lens.iter().map(|&(_, kv_len)| decode_splits(kv_len, max_splits)).max().unwrap_or(0);
    if used_splits == 0 {
        return Ok(());
    }
    workspace.reserve(&cut, &heads, lens.len(), max_query_len)?;
    let params = AttentionDecodeParams {
        q: q.address,
        out: out.address,
        partial_out: workspace.partial_out.vector().address,
        partial_lse: workspace.partial_lse.vector().address,
        counters: workspace.counters.vector().address,
        cache: cache_params,
        sequences: sequences.params(0..lens.len()),
        q_stride: q.row_stride as i64,
        out_stride: out.row_stride as i64,
        num_heads: heads.num_heads as i32,
        max_query_len: max_query_len as i32,
        num_splits: max_splits as i32,
        min_split_len: MIN_SPLIT_LEN as i32,
        window: window_len,
        scale_log2e: softmax_scale * std::f32::consts::LOG2_E,
    };
    // SAFETY: every view was checked against its buffer, the block tables against the cache, and the workspace has room for all splits.
    unsafe { start(launcher, kernel, [used_splits, blocks, lens.len()], &params) }
}
