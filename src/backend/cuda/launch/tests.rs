//! Each wrong argument is refused with its name and both values, and right ones reach the launcher with the grid and the addresses they should.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use half::{bf16, f16};

use super::super::geometry::BlockShape;
use super::super::params::TensorMap;
use super::super::{Buffer, DeviceSequences, Indices, Product, Properties, Stored, TensorMapShape};
use super::*;
use crate::backend::{Batch, BatchEntry, HeadLayout, LogitsRows};

/// Hands out addresses and remembers launches.
#[derive(Default)]
struct Recorder {
    next: AtomicU64,
    launches: Mutex<Vec<(Kernel, [u32; 3], usize)>>,
}

impl Launcher for Recorder {
    fn name(&self) -> String {
        "recorder".into()
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(u64::MAX)
    }

    fn properties(&self) -> Properties {
        Properties {
            compute_capability: (9, 0),
            multiprocessors: 132,
            max_shared_bytes: 232_448,
            l2_bytes: 50 << 20,
        }
    }

    fn resident_blocks(&self, _: Kernel) -> usize {
        2 * 132
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        Ok(256 + self.next.fetch_add(bytes.next_multiple_of(256) as u64, Ordering::Relaxed))
    }

    unsafe fn release(&self, _: u64) {}

    unsafe fn write(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn zero(&self, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        _: BlockShape,
        grid: [u32; 3],
        params: ParamsRef<'_>,
    ) -> Result<()> {
        self.launches.lock().unwrap().push((kernel, grid, params.size()));
        Ok(())
    }

    unsafe fn matmul(&self, _: &Product) -> Result<()> {
        Ok(())
    }

    fn tensor_map(&self, _: &TensorMapShape) -> Result<TensorMap> {
        Ok(TensorMap::default())
    }
}

fn recorder() -> (Arc<Recorder>, Arc<dyn Launcher>) {
    let recorder = Arc::new(Recorder::default());
    (Arc::clone(&recorder), recorder)
}

fn zeros<T: Stored + Default>(launcher: &Arc<dyn Launcher>, len: usize) -> Buffer {
    Buffer::from_slice(launcher, &vec![T::default(); len]).unwrap()
}

/// The launch is refused with an error that contains all of `parts`.
fn refused(result: Result<()>, parts: &[&str]) {
    let line = result.expect_err(&format!("{parts:?} was not refused")).to_line();
    assert!(parts.iter().all(|part| line.contains(part)), "{line}: not {parts:?}");
}

#[test]
fn row_kernels_check_types_shapes_and_strides() {
    let (recorder, launcher) = recorder();
    let device = launcher.as_ref();
    let (half, wide) = (zeros::<bf16>(&launcher, 4 * 128), zeros::<f32>(&launcher, 4 * 128));
    let other = zeros::<f16>(&launcher, 4 * 128);
    let rows = |buffer: &Buffer, cols| buffer.matrix(0, 4, cols, 128).map(|matrix| matrix.address).is_ok();
    assert!(rows(&half, 128) && !rows(&half, 129));
    let matrix = half.matrix(0, 4, 128, 128).unwrap();
    let half_width = half.matrix(0, 4, 64, 128).unwrap();

    silu_mul(device, 4, &matrix, &half_width).unwrap();
    refused(silu_mul(device, 5, &matrix, &half_width), &["silu_mul_bf16: gate_up", "[5, 128]", "[4, 128]"]);
    refused(silu_mul(device, 4, &matrix, &matrix), &["gate_up", "[4, 256]", "[4, 128]"]);
    refused(
        silu_mul(device, 4, &wide.matrix(0, 4, 128, 128).unwrap(), &half_width),
        &["gate_up", "bf16 or f16", "f32"],
    );
    refused(
        silu_mul(device, 4, &other.matrix(0, 4, 128, 128).unwrap(), &half_width),
        &["out", "f16", "bf16"],
    );
    refused(silu_mul(device, 0, &matrix, &half_width), &["rows", "1 to", "0"]);

    let bias = half.vector();
    bias_add(device, 4, &matrix, &bias).unwrap();
    refused(
        bias_add(device, 4, &matrix, &bias.part(0, 127).unwrap()),
        &["bias_add_bf16: bias", "128", "127"],
    );
    refused(bias_add(device, 4, &matrix, &bias.part(1, 128).unwrap()), &["bias", "multiple of 16", "0x102"]);
    refused(
        bias_add(device, 4, &half.matrix(0, 4, 100, 100).unwrap(), &bias),
        &["cols", "multiple of 8", "100"],
    );
    refused(
        bias_add(device, 4, &half.matrix(0, 4, 96, 100).unwrap(), &bias),
        &["values", "16 bytes apart", "200"],
    );

    let norm = |weight, out| RmsNorm {
        residual: wide.matrix(0, 4, 128, 128).unwrap(),
        delta: Some(matrix),
        weight,
        out,
        rows: 4,
        eps: 1e-5,
    };
    rms_norm(device, &norm(bias, matrix)).unwrap();
    refused(rms_norm(device, &norm(other.vector(), matrix)), &["rms_norm_bf16: weight", "bf16", "f16"]);
    let strided = wide.matrix(0, 3, 128, 160).unwrap();
    refused(
        rms_norm(device, &RmsNorm { residual: strided, rows: 3, ..norm(bias, matrix) }),
        &["row strides", "128", "160"],
    );
    let launched: Vec<_> =
        recorder.launches.lock().unwrap().iter().map(|launch| launch.0.to_string()).collect();
    assert_eq!(launched, ["silu_mul_bf16", "bias_add_bf16", "rms_norm_bf16"]);
}

#[test]
fn indices_stay_inside_what_they_name() {
    let (_, launcher) = recorder();
    let device = launcher.as_ref();
    let (table, out) = (zeros::<bf16>(&launcher, 10 * 64), zeros::<f32>(&launcher, 3 * 64));
    let (table, out) = (table.matrix(0, 10, 64, 64).unwrap(), out.matrix(0, 3, 64, 64).unwrap());
    embedding(device, &Indices::new(&launcher, &[9, 0, 3]).unwrap(), &table, &out).unwrap();
    refused(
        embedding(device, &Indices::new(&launcher, &[10, 0, 3]).unwrap(), &table, &out),
        &["embedding_bf16: table", "[11, 64]", "[10, 64]"],
    );
    refused(
        gather_rows(device, &Indices::new(&launcher, &[12]).unwrap(), &table, &table),
        &["input", "[13, 64]"],
    );
    let negative = Indices::new(&launcher, &[4, -1]).unwrap_err().to_line();
    assert!(negative.contains("index 1") && negative.contains("negative"), "{negative}");
}

#[test]
fn attention_checks_heads_tables_and_rows() {
    const HEADS: HeadLayout = HeadLayout { num_heads: 32, num_kv_heads: 8, head_dim: 128 };
    let (recorder, launcher) = recorder();
    let device = launcher.as_ref();
    let sequences = |query_len: usize, kv_len: usize, block: u32| {
        let mut batch = Batch::default();
        let (tokens, block_table) = (vec![0; query_len], vec![block; kv_len.div_ceil(64)]);
        for _ in 0..2 {
            let entry = BatchEntry {
                tokens: &tokens,
                kv_len,
                block_table: &block_table,
                prompt_len: kv_len,
                logits: LogitsRows::Last,
            };
            batch.push(entry);
        }
        let mut sequences = DeviceSequences::new(&launcher, 64).unwrap();
        sequences.fill(&batch).unwrap();
        sequences
    };
    let pool = zeros::<bf16>(&launcher, 4 * 8 * 64 * 128);
    let cache = Cache {
        keys: pool.vector(),
        values: pool.vector(),
        scales: None,
        block_size: 64,
        num_kv_heads: 8,
        head_dim: 128,
    };
    let rows = zeros::<bf16>(&launcher, 40 * 4096);
    let q = rows.matrix(0, 40, 4096, 4096).unwrap();
    let mut workspace = DecodeWorkspace::new(&launcher).unwrap();
    let mut decode = |sequences: &DeviceSequences, heads: HeadLayout, cache: Cache<'_>| {
        let arguments =
            AttentionDecode { q, out: q, cache, sequences, heads, window: None, softmax_scale: 0.1 };
        attention_decode(device, &arguments, &mut workspace)
    };
    decode(&sequences(1, 5000, 3), HEADS, cache).unwrap();
    decode(&sequences(5, 5000, 3), HEADS, cache).unwrap();
    refused(decode(&sequences(1, 64, 4), HEADS, cache), &["block tables", "blocks below 4", "got 4"]);
    refused(decode(&sequences(17, 64, 0), HEADS, cache), &["query_len", "1 to 16", "17"]);
    let fewer = HeadLayout { num_heads: 30, ..HEADS };
    refused(decode(&sequences(1, 64, 0), fewer, cache), &["num_heads", "multiple of 8", "30"]);
    refused(
        decode(&sequences(1, 64, 0), HEADS, Cache { head_dim: 64, ..cache }),
        &["cache's heads", "8 of 128"],
    );
    refused(decode(&sequences(1, 64, 0), HEADS, Cache { block_size: 48, ..cache }), &["block_size", "48"]);

