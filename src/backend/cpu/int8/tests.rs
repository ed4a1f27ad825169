//! 8-bit layers through the backend's interface, against exact integer arithmetic and against the f32 oracle.

use crate::backend::cpu::tests::{limits, noise};
use crate::backend::cpu::{CpuBackend, CpuLinear, CpuOptions, Isa};
use crate::backend::quantization::{GROUP_LEN, quantize_group};
use crate::backend::reference::ReferenceBackend;
use crate::backend::{Backend, Batch, BatchEntry, DType, HostTensor, LogitsRows, Quantization, RopeAngles};

fn backend(isa: Isa) -> CpuBackend {
    let quantize = Some(Quantization::Int8);
    CpuBackend::new(CpuOptions { dtype: DType::BF16, threads: Some(2), isa: Some(isa), quantize }).unwrap()
}

/// A matrix `[rows, cols]` with its bytes and scales.
struct Quantized {
    cols: usize,
    values: Vec<f32>,
    /// Of each row the groups, each with its scale.
    rows: Vec<Vec<(f32, Vec<i8>)>>,
}

impl Quantized {
    fn new(cols: usize, values: Vec<f32>) -> Self {
        let group = |values: &[f32]| {
            let mut bytes = vec![0; values.len()];
            (quantize_group(values, &mut bytes), bytes)
        };
        let rows = values.chunks(cols).map(|row| row.chunks(GROUP_LEN).map(group).collect()).collect();
        Self { cols, values, rows }
    }

    fn tensor(&self) -> HostTensor<'static> {
        HostTensor::from_f32(vec![self.rows.len(), self.cols], &self.values).unwrap()
    }
}

fn run(backend: &CpuBackend, input: &[f32], cols: usize, weight: &CpuLinear, out: usize) -> Vec<f32> {
    let rows = input.len() / cols;
    let mut activation = backend.alloc_activation(rows, cols).unwrap();
    activation.values_mut().copy_from_slice(input);
    let mut result = backend.alloc_activation(rows, out).unwrap();
    result.values_mut().fill(f32::NAN);
    backend.linear(rows, &activation, weight, &mut result).unwrap();
    backend.read(rows, &mut result).unwrap().to_vec()
}

/// `out[row][column] = Σ over groups of (exact integer product) · scales`, and what f32 may make of it.
fn check_exact(backend: &CpuBackend, input: &Quantized, weight: &Quantized, bias: &[f32]) {
    let out = weight.rows.len();
    let biases: Vec<_> =
        (!bias.is_empty()).then(|| HostTensor::from_f32(vec![out], bias).unwrap()).into_iter().collect();
    let split = out.div_ceil(3) * input.cols;
    let part =
        |values: &[f32]| HostTensor::from_f32(vec![values.len() / input.cols, input.cols], values).unwrap();
    let parts: Vec<_> = [&weight.values[..split], &weight.values[split..]]
        .into_iter()
        .filter(|values| !values.is_empty())
        .map(part)
        .collect();
    let linear = backend.load_linear(&parts, &biases).unwrap();
    let result = run(backend, &input.values, input.cols, &linear, out);
    for (row, groups) in input.rows.iter().enumerate() {
        for (column, weights) in weight.rows.iter().enumerate() {
            let (mut want, mut size) = (bias.get(column).map_or(0.0, |&b| f64::from(b)), 1e-30);
            for ((x_scale, x), (w_scale, w)) in groups.iter().zip(weights) {
                let sum: i64 = x.iter().zip(w).map(|(&x, &w)| i64::from(x) * i64::from(w)).sum();
                let term = f64::from(*x_scale) * f64::from(*w_scale) * sum as f64;
                want += term;
                size += term.abs();
            }
            let got = f64::from(result[row * out + column]);
            // Two products a group and a sum for each group and the bias, each rounded once.
            let roundings = 2.0 + groups.len() as f64 + 1.0;
            let tolerance = roundings * 2.0_f64.powi(-24) * (size + want.abs());
            assert!(
                (got - want).abs() <= tolerance,
                "{} {}x{}x{out} at {row},{column}: {got} {want}",
                backend.describe(),
                input.rows.len(),
                input.cols
            );
        }
    }
    // Each row alone gives the same bits as all of them together.
    for row in [0, input.rows.len() / 2, input.rows.len() - 1] {
        let alone = &input.values[row * input.cols..(row + 1) * input.cols];
        let alone = run(backend, alone, input.cols, &linear, out);
        assert_eq!(alone, result[row * out..(row + 1) * out], "row {row} alone");
    }
}

fn isas() -> Vec<CpuBackend> {
    Isa::supported().into_iter().map(backend).collect()
}

