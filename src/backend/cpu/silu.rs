//! The gated activation of the feed-forward layer: `silu(gate) · up`.

use super::simd::{Dispatch, Kernel, Simd, math};
use super::threads::{SharedSlice, ThreadPool};

/// `out = silu(gate) · up` where a row of `gate_up`, `[rows, 2 · cols]`, is `[gate | up]`.
pub fn silu_mul(dispatch: Dispatch, pool: &ThreadPool, cols: usize, gate_up: &[f32], out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "input and output of the gated activation");
    let rows = out.len() / cols;
    let out = SharedSlice::new(out);
    // An exponential and a division cost as much as several loads.
    pool.for_ranges(rows, 4 * cols, &|range| {
        for row in range {
            let (gate, up) = gate_up[2 * row * cols..2 * (row + 1) * cols].split_at(cols);
            // SAFETY: rows are handed out once.
            let out = unsafe { out.range(row * cols..(row + 1) * cols) };
            dispatch.run(Row { gate, up, out });
        }
    });
}

struct Row<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.out.len();
        assert!(self.gate.len() == n && self.up.len() == n, "gate and up of {n} elements");
        let whole = n / S::LANES * S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: i + LANES <= n, the length of all three slices.
            unsafe {
                let gate = math::silu(simd, simd.load(self.gate.as_ptr().add(i)));
                let y = simd.mul(gate, simd.load(self.up.as_ptr().add(i)));
                simd.store(self.out.as_mut_ptr().add(i), y);
            }
        }
        for i in whole..n {
            let gate = self.gate[i];
            self.out[i] = gate / (1.0 + (-gate).exp()) * self.up[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    #[test]
    fn meets_f64() {
        let pool = ThreadPool::new(Some(2)).unwrap();
        for isa in Isa::supported() {
            for (rows, cols) in [(1, 1), (3, 7), (2, 64), (33, 1029)] {
                let gate_up: Vec<f32> =
                    (0..2 * rows * cols).map(|i| ((i * 37 % 401) as f32 - 200.0) * 0.2).collect();
                let mut out = vec![f32::NAN; rows * cols];
                silu_mul(Dispatch::new(isa).unwrap(), &pool, cols, &gate_up, &mut out);
                for (row, out) in gate_up.chunks(2 * cols).zip(out.chunks(cols)) {
                    for i in 0..cols {
                        let gate = f64::from(row[i]);
                        let want = gate / (1.0 + (-gate).exp()) * f64::from(row[cols + i]);
                        let error = (f64::from(out[i]) - want).abs();
                        assert!(error <= 5e-7 * want.abs() + 1e-35, "{isa} {gate}: {} {want}", out[i]);
                    }
                }
            }
        }
    }
}