    let long = sequences(20, 250, 1);
    let mut tiles = PrefillTiles::new(&launcher);
    let maps = cache.maps(device).unwrap();
    for (which, grid) in [(PrefillKernel::Portable, [32, 2, 1]), (PrefillKernel::Hopper, [16, 1, 1])] {
        tiles.fill(&long, which.query_rows(&HEADS)).unwrap();
        let arguments = AttentionPrefill {
            q,
            out: q,
            cache,
            maps: (which == PrefillKernel::Hopper).then_some(&maps),
            sequences: &long,
            tiles: &tiles,
            heads: HEADS,
            window: Some(100),
            softmax_scale: 0.1,
        };
        attention_prefill(device, &arguments).unwrap();
        assert_eq!(recorder.launches.lock().unwrap().last().unwrap().1, grid, "{which:?}");
        let narrow = AttentionPrefill { q: rows.matrix(0, 40, 4032, 4096).unwrap(), ..arguments };
        refused(attention_prefill(device, &narrow), &["q", "[40, 4096]", "[40, 4032]"]);
        let infinite = AttentionPrefill { softmax_scale: f32::INFINITY, ..arguments };
        refused(attention_prefill(device, &infinite), &["softmax_scale", "inf"]);
        for (other, parts) in [
            (sequences(30, 250, 1), &["q", "[60, 4096]"][..]),
            (sequences(20, 200, 1), &["tiles of sequence 0", "20 query tokens of 200", "20 of 250"]),
        ] {
            refused(attention_prefill(device, &AttentionPrefill { sequences: &other, ..arguments }), parts);
        }
    }

