//! The kernels through the launch layer, as the backend runs them: its checks, geometry, schedules and workspaces.

use std::sync::Arc;

use half::bf16;
use swebench_infer::backend::cuda::geometry::CacheFormat;
use swebench_infer::backend::cuda::launch::{
    AttentionPrefill, Cache, KvScales, LinearSkinny, PrefillKernel, PrefillTiles, RmsNorm, SkinnyWorkspace,
    attention_prefill, bias_add, embedding, gather_rows, linear_skinny, rms_norm, silu_mul,
};
use swebench_infer::backend::cuda::{Buffer, DeviceSequences, Indices, Launcher};
use swebench_infer::backend::{Batch, BatchEntry, HeadLayout, LogitsRows};

use crate::emulator::Library;
use crate::numerics::{RUNS, Random, check_error, e4m3_from_f64};

/// Runs `work` in every order, checks that its bits are the same each time and its values those of `oracle`.
fn check(what: &str, oracle: &[f64], work: impl Fn(&Arc<dyn Launcher>) -> Vec<bf16>) {
    let library = Library::kernels();
    let plain: Vec<f64> = oracle.iter().map(|&value| bf16::from_f64(value).to_f64()).collect();
    let mut first = None;
    for (seed, lazy) in RUNS {
        library.set_order(seed, lazy);
        let out = work(library.launcher());
        check_error(what, &out, oracle, &plain, 1e-3).unwrap();
        assert_eq!(*first.get_or_insert(out.clone()), out, "{what}: seed {seed}, lazy {lazy}");
    }
}

fn to_f64(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// Two sequences through the launch layer, one of them a chunk of a longer context: the table's third block of the first lies outside of the pool and is not read.
fn prefill(launcher: &Arc<dyn Launcher>, which: PrefillKernel, format: CacheFormat) -> Vec<bf16> {
    const HEADS: HeadLayout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 64 };
    const BLOCK_SIZE: usize = 16;
    let mut batch = Batch::default();
    for (query_len, kv_len, blocks) in [(20, 20, [3_u32, 1, 9]), (5, 40, [0, 5, 2])] {
        let tokens = vec![0; query_len];
        let (prompt_len, logits) = (kv_len, LogitsRows::Last);
        batch.push(BatchEntry { tokens: &tokens, kv_len, block_table: &blocks, prompt_len, logits });
    }
    let mut random = Random(3);
    let pool = 6 * HEADS.num_kv_heads * BLOCK_SIZE * HEADS.head_dim;
    // Values of 0.5, by a scale of 0.25 in FP8.
    let [keys, values] = match format {
        CacheFormat::Model => [random.values(pool), vec![bf16::from_f32(0.5); pool]]
            .map(|stored| Buffer::from_slice(launcher, &stored).unwrap()),
        CacheFormat::Fp8 => [random.values::<f32>(pool), vec![2.0; pool]].map(|stored| {
            let codes: Vec<_> = stored.into_iter().map(|value| e4m3_from_f64(value.into())).collect();
            Buffer::from_slice(launcher, &codes).unwrap()
        }),
    };
    let [key_scales, value_scales] =
        [1.0_f32, 0.25].map(|scale| Buffer::from_slice(launcher, &[scale; 2]).unwrap());
    let scales = KvScales { keys: key_scales.vector(), values: value_scales.vector() };
    let qkv = Buffer::from_slice(launcher, &random.values::<bf16>(25 * HEADS.qkv_width())).unwrap();
    let out = Buffer::from_slice(launcher, &vec![bf16::NAN; 25 * HEADS.q_width()]).unwrap();
    let mut sequences = DeviceSequences::new(launcher, BLOCK_SIZE).unwrap();
    sequences.fill(&batch).unwrap();
    let mut tiles = PrefillTiles::new(launcher);
    tiles.fill(&sequences, which.query_rows(&HEADS)).unwrap();
    let cache = Cache {
        keys: keys.vector(),
        values: values.vector(),
        scales: (format == CacheFormat::Fp8).then_some(scales),
        block_size: BLOCK_SIZE,
        num_kv_heads: HEADS.num_kv_heads,
        head_dim: HEADS.head_dim,
    };
    let maps = (which == PrefillKernel::Hopper).then(|| cache.maps(launcher.as_ref()).unwrap());
    let arguments = AttentionPrefill {
        q: qkv.matrix(0, 25, HEADS.q_width(), HEADS.qkv_width()).unwrap(),
        out: out.matrix(0, 25, HEADS.q_width(), HEADS.q_width()).unwrap(),
        cache,
        maps: maps.as_ref(),
        sequences: &sequences,
        tiles: &tiles,
        heads: HEADS,
        window: None,
        softmax_scale: 0.125,
    };
    attention_prefill(launcher.as_ref(), &arguments).unwrap();
    out.to_vec().unwrap()
}

#[test]
fn prefill_runs_through_the_launch_layer() {
    let (portable, hopper) = (PrefillKernel::Portable, PrefillKernel::Hopper);
    for (which, format) in
        [(portable, CacheFormat::Model), (portable, CacheFormat::Fp8), (hopper, CacheFormat::Model)]
    {
        // Weights sum to one, so equal values come out as they went in, whatever the scores are.
        let oracle = vec![0.5; 25 * 4 * 64];
        check(&format!("{which:?}, {format:?}"), &oracle, |launcher| prefill(launcher, which, format));
    }
}

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

fn upload(launcher: &Arc<dyn Launcher>, values: &[bf16]) -> Buffer {
    Buffer::from_slice(launcher, values).unwrap()
}
