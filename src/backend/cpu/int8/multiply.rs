//! A few rows of quantized inputs times the groups of one panel.

use super::inputs::{BLOCK_LEN, InputGroup};
use super::simd::ByteSimd;
use super::tile_product;
use super::weights::{GROUP_BYTES, QUAD, SCALE_BYTES};
use crate::backend::cpu::simd::{TILE_ROWS, TileUnit};
use crate::backend::cpu::weights::PANEL_WIDTH;
use crate::backend::quantization::GROUP_LEN;

/// Bytes of a panel that are fetched ahead of their use; hardware fetches ahead within a page only.
pub const PREFETCH_DISTANCE: usize = 4096;

/// `acc[rows, PANEL_WIDTH] += inputs[rows, k] · panel[k, PANEL_WIDTH]` over the k of one block.
///
/// A unit of tiles takes what fills them, whole groups of a multiple of [`TILE_ROWS`] rows, and vectors the rest; both give
/// the same bits.
#[derive(Clone, Copy)]
pub struct Multiply {
    /// Rows of the product.
    pub rows: usize,
    /// Inputs along k, at most [`BLOCK_LEN`].
    pub len: usize,
    /// Row-major, rows [`BLOCK_LEN`] apart.
    pub inputs: *const i8,
    /// The inputs' groups: of successive rows side by side, of successive groups `group_stride` apart.
    pub groups: *const InputGroup,
    /// Rows of all inputs.
    pub group_stride: usize,
    /// The panel's groups from the block's first on.
    pub panel: *const u8,
    /// Row-major, rows [`PANEL_WIDTH`] apart.
    pub acc: *mut f32,
}

impl Multiply {
    /// Computes.
    ///
    /// # Safety
    /// Inputs, groups and panel are readable and `acc` is writable in the extents stated at the fields, and no other thread
    /// writes any of them.
    #[inline(always)]
    pub unsafe fn run<S: ByteSimd>(self, simd: S) {
        debug_assert!(self.len <= BLOCK_LEN);
        if !S::Tiles::PRESENT {
            // SAFETY: the caller's promise.
            return unsafe { self.run_on_vectors(simd) };
        }
        let (rows, groups) = (self.rows / TILE_ROWS * TILE_ROWS, self.len / GROUP_LEN);
        let last_group = Self {
            rows,
            len: self.len - groups * GROUP_LEN,
            inputs: self.inputs.wrapping_add(groups * GROUP_LEN),
            groups: self.groups.wrapping_add(groups * self.group_stride),
            panel: self.panel.wrapping_add(groups * GROUP_BYTES),
            ..self
        };
        let last_rows = Self {
            rows: self.rows - rows,
            inputs: self.inputs.wrapping_add(rows * BLOCK_LEN),
            groups: self.groups.wrapping_add(rows),
            acc: self.acc.wrapping_add(rows * PANEL_WIDTH),
            ..self
        };
        // SAFETY: the caller's promise, as the parts lie within the extents.
        unsafe {
            tile_product::multiply(simd, &Self { rows, len: groups * GROUP_LEN, ..self });
            for rest in [last_group, last_rows] {
                rest.run_on_vectors(simd);
            }
        }
    }

    /// As [`Self::run`].
    #[inline(always)]
    unsafe fn run_on_vectors<S: ByteSimd>(self, simd: S) {
        // SAFETY: columns up to PANEL_WIDTH; the rest is the caller's promise.
        unsafe {
            match (S::LANES, self.rows) {
                (16, _) => strip::<S, 2>(simd, &self, 0),
                (_, 1) => tile::<S, 1, 4>(simd, &self, 0, 0),
                _ => {
                    strip::<S, 2>(simd, &self, 0);
                    strip::<S, 2>(simd, &self, PANEL_WIDTH / 2);
                }
            }
        }
    }
}

/// All rows of `VECTORS` vectors of columns, in as few register tiles as there can be, of even height.
#[inline(always)]
unsafe fn strip<S: ByteSimd, const VECTORS: usize>(simd: S, job: &Multiply, column: usize) {
    /// Calls the tile of the height `$rows`, for each height up to the largest.
    macro_rules! tile_of_height {
        ($rows:expr, $row:expr; $($height:literal)*) => {
            match $rows {
                // SAFETY: `row` plus the tile's rows is at most `rows`; the columns are the caller's promise.
                $($height if $height <= S::TILE_ROWS => unsafe {
                    tile::<S, $height, VECTORS>(simd, job, $row, column)
                },)*
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    let mut tiles = job.rows.div_ceil(S::TILE_ROWS);
    let mut row = 0;
    while row < job.rows {
        let rows = (job.rows - row).div_ceil(tiles);
        tile_of_height!(rows, row; 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        row += rows;
        tiles -= 1;
    }
}

/// `ROWS` rows of `VECTORS` vectors of columns, the integer sums of a group in registers.
#[inline(always)]
unsafe fn tile<S: ByteSimd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    job: &Multiply,
    row: usize,
    column: usize,
) {
    // SAFETY: rows and columns lie within the job's extents by the caller's promise, k within `len` padded to a quad, as
    // both operands are; what is only prefetched need not be there.
    unsafe {
        let acc = job.acc.add(row * PANEL_WIDTH + column);
        let mut input = job.inputs.add(row * BLOCK_LEN);
        for (index, k) in (0..job.len).step_by(GROUP_LEN).enumerate() {
            let group = job.panel.add(index * GROUP_BYTES);
            let headers = job.groups.add(index * job.group_stride + row);
            let mut sums = [[simd.splat(0); VECTORS]; ROWS];
            if !S::SIGNED_WEIGHTS {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [simd.splat((*headers.add(r)).correction); VECTORS];
                }
            }
            let mut quads = group.add(SCALE_BYTES + column * QUAD);
            let mut ahead = quads.wrapping_add(PREFETCH_DISTANCE);
            for _ in 0..(job.len - k).min(GROUP_LEN).div_ceil(QUAD) {
                simd.prefetch(ahead);
                simd.prefetch(ahead.wrapping_add(64));
                ahead = ahead.wrapping_add(PANEL_WIDTH * QUAD);
                let mut weights = [simd.load_quads(quads); VECTORS];
                for (v, weights) in weights.iter_mut().enumerate().skip(1) {
                    *weights = simd.load_quads(quads.add(v * S::LANES * QUAD));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let inputs = input.add(r * BLOCK_LEN).cast::<i32>().read_unaligned();
                    for (sum, weights) in sums.iter_mut().zip(&weights) {
                        *sum = simd.dot(*sum, *weights, inputs);
                    }
                }
                input = input.add(QUAD);
                quads = quads.add(PANEL_WIDTH * QUAD);
            }
            let scales = group.cast::<f32>().add(column);
            for (r, sums) in sums.iter().enumerate() {
                let scale = (*headers.add(r)).scale;
                for (v, sum) in sums.iter().enumerate() {
                    let acc = acc.add(r * PANEL_WIDTH + v * S::LANES);
                    let scales = simd.load(scales.add(v * S::LANES));
                    simd.store(acc, simd.add_scaled(simd.load(acc), *sum, scales, scale));
                }
            }
        }
    }
}
