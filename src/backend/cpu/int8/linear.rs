//! `out = input · weightᵀ + bias` with 8-bit weights, shared out like [`crate::backend::cpu::linear`].

use std::ops::Range;

use super::inputs::{BLOCK_GROUPS, BLOCK_LEN, Inputs};
use super::multiply::Multiply;
use super::simd::{ByteDispatch, ByteKernel, ByteSimd};
use super::weights::{GROUP_BYTES, Int8Weights};
use crate::backend::cpu::simd::Dispatch;
use crate::backend::cpu::threads::{SharedSlice, ThreadPool};
use crate::backend::cpu::weights::PANEL_WIDTH;
use crate::backend::cpu::work_items::{WorkItems, thread_scratch};

pub use super::inputs::input_bytes;

/// Most rows of a work item, a little above what 18 of the largest register tiles hold.
const MAX_BLOCK_ROWS: usize = 280;

/// f32 that one thread needs as scratch memory.
pub const THREAD_SCRATCH: usize = thread_scratch(MAX_BLOCK_ROWS);

/// One call of the operation.
pub struct Int8Linear<'a> {
    /// `[rows, in_features]`.
    pub input: &'a [f32],
    /// The layer.
    pub weight: &'a Int8Weights,
    /// `[rows, out_features]`.
    pub out: &'a mut [f32],
    /// At least [`input_bytes`], aligned to a cache line.
    pub packed: &'a mut [u8],
    /// [`THREAD_SCRATCH`] f32 for each thread.
    pub scratch: &'a mut [f32],
}

impl Int8Linear<'_> {
    /// Computes on all threads.
    pub fn run(self, dispatch: Dispatch, bytes: ByteDispatch, pool: &ThreadPool) {
        let (in_features, out_features) = (self.weight.in_features(), self.weight.out_features());
        let rows = self.input.len() / in_features;
        assert_eq!(self.input.len(), rows * in_features, "input of a linear layer");
        assert_eq!(self.out.len(), rows * out_features, "output of a linear layer");
        assert!(self.packed.len() >= input_bytes(rows, in_features), "packed inputs");

        let packed = SharedSlice::new(self.packed);
        let inputs = Inputs::quantize(dispatch, pool, in_features, self.input, &packed);
        let items = WorkItems {
            rows,
            num_panels: self.weight.num_panels(),
            has_tiles: bytes.has_tiles(),
            max_block_rows: MAX_BLOCK_ROWS,
        };
        let out = SharedSlice::new(self.out);
        items.for_each(pool, self.scratch, |block, panels, scratch| {
            bytes.run(Item { weight: self.weight, inputs, block, panels, out: &out, scratch });
        });
    }
}

/// A block of rows times a few panels.
struct Item<'a> {
    weight: &'a Int8Weights,
    inputs: Inputs<'a>,
    block: Range<usize>,
    panels: Range<usize>,
    out: &'a SharedSlice<'a, f32>,
    scratch: &'a mut [f32],
}

impl ByteKernel for Item<'_> {
    #[inline(always)]
    fn run<S: ByteSimd>(self, simd: S) {
        let in_features = self.weight.in_features();
        let block_rows = self.block.len();
        self.scratch[..self.panels.len() * block_rows * PANEL_WIDTH].fill(0.0);
        for (block, k) in (0..in_features).step_by(BLOCK_LEN).enumerate() {
            let first_group = block * BLOCK_GROUPS;
            for (index, panel) in self.panels.clone().enumerate() {
                let acc = &mut self.scratch[index * block_rows * PANEL_WIDTH..][..block_rows * PANEL_WIDTH];
                // SAFETY: the panel has the groups from k on, `acc` all rows of the block, and all inputs were packed
                // before the items were handed out.
                unsafe {
                    Multiply {
                        rows: block_rows,
                        len: (in_features - k).min(BLOCK_LEN),
                        inputs: self.inputs.bytes(block, self.block.start),
                        groups: self.inputs.groups(first_group, self.block.start),
                        group_stride: self.inputs.rows(),
                        panel: self.weight.panel(panel)[first_group * GROUP_BYTES..].as_ptr(),
                        acc: acc.as_mut_ptr(),
                    }
                    .run(simd);
                }
            }
        }
        let out_features = self.weight.out_features();
        for (index, panel) in self.panels.clone().enumerate() {
            let columns = panel * PANEL_WIDTH..out_features.min((panel + 1) * PANEL_WIDTH);
            for row in 0..block_rows {
                let acc = &self.scratch[(index * block_rows + row) * PANEL_WIDTH..][..columns.len()];
                let start = (self.block.start + row) * out_features;
                // SAFETY: items cover disjoint rows and columns of the output.
                let out = unsafe { self.out.range(start + columns.start..start + columns.end) };
                match self.weight.bias() {
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
}
