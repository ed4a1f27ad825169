//! Linear layers, rotation and the small operations through the backend's interface, against plain f64 loops.

use super::*;
use crate::backend::{BatchEntry, LogitsRows};
use crate::error::ErrorKind;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn backend(dtype: DType, isa: Isa) -> CpuBackend {
    CpuBackend::new(CpuOptions { dtype, threads: Some(2), isa: Some(isa), quantize: None }).unwrap()
}

/// Steps of up to `max_tokens` tokens.
pub(super) fn limits(max_tokens: usize) -> StepLimits {
    let heads = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 8 };
    StepLimits { max_tokens, max_context: 4096, block_size: 4, heads }
}

/// Reproducible values in -1..1.
pub(super) fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// `value` as an element of `dtype` holds it.
pub(super) fn round(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F32 => value,
        DType::F16 => half::f16::from_f32(value).to_f32(),
        DType::BF16 => half::bf16::from_f32(value).to_f32(),
    }
}

/// Half the distance of two neighbouring values around 1.
pub(super) fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2.0_f64.powi(-24),
        DType::F16 => 2.0_f64.powi(-11),
        DType::BF16 => 2.0_f64.powi(-8),
    }
}

fn activation(backend: &CpuBackend, rows: usize, cols: usize, values: &[f32]) -> CpuActivation {
    let mut activation = backend.alloc_activation(rows, cols).unwrap();
    activation.values_mut().copy_from_slice(values);
    activation
}

fn check_linear(backend: &CpuBackend, rows: usize, cols: usize, out: usize, bias: bool) {
    let dtype = backend.dtype();
    let input = noise(rows * cols, 1);
    let weight = noise(out * cols, 2);
    let bias = if bias { noise(out, 3) } else { Vec::new() };
    let split = out / 3;
    let parts = [
        HostTensor::from_f32(vec![split, cols], &weight[..split * cols]).unwrap(),
        HostTensor::from_f32(vec![out - split, cols], &weight[split * cols..]).unwrap(),
    ];
    let biases: Vec<_> =
        (!bias.is_empty()).then(|| HostTensor::from_f32(vec![out], &bias).unwrap()).into_iter().collect();
    let linear = backend.load_linear(&parts, &biases).unwrap();
    let input_matrix = activation(backend, rows, cols, &input);
    let mut result = activation(backend, rows, out, &vec![f32::NAN; rows * out]);
    backend.linear(rows, &input_matrix, &linear, &mut result).unwrap();
    let result = backend.read(rows, &mut result).unwrap();

    // Inputs may be rounded to the weights' type; sums of n products in f32 err by less than n roundings of their size.
    let per_product = 2.0 * unit_roundoff(dtype) + cols as f64 * unit_roundoff(DType::F32);
    for row in 0..rows {
        for column in 0..out {
            let (mut want, mut size) = (bias.get(column).map_or(0.0, |&b| f64::from(b)), 1.0);
            for k in 0..cols {
                let product =
                    f64::from(input[row * cols + k]) * f64::from(round(dtype, weight[column * cols + k]));
                want += product;
                size += product.abs();
            }
            let got = f64::from(result[row * out + column]);
            assert!(
                (got - want).abs() <= per_product * size,
                "{} {dtype} {rows}x{cols}x{out} at {row},{column}: {got} {want}",
                backend.isa()
            );
        }
    }

    // Each row alone gives the same bits as all of them together.
    let mut alone = backend.alloc_activation(1, out).unwrap();
    for row in [0, rows / 2, rows - 1] {
        let input = activation(backend, 1, cols, &input[row * cols..(row + 1) * cols]);
        backend.linear(1, &input, &linear, &mut alone).unwrap();
        let alone = backend.read(1, &mut alone).unwrap();
        assert_eq!(alone, &result[row * out..(row + 1) * out], "row {row} of {rows} alone");
    }
}

#[test]
fn linear_layers_meet_f64_and_do_not_depend_on_the_batch() {
    for isa in Isa::supported() {
        for dtype in DTYPES {
            let backend = backend(dtype, isa);
            for rows in [1, 2, 3, 7, 13, 17, 29, 64] {
                check_linear(&backend, rows, 67, 45, rows % 2 == 0);
            }
            for (cols, out) in [(1, 3), (2, 32), (255, 33), (256, 64), (257, 31), (777, 130)] {
                check_linear(&backend, 5, cols, out, true);
            }
            check_linear(&backend, 300, 48, 160, false);
        }
    }
}

#[test]
fn nan_in_one_row_stays_in_it() {
    for isa in Isa::supported() {
        let backend = backend(DType::BF16, isa);
        let mut input = noise(20 * 64, 1);
        input[64 * 3] = f32::NAN;
        let weight = HostTensor::from_f32(vec![40, 64], &noise(40 * 64, 2)).unwrap();
        let linear = backend.load_linear(&[weight], &[]).unwrap();
        let mut out = backend.alloc_activation(20, 40).unwrap();
        backend.linear(20, &activation(&backend, 20, 64, &input), &linear, &mut out).unwrap();
        for (row, values) in backend.read(20, &mut out).unwrap().chunks(40).enumerate() {
            assert!(values.iter().all(|x| x.is_nan() == (row == 3)), "{isa} row {row}");
        }
    }
}

