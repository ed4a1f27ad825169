//! [`Multiply`] on a unit of tiles: up to two by two tiles of results, all of k in steps of one tile.
//!
//! A step adds, to each element of the result, the sum of the even products and the sum of the odd ones of up to 32 k. So
//! a row's result depends on where the steps start, and that is the same for any number of rows: at the start of a product
//! and of each of its blocks. The last step of a block is padded with zeros, which change no sum.

use half::bf16;

use super::format::Format;
use super::multiply::{INPUT_STRIDE, Multiply};
use super::simd::{Bf16Product, Product, Simd, TILE_ROW_BYTES, TILE_ROWS, TileUnit};

/// Bytes of a pair of bf16, and of a result.
const PAIR: usize = 2 * size_of::<bf16>();
/// Columns of a tile, and pairs along k of one step.
const TILE_WIDTH: usize = TILE_ROW_BYTES / PAIR;
/// Bytes between two rows of inputs.
const INPUT_BYTES: usize = INPUT_STRIDE * size_of::<bf16>();

/// Computes a product of bf16.
///
/// # Safety
/// As for [`Multiply::run`], for a format with [`Format::ON_TILES`].
#[inline(always)]
pub unsafe fn multiply<S: Simd, F: Format>(simd: S, job: &Multiply<'_, F>) {
    for column in (0..job.width).step_by(2 * TILE_WIDTH) {
        for row in (0..job.rows).step_by(2 * TILE_ROWS) {
            let two_rows = job.rows - row > TILE_ROWS;
            let two_columns = job.width - column > TILE_WIDTH;
            // SAFETY: tiles lie within the width, and within the rows rounded up to whole tiles.
            unsafe {
                match (two_rows, two_columns) {
                    (true, true) => tiles::<S, F, true, true>(simd, job, row, column),
                    (true, false) => tiles::<S, F, true, false>(simd, job, row, column),
                    (false, true) => tiles::<S, F, false, true>(simd, job, row, column),
                    (false, false) => tiles::<S, F, false, false>(simd, job, row, column),
                }
            }
        }
    }
}

/// One or two tiles of rows times one or two tiles of columns.
#[inline(always)]
unsafe fn tiles<S: Simd, F: Format, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    simd: S,
    job: &Multiply<'_, F>,
    row: usize,
    column: usize,
) {
    let unit = simd.tiles();
    // SAFETY: rows and columns lie within the job's extents by the caller's promise; every pointer below is the job's
    // plus an offset within them, except the one that is only prefetched.
    unsafe {
        let acc = job.acc.add(row * job.acc_stride + column).cast::<u8>();
        let acc_bytes = job.acc_stride * size_of::<f32>();
        if job.accumulate {
            load_results::<_, TWO_ROWS, TWO_COLUMNS>(unit, acc, acc_bytes);
        } else {
            zero_results(unit);
        }
        let pair_bytes = job.block_width * PAIR;
        let mut inputs = job.inputs.add(row * INPUT_STRIDE).cast::<u8>();
        let mut left = job.pairs;
        for (&block, &ahead) in job.blocks.iter().zip(job.ahead) {
            let pairs = left.min(job.block_pairs);
            left -= pairs;
            for first in (0..pairs).step_by(TILE_WIDTH) {
                let columns = first * pair_bytes + column * PAIR;
                // The first rows bring what follows for all rows.
                if row == 0 {
                    for pair in 0..TILE_WIDTH {
                        let ahead = ahead.wrapping_add(columns + pair * pair_bytes);
                        simd.prefetch(ahead);
                        if TWO_COLUMNS {
                            simd.prefetch(ahead.wrapping_add(TILE_ROW_BYTES));
                        }
                    }
                }
                let (a, b) = (inputs.add(first * PAIR), block.add(columns));
                if pairs - first >= TILE_WIDTH {
                    step::<_, Bf16Product, TWO_ROWS, TWO_COLUMNS>(unit, a, INPUT_BYTES, b, pair_bytes);
                } else {
                    let (rows, columns) =
                        (TILE_ROWS << usize::from(TWO_ROWS), TILE_WIDTH << usize::from(TWO_COLUMNS));
                    let padded = PaddedStep::copy(pairs - first, (a, rows), (b, columns, pair_bytes));
                    let (a, b) = (padded.a.as_ptr().cast(), padded.b.as_ptr().cast());
                    step::<_, Bf16Product, TWO_ROWS, TWO_COLUMNS>(
                        unit,
                        a,
                        TILE_ROW_BYTES,
                        b,
                        2 * TILE_ROW_BYTES,
                    );
                }
            }
            inputs = inputs.add(pairs * PAIR);
        }
        store_results::<_, TWO_ROWS, TWO_COLUMNS>(unit, acc, acc_bytes);
    }
}

