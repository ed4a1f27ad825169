//! SiLU · up, embedding, gathered rows and the bias against f64.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::{
    BiasAddParams, EmbeddingParams, GatherRowsParams, SiluMulParams,
};

use crate::emulator::Library;
use crate::matrix::{Matrix, map, rounded};
use crate::mutations::mutate;
use crate::numerics::{Element, Random, check_error, run_all};

/// `(cols, stride)`: vectors that fit, ragged ends, and rows that start anywhere.
const SIZES: [(usize, usize); 8] =
    [(1, 1), (8, 8), (63, 64), (129, 129), (1000, 1003), (4096, 4096), (4097, 4104), (9001, 9001)];
/// Columns of a block, as the kernels have them.
const BLOCK_COLUMNS: usize = 4096;

fn grid(rows: usize, cols: usize) -> [u32; 3] {
    [rows as u32, cols.div_ceil(BLOCK_COLUMNS) as u32, 1]
}

fn silu_mul<T: Element>(library: &Library, (cols, stride): (usize, usize)) -> Result<(), String> {
    let rows = 3;
    let mut random = Random(cols as u64);
    let mut gate_up: Matrix<T> = Matrix::random(&mut random, rows, 2 * cols, 2 * stride);
    // Steep on both sides, and where the exponential overflows.
    for (index, extreme) in [-200.0, 90.0, -12.0, 8.0].into_iter().enumerate().take(cols) {
        gate_up.data[index] = T::from_f64(extreme);
    }
    let out: Matrix<T> = Matrix::poison(rows, cols, stride);
    let [gate_up_buffer, out_buffer] = [&gate_up.data, &out.data].map(|host| library.buffer(host));
    let params = SiluMulParams {
        gate_up: gate_up_buffer.address(),
        out: out_buffer.address(),
        gate_up_stride: gate_up.stride as i64,
        out_stride: stride as i64,
        rows: rows as i32,
        cols: cols as i32,
    };
    let kernel = format!("silu_mul_{}", T::NAME);
    let got = run_all(library, &kernel, &params, grid(rows, cols), || {
        let result = out_buffer.to_vec();
        out_buffer.fill(&out.data);
        result
    })?;
    let oracle = map(rows, cols, |row, col| {
        let gate = gate_up.at(row, col);
        gate / (1.0 + (-gate).exp()) * gate_up.at(row, cols + col)
    });
    check_error(&format!("{kernel} {cols}"), &out.rows_of(&got)?, &oracle, &rounded::<T>(&oracle), 1e-5)
}

fn embedding<T: Element>(library: &Library, (cols, stride): (usize, usize)) -> Result<(), String> {
    let table: Matrix<T> = Matrix::random(&mut Random(1), 5, cols, stride);
    let tokens = [4, 0, 3, 3];
    let out: Matrix<f32> = Matrix::poison(tokens.len(), cols, stride);
    let (tokens_buffer, table_buffer) = (library.buffer(&tokens), library.buffer(&table.data));
    let out_buffer = library.buffer(&out.data);
    let params = EmbeddingParams {
        tokens: tokens_buffer.address(),
        table: table_buffer.address(),
        out: out_buffer.address(),
        table_stride: stride as i64,
        out_stride: stride as i64,
        rows: tokens.len() as i32,
        cols: cols as i32,
    };
    let kernel = format!("embedding_{}", T::NAME);
    let got = run_all(library, &kernel, &params, grid(tokens.len(), cols), || {
        let result = out_buffer.to_vec();
        out_buffer.fill(&out.data);
        result
    })?;
    let oracle = map(tokens.len(), cols, |row, col| table.at(tokens[row] as usize, col));
    check_error(&format!("{kernel} {cols}"), &out.rows_of(&got)?, &oracle, &oracle, 0.0)
}

