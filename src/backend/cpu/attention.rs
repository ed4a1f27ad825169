//! Causal attention over the paged cache: flash-style, with scores of one span of tokens at a time.
//!
//! The rows of a tile are the queries of one sequence, token by token, and within a token the query heads that share a
//! key/value head: each block of keys and values is loaded once for all of them. The context is walked in spans of a
//! fixed number of tokens counted from its start. A span gives a partial result (maximum, sum, weighted values),
//! and partial results are merged in the order of the context. When a step has few tiles, as in decoding, spans become
//! work items of their own and the same merge happens afterwards. So a row's result depends neither on the split, nor on
//! the other rows of its chunk, nor on the other sequences of the batch.
//!
//! One exception is harmless: a key or value that is NaN reaches earlier queries of the same sequence when they share a
//! tile with later ones, because a probability of zero times NaN is NaN. Other sequences never see it.

mod span;

use std::ops::Range;

use self::span::{SpanJob, merge, run_spans};
use super::format::with_format;
use super::kv_cache::CpuKvCache;
use super::memory::Buffer;
use super::multiply::INPUT_STRIDE;
use super::simd::{Dispatch, Kernel, Simd};
use super::step::{CpuStep, StepSequence};
use super::threads::{SharedSlice, ThreadPool};
use crate::backend::AttentionParams;
use crate::error::Result;

/// Most rows of a tile, and the rows for which it has memory: two tiles of a unit, a multiple of `ROW_ALIGNMENT`.
const TILE_ROWS: usize = 32;
/// Rows of a tile without such a unit: two of the largest register tiles.
const REGISTER_TILE_ROWS: usize = 28;
/// Spans become work items when there are fewer tiles than this for each thread.
const FEW_TILES: usize = 4;
/// Bytes of partial results beyond which spans are not made work items.
const MAX_PARTIAL_BYTES: usize = 64 << 20;

/// f32 that one thread needs as scratch memory.
pub const THREAD_SCRATCH: usize = span::SCRATCH + Partial::LEN;

/// A partial result of the rows of a tile: `[TILE_ROWS]` maxima, `[TILE_ROWS]` sums, and `[TILE_ROWS, value_width]`
/// weighted values.
struct Partial<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    values: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// f32 of a partial result.
    const LEN: usize = Self::len(INPUT_STRIDE);

    /// f32 of a partial result with rows of `value_width` values; keeps what follows aligned to a cache line.
    const fn len(value_width: usize) -> usize {
        (TILE_ROWS * (2 + value_width)).next_multiple_of(16)
    }

    /// Over memory of at least [`Partial::len`].
    fn over(memory: &'a mut [f32], value_width: usize) -> Self {
        let (values, rest) = memory.split_at_mut(TILE_ROWS * value_width);
        let (max, sum) = rest[..2 * TILE_ROWS].split_at_mut(TILE_ROWS);
        Self { max, sum, values }
    }

    /// The result of no token.
    fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.values.fill(0.0);
    }
}

/// The rows of one tile: `(query token, query head)` pairs of one sequence and one key/value head.
#[derive(Debug, Clone, Copy)]
struct Tile {
    sequence: StepSequence,
    kv_head: usize,
    /// First row, counted in query tokens times query heads of the group.
    first: usize,
    rows: usize,
    /// First span that a row sees.
    first_span: usize,
    num_spans: usize,
    /// Spans of the tiles before this one.
    spans_before: usize,
}

/// Memory that is kept between calls.
#[derive(Default)]
pub struct AttentionWorkspace {
    tiles: Vec<Tile>,
    partials: Option<Buffer<f32>>,
}

