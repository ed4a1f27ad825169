//! `out = input · weightᵀ + bias`: inputs packed once, then panels of the weight shared out to the threads.
//!
//! A work item is a block of rows times a few panels. It walks k in blocks of [`INPUT_STRIDE`]: one such block of a panel
//! (16 KiB in bf16) stays in the first-level cache while it meets all rows of the block, whose inputs stay in the second
//! level while they meet all panels of the item. With few rows this is one pass over the weights at memory speed.

use std::ops::Range;

use super::format::{Format, with_format};
use super::multiply::{INPUT_STRIDE, Multiply, ROW_ALIGNMENT};
use super::simd::{Dispatch, Kernel, Simd};
use super::threads::{SharedSlice, ThreadPool};
use super::weights::{PANEL_WIDTH, PackedLinear};
use super::work_items::{WorkItems, thread_scratch};

/// Most rows of a work item: their inputs stay in the second-level cache.
const MAX_BLOCK_ROWS: usize = 288;
/// Bytes of a panel that are fetched ahead of their use: the fastest of 1 to 16 KiB for 1, 4 and 8 rows on Zen 5.
const PREFETCH_DISTANCE: usize = 8192;

/// f32 that one thread needs as scratch memory.
pub const THREAD_SCRATCH: usize = thread_scratch(MAX_BLOCK_ROWS);

/// Bytes of the packed inputs of `[rows, cols]`.
pub fn input_bytes(rows: usize, cols: usize) -> usize {
    rows.saturating_add(ROW_ALIGNMENT)
        .saturating_mul(cols.next_multiple_of(INPUT_STRIDE))
        .saturating_mul(size_of::<f32>())
}

/// One call of the operation.
pub struct Linear<'a> {
    /// Rows of input and output.
    pub rows: usize,
    /// `[rows, in_features]`.
    pub input: &'a [f32],
    /// The layer.
    pub weight: &'a PackedLinear,
    /// `[rows, out_features]`.
    pub out: &'a mut [f32],
    /// At least [`input_bytes`], aligned to a cache line.
    pub packed: &'a mut [u8],
    /// [`THREAD_SCRATCH`] f32 for each thread.
    pub scratch: &'a mut [f32],
}

impl Linear<'_> {
    /// Computes on all threads.
    pub fn run(self, dispatch: Dispatch, pool: &ThreadPool) {
        let (rows, in_features, out_features) =
            (self.rows, self.weight.in_features(), self.weight.out_features());
        assert_eq!(self.input.len(), rows * in_features, "input of a linear layer");
        assert_eq!(self.out.len(), rows * out_features, "output of a linear layer");
        assert!(self.packed.len() >= input_bytes(rows, in_features), "packed inputs");

        let packed = SharedSlice::new(self.packed);
        pool.for_ranges(rows, in_features, &|range| {
            dispatch.run(PackInputs {
                rows,
                range,
                input: self.input,
                dtype: self.weight.dtype(),
                cols: in_features,
                packed: &packed,
            });
        });

        let items = WorkItems {
            rows,
            num_panels: self.weight.num_panels(),
            has_tiles: dispatch.has_tiles(),
            max_block_rows: MAX_BLOCK_ROWS,
        };
        let out = SharedSlice::new(self.out);
        items.for_each(pool, self.scratch, |block, panels, scratch| {
            dispatch.run(Item {
                weight: self.weight,
                rows,
                block,
                panels,
                packed: packed.as_ptr(),
                out: &out,
                scratch,
            });
        });
    }
}

/// Converts rows of inputs to the format's type, `[k block][rows][INPUT_STRIDE]`, the last k padded to a pair.
struct PackInputs<'a> {
    rows: usize,
    range: Range<usize>,
    input: &'a [f32],
    dtype: crate::backend::DType,
    cols: usize,
    packed: &'a SharedSlice<'a, u8>,
}

impl Kernel for PackInputs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        with_format!(simd: S, self.dtype, pack_inputs(self));
    }
}

