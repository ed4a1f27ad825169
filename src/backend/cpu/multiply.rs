//! The matrix product that linear layers and attention share: a few rows of inputs times one packed block.
//!
//! Every element of the result is one chain of multiply-adds over k in ascending order, whatever the tile it is computed
//! in. So a row's result does not depend on how many rows are multiplied with it. Units of tiles sum in an order of their
//! own ([`super::tile_product`]); where there is one, it computes the products of any number of rows.

use super::format::Format;
use super::simd::{Kernel, Simd, TILE_ROWS, TileUnit};
use super::tile_product;

/// Elements between the starts of two input rows, and the most k of one product.
///
/// Being a constant it lets one pointer address all rows of a tile. Of 256 the inputs of a tile and the packed block of
/// a weight panel lie in the first-level cache together.
pub const INPUT_STRIDE: usize = 256;

/// Memory of inputs and results has rows up to a multiple of this: a tile reads and writes them all.
pub const ROW_ALIGNMENT: usize = TILE_ROWS;

/// Bytes that one prefetch brings.
const CACHE_LINE: usize = 64;

/// Width of a packed block is a multiple of this.
pub const COLUMN_ALIGNMENT: usize = 16;

/// `acc[rows, width] (+)= inputs[rows, 2 · pairs] · matrix[2 · pairs, width]`, the matrix being scattered in blocks.
#[derive(Clone, Copy)]
pub struct Multiply<'a, F: Format> {
    /// Rows of the product.
    pub rows: usize,
    /// Columns of the product, a multiple of [`COLUMN_ALIGNMENT`].
    pub width: usize,
    /// Pairs along k, at most `INPUT_STRIDE / 2`.
    pub pairs: usize,
    /// Row-major, rows [`INPUT_STRIDE`] apart; `rows` rounded up to [`ROW_ALIGNMENT`] are read.
    pub inputs: *const F::Input,
    /// Packed matrices of `block_width` columns (see [`super::format`]), one below the other; the product takes the first
    /// `width`.
    pub blocks: &'a [*const u8],
    /// Columns of a block.
    pub block_width: usize,
    /// Pairs along k of each block but the last, which may have fewer.
    pub block_pairs: usize,
    /// For each block, memory that is fetched into the cache at the pace at which the block is read; need not be valid.
    /// Hardware fetches ahead within a page only.
    pub ahead: &'a [*const u8],
    /// Row-major, rows `acc_stride` apart; `rows` rounded up to [`ROW_ALIGNMENT`] are overwritten.
    pub acc: *mut f32,
    /// Elements between the starts of two rows of `acc`.
    pub acc_stride: usize,
    /// Add to what is in `acc`, or overwrite it.
    pub accumulate: bool,
}

impl<F: Format> Multiply<'_, F> {
    /// Computes.
    ///
    /// # Safety
    /// Inputs and blocks are readable and `acc` is writable in the extents stated at the fields, and no other thread
    /// writes any of them.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(self, simd: S) {
        debug_assert!(self.width.is_multiple_of(COLUMN_ALIGNMENT) && self.width <= self.block_width);
        debug_assert!(2 * self.pairs <= INPUT_STRIDE && self.pairs <= self.blocks.len() * self.block_pairs);
        debug_assert_eq!(self.blocks.len(), self.ahead.len());
        simd.call(MultiplyKernel(self));
    }
}

/// Made by [`Multiply::run`] alone, whose caller vouches for the pointers.
struct MultiplyKernel<'a, F: Format>(Multiply<'a, F>);

impl<F: Format> Kernel for MultiplyKernel<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let job = self.0;
        if S::Tiles::PRESENT && F::ON_TILES {
            // SAFETY: the caller of Multiply::run vouches.
            return unsafe { tile_product::multiply(simd, &job) };
        }
        let mut column = 0;
        while column < job.width {
            // With eight lanes a strip of 32 columns leaves registers for two rows only.
            let wide = job.width - column >= 32 && (S::LANES == 16 || job.rows <= 2);
            // SAFETY: `column` plus the strip's columns is at most `width`; for the rest the caller of Multiply::run vouches.
            unsafe {
                match (S::LANES, wide) {
                    (16, true) => strip::<S, F, 2>(simd, &job, column),
                    (16, false) => strip::<S, F, 1>(simd, &job, column),
                    (_, true) if job.rows == 1 => tile::<S, F, 1, 4>(simd, &job, 0, column),
                    (_, true) => tile::<S, F, 2, 4>(simd, &job, 0, column),
                    (_, false) => strip::<S, F, 2>(simd, &job, column),
                }
            }
            column += if wide { 32 } else { 16 };
        }
    }
}