#[test]
fn products_are_exact_within_groups_and_do_not_depend_on_the_batch() {
    for backend in isas() {
        for rows in [1, 2, 3, 5, 13, 14, 15, 29, 64] {
            let input = Quantized::new(267, noise(rows * 267, 1));
            check_exact(&backend, &input, &Quantized::new(267, noise(45 * 267, 2)), &noise(45, 3));
        }
        for (cols, out) in [(1, 3), (3, 32), (127, 33), (128, 64), (129, 31), (512, 5), (777, 130)] {
            let input = Quantized::new(cols, noise(5 * cols, 4));
            check_exact(&backend, &input, &Quantized::new(cols, noise(out * cols, 5)), &[]);
        }
        let input = Quantized::new(48, noise(300 * 48, 6));
        check_exact(&backend, &input, &Quantized::new(48, noise(160 * 48, 7)), &[]);
    }
}

#[test]
fn extreme_bytes_do_not_saturate() {
    for backend in isas() {
        for (x, w) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            let (input, weight) = (vec![x; 3 * 256], vec![w; 33 * 256]);
            check_exact(&backend, &Quantized::new(256, input), &Quantized::new(256, weight), &[]);
        }
    }
}

/// The oracle's product of the same matrices. Its inputs come from an embedding, as nothing else writes its activations.
fn oracle(rows: usize, cols: usize, input: &[f32], weight: &Quantized) -> Vec<f32> {
    let backend = ReferenceBackend::new(DType::F32);
    let table = HostTensor::from_f32(vec![rows, cols], input).unwrap();
    let table = backend.load_linear(&[table], &[]).unwrap();
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let mut batch = Batch::default();
    let logits = LogitsRows::None;
    batch.push(BatchEntry { tokens: &tokens, kv_len: rows, block_table: &[0], prompt_len: rows, logits });
    let mut step = backend.alloc_step(&limits(rows)).unwrap();
    backend.begin_step(&mut step, &batch, &RopeAngles::default()).unwrap();
    let mut activation = backend.alloc_activation(rows, cols).unwrap();
    backend.embed(&step, &table, &mut activation).unwrap();

    let backend = backend.with_quantization(Some(Quantization::Int8));
    let linear = backend.load_linear(&[weight.tensor()], &[]).unwrap();
    let mut out = backend.alloc_activation(rows, weight.rows.len()).unwrap();
    backend.linear(rows, &activation, &linear, &mut out).unwrap();
    backend.read(rows, &mut out).unwrap().to_vec()
}

#[test]
fn results_are_near_the_oracle() {
    let (rows, cols, out) = (7, 333, 50);
    let (input, weight) = (noise(rows * cols, 8), Quantized::new(cols, noise(out * cols, 9)));
    let want = oracle(rows, cols, &input, &weight);
    let mut held = weight.values.clone();
    Quantization::Int8.round_rows(cols, &mut held);
    for backend in isas() {
        let linear = backend.load_linear(&[weight.tensor()], &[]).unwrap();
        let got = run(&backend, &input, cols, &linear, out);
        for (index, (got, want)) in got.iter().zip(&want).enumerate() {
            // An input errs by half its group's scale, whatever the weight it meets; the rest are roundings of f32.
            let (row, column) = (index / out, index % out);
            let inputs = input[row * cols..(row + 1) * cols].chunks(GROUP_LEN);
            let weights = held[column * cols..(column + 1) * cols].chunks(GROUP_LEN);
            let mut tolerance = 0.0;
            for (x, w) in inputs.zip(weights) {
                let max = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
                let size: f32 = w.iter().map(|w| w.abs()).sum();
                tolerance += size * max * (0.5 / 127.0 + cols as f32 * f32::EPSILON);
            }
            assert!((got - want).abs() <= tolerance, "{}: {got} {want} {tolerance}", backend.describe());
        }
    }
}

#[test]
fn nan_and_infinity_stay_in_their_row_and_column() {
    for backend in isas() {
        let (cols, out) = (300, 40);
        for wrong in [f32::NAN, f32::INFINITY] {
            let (mut input, mut weight) = (noise(20 * cols, 1), noise(out * cols, 2));
            input[3 * cols + 200] = wrong;
            weight[33 * cols] = wrong;
            let weight = HostTensor::from_f32(vec![out, cols], &weight).unwrap();
            let linear = backend.load_linear(&[weight], &[]).unwrap();
            for (index, value) in run(&backend, &input, cols, &linear, out).iter().enumerate() {
                let (row, column) = (index / out, index % out);
                assert_eq!(value.is_nan(), row == 3 || column == 33, "{} {row},{column}", backend.describe());
            }
        }
    }
}

#[test]
fn rows_come_back_as_the_products_see_them() {
    let backend = backend(Isa::Portable);
    for cols in [1, 130, 256, 301] {
        let values = noise(70 * cols, 3);
        let tensor = HostTensor::from_f32(vec![70, cols], &values).unwrap();
        let linear = backend.load_linear(&[tensor], &[]).unwrap();
        let mut want = values;
        Quantization::Int8.round_rows(cols, &mut want);
        let mut row = vec![0.0; cols];
        for (index, want) in want.chunks(cols).enumerate() {
            linear.read_row(index, &mut row);
            assert_eq!(row, want);
        }
    }
}
