//! The CPU backend's kernels at the shapes of a 1.1B-parameter Llama, as a share of what the machine can do.
//!
//! `cargo bench --bench kernels [-- --dtype bf16 --isa avx512-bf16 --threads 2]`. The limits are measured in the same run,
//! so the shares mean something on a machine that others use too.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to its terminal and may stop"
)]

use std::time::Instant;

use swebench_infer::backend::cpu::{CpuActivation, CpuBackend, CpuOptions, Isa};
use swebench_infer::backend::{
    AttentionParams, Backend, Batch, BatchEntry, DType, HeadLayout, HostTensor, KvLayout, LogitsRows,
    RopeAngles,
};

const HIDDEN: usize = 2048;
const FFN: usize = 5632;
const LAYERS: usize = 22;
const VOCAB: usize = 32_000;
const HEADS: HeadLayout = HeadLayout { num_heads: 32, num_kv_heads: 4, head_dim: 64 };
const CONTEXT: usize = 2048;
const CHUNK: usize = 512;
const BLOCK: usize = 32;

/// Times of one thing, in seconds.
struct Times(Vec<f64>);

impl Times {
    fn of(repetitions: usize, mut work: impl FnMut()) -> Self {
        work();
        let mut times: Vec<f64> = (0..repetitions)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn best(&self) -> f64 {
        self.0[0]
    }
}

struct Limits {
    bandwidth: f64,
    rate: f64,
}

impl Limits {
    /// Prints a line; the share is of the limit that needs more time.
    fn report(&self, name: &str, times: &Times, bytes: f64, operations: f64) {
        let limit = (bytes / self.bandwidth).max(operations / self.rate);
        println!(
            "{name:<34} {:>9.3} ms  {:>7.1} GB/s {:>8.1} GFLOP/s  {:>4.0} % (best {:>3.0} %)",
            times.median() * 1e3,
            bytes / times.median() / 1e9,
            operations / times.median() / 1e9,
            100.0 * limit / times.median(),
            100.0 * limit / times.best(),
        );
    }
}

fn main() {
    let (mut dtype, mut isa, mut threads) = (DType::BF16, None, None);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--dtype" => dtype = value.parse().unwrap(),
            "--isa" => isa = Some(value.parse::<Isa>().unwrap()),
            "--threads" => threads = Some(value.parse().unwrap()),
            _ => println!("ignored: {name}"),
        }
    }
    let backend = CpuBackend::new(CpuOptions { dtype, threads, isa }).unwrap();
    let measure = || Limits {
        bandwidth: backend.measure_read_bandwidth().unwrap(),
        rate: backend.measure_matrix_rate(),
    };
    let limits = measure();
    println!(
        "{}, {dtype}: reads {:.1} GB/s, multiplies {:.0} GFLOP/s",
        backend.describe(),
        limits.bandwidth / 1e9,
        limits.rate / 1e9
    );

    let decode = linear_layers(&backend, &limits);
    let (attention_decode, attention_prefill) = attention(&backend, &limits);
    println!(
        "sum over {LAYERS} layers at {CONTEXT} tokens: decode {:.1} tok/s, prefill {:.0} tok/s",
        1.0 / (decode.0 + LAYERS as f64 * attention_decode),
        CHUNK as f64 / (decode.1 + LAYERS as f64 * attention_prefill),
    );
}

fn random(backend: &CpuBackend, rows: usize, cols: usize) -> CpuActivation {
    let mut activation = backend.alloc_activation(rows, cols).unwrap();
    let mut state = 1_u32;
    for x in activation.values_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *x = state as f32 / u32::MAX as f32 - 0.5;
    }
    activation
}