impl AttentionWorkspace {
    /// Makes room for the partial results of any step with few tiles over contexts of up to `num_blocks` blocks.
    pub fn reserve(&mut self, threads: usize, cache: &CpuKvCache) -> Result<()> {
        let layout = cache.layout();
        let spans =
            layout.num_blocks.saturating_mul(layout.block_size).div_ceil(span_tokens(layout.block_size));
        let most = MAX_PARTIAL_BYTES / size_of::<f32>();
        let len = FEW_TILES
            .saturating_mul(threads)
            .saturating_mul(spans)
            .saturating_mul(Partial::len(cache.value_width()))
            .min(most);
        if self.partials.as_ref().is_none_or(|partials| partials.len() < len) {
            self.partials = Some(Buffer::zeroed(len, "partial results of attention")?);
        }
        Ok(())
    }
}

/// Tokens of a span: as many whole blocks as fit the score buffer.
fn span_tokens(block_size: usize) -> usize {
    INPUT_STRIDE / block_size * block_size
}

/// One call of the operation.
pub struct Attention<'a> {
    /// The step.
    pub step: &'a CpuStep,
    /// Layer, layout of a row of `qkv`, scale and window.
    pub params: &'a AttentionParams,
    /// `[tokens, qkv_width]`, rotated.
    pub qkv: &'a [f32],
    /// Keys and values of the whole context, those of the step's tokens included.
    pub cache: &'a CpuKvCache,
    /// `[tokens, q_width]`.
    pub out: &'a mut [f32],
    /// Kept between calls.
    pub workspace: &'a mut AttentionWorkspace,
    /// [`THREAD_SCRATCH`] f32 for each thread, aligned to a cache line.
    pub scratch: &'a mut [f32],
}

/// What all work items of a call share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    step: &'a CpuStep,
    params: &'a AttentionParams,
    qkv: &'a [f32],
    cache: &'a CpuKvCache,
    out: &'a SharedSlice<'a, f32>,
}

impl Attention<'_> {
    /// Computes on all threads.
    pub fn run(self, dispatch: Dispatch, pool: &ThreadPool) {
        let heads = &self.params.heads;
        let tokens = self.step.tokens.len();
        assert_eq!(self.qkv.len(), tokens * heads.qkv_width(), "fused queries, keys and values");
        assert_eq!(self.out.len(), tokens * heads.q_width(), "output of attention");
        let layout = self.cache.layout();
        assert_eq!(
            (layout.num_kv_heads, layout.head_dim),
            (heads.num_kv_heads, heads.head_dim),
            "heads of the cache"
        );
        assert!(self.scratch.len() >= pool.num_threads() * THREAD_SCRATCH, "scratch memory");

        let AttentionWorkspace { tiles, partials } = self.workspace;
        let tile_rows = if dispatch.has_tiles() { TILE_ROWS } else { REGISTER_TILE_ROWS };
        let num_spans = plan(self.step, self.params, tile_rows, span_tokens(layout.block_size), tiles);
        let tiles = &tiles[..];
        let value_width = self.cache.value_width();
        let partial_len = Partial::len(value_width);
        let out = SharedSlice::new(self.out);
        let shared =
            Shared { step: self.step, params: self.params, qkv: self.qkv, cache: self.cache, out: &out };
        let scratch = SharedSlice::new(self.scratch);
        let scratch_of = |thread: usize| {
            // SAFETY: every thread has its own part.
            unsafe { scratch.range(thread * THREAD_SCRATCH..(thread + 1) * THREAD_SCRATCH) }
        };

        let partials = partials.as_deref_mut().unwrap_or_default();
        let split = tiles.len() < FEW_TILES * pool.num_threads()
            && num_spans > tiles.len()
            && num_spans * partial_len <= partials.len();
        if !split {
            // The last tiles of a prompt see the longest context: they go first.
            return pool.for_each(tiles.len(), &|thread, index| {
                let (scratch, memory) = scratch_of(thread).split_at_mut(span::SCRATCH);
                let mut total = Partial::over(memory, value_width);
                total.clear();
                let tile = &tiles[tiles.len() - 1 - index];
                let spans = tile.first_span..tile.first_span + tile.num_spans;
                dispatch.run(TileSpans { shared, tile, spans, scratch, total: &mut total });
                write_tile(&shared, tile, &total);
            });
        }
        let partials = SharedSlice::new(partials);
        pool.for_each(num_spans, &|thread, index| {
            let tile = &tiles[tiles.partition_point(|tile| tile.spans_before <= index) - 1];
            let span = tile.first_span + index - tile.spans_before;
            // SAFETY: spans are handed out once.
            let memory = unsafe { partials.range(index * partial_len..(index + 1) * partial_len) };
            let mut partial = Partial::over(memory, value_width);
            partial.clear();
            let scratch = scratch_of(thread);
            dispatch.run(TileSpans { shared, tile, spans: span..span + 1, scratch, total: &mut partial });
        });
        pool.for_ranges(tiles.len(), num_spans / tiles.len() * partial_len, &|range| {
            for tile in &tiles[range] {
                let range =
                    tile.spans_before * partial_len..(tile.spans_before + tile.num_spans) * partial_len;
                // SAFETY: tiles are handed out once, and their spans were computed before.
                let mut memory = unsafe { partials.range(range) }.chunks_exact_mut(partial_len);
                let Some(first) = memory.next() else { continue };
                let mut total = Partial::over(first, value_width);
                for next in memory {
                    merge(
                        &mut total,
                        &Partial::over(next, value_width),
                        tile.rows,
                        self.params.softmax_scale,
                    );
                }
                write_tile(&shared, tile, &total);
            }
        });
    }
}

