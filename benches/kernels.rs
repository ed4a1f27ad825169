//! The CPU backend's kernels at the shapes of a 1.1B-parameter Llama, as a share of what the machine can do.
//!
//! `cargo bench --bench kernels [-- --dtype bf16 --isa avx512-bf16 --threads 2 --quantize int8 --context 2048 --only qkv]`. The limits are measured in
//! the same run,
//! so the shares mean something on a machine that others use too.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to its terminal and may stop"
)]

use std::fmt;
use std::time::Instant;

use swebench_infer::backend::cpu::{CpuActivation, CpuBackend, CpuOptions, Isa, Roofline};
use swebench_infer::backend::{
    AttentionParams, Backend, Batch, BatchEntry, DType, HeadLayout, HostTensor, KvLayout, LogitsRows,
    Quantization, RopeAngles, StepLimits,
};

const HIDDEN: usize = 2048;
const FFN: usize = 5632;
const LAYERS: usize = 22;
const VOCAB: usize = 32_000;
const HEADS: HeadLayout = HeadLayout { num_heads: 32, num_kv_heads: 4, head_dim: 64 };
const CHUNK: usize = 512;
const BLOCK: usize = 32;

/// One measured kernel.
struct Line {
    name: String,
    /// Bytes that must be read at least.
    bytes: f64,
    operations: f64,
    /// Seconds of each repetition, ascending.
    seconds: Vec<f64>,
    /// Share of the limit of each repetition, ascending.
    shares: Vec<f64>,
}

impl Line {
    /// Alternates the work with measurements of the limits, so that a neighbour's load slows down both.
    fn measure(
        limits: &Roofline<'_>,
        name: String,
        (bytes, operations): (usize, usize),
        repetitions: usize,
        mut work: impl FnMut(),
    ) -> Self {
        let (bytes, operations) = (bytes as f64, operations as f64);
        // The limit is the one that needs more time.
        let needed = || (bytes / limits.read_bandwidth()).max(operations / limits.matrix_rate());
        work();
        let mut before = needed();
        let (mut seconds, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..repetitions {
            let start = Instant::now();
            work();
            let elapsed = start.elapsed().as_secs_f64();
            let after = needed();
            seconds.push(elapsed);
            shares.push((before + after) / 2.0 / elapsed);
            before = after;
        }
        seconds.sort_by(f64::total_cmp);
        shares.sort_by(f64::total_cmp);
        let line = Self { name, bytes, operations, seconds, shares };
        println!("{line}");
        line
    }

    fn median(&self) -> f64 {
        self.seconds[self.seconds.len() / 2]
    }

    /// Seconds at the limit for each second that was taken.
    fn share(&self) -> f64 {
        self.shares[self.shares.len() / 2]
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bandwidth, rate) = (self.bytes / self.median() / 1e9, self.operations / self.median() / 1e9);
        let (milliseconds, share) = (self.median() * 1e3, self.share() * 100.0);
        let (low, high) = (self.shares[self.shares.len() / 4], self.shares[self.shares.len() * 3 / 4]);
        write!(f, "{:<30} {milliseconds:>9.3} ms {bandwidth:>6.1} GB/s {rate:>7.1} GFLOP/s ", self.name)?;
        write!(
            f,
            "{share:>4.0} % ({:.0}-{:.0}), best {:.3} ms",
            low * 100.0,
            high * 100.0,
            self.seconds[0] * 1e3
        )
    }
}

/// Seconds of a forward pass of the whole model, and at the limits.
#[derive(Default)]
struct Pass {
    seconds: f64,
    limit: f64,
}

impl Pass {
    fn add(&mut self, count: usize, line: &Line) {
        self.seconds += count as f64 * line.median();
        self.limit += count as f64 * line.median() * line.share();
    }

    fn print(&self, name: &str, context: usize, tokens: usize) {
        let (rate, share) = (tokens as f64 / self.seconds, 100.0 * self.limit / self.seconds);
        println!("{name} at {context} tokens: {rate:.1} tok/s, {share:.0} % of the limit");
    }
}

fn main() {
    let (mut dtype, mut isa, mut threads, mut only) = (DType::BF16, None, None, String::new());
    let mut quantize = None;
    let mut context = 2048;
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--dtype" => dtype = value.parse().unwrap(),
            "--isa" => isa = Some(value.parse::<Isa>().unwrap()),
            "--threads" => threads = Some(value.parse().unwrap()),
            "--quantize" => quantize = Quantization::parse(&value).unwrap(),
            "--context" => context = value.parse().unwrap(),
            "--only" => only = value,
            _ => println!("ignored: {name}"),
        }
    }
    let backend = CpuBackend::new(CpuOptions { dtype, threads, isa, quantize }).unwrap();
    let limits = backend.roofline().unwrap();
    println!("{}, {dtype}", backend.describe());
    for _ in 0..3 {
        let (bandwidth, rate) = (limits.read_bandwidth() / 1e9, limits.matrix_rate() / 1e9);
        println!("limits: reads {bandwidth:.1} GB/s, multiplies {rate:.0} GFLOP/s");
    }
    let (mut decode, mut prefill) = (Pass::default(), Pass::default());
    if only != "attention" {
        linear_layers(&backend, &limits, &only, &mut decode, &mut prefill);
    }
    if only.is_empty() || only == "attention" {
        attention(&backend, &limits, context, &mut decode, &mut prefill);
        elementwise(&backend, &limits, &mut decode, &mut prefill);
    }
    decode.print("decode", context, 1);
    prefill.print("prefill", context, CHUNK);
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