    // On Hopper too, an FP8 cache is read by the kernel for all chips.
    let (codes, ones) = (zeros::<u8>(&launcher, 4 * 8 * 64 * 128), zeros::<f32>(&launcher, 8));
    let scales = KvScales { keys: ones.vector(), values: ones.vector() };
    let fp8 = Cache { keys: codes.vector(), values: codes.vector(), scales: Some(scales), ..cache };
    let best = PrefillKernel::best(device.properties(), fp8.format());
    assert_eq!(best, PrefillKernel::Portable);
    assert_eq!(PrefillKernel::best(device.properties(), cache.format()), PrefillKernel::Hopper);
    tiles.fill(&long, best.query_rows(&HEADS)).unwrap();
    let arguments = AttentionPrefill {
        q,
        out: q,
        cache: fp8,
        maps: None,
        sequences: &long,
        tiles: &tiles,
        heads: HEADS,
        window: None,
        softmax_scale: 0.1,
    };
    attention_prefill(device, &arguments).unwrap();
    refused(
        attention_prefill(device, &AttentionPrefill { maps: Some(&maps), ..arguments }),
        &["attention_prefill_sm90_bf16_128: cache", "model's type", "e4m3"],
    );
    let launches = recorder.launches.lock().unwrap();
    assert_eq!(launches.last().unwrap().0.to_string(), "attention_prefill_bf16_128_fp8");
    assert_eq!(launches[0].0.to_string(), "attention_decode_bf16_128_rows16");
    assert_eq!(launches[1].0.to_string(), "attention_decode_bf16_128_rows64_deep");
    assert_eq!(launches[0].1[1..], [8, 2]);
}

#[test]
fn tables_shorter_than_their_context_are_refused() {
    let (_, launcher) = recorder();
    let mut batch = Batch::default();
    let logits = LogitsRows::Last;
    batch.push(BatchEntry { tokens: &[1], kv_len: 65, block_table: &[0], prompt_len: 65, logits });
    let line = DeviceSequences::new(&launcher, 64).unwrap().fill(&batch).unwrap_err().to_line();
    assert!(
        line.contains("sequence 0") && line.contains("2 blocks of 64") && line.contains("got 1"),
        "{line}"
    );
    assert!(DeviceSequences::new(&launcher, 48).is_err());
}

