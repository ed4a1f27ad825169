//! The inputs of an 8-bit layer: rows quantized in groups along k, as the tiles read them.
//!
//! Layout in one buffer: bytes `[k block][rows][BLOCK_LEN]`, the last k padded to four with zeros, then for each group and
//! row its [`InputGroup`], `[group][rows]`.

use std::ops::Range;

use super::weights::{QUAD, WEIGHT_OFFSET};
use crate::backend::cpu::simd::{Dispatch, Kernel, Simd};
use crate::backend::cpu::threads::{SharedSlice, ThreadPool};
use crate::backend::quantization::{GROUP_LEN, quantize_group};

/// Groups of a block of k: a panel's part of it and the inputs of a tile lie in the first-level cache together.
pub const BLOCK_GROUPS: usize = 4;
/// Inputs of a block of k, and bytes between the starts of two rows in it.
pub const BLOCK_LEN: usize = BLOCK_GROUPS * GROUP_LEN;

/// What belongs to one group of one row.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct InputGroup {
    /// `input ≈ scale · byte`.
    pub scale: f32,
    /// What the offset of the weights' bytes adds to the group's products, negated.
    pub correction: i32,
}

/// Bytes of the quantized inputs of `[rows, cols]`.
pub fn input_bytes(rows: usize, cols: usize) -> usize {
    let row = cols.next_multiple_of(BLOCK_LEN) + cols.div_ceil(GROUP_LEN) * size_of::<InputGroup>();
    rows.saturating_mul(row)
}

/// The quantized inputs `[rows, cols]` of one call.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    rows: usize,
    cols: usize,
    packed: &'a SharedSlice<'a, u8>,
}

impl<'a> Inputs<'a> {
    /// Quantizes `input`, `[rows, cols]`, into `packed`, which has [`input_bytes`] and is aligned to a cache line.
    pub fn quantize(
        dispatch: Dispatch,
        pool: &ThreadPool,
        cols: usize,
        input: &[f32],
        packed: &'a SharedSlice<'a, u8>,
    ) -> Self {
        let inputs = Self { rows: input.len() / cols, cols, packed };
        pool.for_ranges(inputs.rows, cols, &|rows| dispatch.run(QuantizeRows { inputs, rows, input }));
        inputs
    }

    /// The bytes of a row and those after it in a block of k.
    pub fn bytes(&self, block: usize, row: usize) -> *const i8 {
        self.packed.as_ptr().wrapping_add((block * self.rows + row) * BLOCK_LEN).cast()
    }

    /// A row's group and those of the rows after it.
    pub fn groups(&self, group: usize, row: usize) -> *const InputGroup {
        let bytes = self.rows * self.cols.next_multiple_of(BLOCK_LEN);
        let groups = self.packed.as_ptr().wrapping_add(bytes).cast::<InputGroup>();
        groups.wrapping_add(group * self.rows + row)
    }

    /// Rows, which is also the distance of two groups of a row.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

struct QuantizeRows<'a> {
    inputs: Inputs<'a>,
    rows: Range<usize>,
    input: &'a [f32],
}

impl Kernel for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let cols = self.inputs.cols;
        for row in self.rows {
            let values = &self.input[row * cols..(row + 1) * cols];
            for (group, values) in values.chunks(GROUP_LEN).enumerate() {
                let mut quantized = [0; GROUP_LEN];
                let scale = quantize_group(values, &mut quantized);
                let sum: i32 = quantized.iter().map(|&byte| i32::from(byte)).sum();
                let header = InputGroup { scale, correction: -WEIGHT_OFFSET * sum };
                let (block, start) = (group / BLOCK_GROUPS, group % BLOCK_GROUPS * GROUP_LEN);
                let len = values.len().next_multiple_of(QUAD);
                // SAFETY: both lie within the buffer (checked in `Int8Linear::run`), whose start is aligned as are the
                // multiples of BLOCK_LEN; rows are handed out once.
                unsafe {
                    let to = self.inputs.bytes(block, row).cast_mut().add(start);
                    to.copy_from_nonoverlapping(quantized.as_ptr(), len);
                    self.inputs.groups(group, row).cast_mut().write(header);
                }
            }
        }
    }
}