fn gather_rows<T: Element>(library: &Library, (cols, stride): (usize, usize)) -> Result<(), String> {
    let input: Matrix<T> = Matrix::random(&mut Random(2), 6, cols, stride);
    let rows = [5, 1, 1];
    let out: Matrix<T> = Matrix::poison(rows.len(), cols, stride);
    let rows_buffer = library.buffer(&rows);
    let [input_buffer, out_buffer] = [&input.data, &out.data].map(|host| library.buffer(host));
    let params = GatherRowsParams {
        input: input_buffer.address(),
        out: out_buffer.address(),
        rows: rows_buffer.address(),
        input_stride: stride as i64,
        out_stride: stride as i64,
        num_rows: rows.len() as i32,
        cols: cols as i32,
    };
    let kernel = format!("gather_rows_{}", T::NAME);
    let got = run_all(library, &kernel, &params, grid(rows.len(), cols), || {
        let result = out_buffer.to_vec();
        out_buffer.fill(&out.data);
        result
    })?;
    let oracle = map(rows.len(), cols, |row, col| input.at(rows[row] as usize, col));
    check_error(&format!("{kernel} {cols}"), &out.rows_of(&got)?, &oracle, &oracle, 0.0)
}

fn bias_add<T: Element>(library: &Library, (cols, stride): (usize, usize)) -> Result<(), String> {
    let rows = 3;
    let mut random = Random(3);
    let values: Matrix<T> = Matrix::random(&mut random, rows, cols, stride);
    let bias: Vec<T> = random.values(cols);
    let [values_buffer, bias_buffer] = [&values.data, &bias].map(|host| library.buffer(host));
    let params = BiasAddParams {
        values: values_buffer.address(),
        bias: bias_buffer.address(),
        row_stride: stride as i64,
        rows: rows as i32,
        cols: cols as i32,
    };
    let kernel = format!("bias_add_{}", T::NAME);
    let got = run_all(library, &kernel, &params, grid(rows, cols), || {
        let result = values_buffer.to_vec();
        values_buffer.fill(&values.data);
        result
    })?;
    let oracle = map(rows, cols, |row, col| values.at(row, col) + bias[col].to_f64());
    check_error(&format!("{kernel} {cols}"), &values.rows_of(&got)?, &oracle, &rounded::<T>(&oracle), 1e-6)
}

#[test]
fn silu_mul_matches_the_oracle_at_odd_sizes() {
    for size in SIZES {
        silu_mul::<bf16>(Library::kernels(), size).unwrap();
        silu_mul::<f16>(Library::kernels(), size).unwrap();
    }
}

#[test]
fn rows_are_copied_at_odd_sizes() {
    for size in SIZES {
        embedding::<bf16>(Library::kernels(), size).unwrap();
        embedding::<f16>(Library::kernels(), size).unwrap();
        gather_rows::<bf16>(Library::kernels(), size).unwrap();
        gather_rows::<f16>(Library::kernels(), size).unwrap();
    }
}

#[test]
fn bias_add_matches_the_oracle_at_odd_sizes() {
    for size in SIZES {
        bias_add::<bf16>(Library::kernels(), size).unwrap();
        bias_add::<f16>(Library::kernels(), size).unwrap();
    }
}

#[test]
fn bugs_are_noticed() {
    type Run = fn(&Library, (usize, usize)) -> Result<(), String>;
    for (run, file, old, nth, new) in [
        (silu_mul::<bf16> as Run, "silu_mul.cu", "gate_aligned && cols % 8 == 0", 0, "gate_aligned"),
        (silu_mul::<f16>, "silu_mul.cu", "gate + cols", 0, "gate + cols + 1"),
        (silu_mul::<bf16>, "silu_mul.cu", "-kLog2E", 0, "kLog2E"),
        (embedding::<f16>, "embedding.cu", "params.table_stride * 2, 8)", 0, "0, 8)"),
        (
            gather_rows::<bf16>,
            "embedding.cu",
            "row * params.input_stride",
            0,
            "(row + 1) * params.input_stride",
        ),
        (bias_add::<f16>, "embedding.cu", "load_octet(bias, first +", 0, "load_octet(bias, first + 1 +"),
    ] {
        let library = mutate(file, old, nth, new, |_| true);
        let noticed = run(&library, (4097, 4104)).and_then(|()| run(&library, (129, 129)));
        assert!(noticed.is_err(), "{old:?} → {new:?} was not noticed");
    }
}
