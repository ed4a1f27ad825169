//! Matrices whose rows lie apart, with large values between them that no kernel may use or change.

use crate::numerics::{Element, Random};

/// Large, and finite in every type.
const POISON: f64 = 6e4;

/// Row-major `[rows, cols]`, rows `stride` apart; the last row has no gap behind it, so that a read past it is out of bounds.
#[derive(Debug, Clone)]
pub struct Matrix<T> {
    pub cols: usize,
    pub stride: usize,
    pub data: Vec<T>,
}

impl<T: Element> Matrix<T> {
    /// Uniform numbers in [-1, 1).
    pub fn random(random: &mut Random, rows: usize, cols: usize, stride: usize) -> Self {
        let mut matrix = Self::poison(rows, cols, stride);
        for row in 0..rows {
            let values = random.values(cols);
            matrix.data[row * stride..][..cols].copy_from_slice(&values);
        }
        matrix
    }

    /// What a kernel has to overwrite.
    pub fn poison(rows: usize, cols: usize, stride: usize) -> Self {
        assert!(stride >= cols);
        Self { cols, stride, data: vec![T::from_f64(POISON); (rows - 1) * stride + cols] }
    }

    /// An element.
    pub fn at(&self, row: usize, col: usize) -> f64 {
        self.data[row * self.stride + col].to_f64()
    }

    /// The rows without what lies between them, which has to be as it was.
    pub fn rows_of(&self, data: &[T]) -> Result<Vec<T>, String> {
        let gap = |index: usize| index % self.stride >= self.cols;
        if let Some(index) = (0..data.len()).find(|&index| gap(index) && data[index] != self.data[index]) {
            return Err(format!("wrote {:?} behind the end of row {}", data[index], index / self.stride));
        }
        Ok((0..data.len()).filter(|&index| !gap(index)).map(|index| data[index]).collect())
    }
}

/// `f(row, col)` of every element, row by row.
pub fn map(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..rows * cols).map(|index| f(index / cols, index % cols)).collect()
}

/// Rounded to `T`.
pub fn rounded<T: Element>(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| T::from_f64(value).to_f64()).collect()
}
