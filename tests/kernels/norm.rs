//! RMSNorm with the residual add against f64.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::RmsNormParams;

use crate::emulator::Library;
use crate::matrix::{Matrix, map, rounded};
use crate::mutations::mutate;
use crate::numerics::{Element, Random, check_error, run_all};

#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    cols: usize,
    stride: usize,
    delta: bool,
}

/// As large as the mean square, so that leaving it out is noticed.
const EPS: f32 = 0.5;

fn run<T: Element>(library: &Library, case: Case) -> Result<(), String> {
    let Case { rows, cols, stride, delta } = case;
    let mut random = Random(cols as u64);
    let residual: Matrix<f32> = Matrix::random(&mut random, rows, cols, stride);
    let added: Matrix<T> = Matrix::random(&mut random, rows, cols, stride);
    let weight: Vec<T> = random.values(cols);
    let out: Matrix<T> = Matrix::poison(rows, cols, stride);
    let residual_buffer = library.buffer(&residual.data);
    let [added_buffer, weight_buffer, out_buffer] =
        [&added.data, &weight, &out.data].map(|host| library.buffer(host));
    let params = RmsNormParams {
        residual: residual_buffer.address(),
        delta: if delta { added_buffer.address() } else { 0 },
        weight: weight_buffer.address(),
        out: out_buffer.address(),
        row_stride: stride as i64,
        rows: rows as i32,
        cols: cols as i32,
        eps: EPS,
        reserved: 0,
    };
    let kernel = format!("rms_norm_{}", T::NAME);
    let (got_residual, got) = run_all(library, &kernel, &params, [rows as u32, 1, 1], || {
        let results = (residual_buffer.to_vec(), out_buffer.to_vec());
        residual_buffer.fill(&residual.data);
        out_buffer.fill(&out.data);
        results
    })?;
    let what = format!("{kernel} {case:?}");
    let sums =
        map(rows, cols, |row, col| residual.at(row, col) + if delta { added.at(row, col) } else { 0.0 });
    check_error(&what, &residual.rows_of(&got_residual)?, &sums, &rounded::<f32>(&sums), 0.0)?;
    let factor = |row: usize| {
        let squares: f64 = sums[row * cols..][..cols].iter().map(|x| x * x).sum();
        1.0 / (squares / cols as f64 + f64::from(EPS)).sqrt()
    };
    let factors: Vec<f64> = (0..rows).map(factor).collect();
    let oracle = map(rows, cols, |row, col| sums[row * cols + col] * factors[row] * weight[col].to_f64());
    check_error(&what, &out.rows_of(&got)?, &oracle, &rounded::<T>(&oracle), 1e-5)
}

#[test]
fn matches_the_oracle_at_odd_sizes() {
    for (cols, stride) in [
        (1, 1),
        (3, 4),
        (64, 64),
        (129, 129),
        (1000, 1003),
        (4096, 4096),
        (5120, 5128),
        (8191, 8192),
        (9001, 9004),
    ] {
        for delta in [false, true] {
            let case = Case { rows: 3, cols, stride, delta };
            run::<bf16>(Library::kernels(), case).unwrap();
            run::<f16>(Library::kernels(), case).unwrap();
        }
    }
}

#[test]
fn bugs_are_noticed() {
    let case = Case { rows: 2, cols: 8201, stride: 8204, delta: true };
    for (old, nth, new) in [
        ("/ cols + params.eps", 0, "/ cols"),
        ("if (params.delta) store_quad", 1, "if (!params.delta) store_quad"),
        ("kHeldQuads * kThreads + thread_index()", 0, "kHeldQuads * kThreads + 1 + thread_index()"),
        ("block_reduce(sum", 0, "warp_sum(sum) + 0 * block_reduce(sum"),
    ] {
        assert!(
            run::<bf16>(&mutate("rms_norm.cu", old, nth, new, |_| true), case).is_err(),
            "{old:?} → {new:?} was not noticed"
        );
    }
}