#[inline(always)]
fn pack_inputs<S: Simd, F: Format>(simd: S, job: PackInputs<'_>) {
    let packed = job.packed.as_ptr().cast::<F::Input>();
    for row in job.range {
        let input = &job.input[row * job.cols..(row + 1) * job.cols];
        for (block, input) in input.chunks(INPUT_STRIDE).enumerate() {
            // SAFETY: `packed` holds `rows` rows of INPUT_STRIDE inputs for each k block (checked in `Linear::run`), and
            // rows are handed out once. The pad of an odd length stays within the row, as INPUT_STRIDE is even.
            unsafe {
                let to = packed.add((block * job.rows + row) * INPUT_STRIDE);
                let whole = input.len() / S::LANES * S::LANES;
                for k in (0..whole).step_by(S::LANES) {
                    F::store_input(simd, to.add(k), simd.load(input.as_ptr().add(k)));
                }
                for (k, value) in input.iter().enumerate().skip(whole) {
                    *to.add(k) = F::input(*value);
                }
                if !input.len().is_multiple_of(2) {
                    *to.add(input.len()) = F::input(0.0);
                }
            }
        }
    }
}

/// A block of rows times a few panels.
struct Item<'a> {
    weight: &'a PackedLinear,
    rows: usize,
    block: Range<usize>,
    panels: Range<usize>,
    packed: *const u8,
    out: &'a SharedSlice<'a, f32>,
    scratch: &'a mut [f32],
}

impl Kernel for Item<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        with_format!(simd: S, self.weight.dtype(), multiply_item(self));
    }
}

#[inline(always)]
fn multiply_item<S: Simd, F: Format>(simd: S, item: Item<'_>) {
    let in_features = item.weight.in_features();
    let block_rows = item.block.len();
    let acc_rows = block_rows.next_multiple_of(ROW_ALIGNMENT);
    for (block, k) in (0..in_features).step_by(INPUT_STRIDE).enumerate() {
        // SAFETY: inputs are packed as [k block][rows][INPUT_STRIDE].
        let inputs = unsafe {
            item.packed.cast::<F::Input>().add((block * item.rows + item.block.start) * INPUT_STRIDE)
        };
        let pairs = (in_features - k).min(INPUT_STRIDE).div_ceil(2);
        for (index, panel) in item.panels.clone().enumerate() {
            let acc = &mut item.scratch[index * acc_rows * PANEL_WIDTH..][..acc_rows * PANEL_WIDTH];
            let panel = &item.weight.panel(panel)[k * PANEL_WIDTH * F::DTYPE.size()..];
            // SAFETY: the panel has the rows from k on, `acc` all rows of the block, the inputs were packed above.
            unsafe {
                Multiply::<F> {
                    rows: block_rows,
                    width: PANEL_WIDTH,
                    pairs,
                    inputs,
                    blocks: &[panel.as_ptr()],
                    block_width: PANEL_WIDTH,
                    block_pairs: pairs,
                    ahead: &[panel.as_ptr().wrapping_add(PREFETCH_DISTANCE)],
                    acc: acc.as_mut_ptr(),
                    acc_stride: PANEL_WIDTH,
                    accumulate: k > 0,
                }
                .run(simd);
            }
        }
    }
    let out_features = item.weight.out_features();
    for (index, panel) in item.panels.clone().enumerate() {
        let columns = panel * PANEL_WIDTH..out_features.min((panel + 1) * PANEL_WIDTH);
        for row in 0..block_rows {
            let acc = &item.scratch[(index * acc_rows + row) * PANEL_WIDTH..][..columns.len()];
            let start = (item.block.start + row) * out_features;
            // SAFETY: items cover disjoint rows and columns of the output.
            let out = unsafe { item.out.range(start + columns.start..start + columns.end) };
            match item.weight.bias() {
                None => out.copy_from_slice(acc),
                Some(bias) => {
                    for ((out, acc), bias) in out.iter_mut().zip(acc).zip(&bias[columns.clone()]) {
                        *out = acc + bias;
                    }
                }
            }
        }
    }
}