/// All rows of `VECTORS` vectors of columns, in as few register tiles as there can be, of even height: a tile of a few
/// rows has too few independent sums to hide the latency of a multiply-add.
#[inline(always)]
unsafe fn strip<S: Simd, F: Format, const VECTORS: usize>(simd: S, job: &Multiply<'_, F>, column: usize) {
    /// Calls the tile of the height `$rows`, for each height up to the largest of the format.
    macro_rules! tile_of_height {
        ($rows:expr, $row:expr; $($height:literal)*) => {
            match $rows {
                // SAFETY: `row` plus the tile's rows is at most `rows`; the columns are the caller's promise.
                $($height if $height <= F::tile_rows::<S>() => unsafe {
                    tile::<S, F, $height, VECTORS>(simd, job, $row, column)
                },)*
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    let mut tiles = job.rows.div_ceil(F::tile_rows::<S>());
    let mut row = 0;
    while row < job.rows {
        let rows = (job.rows - row).div_ceil(tiles);
        tile_of_height!(rows, row; 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        row += rows;
        tiles -= 1;
    }
}

/// `ROWS` rows of `VECTORS` vectors of columns, all accumulators in registers.
#[inline(always)]
unsafe fn tile<S: Simd, F: Format, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    job: &Multiply<'_, F>,
    row: usize,
    column: usize,
) {
    // SAFETY: rows and columns lie within the job's extents by the caller's promise; every pointer below is the job's
    // plus an offset within them, except the one that is only prefetched.
    unsafe {
        let acc = job.acc.add(row * job.acc_stride + column);
        let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
        if job.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.load(acc.add(r * job.acc_stride + v * S::LANES));
                }
            }
        }
        let pair_bytes = 2 * job.block_width * F::DTYPE.size();
        // Strips of columns share out the lines of a pair of rows among themselves.
        let (first_ahead, bytes_ahead) =
            (2 * column * F::DTYPE.size(), 2 * VECTORS * S::LANES * F::DTYPE.size());
        let mut input = job.inputs.add(row * INPUT_STRIDE);
        let mut left = job.pairs;
        for (&block, &ahead) in job.blocks.iter().zip(job.ahead) {
            let (mut row_pair, mut ahead) = (block, ahead.wrapping_add(first_ahead));
            let pairs = left.min(job.block_pairs);
            left -= pairs;
            for _ in 0..pairs {
                for line in (0..bytes_ahead).step_by(CACHE_LINE) {
                    simd.prefetch(ahead.wrapping_add(line));
                }
                ahead = ahead.wrapping_add(pair_bytes);
                if ROWS <= VECTORS {
                    // Few registers of inputs, one vector of columns at a time.
                    for v in 0..VECTORS {
                        let columns = F::load(simd, row_pair, job.block_width, column + v * S::LANES);
                        for (r, sums) in sums.iter_mut().enumerate() {
                            sums[v] = F::dot(simd, sums[v], input.add(r * INPUT_STRIDE), columns);
                        }
                    }
                } else {
                    let mut columns = [F::load(simd, row_pair, job.block_width, column); VECTORS];
                    for (v, columns) in columns.iter_mut().enumerate().skip(1) {
                        *columns = F::load(simd, row_pair, job.block_width, column + v * S::LANES);
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (sum, columns) in sums.iter_mut().zip(&columns) {
                            *sum = F::dot(simd, *sum, input.add(r * INPUT_STRIDE), *columns);
                        }
                    }
                }
                input = input.add(2);
                row_pair = row_pair.add(pair_bytes);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                simd.store(acc.add(r * job.acc_stride + v * S::LANES), *sum);
            }
        }
    }
}
