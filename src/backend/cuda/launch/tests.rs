//! Each wrong argument is refused with its name and both values, and right ones reach the launcher with the grid and the addresses they should.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use half::{bf16, f16};

use super::super::geometry::BlockShape;
use super::super::params::TensorMap;
use super::super::{Buffer, DeviceSequences, Indices, Properties, Stored, TensorMapShape};
use super::*;
use crate::backend::{Batch, BatchEntry, HeadLayout, LogitsRows};

/// Hands out addresses and remembers launches.
#[derive(Default)]
struct Recorder {
    next: AtomicU64,
    launches: Mutex<Vec<(Kernel, [u32; 3], usize)>>,
}

impl Launcher for Recorder {
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
    let mut tiles = PrefillTiles::new(&launcher).unwrap();
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
        let stale = sequences(30, 250, 1);
        refused(
            attention_prefill(device, &AttentionPrefill { sequences: &stale, ..arguments }),
            &["q", "[60, 4096]"],
        );
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
    assert_eq!(launches[1].0.to_string(), "attention_decode_bf16_128_rows64");
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