/// Prints every layer; returns the seconds of all layers of the model for one token and for a chunk.
fn linear_layers(backend: &CpuBackend, limits: &Limits) -> (f64, f64) {
    let (mut decode, mut prefill) = (0.0, 0.0);
    for (name, out, cols, count) in [
        ("qkv", HEADS.qkv_width(), HIDDEN, LAYERS),
        ("o", HIDDEN, HIDDEN, LAYERS),
        ("gate_up", 2 * FFN, HIDDEN, LAYERS),
        ("down", HIDDEN, FFN, LAYERS),
        ("lm_head", VOCAB, HIDDEN, 1),
    ] {
        let values: Vec<u8> =
            (0..out * cols).flat_map(|i| ((i % 251) as u16 | 0x3c00).to_le_bytes()).collect();
        let tensor = HostTensor::new(DType::BF16, vec![out, cols], values.into()).unwrap();
        let mut weights = Vec::new();
        let start = Instant::now();
        // Enough copies that decoding finds none of them in the cache.
        for _ in 0..(300 << 20) / (out * cols * 2) + 1 {
            weights.push(backend.load_linear(std::slice::from_ref(&tensor), &[]).unwrap());
        }
        let packed = (weights.len() * out * cols * 2) as f64 / start.elapsed().as_secs_f64();
        println!("{name} packs at {:.1} GB/s", packed / 1e9);
        for rows in [1, 2, 4, 8, 16, 64, CHUNK] {
            if rows == CHUNK && name == "lm_head" {
                continue;
            }
            let input = random(backend, rows, cols);
            let mut output = backend.alloc_activation(rows, out).unwrap();
            let mut next = 0;
            let times = Times::of(if rows < 32 { 41 } else { 9 }, || {
                backend.linear(rows, &input, &weights[next % weights.len()], &mut output).unwrap();
                next += 1;
            });
            let bytes = (out * cols * backend.dtype().size()) as f64;
            let operations = (2 * rows * out * cols) as f64;
            limits.report(&format!("{name} {out}x{cols}, {rows} rows"), &times, bytes, operations);
            match rows {
                1 => decode += count as f64 * times.median(),
                CHUNK => prefill += count as f64 * times.median(),
                _ => {}
            }
        }
    }
    (decode, prefill)
}

/// Prints attention at the depth; returns the seconds of one layer for one token and for a chunk that ends there.
fn attention(backend: &CpuBackend, limits: &Limits) -> (f64, f64) {
    let layout = KvLayout {
        num_layers: 4,
        num_kv_heads: HEADS.num_kv_heads,
        head_dim: HEADS.head_dim,
        block_size: BLOCK,
        num_blocks: 8 * CONTEXT / BLOCK,
    };
    let mut cache = backend.alloc_kv_cache(&layout).unwrap();
    let params = AttentionParams { softmax_scale: 0.125, window: None };
    let mut step = backend.alloc_step(8 * CONTEXT).unwrap();
    let mut result = (0.0, 0.0);
    for (name, sequences, query_len) in
        [("prompt", 8, CONTEXT), ("1 row", 1, 1), ("8 sequences", 8, 1), ("draft", 1, 5), ("chunk", 1, CHUNK)]
    {
        let mut batch = Batch::default();
        for sequence in 0..sequences {
            let table: Vec<u32> = (0..CONTEXT / BLOCK).map(|i| (i * 8 + sequence) as u32).collect();
            let tokens = vec![0; query_len];
            let logits = LogitsRows::Last;
            batch.push(BatchEntry {
                tokens: &tokens,
                kv_len: CONTEXT,
                block_table: &table,
                prompt_len: 0,
                logits,
            });
        }
        let rows = batch.len();
        let half = rows * HEADS.head_dim / 2;
        let angles = RopeAngles { cos: vec![1.0; half], sin: vec![0.0; half] };
        backend.begin_step(&mut step, &batch, &angles).unwrap();
        let mut qkv = random(backend, rows, HEADS.qkv_width());
        let mut out = backend.alloc_activation(rows, HEADS.q_width()).unwrap();
        for layer in 0..layout.num_layers {
            backend.rotary_append(&step, layer, &HEADS, None, &mut qkv, &mut cache).unwrap();
        }
        if name == "prompt" {
            continue;
        }
        let mut layer = 0;
        let times = Times::of(if rows < 32 { 41 } else { 9 }, || {
            layer = (layer + 1) % layout.num_layers;
            backend.attention(&step, layer, &HEADS, &params, &qkv, &cache, &mut out).unwrap();
        });
        let kv_bytes = 2 * HEADS.kv_width() * backend.dtype().size();
        let seen: usize = (CONTEXT - query_len + 1..=CONTEXT).sum::<usize>() * sequences;
        let operations = (4 * seen * HEADS.q_width()) as f64;
        limits.report(
            &format!("attention, {name}"),
            &times,
            (sequences * CONTEXT * kv_bytes) as f64,
            operations,
        );
        match name {
            "1 row" => result.0 = times.median(),
            "chunk" => result.1 = times.median(),
            _ => {}
        }
    }
    result
}