const SMALL: HeadLayout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 64 };

/// Three blocks of 16 tokens for the heads of [`SMALL`].
fn small_cache<'a>(keys: &'a Buffer, values: &'a Buffer) -> Cache<'a> {
    Cache {
        keys: keys.vector(),
        values: values.vector(),
        scales: None,
        block_size: 16,
        num_kv_heads: SMALL.num_kv_heads,
        head_dim: SMALL.head_dim,
    }
}

#[test]
fn rotary_checks_rows_angles_norms_and_slots() {
    let (recorder, launcher) = recorder();
    let device = launcher.as_ref();
    let (pool, other) = (zeros::<bf16>(&launcher, 3 * 2 * 16 * 64), zeros::<f16>(&launcher, 3 * 2 * 16 * 64));
    let (rows, wide) = (zeros::<bf16>(&launcher, 4 * 520), zeros::<f32>(&launcher, 4 * 512));
    let slots = Indices::new(&launcher, &[0_i64, 47, 3]).unwrap();
    let qkv = |rows_given, cols, stride| rows.matrix(0, rows_given, cols, stride).unwrap();
    let angles = |rows_given, cols, stride| wide.matrix(0, rows_given, cols, stride).unwrap();
    let norm = |q, k, eps| Some(QkNormWeights { q, k, eps });
    let weights = pool.vector().part(0, 64).unwrap();
    let right = RotaryAppend {
        qkv: qkv(3, 512, 512),
        cos: angles(3, 32, 32),
        sin: angles(3, 32, 32),
        norm: norm(weights, weights, 1e-6),
        slots: &slots,
        cache: small_cache(&pool, &pool),
        heads: SMALL,
    };
    rotary_append(device, &right).unwrap();
    let (kernel, grid, _) = recorder.launches.lock().unwrap()[0];
    assert_eq!((kernel.to_string().as_str(), grid), ("rotary_append_bf16_64", [3, 1, 1]));

    let refuses =
        |arguments: RotaryAppend<'_>, parts: &[&str]| refused(rotary_append(device, &arguments), parts);
    refuses(RotaryAppend { qkv: qkv(2, 512, 512), ..right }, &["64: qkv", "[3, 512]", "[2, 512]"]);
    refuses(RotaryAppend { qkv: qkv(3, 448, 512), ..right }, &["qkv", "[3, 512]", "[3, 448]"]);
    refuses(RotaryAppend { qkv: qkv(3, 512, 516), ..right }, &["qkv", "16 bytes apart", "1032"]);
    refuses(RotaryAppend { qkv: angles(3, 512, 512), ..right }, &["qkv", "bf16 or f16", "f32"]);
    refuses(RotaryAppend { cos: angles(3, 31, 32), ..right }, &["cos", "[3, 32]", "[3, 31]"]);
    refuses(RotaryAppend { sin: angles(2, 32, 32), ..right }, &["sin", "[3, 32]", "[2, 32]"]);
    refuses(RotaryAppend { sin: angles(3, 32, 64), ..right }, &["sin", "side by side", "64"]);
    refuses(RotaryAppend { cos: qkv(3, 32, 32), ..right }, &["cos", "f32", "bf16"]);
    let short = weights.part(0, 63).unwrap();
    refuses(RotaryAppend { norm: norm(short, weights, 1e-6), ..right }, &["q_norm", "64", "63"]);
    refuses(RotaryAppend { norm: norm(weights, other.vector(), 1e-6), ..right }, &["k_norm", "bf16", "f16"]);
    refuses(RotaryAppend { norm: norm(weights, weights, f32::NAN), ..right }, &["norm.eps", "NaN"]);
    for (slots, parts) in [
        (Indices::new(&launcher, &[0_i64, 48, 3]), ["slots", "slots below 48", "49"]),
        (Indices::new(&launcher, &[0_i32, 1, 2]), ["slots", "i64", "i32"]),
        (Indices::new::<i64>(&launcher, &[]), ["tokens", "1 to", "0"]),
    ] {
        refuses(RotaryAppend { slots: &slots.unwrap(), ..right }, &parts);
    }
    let heads = HeadLayout { head_dim: 80, ..SMALL };
    refuses(RotaryAppend { heads, ..right }, &["head_dim", "64, 96, 128 or 256", "80"]);
    let heads = HeadLayout { num_heads: 5, ..SMALL };
    refuses(RotaryAppend { heads, ..right }, &["num_heads", "multiple of 2", "5"]);
    let heads = HeadLayout { num_kv_heads: 1, ..SMALL };
    refuses(RotaryAppend { heads, ..right }, &["cache's heads", "1 of 64", "2 of 64"]);
    let mixed = Cache { values: other.vector(), ..right.cache };
    refuses(RotaryAppend { cache: mixed, ..right }, &["cache.values", "bf16", "f16"]);
    let small = Cache { values: pool.vector().part(0, 2047).unwrap(), ..right.cache };
    refuses(RotaryAppend { cache: small, ..right }, &["cache.values", "2048", "2047"]);
    refuses(
        RotaryAppend { cache: Cache { block_size: 24, ..right.cache }, ..right },
        &["block_size", "16, 32, 64 or 128", "24"],
    );
    assert_eq!(recorder.launches.lock().unwrap().len(), 1);
}

