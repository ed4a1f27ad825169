//! Decode attention: few query rows a sequence over a long context, cut into splits that are combined by the last block to finish.

use std::sync::Arc;

use super::super::buffer::{Buffer, Element, Matrix};
use super::super::check::Check;
use super::super::geometry::{DECODE_MOST_SPLITS, DECODE_ROWS, Kernel};
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

    fn reserve(&mut self, partial_rows: usize, head_dim: usize, counters: usize) -> Result<()> {
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
    let query_rows = max_query_len * heads.num_heads / heads.num_kv_heads.max(1);
    let rows = DECODE_ROWS.into_iter().find(|&rows| query_rows <= rows as usize).unwrap_or(DECODE_ROWS[1]);
    let row_tiles = query_rows.div_ceil(rows as usize);
    let max_shared_bytes = launcher.properties().max_shared_bytes;
    let kernel_of =
        |rows| Kernel::attention_decode(dtype, heads.head_dim as u32, rows, cache.format(), max_shared_bytes);
    let kernel = kernel_of(rows);
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

    let blocks = heads.num_kv_heads * row_tiles;
    check.count("key/value heads and tiles of query rows", blocks, MOST_GRID_Y)?;
    // As if all sequences decoded one token: with the step's own tiles, a draft in the batch would move where its neighbours are cut.
    let slots = launcher.resident_blocks(kernel_of(DECODE_ROWS[0]));
    let max_splits = max_decode_splits(heads.num_kv_heads, slots, DECODE_MOST_SPLITS);
    let used_splits = lens.iter().map(|&(_, kv_len)| decode_splits(kv_len, max_splits)).max().unwrap_or(0);
    if used_splits == 0 {
        return Ok(());
    }
    let partial_rows = lens.len() * heads.num_heads * max_splits * max_query_len;
    workspace.reserve(partial_rows, heads.head_dim, lens.len() * blocks)?;
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
