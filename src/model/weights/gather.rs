//! Copies a strided view into a dense row-major buffer.

use crate::backend::DType;

/// Side of the square of elements that is copied at once: a transposed read then uses every cache line that it fetches.
const TILE: usize = 32;

/// The strides of a dense row-major tensor, in elements.
pub(super) fn dense_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i]);
    }
    strides
}

/// Copies the view of `source` with these strides, in elements, into dense bytes.
///
/// `source` begins at the view's first element and must hold its last one.
pub(super) fn gather(source: &[u8], dtype: DType, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    match dtype {
        DType::F32 => gather_elements::<4>(source, shape, strides),
        DType::F16 | DType::BF16 => gather_elements::<2>(source, shape, strides),
    }
}

/// A matrix within a larger tensor.
struct Matrix {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

fn gather_elements<const SIZE: usize>(source: &[u8], shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let (source, _) = source.as_chunks::<SIZE>();
    let mut out = vec![[0; SIZE]; shape.iter().product()];
    let rank = shape.len();
    let matrix = Matrix {
        rows: if rank > 1 { shape[rank - 2] } else { 1 },
        cols: if rank > 0 { shape[rank - 1] } else { 1 },
        row_stride: if rank > 1 { strides[rank - 2] } else { 0 },
        col_stride: if rank > 0 { strides[rank - 1] } else { 0 },
    };
    let outer_shape = &shape[..rank.saturating_sub(2)];
    let mut index = vec![0; outer_shape.len()];
    for out in out.chunks_exact_mut((matrix.rows * matrix.cols).max(1)) {
        let start: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        gather_matrix(&source[start..], &matrix, out);
        advance(&mut index, outer_shape);
    }
    out.into_flattened()
}

fn gather_matrix<const SIZE: usize>(source: &[[u8; SIZE]], matrix: &Matrix, out: &mut [[u8; SIZE]]) {
    let &Matrix { rows, cols, row_stride, col_stride } = matrix;
    if col_stride == 1 {
        for (row, out) in out.chunks_exact_mut(cols).enumerate() {
            out.copy_from_slice(&source[row * row_stride..][..cols]);
        }
        return;
    }
    for tile_row in (0..rows).step_by(TILE) {
        for tile_col in (0..cols).step_by(TILE) {
            let tile_cols = tile_col..(tile_col + TILE).min(cols);
            for row in tile_row..(tile_row + TILE).min(rows) {
                let source = &source[row * row_stride..];
                for (col, out) in tile_cols.clone().zip(&mut out[row * cols..][tile_cols.clone()]) {
                    *out = source[col * col_stride];
                }
            }
        }
    }
}

/// Steps a row-major index; after the last one comes the first.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (i, &dim) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < dim {
            return;
        }
        *i = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gathers from a storage of counting numbers and compares with the definition of strides, element by element.
    fn check(shape: &[usize], strides: &[usize]) {
        let last: usize = shape.iter().zip(strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        let numbers: Vec<u8> = (0..=last as u32).flat_map(u32::to_le_bytes).collect();
        let gathered = gather(&numbers, DType::F32, shape, strides);
        let mut index = vec![0; shape.len()];
        for (at, element) in gathered.as_chunks::<4>().0.iter().enumerate() {
            let expected: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
            assert_eq!(
                u32::from_le_bytes(*element) as usize,
                expected,
                "{shape:?} {strides:?}: element {at}"
            );
            advance(&mut index, shape);
        }
        assert_eq!(gathered.len(), 4 * shape.iter().product::<usize>());
    }

    #[test]
    fn every_layout_follows_the_definition() {
        check(&[], &[]);
        check(&[7], &[3]);
        check(&[7], &[0]);
        check(&[65, 33], &[1, 65]);
        check(&[65, 33], &[40, 1]);
        check(&[65, 33], &[200, 5]);
        check(&[3, 4, 5], &[1, 3, 12]);
        check(&[3, 4, 5], &[20, 1, 4]);
        check(&[2, 3, 2, 3], &[7, 100, 1, 2]);
    }
}
