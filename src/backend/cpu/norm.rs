//! RMSNorm, alone and with the residual sum before it.

use super::simd::{Dispatch, Kernel, Simd};
use super::threads::{SharedSlice, ThreadPool};

/// `out = x / sqrt(mean(x²) + eps) · weight` of one row.
pub struct RmsNormRow<'a> {
    /// The row.
    pub input: &'a [f32],
    /// As long as the row.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// As long as the row.
    pub out: &'a mut [f32],
}

impl Kernel for RmsNormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.input.len();
        assert!(self.weight.len() == n && self.out.len() == n, "norm of {n} elements");
        let scale = inverse_root_mean_square(simd, self.input, self.eps);
        let whole = n / S::LANES * S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: i + LANES <= n, the length of all three slices.
            unsafe {
                let x = simd.mul(simd.load(self.input.as_ptr().add(i)), simd.splat(scale));
                let y = simd.mul(x, simd.load(self.weight.as_ptr().add(i)));
                simd.store(self.out.as_mut_ptr().add(i), y);
            }
        }
        for i in whole..n {
            self.out[i] = self.input[i] * scale * self.weight[i];
        }
    }
}

/// RMSNorm of one row in place, for the heads of queries and keys.
#[inline(always)]
pub fn rms_norm_in_place<S: Simd>(simd: S, row: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_root_mean_square(simd, row, eps);
    for (x, weight) in row.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[inline(always)]
fn inverse_root_mean_square<S: Simd>(simd: S, row: &[f32], eps: f32) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let step = 4 * S::LANES;
    let whole = row.len() / step * step;
    for i in (0..whole).step_by(step) {
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: i + (j + 1) · LANES <= len.
            let x = unsafe { simd.load(row.as_ptr().add(i + j * S::LANES)) };
            *sum = simd.mul_add(x, x, *sum);
        }
    }
    let vector = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    let mut sum = simd.reduce_sum(vector);
    for x in &row[whole..] {
        sum += x * x;
    }
    1.0 / (sum / row.len() as f32 + eps).sqrt()
}

/// One call on a matrix.
pub struct RmsNorm<'a> {
    /// `[cols]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// `[rows, cols]`.
    pub out: &'a mut [f32],
}

impl RmsNorm<'_> {
    /// `out = norm(input)`.
    pub fn run(self, dispatch: Dispatch, pool: &ThreadPool, input: &[f32]) {
        let cols = self.weight.len();
        assert_eq!(input.len(), self.out.len(), "input and output of a norm");
        let out = SharedSlice::new(self.out);
        pool.for_ranges(input.len() / cols, cols, &|rows| {
            for row in rows {
                let range = row * cols..(row + 1) * cols;
                dispatch.run(RmsNormRow {
                    input: &input[range.clone()],
                    weight: self.weight,
                    eps: self.eps,
                    // SAFETY: rows are handed out once.
                    out: unsafe { out.range(range) },
                });
            }
        });
    }

    /// `residual += delta`, then `out = norm(residual)`.
    pub fn run_with_sum(self, dispatch: Dispatch, pool: &ThreadPool, residual: &mut [f32], delta: &[f32]) {
        let cols = self.weight.len();
        assert_eq!(residual.len(), self.out.len(), "residual and output of a norm");
        assert_eq!(residual.len(), delta.len(), "residual and delta of a norm");
        let out = SharedSlice::new(self.out);
        let residual = SharedSlice::new(residual);
        pool.for_ranges(delta.len() / cols, cols, &|rows| {
            for row in rows {
                let range = row * cols..(row + 1) * cols;
                // SAFETY: rows are handed out once.
                let (residual, out) = unsafe { (residual.range(range.clone()), out.range(range.clone())) };
                for (residual, delta) in residual.iter_mut().zip(&delta[range]) {
                    *residual += delta;
                }
                dispatch.run(RmsNormRow { input: residual, weight: self.weight, eps: self.eps, out });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    #[test]
    fn norms_meet_f64() {
        let pool = ThreadPool::new(Some(2)).unwrap();
        for isa in Isa::supported() {
            let dispatch = Dispatch::new(isa).unwrap();
            for (rows, cols) in [(1, 1), (3, 7), (2, 64), (40, 1029), (64, 2048)] {
                let input: Vec<f32> =
                    (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
                let delta: Vec<f32> =
                    (0..rows * cols).map(|i| ((i * 17 % 89) as f32 - 44.0) * 0.01).collect();
                let weight: Vec<f32> = (0..cols).map(|i| 0.5 + (i % 5) as f32 * 0.25).collect();
                let sum: Vec<f32> = input.iter().zip(&delta).map(|(a, b)| a + b).collect();
                for with_sum in [false, true] {
                    let mut out = vec![f32::NAN; rows * cols];
                    let mut residual = input.clone();
                    let norm = RmsNorm { weight: &weight, eps: 1e-5, out: &mut out };
                    if with_sum {
                        norm.run_with_sum(dispatch, &pool, &mut residual, &delta);
                        assert_eq!(residual, sum);
                    } else {
                        norm.run(dispatch, &pool, &input);
                    }
                    for (row, out) in residual.chunks(cols).zip(out.chunks(cols)) {
                        let square: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
                        let scale = 1.0 / (square / cols as f64 + 1e-5).sqrt();
                        for ((x, weight), got) in row.iter().zip(&weight).zip(out) {
                            let want = f64::from(*x) * scale * f64::from(*weight);
                            assert!(
                                (f64::from(*got) - want).abs() <= 1e-6 * want.abs(),
                                "{isa} {rows} x {cols}"
                            );
                        }
                    }
                }
            }
        }
    }
}
