//! Adds a low-rank product to a weight: `W + scale · L·R`.

use std::borrow::Cow;

use crate::backend::{DType, HostTensor};
use crate::error::Result;

/// Columns of the product that are summed at once; with the rows of `R` they stay in the nearest cache.
const TILE: usize = 256;

/// Rows of the weight that share a pass over `R`.
const ROWS: usize = 16;

/// Two dense f32 matrices, `left` `[rows, rank]` and `right` `[rank, cols]`, whose product is added.
pub(super) struct LowRank<'a> {
    pub(super) left: &'a [f32],
    pub(super) right: &'a [f32],
    pub(super) rank: usize,
    pub(super) scale: f32,
}

impl LowRank<'_> {
    /// The sum with `base` `[rows, cols]`, in f32.
    pub(super) fn add_to(&self, base: &HostTensor<'_>) -> Result<HostTensor<'static>> {
        let (rows, cols) = base.rows_cols()?;
        assert!(self.left.len() == rows * self.rank && self.right.len() == self.rank * cols);
        let mut bytes = Vec::with_capacity(rows * cols * DType::F32.size());
        let mut block = vec![0.0; ROWS * cols];
        for first in (0..rows).step_by(ROWS) {
            let block = &mut block[..ROWS.min(rows - first) * cols];
            base.read_f32(first * cols, block);
            self.add_to_rows(&self.left[first * self.rank..], block, cols);
            bytes.extend(block.iter().flat_map(|value| value.to_le_bytes()));
        }
        HostTensor::new(DType::F32, vec![rows, cols], Cow::Owned(bytes))
    }

    /// Adds to whole rows of the weight, whose coefficients `left` begins with.
    fn add_to_rows(&self, left: &[f32], weight: &mut [f32], cols: usize) {
        let mut sums = [0.0_f32; TILE];
        for start in (0..cols).step_by(TILE) {
            let tile = start..(start + TILE).min(cols);
            let sums = &mut sums[..tile.len()];
            for (weight, coefficients) in weight.chunks_exact_mut(cols).zip(left.chunks_exact(self.rank)) {
                sums.fill(0.0);
                for (right, &coefficient) in self.right.chunks_exact(cols).zip(coefficients) {
                    for (sum, &right) in sums.iter_mut().zip(&right[tile.clone()]) {
                        *sum += coefficient * right;
                    }
                }
                for (weight, &sum) in weight[tile.clone()].iter_mut().zip(&*sums) {
                    *weight += self.scale * sum;
                }
            }
        }
    }
}

/// The transpose of a dense matrix with `cols` columns.
pub(super) fn transposed(matrix: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|col| matrix.iter().skip(col).step_by(cols).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_definition_for_odd_sizes() {
        for (rows, cols, rank) in [(1, 1, 1), (3, 5, 2), (17, 300, 3), (33, 257, 7), (16, 512, 16)] {
            let values = |len: usize, step: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * step) % 31) as f32 / 16.0 - 0.9).collect()
            };
            let (left, right) = (values(rows * rank, 7), values(rank * cols, 11));
            let base = values(rows * cols, 3);
            let tensor = HostTensor::from_f32(vec![rows, cols], &base).unwrap();
            let low_rank = LowRank { left: &left, right: &right, rank, scale: 0.75 };
            let merged = low_rank.add_to(&tensor).unwrap();
            assert_eq!((merged.dtype(), merged.shape()), (DType::F32, &[rows, cols][..]));
            for (i, got) in merged.to_f32().into_iter().enumerate() {
                let product: f64 = (0..rank)
                    .map(|k| f64::from(left[i / cols * rank + k]) * f64::from(right[k * cols + i % cols]))
                    .sum();
                let expected = f64::from(base[i]) + 0.75 * product;
                assert!(
                    (f64::from(got) - expected).abs() < 1e-5,
                    "{rows}x{cols} rank {rank}: {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_transpose_exchanges_rows_and_columns() {
        assert_eq!(transposed(&[1., 2., 3., 4., 5., 6.], 3), [1., 4., 2., 5., 3., 6.]);
        assert_eq!(transposed(&[], 3), [0.0; 0]);
    }
}
