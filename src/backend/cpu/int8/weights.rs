//! 8-bit weights in panels of output columns, quantized and packed once when they are loaded.
//!
//! A panel of [`PANEL_WIDTH`] columns is one stream of groups along k, each `[PANEL_WIDTH] f32` scales followed by
//! `[GROUP_LEN / 4][PANEL_WIDTH][4]` bytes: four successive k of a column side by side, which is the operand of the dot
//! product of VNNI (and of AMX). Bytes are offset by 128. The last group is as long as its k need, padded to four; the last
//! panel is padded with columns of scale zero.

use crate::backend::HostTensor;
use crate::backend::cpu::memory::Buffer;
use crate::backend::cpu::simd::{Dispatch, Kernel, Simd};
use crate::backend::cpu::threads::{SharedSlice, ThreadPool};
use crate::backend::cpu::weights::{PANEL_WIDTH, PanelRows, Stack};
use crate::backend::quantization::{GROUP_LEN, quantize_group};
use crate::error::Result;

/// Elements along k that lie side by side.
pub const QUAD: usize = 4;
/// Bytes of the scales of a panel's group.
pub const SCALE_BYTES: usize = PANEL_WIDTH * size_of::<f32>();
/// Bytes of a whole group of a panel.
pub const GROUP_BYTES: usize = SCALE_BYTES + GROUP_LEN * PANEL_WIDTH;
/// Added to a weight to make its byte.
pub const WEIGHT_OFFSET: i32 = 128;

/// A linear layer `[out_features, in_features]` with its optional bias.
pub struct Int8Weights {
    out_features: usize,
    in_features: usize,
    panels: Buffer<u8>,
    bias: Option<Vec<f32>>,
}

impl Int8Weights {
    /// Quantizes `weights`, stacked along their rows, on all threads.
    ///
    /// # Errors
    /// `InvalidData` when widths differ or the biases do not cover the rows, `OutOfMemory`.
    pub fn pack(
        dispatch: Dispatch,
        pool: &ThreadPool,
        weights: &[HostTensor<'_>],
        bias: &[HostTensor<'_>],
    ) -> Result<Self> {
        let stack = Stack::new(weights)?;
        let (in_features, out_features) = (stack.in_features, stack.out_features);
        let bias = stack.bias(bias)?;
        let panel_bytes = panel_bytes(in_features);
        let num_panels = out_features.div_ceil(PANEL_WIDTH);
        let mut panels =
            Buffer::zeroed(panel_bytes.saturating_mul(num_panels), "the weights of a linear layer")?;
        let shared = SharedSlice::new(&mut panels);
        pool.for_each(num_panels, &|_, panel| {
            // SAFETY: every panel is handed out once.
            let packed = unsafe { shared.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
            dispatch.run(PackPanel { in_features, rows: &stack.panel(panel), packed });
        });
        Ok(Self { out_features, in_features, panels, bias })
    }

    /// Rows of the weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of the weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Bytes of memory that weight, scales and bias take, padding included.
    pub fn bytes(&self) -> usize {
        self.panels.len() + self.bias.as_deref().map_or(0, size_of_val)
    }

    /// Number of panels.
    pub fn num_panels(&self) -> usize {
        self.out_features.div_ceil(PANEL_WIDTH)
    }

    /// The groups of one panel.
    pub fn panel(&self, panel: usize) -> &[u8] {
        let bytes = panel_bytes(self.in_features);
        &self.panels[panel * bytes..(panel + 1) * bytes]
    }

    /// The bias, `[out_features]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Row `row` of the weight as the products see it, `[in_features]`: an embedding.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.out_features && out.len() == self.in_features,
            "row {row} of {}",
            self.out_features
        );
        let (groups, column) = (self.panel(row / PANEL_WIDTH).chunks(GROUP_BYTES), row % PANEL_WIDTH);
        for (out, group) in out.chunks_mut(GROUP_LEN).zip(groups) {
            let (scales, bytes) = group.split_at(SCALE_BYTES);
            let scale = scales.as_chunks::<4>().0.get(column).map_or(0.0, |scale| f32::from_ne_bytes(*scale));
            for (k, out) in out.iter_mut().enumerate() {
                let byte = bytes[(k / QUAD * PANEL_WIDTH + column) * QUAD + k % QUAD];
                *out = scale * (i32::from(byte) - WEIGHT_OFFSET) as f32;
            }
        }
    }
}

/// Bytes of a panel: quads of whole groups are whole, so only the last one of all is padded.
fn panel_bytes(in_features: usize) -> usize {
    in_features.div_ceil(GROUP_LEN) * SCALE_BYTES + in_features.next_multiple_of(QUAD) * PANEL_WIDTH
}

/// Quantizes up to [`PANEL_WIDTH`] rows into a zeroed panel.
struct PackPanel<'a> {
    in_features: usize,
    rows: &'a PanelRows<'a>,
    packed: &'a mut [u8],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (index, group) in self.packed.chunks_mut(GROUP_BYTES).enumerate() {
            let k = index * GROUP_LEN;
            let len = GROUP_LEN.min(self.in_features - k);
            let (scales, bytes) = group.split_at_mut(SCALE_BYTES);
            for (column, tensor, row) in self.rows.iter() {
                let mut values = [0.0; GROUP_LEN];
                tensor.read_f32(row * self.in_features + k, &mut values[..len]);
                let mut quantized = [0; GROUP_LEN];
                let scale = quantize_group(&values, &mut quantized);
                scales[column * size_of::<f32>()..][..size_of::<f32>()].copy_from_slice(&scale.to_ne_bytes());
                // A pad meets inputs of zero.
                for (quad, to) in
                    quantized.as_chunks::<QUAD>().0.iter().zip(bytes.chunks_mut(PANEL_WIDTH * QUAD))
                {
                    let quad = quad.map(|weight| weight.cast_unsigned().wrapping_add(WEIGHT_OFFSET as u8));
                    to[column * QUAD..(column + 1) * QUAD].copy_from_slice(&quad);
                }
            }
        }
    }
}