/// Fills the tiles of results with zeros.
#[inline(always)]
pub fn zero_results<T: TileUnit>(unit: T) {
    unit.zero::<0>();
    unit.zero::<1>();
    unit.zero::<2>();
    unit.zero::<3>();
}

/// Loads the tiles of results: 0 and 1 beside each other, 2 and 3 below them.
#[inline(always)]
unsafe fn load_results<T: TileUnit, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    unit: T,
    acc: *const u8,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        unit.load::<0>(acc, stride);
        if TWO_COLUMNS {
            unit.load::<1>(acc.add(TILE_ROW_BYTES), stride);
        }
        if TWO_ROWS {
            unit.load::<2>(acc.add(TILE_ROWS * stride), stride);
        }
        if TWO_ROWS && TWO_COLUMNS {
            unit.load::<3>(acc.add(TILE_ROWS * stride + TILE_ROW_BYTES), stride);
        }
    }
}

/// Stores what [`load_results`] loads.
///
/// # Safety
/// The rows are writable, `stride` bytes apart.
#[inline(always)]
pub unsafe fn store_results<T: TileUnit, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    unit: T,
    acc: *mut u8,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        unit.store::<0>(acc, stride);
        if TWO_COLUMNS {
            unit.store::<1>(acc.add(TILE_ROW_BYTES), stride);
        }
        if TWO_ROWS {
            unit.store::<2>(acc.add(TILE_ROWS * stride), stride);
        }
        if TWO_ROWS && TWO_COLUMNS {
            unit.store::<3>(acc.add(TILE_ROWS * stride + TILE_ROW_BYTES), stride);
        }
    }
}

/// Adds the products of one step to the results; both operands are whole tiles.
///
/// # Safety
/// The rows of one or two tiles of inputs and of columns are readable, `a_stride` and `b_stride` bytes apart.
#[inline(always)]
pub unsafe fn step<T: TileUnit, P: Product, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    unit: T,
    a: *const u8,
    a_stride: usize,
    b: *const u8,
    b_stride: usize,
) {
    // SAFETY: the caller's promise. Tiles 4 and 5 hold inputs, 6 and 7 columns.
    unsafe {
        unit.load::<4>(a, a_stride);
        unit.load::<6>(b, b_stride);
        P::dot::<T, 0, 4, 6>(unit);
        if TWO_COLUMNS {
            unit.load::<7>(b.add(TILE_ROW_BYTES), b_stride);
            P::dot::<T, 1, 4, 7>(unit);
        }
        if TWO_ROWS {
            unit.load::<5>(a.add(TILE_ROWS * a_stride), a_stride);
            P::dot::<T, 2, 5, 6>(unit);
            if TWO_COLUMNS {
                P::dot::<T, 3, 5, 7>(unit);
            }
        }
    }
}

/// The operands of a step with fewer pairs than a tile has, padded with zeros on both sides: what lies beyond may be NaN.
#[repr(align(64))]
struct PaddedStep {
    /// `[rows][TILE_WIDTH]` pairs of inputs.
    a: [[u32; TILE_WIDTH]; 2 * TILE_ROWS],
    /// `[TILE_WIDTH][columns]` pairs.
    b: [[u32; 2 * TILE_WIDTH]; TILE_WIDTH],
}

impl PaddedStep {
    /// Copies `pairs` pairs of `rows` rows of inputs, and of `columns` columns `stride` bytes below each other.
    #[inline(always)]
    unsafe fn copy(
        pairs: usize,
        (a, rows): (*const u8, usize),
        (b, columns, stride): (*const u8, usize, usize),
    ) -> Self {
        let mut padded = Self { a: [[0; TILE_WIDTH]; 2 * TILE_ROWS], b: [[0; 2 * TILE_WIDTH]; TILE_WIDTH] };
        // SAFETY: the caller's promise; the copies are within rows of the arrays.
        unsafe {
            for (row, to) in padded.a.iter_mut().take(rows).enumerate() {
                a.add(row * INPUT_BYTES).copy_to_nonoverlapping(to.as_mut_ptr().cast(), pairs * PAIR);
            }
            for (pair, to) in padded.b.iter_mut().take(pairs).enumerate() {
                b.add(pair * stride).copy_to_nonoverlapping(to.as_mut_ptr().cast(), columns * PAIR);
            }
        }
        padded
    }
}
