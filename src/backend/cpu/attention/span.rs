//! One span of a tile: scores, probabilities and weighted values, and their merge with other spans.

use std::ops::Range;
use std::ptr;

use super::{Partial, Shared, TILE_ROWS, Tile, span_tokens, visible};
use crate::backend::cpu::format::Format;
use crate::backend::cpu::multiply::{INPUT_STRIDE, Multiply};
use crate::backend::cpu::simd::{Simd, math};

/// Elements between two rows of scores; the last block of a span may be padded to the column alignment.
const SCORE_STRIDE: usize = INPUT_STRIDE + 16;

/// Most blocks of a span: the smallest block has two tokens.
const MAX_BLOCKS: usize = INPUT_STRIDE / 2;
/// Blocks that are fetched before they are read: memory's latency is longer than the product with one.
const AHEAD: usize = 2;

/// f32 of scratch memory: queries, scores, probabilities and one span's partial result.
pub const SCRATCH: usize = TILE_ROWS * (2 * INPUT_STRIDE + SCORE_STRIDE) + Partial::LEN;

/// One tile with the scratch memory of a thread.
pub struct SpanJob<'a> {
    shared: &'a Shared<'a>,
    tile: &'a Tile,
    /// Inputs of the format, rows [`INPUT_STRIDE`] apart.
    queries: &'a mut [f32],
    /// Inputs of the format, rows [`INPUT_STRIDE`] apart.
    probabilities: &'a mut [f32],
    /// Rows [`SCORE_STRIDE`] apart.
    scores: &'a mut [f32],
    partial: Partial<'a>,
    /// Blocks of keys, then of values of the span, and the first blocks of keys of the next.
    stream: [*const u8; 2 * MAX_BLOCKS + AHEAD],
}

impl<'a> SpanJob<'a> {
    /// Over at least [`SCRATCH`] f32, aligned to a cache line.
    pub fn new(shared: &'a Shared<'a>, tile: &'a Tile, scratch: &'a mut [f32]) -> Self {
        let (queries, rest) = scratch.split_at_mut(TILE_ROWS * INPUT_STRIDE);
        let (probabilities, rest) = rest.split_at_mut(TILE_ROWS * INPUT_STRIDE);
        let (scores, rest) = rest.split_at_mut(TILE_ROWS * SCORE_STRIDE);
        let partial = Partial::over(rest, shared.cache.value_width());
        let stream = [ptr::null(); 2 * MAX_BLOCKS + AHEAD];
        Self { shared, tile, queries, probabilities, scores, partial, stream }
    }

    /// Tokens that a row of the tile sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let sequence = &self.tile.sequence;
        let position = sequence.kv_len - sequence.query_len
            + (self.tile.first + row) / self.shared.params.heads.group_size();
        visible(position, self.shared.params)
    }

    /// Number of the row's query token and of its head.
    fn token_and_head(&self, row: usize) -> (usize, usize) {
        let (index, group) = (self.tile.first + row, self.shared.params.heads.group_size());
        (self.tile.sequence.first_row + index / group, self.tile.kv_head * group + index % group)
    }
}

/// Computes spans in order and merges them into `total`.
#[inline(always)]
pub fn run_spans<S: Simd, F: Format>(
    simd: S,
    job: &mut SpanJob<'_>,
    spans: Range<usize>,
    total: &mut Partial<'_>,
) {
    pack_queries::<S, F>(simd, job);
    for span in spans {
        run_span::<S, F>(simd, job, span);
        merge(total, &job.partial, job.tile.rows, job.shared.params.softmax_scale);
    }
}

/// Converts the tile's queries to inputs.
#[inline(always)]
fn pack_queries<S: Simd, F: Format>(simd: S, job: &mut SpanJob<'_>) {
    let heads = &job.shared.params.heads;
    let queries = job.queries.as_mut_ptr().cast::<F::Input>();
    let whole = heads.head_dim / S::LANES * S::LANES;
    for row in 0..job.tile.rows {
        let (token, head) = job.token_and_head(row);
        let start = token * heads.qkv_width() + head * heads.head_dim;
        let query = &job.shared.qkv[start..start + heads.head_dim];
        // SAFETY: an input is no larger than an f32, of which `queries` holds INPUT_STRIDE >= head_dim for each row.
        unsafe {
            let to = queries.add(row * INPUT_STRIDE);
            for i in (0..whole).step_by(S::LANES) {
                F::store_input(simd, to.add(i), simd.load(query.as_ptr().add(i)));
            }
            for (i, x) in query.iter().enumerate().skip(whole) {
                *to.add(i) = F::input(*x);
            }
        }
    }
}