fn linear_layers(
    backend: &CpuBackend,
    limits: &Roofline<'_>,
    only: &str,
    decode: &mut Pass,
    prefill: &mut Pass,
) {
    for (name, out, cols, count) in [
        ("qkv", HEADS.qkv_width(), HIDDEN, LAYERS),
        ("o", HIDDEN, HIDDEN, LAYERS),
        ("gate_up", 2 * FFN, HIDDEN, LAYERS),
        ("down", HIDDEN, FFN, LAYERS),
        ("lm_head", VOCAB, HIDDEN, 1),
    ] {
        if !only.is_empty() && only != name {
            continue;
        }
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
            let name = format!("{name} {out}x{cols}, {rows} rows");
            let bytes = match backend.quantization() {
                None => out * cols * backend.dtype().size(),
                Some(quantization) => quantization.weight_bytes(out * cols),
            };
            let work = (bytes, 2 * rows * out * cols);
            let line = Line::measure(limits, name, work, if rows < 32 { 25 } else { 7 }, || {
                backend.linear(rows, &input, &weights[next % weights.len()], &mut output).unwrap();
                next += 1;
            });
            match rows {
                1 => decode.add(count, &line),
                CHUNK => prefill.add(count, &line),
                _ => {}
            }
        }
    }
}

/// Norms and the gated activation of one layer: no weights to speak of, but they read and write all activations.
fn elementwise(backend: &CpuBackend, limits: &Roofline<'_>, decode: &mut Pass, prefill: &mut Pass) {
    let weight = vec![1.0; HIDDEN];
    for rows in [1, CHUNK] {
        let mut residual = random(backend, rows, HIDDEN);
        let delta = random(backend, rows, HIDDEN);
        let mut normed = backend.alloc_activation(rows, HIDDEN).unwrap();
        let gate_up = random(backend, rows, 2 * FFN);
        let mut activated = backend.alloc_activation(rows, FFN).unwrap();
        let bytes = size_of::<f32>() * rows * (2 * 2 * HIDDEN + 2 * FFN);
        let line = Line::measure(limits, format!("norms and silu, {rows} rows"), (bytes, 0), 25, || {
            for _ in 0..2 {
                backend.add_rms_norm(rows, &mut residual, &delta, &weight, 1e-5, &mut normed).unwrap();
            }
            backend.silu_mul(rows, &gate_up, &mut activated).unwrap();
        });
        if rows == 1 { decode.add(LAYERS, &line) } else { prefill.add(LAYERS, &line) }
    }
}

/// Attention of queries at the end of `context` tokens.
fn attention(
    backend: &CpuBackend,
    limits: &Roofline<'_>,
    context: usize,
    decode: &mut Pass,
    prefill: &mut Pass,
) {
    let layout = KvLayout {
        num_layers: 4,
        num_kv_heads: HEADS.num_kv_heads,
        head_dim: HEADS.head_dim,
        block_size: BLOCK,
        num_blocks: 8 * context / BLOCK,
    };
    let mut cache = backend.alloc_kv_cache(&layout).unwrap();
    let params = AttentionParams { layer: 0, heads: HEADS, softmax_scale: 0.125, window: None };
    let room = StepLimits { max_tokens: 8 * context, max_context: context, block_size: BLOCK, heads: HEADS };
    let mut step = backend.alloc_step(&room).unwrap();
    for (name, sequences, query_len) in
        [("prompt", 8, context), ("1 row", 1, 1), ("8 sequences", 8, 1), ("draft", 1, 5), ("chunk", 1, CHUNK)]
    {
        let mut batch = Batch::default();
        for sequence in 0..sequences {
            let table: Vec<u32> = (0..context / BLOCK).map(|i| (i * 8 + sequence) as u32).collect();
            let tokens = vec![0; query_len];
            let logits = LogitsRows::Last;
            batch.push(BatchEntry {
                tokens: &tokens,
                kv_len: context,
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
        let kv_bytes = 2 * HEADS.kv_width() * backend.dtype().size();
        let seen: usize = (context - query_len + 1..=context).sum::<usize>() * sequences;
        let work = (sequences * context * kv_bytes, 4 * seen * HEADS.q_width());
        let line =
            Line::measure(limits, format!("attention, {name}"), work, if rows < 32 { 25 } else { 7 }, || {
                layer = (layer + 1) % layout.num_layers;
                backend
                    .attention(&step, &AttentionParams { layer, ..params }, &qkv, &cache, &mut out)
                    .unwrap();
            });
        match name {
            "1 row" => decode.add(LAYERS, &line),
            "chunk" => prefill.add(LAYERS, &line),
            _ => {}
        }
    }
}