#[test]
fn an_fp8_cache_has_scales_for_all_heads_and_no_other_cache_has_any() {
    let (recorder, launcher) = recorder();
    let (codes, pool) = (zeros::<u8>(&launcher, 3 * 2 * 16 * 64), zeros::<bf16>(&launcher, 3 * 2 * 16 * 64));
    let (ones, rows) = (zeros::<f32>(&launcher, 32), zeros::<bf16>(&launcher, 512));
    let slots = Indices::new(&launcher, &[5_i64]).unwrap();
    let append = |cache: Cache<'_>, scales: Option<KvScales<'_>>| {
        let angles = ones.matrix(0, 1, 32, 32).unwrap();
        let arguments = RotaryAppend {
            qkv: rows.matrix(0, 1, 512, 512).unwrap(),
            cos: angles,
            sin: angles,
            norm: None,
            slots: &slots,
            cache: Cache { scales, ..cache },
            heads: SMALL,
        };
        rotary_append(launcher.as_ref(), &arguments)
    };
    let (fp8, model) = (small_cache(&codes, &codes), small_cache(&pool, &pool));
    let all = ones.vector();
    let scales = |keys, values| Some(KvScales { keys, values });
    append(fp8, scales(all, all)).unwrap();
    assert_eq!(recorder.launches.lock().unwrap()[0].0.to_string(), "rotary_append_bf16_64_fp8");

    refused(append(fp8, None), &["rotary_append_bf16_64_fp8: cache.scales", "e4m3 with scales: false"]);
    refused(
        append(model, scales(all, all)),
        &["rotary_append_bf16_64: cache.scales", "bf16 with scales: true"],
    );
    let one = all.part(0, 1).unwrap();
    refused(append(fp8, scales(one, all)), &["cache.scales.keys", "2 elements", "1"]);
    refused(append(fp8, scales(all, one)), &["cache.scales.values", "2 elements", "1"]);
    refused(append(fp8, scales(all, pool.vector())), &["cache.scales.values", "f32", "bf16"]);
    refused(append(fp8, scales(all.part(1, 2).unwrap(), all)), &["cache.scales.keys", "multiple of 16"]);
    refused(
        append(Cache { values: pool.vector(), ..fp8 }, scales(all, all)),
        &["cache.values", "e4m3", "bf16"],
    );
}

