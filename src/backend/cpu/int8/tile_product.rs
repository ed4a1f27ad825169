//! [`Multiply`] on a unit of tiles: one or two tiles of rows times the two tiles of columns of a panel.
//!
//! The tiles hold the integer sums of one group, which vectors scale and add to the results as the register tiles do.

use std::mem::MaybeUninit;

use super::inputs::BLOCK_LEN;
use super::multiply::{Multiply, PREFETCH_DISTANCE};
use super::simd::ByteSimd;
use super::weights::{GROUP_BYTES, QUAD, SCALE_BYTES};
use crate::backend::cpu::simd::{ByteProduct, Product, TILE_ROW_BYTES, TILE_ROWS};
use crate::backend::cpu::tile_product::{step, store_results, zero_results};
use crate::backend::cpu::weights::PANEL_WIDTH;
use crate::backend::quantization::GROUP_LEN;

/// Bytes between two quads of a panel.
const QUAD_BYTES: usize = PANEL_WIDTH * QUAD;

const _: () = assert!(GROUP_LEN.is_multiple_of(ByteProduct::LEN), "a group is whole steps");
const _: () = assert!(PANEL_WIDTH * size_of::<i32>() == 2 * TILE_ROW_BYTES, "a panel is two tiles wide");

/// The integer sums of a group, in whole cache lines.
#[repr(align(64))]
struct Sums(MaybeUninit<[[i32; PANEL_WIDTH]; 2 * TILE_ROWS]>);

/// Computes whole groups of a multiple of [`TILE_ROWS`] rows.
///
/// # Safety
/// As for [`Multiply::run`].
#[inline(always)]
pub unsafe fn multiply<S: ByteSimd>(simd: S, job: &Multiply) {
    debug_assert!(job.rows.is_multiple_of(TILE_ROWS) && job.len.is_multiple_of(GROUP_LEN));
    for row in (0..job.rows).step_by(2 * TILE_ROWS) {
        for group in 0..job.len / GROUP_LEN {
            // SAFETY: rows and group lie within the job's extents.
            unsafe {
                if job.rows - row > TILE_ROWS {
                    multiply_group::<S, true>(simd, job, row, group);
                } else {
                    multiply_group::<S, false>(simd, job, row, group);
                }
            }
        }
    }
}

/// One group of one or two tiles of rows.
#[inline(always)]
unsafe fn multiply_group<S: ByteSimd, const TWO_ROWS: bool>(
    simd: S,
    job: &Multiply,
    row: usize,
    group: usize,
) {
    let unit = simd.tiles();
    let rows = TILE_ROWS << usize::from(TWO_ROWS);
    let mut sums = Sums(MaybeUninit::uninit());
    // SAFETY: rows and group lie within the job's extents by the caller's promise; every pointer below is the job's plus an
    // offset within them, except the one that is only prefetched. The tiles of results fill the first `rows` rows of `sums`.
    unsafe {
        let panel = job.panel.add(group * GROUP_BYTES);
        let inputs = job.inputs.add(row * BLOCK_LEN + group * GROUP_LEN).cast::<u8>();
        let quads = panel.add(SCALE_BYTES);
        zero_results(unit);
        for k in (0..GROUP_LEN).step_by(ByteProduct::LEN) {
            let quads = quads.add(k * PANEL_WIDTH);
            // The first rows bring what follows for all rows.
            if row == 0 {
                for line in 0..ByteProduct::LEN * PANEL_WIDTH / 64 {
                    simd.prefetch(quads.wrapping_add(PREFETCH_DISTANCE + line * 64));
                }
            }
            step::<_, ByteProduct, TWO_ROWS, true>(unit, inputs.add(k), BLOCK_LEN, quads, QUAD_BYTES);
        }
        store_results::<_, TWO_ROWS, true>(unit, sums.0.as_mut_ptr().cast(), PANEL_WIDTH * size_of::<i32>());

        let sums = sums.0.as_ptr().cast::<i32>();
        let headers = job.groups.add(group * job.group_stride + row);
        let scales = panel.cast::<f32>();
        let acc = job.acc.add(row * PANEL_WIDTH);
        for r in 0..rows {
            let header = *headers.add(r);
            let correction = simd.splat(header.correction);
            for column in (0..PANEL_WIDTH).step_by(S::LANES) {
                let sum = simd.add(simd.load_sums(sums.add(r * PANEL_WIDTH + column)), correction);
                let acc = acc.add(r * PANEL_WIDTH + column);
                let scales = simd.load(scales.add(column));
                simd.store(acc, simd.add_scaled(simd.load(acc), sum, scales, header.scale));
            }
        }
    }
}