#[test]
fn embedding_and_gather_pick_rows() {
    for dtype in DTYPES {
        let backend = backend(dtype, Isa::detect());
        let table_values = noise(50 * 24, 5);
        let table =
            backend.load_linear(&[HostTensor::from_f32(vec![50, 24], &table_values).unwrap()], &[]).unwrap();
        let mut batch = Batch::default();
        let tokens = [49, 0, 31, 32, 7];
        let logits = LogitsRows::Last;
        batch.push(BatchEntry { tokens: &tokens[..3], kv_len: 3, block_table: &[0], prompt_len: 3, logits });
        batch.push(BatchEntry { tokens: &tokens[3..], kv_len: 2, block_table: &[1], prompt_len: 2, logits });
        let mut step = backend.alloc_step(&limits(8)).unwrap();
        backend.begin_step(&mut step, &batch, &RopeAngles::default()).unwrap();
        let mut embedded = backend.alloc_activation(8, 24).unwrap();
        backend.embed(&step, &table, &mut embedded).unwrap();
        let mut gathered = backend.alloc_activation(2, 24).unwrap();
        backend.gather_logits_rows(&step, 0..2, &embedded, &mut gathered).unwrap();
        let row = |token: u32| -> Vec<f32> {
            table_values[token as usize * 24..][..24].iter().map(|&x| round(dtype, x)).collect()
        };
        for (token, got) in tokens.iter().zip(backend.read(5, &mut embedded).unwrap().chunks(24)) {
            assert_eq!(got, row(*token), "{dtype}");
        }
        assert_eq!(backend.read(2, &mut gathered).unwrap(), [row(31), row(7)].concat());
    }
}

#[test]
fn rotation_norm_and_append() {
    let heads = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 8 };
    for isa in Isa::supported() {
        for dtype in DTYPES {
            for with_norm in [false, true] {
                let backend = backend(dtype, isa);
                let layout =
                    KvLayout { num_layers: 2, num_kv_heads: 2, head_dim: 8, block_size: 4, num_blocks: 6 };
                let mut cache = backend.alloc_kv_cache(&layout).unwrap();
                let mut batch = Batch::default();
                let logits = LogitsRows::None;
                // Positions 3..7 in blocks 5 and 1, position 0 in block 2.
                let entry =
                    BatchEntry { tokens: &[0; 4], kv_len: 7, block_table: &[5, 1], prompt_len: 7, logits };
                batch.push(entry);
                batch.push(BatchEntry { tokens: &[0], kv_len: 1, block_table: &[2], prompt_len: 1, logits });
                let mut step = backend.alloc_step(&limits(5)).unwrap();
                let angles: Vec<f32> = noise(5 * 4, 9).iter().map(|x| 3.0 * x).collect();
                let rope = RopeAngles {
                    cos: angles.iter().map(|x| x.cos()).collect(),
                    sin: angles.iter().map(|x| x.sin()).collect(),
                };
                backend.begin_step(&mut step, &batch, &rope).unwrap();
                let before = noise(5 * 64, 4);
                let mut qkv = activation(&backend, 5, 64, &before);
                let (q, k) = (noise(8, 6), noise(8, 7));
                let norm = with_norm.then_some(QkNorm { q: &q, k: &k, eps: 1e-6 });
                backend.rotary_append(&step, 1, &heads, norm, &mut qkv, &mut cache).unwrap();

                let after = backend.read(5, &mut qkv).unwrap();
                let slots = [(5, 3), (1, 0), (1, 1), (1, 2), (2, 0)];
                for token in 0..5 {
                    for head in 0..8 {
                        let start = token * 64 + head * 8;
                        let mut want: Vec<f64> =
                            before[start..start + 8].iter().map(|&x| f64::from(x)).collect();
                        if head < 6 {
                            if with_norm {
                                let square: f64 = want.iter().map(|x| x * x).sum::<f64>() / 8.0;
                                let weight = if head < 4 { &q } else { &k };
                                for (x, w) in want.iter_mut().zip(weight) {
                                    *x *= f64::from(*w) / (square + 1e-6).sqrt();
                                }
                            }
                            for i in 0..4 {
                                let (sin, cos) = f64::from(angles[token * 4 + i]).sin_cos();
                                let (a, b) = (want[i], want[i + 4]);
                                (want[i], want[i + 4]) = (a * cos - b * sin, b * cos + a * sin);
                            }
                        }
                        for (got, want) in after[start..start + 8].iter().zip(&want) {
                            assert!((f64::from(*got) - want).abs() < 2e-6, "{isa} {token} {head}");
                        }
                        if (4..6).contains(&head) {
                            let value = &after[start + 16..start + 24];
                            let (block, slot) = slots[token];
                            let got = cache.read(1, block, head - 4, slot);
                            let held = |values: &[f32]| -> Vec<f32> {
                                values.iter().map(|&x| round(dtype, x)).collect()
                            };
                            assert_eq!(got, (held(&after[start..start + 8]), held(value)), "{dtype} {token}");
                        }
                    }
                }
                assert_eq!(cache.read(0, 5, 0, 3).0, [0.0; 8], "the other layer is untouched");
            }
        }
    }
}

#[test]
fn options_and_sizes_that_cannot_be_are_errors() {
    let new = |threads, isa| {
        CpuBackend::new(CpuOptions { dtype: DType::F32, threads, isa, quantize: None })
            .err()
            .map(|error| error.kind())
    };
    assert_eq!(new(Some(0), None), Some(ErrorKind::InvalidArgument));
    assert_eq!(new(Some(1), Some(Isa::Portable)), None);
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx] {
        let want = (!isa.is_supported()).then_some(ErrorKind::Unsupported);
        assert_eq!(new(Some(1), Some(isa)), want);
    }
    let backend = backend(DType::F32, Isa::Portable);
    let error = backend.alloc_activation(1 << 40, 1 << 20).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
}