#[test]
fn the_few_row_product_checks_shapes_and_rows() {
    let (recorder, launcher) = recorder();
    let device = launcher.as_ref();
    let (half, other, wide) =
        (zeros::<bf16>(&launcher, 40 * 128), zeros::<f16>(&launcher, 40 * 128), zeros::<f32>(&launcher, 128));
    let of = |rows, cols, stride| half.matrix(0, rows, cols, stride).unwrap();
    let right = LinearSkinny {
        input: of(17, 128, 128),
        weight: of(40, 128, 128),
        bias: Some(half.vector()),
        out: of(17, 40, 40),
        rows: 16,
    };
    let mut workspace = SkinnyWorkspace::new(&launcher).unwrap();
    let mut run = |arguments: LinearSkinny<'_>| linear_skinny(device, &arguments, &mut workspace);
    run(right).unwrap();
    assert_eq!(recorder.launches.lock().unwrap()[0].1, [2, 1, 1]);
    let mut refuses = |arguments, parts: &[&str]| refused(run(arguments), parts);
    refuses(LinearSkinny { rows: 17, ..right }, &["linear_skinny_bf16: rows", "1 to 16", "17"]);
    refuses(LinearSkinny { rows: 0, ..right }, &["rows", "1 to 16", "0"]);
    refuses(LinearSkinny { input: of(15, 128, 128), ..right }, &["input", "[16, 128]", "[15, 128]"]);
    refuses(LinearSkinny { input: of(17, 120, 128), ..right }, &["input", "[16, 128]", "[17, 120]"]);
    refuses(LinearSkinny { input: of(17, 128, 132), ..right }, &["input", "16 bytes apart", "264"]);
    refuses(LinearSkinny { out: of(17, 48, 48), ..right }, &["out", "[16, 40]", "[17, 48]"]);
    refuses(LinearSkinny { weight: of(40, 124, 128), ..right }, &["in_features", "multiple of 8", "124"]);
    let weight = wide.matrix(0, 1, 128, 128).unwrap();
    refuses(LinearSkinny { weight, ..right }, &["linear_skinny: weight", "bf16 or f16", "f32"]);
    let input = other.matrix(0, 17, 128, 128).unwrap();
    refuses(LinearSkinny { input, ..right }, &["input", "bf16", "f16"]);
    refuses(LinearSkinny { bias: Some(half.vector().part(0, 39).unwrap()), ..right }, &["bias", "40", "39"]);
    refuses(LinearSkinny { bias: Some(wide.vector()), ..right }, &["bias", "bf16", "f32"]);
}

#[test]
fn sampling_checks_every_row_s_parameters() {
    let (recorder, launcher) = recorder();
    let device = launcher.as_ref();
    let logits = zeros::<f32>(&launcher, 3 * 5000);
    let (floats, ints, longs, signed) = (
        zeros::<f32>(&launcher, 3),
        zeros::<i32>(&launcher, 12),
        zeros::<u64>(&launcher, 3),
        zeros::<i64>(&launcher, 3),
    );
    let right = Sample {
        logits: logits.matrix(0, 3, 5000, 5000).unwrap(),
        temperatures: floats.vector(),
        top_ps: floats.vector(),
        top_ks: ints.vector(),
        seeds: longs.vector(),
        offsets: longs.vector(),
        tokens: ints.vector(),
        logprobs: floats.vector(),
        rows: 3,
    };
    let mut workspace = SampleWorkspace::new(&launcher).unwrap();
    let mut run = |arguments: Sample<'_>| sample(device, &arguments, &mut workspace);
    run(right).unwrap();
    assert_eq!(recorder.launches.lock().unwrap()[0].1, [2, 3, 1]);
    let mut refuses = |arguments, parts: &[&str]| refused(run(arguments), parts);
    let few = floats.vector().part(0, 2).unwrap();
    refuses(Sample { temperatures: few, ..right }, &["sample_f32: temperatures", "3 elements", "2"]);
    refuses(Sample { top_ps: few, ..right }, &["top_ps", "3 elements", "2"]);
    refuses(Sample { logprobs: few, ..right }, &["logprobs", "3 elements", "2"]);
    refuses(Sample { tokens: ints.vector().part(0, 2).unwrap(), ..right }, &["tokens", "3 elements", "2"]);
    refuses(Sample { top_ks: floats.vector(), ..right }, &["top_ks", "i32", "f32"]);
    refuses(Sample { seeds: signed.vector(), ..right }, &["seeds", "u64", "i64"]);
    refuses(Sample { offsets: ints.vector(), ..right }, &["offsets", "u64", "i32"]);
    refuses(Sample { rows: 4, ..right }, &["logits", "[4, 5000]", "[3, 5000]"]);
    refuses(Sample { rows: 0, ..right }, &["rows", "1 to 65535", "0"]);
    let strided = logits.matrix(0, 2, 5000, 5001).unwrap();
    refuses(Sample { logits: strided, rows: 2, ..right }, &["logits", "16 bytes apart", "20004"]);
    let indices = ints.matrix(0, 3, 4, 4).unwrap();
    refuses(Sample { logits: indices, ..right }, &["sample: logits", "f32, bf16 or f16", "i32"]);
}