/// Lists the tiles of a step and returns the number of their spans.
fn plan(
    step: &CpuStep,
    params: &AttentionParams,
    tile_rows: usize,
    span_tokens: usize,
    tiles: &mut Vec<Tile>,
) -> usize {
    tiles.clear();
    let heads = &params.heads;
    let group = heads.group_size();
    let mut spans_before = 0;
    for sequence in &step.sequences {
        for kv_head in 0..heads.num_kv_heads {
            for first in (0..sequence.query_len * group).step_by(tile_rows) {
                let rows = tile_rows.min(sequence.query_len * group - first);
                let position = |row: usize| sequence.kv_len - sequence.query_len + row / group;
                let start = visible(position(first), params).start;
                let end = visible(position(first + rows - 1), params).end;
                let first_span = start / span_tokens;
                let num_spans = end.div_ceil(span_tokens) - first_span;
                tiles.push(Tile {
                    sequence: *sequence,
                    kv_head,
                    first,
                    rows,
                    first_span,
                    num_spans,
                    spans_before,
                });
                spans_before += num_spans;
            }
        }
    }
    spans_before
}

/// Tokens that the query at `position` sees.
fn visible(position: usize, params: &AttentionParams) -> Range<usize> {
    let end = position + 1;
    params.window.map_or(0, |window| end.saturating_sub(window))..end
}

/// Some spans of one tile, merged into `total`.
struct TileSpans<'a, 'b> {
    shared: Shared<'a>,
    tile: &'a Tile,
    spans: Range<usize>,
    scratch: &'a mut [f32],
    total: &'a mut Partial<'b>,
}

impl Kernel for TileSpans<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut job = SpanJob::new(&self.shared, self.tile, self.scratch);
        with_format!(simd: S, self.shared.cache.dtype(), run_spans(&mut job, self.spans, self.total));
    }
}

/// Divides by the sums and writes the rows of a tile to the output.
fn write_tile(shared: &Shared<'_>, tile: &Tile, total: &Partial<'_>) {
    let heads = &shared.params.heads;
    let group = heads.group_size();
    let value_width = shared.cache.value_width();
    for row in 0..tile.rows {
        let token = tile.sequence.first_row + (tile.first + row) / group;
        let head = tile.kv_head * group + (tile.first + row) % group;
        let start = token * heads.q_width() + head * heads.head_dim;
        // SAFETY: tiles cover disjoint pairs of token and head.
        let out = unsafe { shared.out.range(start..start + heads.head_dim) };
        let scale = if total.sum[row] == 0.0 { 0.0 } else { 1.0 / total.sum[row] };
        for (out, value) in out.iter_mut().zip(&total.values[row * value_width..]) {
            *out = value * scale;
        }
    }
}

#[cfg(test)]
mod tests;
