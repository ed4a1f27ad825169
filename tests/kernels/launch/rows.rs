//! The row-wise kernels and the few-row product through the launch layer.

use half::bf16;
use swebench_infer::backend::cuda::launch::{
    LinearSkinny, RmsNorm, SkinnyWorkspace, bias_add, embedding, gather_rows, linear_skinny, rms_norm,
    silu_mul,
};
use swebench_infer::backend::cuda::{Buffer, Indices};

use super::{check, to_f64, upload};
use crate::numerics::Random;

#[test]
fn row_kernels_run_through_the_launch_layer() {
    const ROWS: usize = 3;
    const COLS: usize = 72;
    let mut random = Random(11);
    let (wide, bias) = (random.values::<bf16>(ROWS * 2 * COLS), random.values::<bf16>(COLS));
    let residual: Vec<f32> = random.values(ROWS * COLS);
    let (w, b) = (to_f64(&wide), to_f64(&bias));
    let cell = |i: usize| (i / COLS * 2 * COLS + i % COLS, i % COLS);
    let cells = 0..ROWS * COLS;

    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gated: Vec<f64> = cells.clone().map(|i| silu(w[cell(i).0]) * w[cell(i).0 + COLS]).collect();
    check("silu_mul", &gated, |launcher| {
        let (gate_up, out) = (upload(launcher, &wide), upload(launcher, &vec![bf16::NAN; ROWS * COLS]));
        let gate_up = gate_up.matrix(0, ROWS, 2 * COLS, 2 * COLS).unwrap();
        silu_mul(launcher.as_ref(), ROWS, &gate_up, &out.matrix(0, ROWS, COLS, COLS).unwrap()).unwrap();
        out.to_vec().unwrap()
    });

    let sums: Vec<f64> = cells.clone().map(|i| w[i] + b[i % COLS]).collect();
    check("bias_add", &sums, |launcher| {
        let (values, bias) = (upload(launcher, &wide[..ROWS * COLS]), upload(launcher, &bias));
        bias_add(launcher.as_ref(), ROWS, &values.matrix(0, ROWS, COLS, COLS).unwrap(), &bias.vector())
            .unwrap();
        values.to_vec().unwrap()
    });

    let picked: Vec<f64> = [2, 0].iter().flat_map(|row| &w[row * 2 * COLS..][..COLS]).copied().collect();
    check("gather_rows", &picked, |launcher| {
        let (input, out) = (upload(launcher, &wide), upload(launcher, &vec![bf16::NAN; 2 * COLS]));
        let rows = Indices::new(launcher, &[2_i32, 0]).unwrap();
        let input = input.matrix(0, ROWS, COLS, 2 * COLS).unwrap();
        gather_rows(launcher.as_ref(), &rows, &input, &out.matrix(0, 2, COLS, COLS).unwrap()).unwrap();
        out.to_vec().unwrap()
    });
    check("embedding", &picked, |launcher| {
        let (table, out) =
            (upload(launcher, &wide), Buffer::from_slice(launcher, &vec![f32::NAN; 2 * COLS]).unwrap());
        let tokens = Indices::new(launcher, &[2_i32, 0]).unwrap();
        let table = table.matrix(0, ROWS, COLS, 2 * COLS).unwrap();
        embedding(launcher.as_ref(), &tokens, &table, &out.matrix(0, 2, COLS, COLS).unwrap()).unwrap();
        out.to_vec::<f32>().unwrap().into_iter().map(bf16::from_f32).collect()
    });

    let sum = |i: usize| f64::from(residual[i]) + w[i];
    let normed: Vec<f64> = cells
        .map(|i| {
            let row = i / COLS * COLS..i / COLS * COLS + COLS;
            let mean = row.map(|j| sum(j) * sum(j)).sum::<f64>() / COLS as f64;
            sum(i) / (mean + 1e-5).sqrt() * b[i % COLS]
        })
        .collect();
    check("rms_norm", &normed, |launcher| {
        let (residual, delta) =
            (Buffer::from_slice(launcher, &residual).unwrap(), upload(launcher, &wide[..ROWS * COLS]));
        let (weight, out) = (upload(launcher, &bias), upload(launcher, &vec![bf16::NAN; ROWS * COLS]));
        let arguments = RmsNorm {
            residual: residual.matrix(0, ROWS, COLS, COLS).unwrap(),
            delta: Some(delta.matrix(0, ROWS, COLS, COLS).unwrap()),
            weight: weight.vector(),
            out: out.matrix(0, ROWS, COLS, COLS).unwrap(),
            rows: ROWS,
            eps: 1e-5,
        };
        rms_norm(launcher.as_ref(), &arguments).unwrap();
        out.to_vec().unwrap()
    });
}

#[test]
fn the_few_row_product_runs_through_the_launch_layer() {
    // Deep enough to be split for the emulated chip.
    const DEPTH: usize = 4096;
    const FEATURES: usize = 40;
    let mut random = Random(12);
    let (input, weight) = (random.values::<bf16>(2 * DEPTH), random.values::<bf16>(FEATURES * DEPTH));
    let (a, w) = (to_f64(&input), to_f64(&weight));
    let dot =
        |row: usize, feature: usize| (0..DEPTH).map(|k| a[row * DEPTH + k] * w[feature * DEPTH + k]).sum();
    let oracle: Vec<f64> = (0..2 * FEATURES).map(|i| dot(i / FEATURES, i % FEATURES)).collect();
    check("linear_skinny", &oracle, |launcher| {
        let (input, weight) = (upload(launcher, &input), upload(launcher, &weight));
        let out = upload(launcher, &[bf16::NAN; 2 * FEATURES]);
        let mut workspace = SkinnyWorkspace::new(launcher).unwrap();
        let arguments = LinearSkinny {
            input: input.matrix(0, 2, DEPTH, DEPTH).unwrap(),
            weight: weight.matrix(0, FEATURES, DEPTH, DEPTH).unwrap(),
            bias: None,
            out: out.matrix(0, 2, FEATURES, FEATURES).unwrap(),
            rows: 2,
        };
        linear_skinny(launcher.as_ref(), &arguments, &mut workspace).unwrap();
        // A second time: the counters were left at zero.
        linear_skinny(launcher.as_ref(), &arguments, &mut workspace).unwrap();
        out.to_vec().unwrap()
    });
}