/// The partial result of one span of the context.
#[inline(always)]
fn run_span<S: Simd, F: Format>(simd: S, job: &mut SpanJob<'_>, span: usize) {
    let shared = job.shared;
    let cache = shared.cache;
    let (block_size, rows) = (cache.layout().block_size, job.tile.rows);
    let span_start = span * span_tokens(block_size);
    let span_end = span_start + span_tokens(block_size);
    // What any row of the tile sees of the span.
    let seen = job.visible(0).start.max(span_start)..job.visible(rows - 1).end.min(span_end);
    let blocks = seen.start / block_size..seen.end.div_ceil(block_size);

    let queries = job.queries.as_ptr().cast::<F::Input>();
    let scores = job.scores.as_mut_ptr();
    let num_blocks = blocks.len();
    // The blocks in the order in which they are read, and the first ones of the next span.
    let table = &shared.step.block_tables[job.tile.sequence.first_block..];
    for (index, block) in (blocks.start..blocks.end + AHEAD).enumerate() {
        let kv =
            cache.block(shared.params.layer, table[block.min(table.len() - 1)] as usize, job.tile.kv_head);
        if index < num_blocks {
            job.stream[index] = kv.keys;
            job.stream[num_blocks + index] = kv.values;
        } else {
            job.stream[num_blocks + index] = kv.keys;
        }
    }
    for (index, block) in blocks.clone().enumerate() {
        // SAFETY: the keys are a packed matrix [head_dim, key_width]; the span's last block ends within SCORE_STRIDE.
        unsafe {
            Multiply::<F> {
                rows,
                width: cache.key_width(),
                pairs: shared.params.heads.head_dim.div_ceil(2),
                inputs: queries,
                blocks: &job.stream[index..=index],
                block_width: cache.key_width(),
                block_pairs: shared.params.heads.head_dim.div_ceil(2),
                ahead: &job.stream[index + AHEAD..=index + AHEAD],
                acc: scores.add(block * block_size - span_start),
                acc_stride: SCORE_STRIDE,
                accumulate: false,
            }
            .run(simd);
        }
    }

    let columns = (seen.end - span_start).next_multiple_of(S::LANES);
    for row in 0..rows {
        let visible = job.visible(row);
        let start = visible.start.clamp(span_start, span_end) - span_start;
        let end = visible.end.clamp(span_start, span_end) - span_start;
        let scores = &mut job.scores[row * SCORE_STRIDE..][..columns];
        scores[..start.min(columns)].fill(f32::NEG_INFINITY);
        scores[end.min(columns)..].fill(f32::NEG_INFINITY);
        // SAFETY: an input is no larger than an f32, of which `probabilities` holds INPUT_STRIDE >= columns a row.
        unsafe {
            let to = job.probabilities.as_mut_ptr().cast::<F::Input>().add(row * INPUT_STRIDE);
            let (max, sum) = if start < end {
                softmax::<S, F>(simd, scores, shared.params.softmax_scale, to)
            } else {
                for i in (0..columns).step_by(S::LANES) {
                    F::store_input(simd, to.add(i), simd.splat(0.0));
                }
                (f32::NEG_INFINITY, 0.0)
            };
            job.partial.max[row] = max;
            job.partial.sum[row] = sum;
        }
    }

    let probabilities = job.probabilities.as_ptr().cast::<F::Input>();
    let value_width = cache.value_width();
    // SAFETY: the values are packed matrices [block_size, value_width]; the tile's partial result has as wide rows.
    unsafe {
        Multiply::<F> {
            rows,
            width: value_width,
            pairs: (seen.end - blocks.start * block_size).div_ceil(2),
            inputs: probabilities.add(blocks.start * block_size - span_start),
            blocks: &job.stream[num_blocks..2 * num_blocks],
            block_width: value_width,
            block_pairs: block_size / 2,
            ahead: &job.stream[num_blocks + AHEAD..2 * num_blocks + AHEAD],
            acc: job.partial.values.as_mut_ptr(),
            acc_stride: value_width,
            accumulate: false,
        }
        .run(simd);
    }
}

/// `e^((score - max) · scale)` as inputs of the format; returns the maximum and the sum.
///
/// # Safety
/// `scores.len()`, a multiple of `LANES`, inputs are writable.
#[inline(always)]
unsafe fn softmax<S: Simd, F: Format>(simd: S, scores: &[f32], scale: f32, to: *mut F::Input) -> (f32, f32) {
    /// Independent maxima, to hide the latency of a comparison.
    const CHAINS: usize = 4;
    // SAFETY: i + LANES <= scores.len(), and the caller's promise.
    unsafe {
        let from = scores.as_ptr();
        let mut maxima = [simd.splat(f32::NEG_INFINITY); CHAINS];
        for (i, chunk) in scores.chunks_exact(S::LANES).enumerate() {
            let max = &mut maxima[i % CHAINS];
            *max = simd.max(simd.load(chunk.as_ptr()), *max);
        }
        let max = simd.max(simd.max(maxima[0], maxima[1]), simd.max(maxima[2], maxima[3]));
        let max = simd.reduce_max(max);
        // All scores are NaN or -inf: the NaNs show in the sum, and -inf - -inf is avoided.
        let max = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let factor = scale * std::f32::consts::LOG2_E;
        let (factors, offset) = (simd.splat(factor), simd.splat(-max * factor));
        let mut sum = simd.splat(0.0);
        for i in (0..scores.len()).step_by(S::LANES) {
            let p = math::exp2_nonpositive(simd, simd.mul_add(simd.load(from.add(i)), factors, offset));
            sum = simd.add(sum, p);
            F::store_input(simd, to.add(i), p);
        }
        (max, simd.reduce_sum(sum))
    }
}

/// Merges the partial result of the tokens that follow into `total`; maxima are of scores before the scale.
#[inline(always)]
pub fn merge(total: &mut Partial<'_>, next: &Partial<'_>, rows: usize, scale: f32) {
    let width = total.values.len() / TILE_ROWS;
    for row in 0..rows {
        let (a, b) = (total.max[row], next.max[row]);
        // The row sees none of the tokens.
        if b == f32::NEG_INFINITY {
            continue;
        }
        let max = if b > a { b } else { a };
        let (old, new) = (((a - max) * scale).exp(), ((b - max) * scale).exp());
        total.max[row] = max;
        total.sum[row] = total.sum[row] * old + next.sum[row] * new;
        let range = row * width..(row + 1) * width;
        for (total, next) in total.values[range.clone()].iter_mut().zip(&next.values[range]) {
            *total = *total * old + next * new;
        }
    }
}
