//! Norm, rotation and append against f64: queries in place, keys and values where the slots say, nothing anywhere else.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::{KvCache, RotaryAppendParams};

use crate::emulator::Library;
use crate::mutations::mutate;
use crate::numerics::{Element, Random, check_error, e4m3_from_f64, e4m3_to_f64, run_all};

/// One step's tokens.
#[derive(Debug, Clone)]
pub struct Case {
    pub tokens: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    pub norm: bool,
    pub fp8: bool,
}

pub const BASE: Case =
    Case { tokens: 5, num_heads: 4, num_kv_heads: 2, head_dim: 64, block_size: 16, norm: false, fp8: false };

const EPS: f64 = 1e-5;

/// Heads of a block, as the kernel has them.
fn block_heads(head_dim: usize) -> usize {
    256 / (head_dim / 16).next_power_of_two()
}

fn scale(head: usize, is_value: bool) -> f32 {
    (head as f32 + 1.0 + f32::from(u8::from(is_value))) / 100.0
}

/// What a pool's place holds before the launch: nothing of a head's.
const UNTOUCHED: u8 = 0xa5;

/// Runs one case on `library` and compares it with the oracle.
pub fn run<T: Element>(library: &Library, case: &Case) -> Result<(), String> {
    let Case { tokens, num_heads, num_kv_heads, head_dim, block_size, norm, fp8 } = *case;
    let half = head_dim / 2;
    let heads = num_heads + 2 * num_kv_heads;
    let qkv_stride = heads * head_dim + 8;
    let mut random = Random(head_dim as u64 + tokens as u64);
    let mut qkv = vec![T::from_f64(555.0); tokens * qkv_stride];
    for row in qkv.chunks_exact_mut(qkv_stride) {
        row[..heads * head_dim].iter_mut().for_each(|x| *x = T::from_f64(3.0 * random.next()));
    }
    let (cos, sin): (Vec<f32>, Vec<f32>) = (0..tokens * half)
        .map(|i| {
            let angle = (i / half * 37 + 1) as f64 * 10_000_f64.powf(-((i % half) as f64) / half as f64);
            (1.1 * angle.cos() as f32, 1.1 * angle.sin() as f32)
        })
        .unzip();
    let [q_norm, k_norm] = [1.0, 2.0]
        .map(|size| (0..head_dim).map(|_| T::from_f64(size + random.next() / 2.0)).collect::<Vec<T>>());
    // Tokens lie in no order, with room between them.
    let num_blocks = tokens / block_size * 2 + 3;
    let slots: Vec<i64> = (0..tokens).map(|t| (t * 7 % (num_blocks * block_size - 1)) as i64).collect();
    let head_stride = block_size * head_dim;
    let block_stride = num_kv_heads * head_stride + 32;
    let width = if fp8 { 1 } else { size_of::<T>() };
    let empty = vec![UNTOUCHED; num_blocks * block_stride * width];

    let qkv_buffer = library.buffer(&qkv);
    let pools = [library.buffer(&empty), library.buffer(&empty)];
    let angles = [&cos, &sin].map(|host| library.buffer(host));
    let norms = [&q_norm, &k_norm].map(|host| library.buffer(host));
    let slots_buffer = library.buffer(&slots);
    let scales = [false, true]
        .map(|value| library.buffer(&(0..num_kv_heads).map(|head| scale(head, value)).collect::<Vec<_>>()));
    let params = RotaryAppendParams {
        qkv: qkv_buffer.address(),
        cos: angles[0].address(),
        sin: angles[1].address(),
        q_norm: if norm { norms[0].address() } else { 0 },
        k_norm: if norm { norms[1].address() } else { 0 },
        slots: slots_buffer.address(),
        cache: KvCache {
            keys: pools[0].address(),
            values: pools[1].address(),
            key_scales: if fp8 { scales[0].address() } else { 0 },
            value_scales: if fp8 { scales[1].address() } else { 0 },
            block_stride: block_stride as i64,
            head_stride: head_stride as i64,
            block_size_log2: block_size.ilog2() as i32,
            num_kv_heads: num_kv_heads as i32,
        },
        qkv_stride: qkv_stride as i64,
        num_tokens: tokens as i32,
        num_heads: num_heads as i32,
        norm_eps: EPS as f32,
        reserved: 0,
    };
    let kernel = format!("rotary_append_{}_{head_dim}{}", T::NAME, if fp8 { "_fp8" } else { "" });
    let grid = [tokens as u32, heads.div_ceil(block_heads(head_dim)) as u32, 1];
    let (got_qkv, [mut keys, mut values]) = run_all(library, &kernel, &params, grid, || {
        let result = (qkv_buffer.to_vec(), [pools[0].to_vec(), pools[1].to_vec()]);
        qkv_buffer.fill(&qkv);
        pools.iter().for_each(|pool| pool.fill(&empty));
        result
    })?;

    let mut expected_qkv = qkv.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    for token in 0..tokens {
        let (block, offset) = (slots[token] as usize / block_size, slots[token] as usize % block_size);
        for head in 0..heads {
            let at = token * qkv_stride + head * head_dim;
            let mut x: Vec<f64> = qkv[at..at + head_dim].iter().map(|x| x.to_f64()).collect();
            let is_value = head >= num_heads + num_kv_heads;
            if !is_value {
                if norm {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / head_dim as f64;
                    let weights = if head < num_heads { &q_norm } else { &k_norm };
                    x.iter_mut().zip(weights).for_each(|(x, w)| *x *= w.to_f64() / (mean + EPS).sqrt());
                }
                for i in 0..half {
                    let (cos, sin) = (f64::from(cos[token * half + i]), f64::from(sin[token * half + i]));
                    (x[i], x[half + i]) = (x[i] * cos - x[half + i] * sin, x[half + i] * cos + x[i] * sin);
                }
            }
            if head < num_heads {
                expected_qkv[at..at + head_dim].copy_from_slice(&x);
                continue;
            }
            let kv_head = (head - num_heads) % num_kv_heads;
            let pool = if is_value { &mut values } else { &mut keys };
            let start = (block * block_stride + kv_head * head_stride + offset * head_dim) * width;
            let stored = &mut pool[start..start + head_dim * width];
            let what = format!("{kernel} {case:?}: token {token}, head {head}");
            if fp8 {
                let scale = f64::from(scale(kv_head, is_value));
                let got: Vec<f32> = stored.iter().map(|&code| (e4m3_to_f64(code) * scale) as f32).collect();
                let plain: Vec<f64> =
                    x.iter().map(|x| e4m3_to_f64(e4m3_from_f64(x / scale)) * scale).collect();
                check_error(&what, &got, &plain, &plain, 0.0)
                    .or_else(|_| check_ties(&what, &got, &x, &plain))?;
            } else {
                // SAFETY: a 16-bit type has no invalid bits, and the pool is as aligned as its rows.
                let got = unsafe { std::slice::from_raw_parts(stored.as_ptr().cast::<T>(), head_dim) };
                let plain: Vec<f64> = x.iter().map(|&x| T::from_f64(x).to_f64()).collect();
                check_error(&what, got, &x, &plain, 1e-5)?;
            }
            stored.fill(UNTOUCHED);
        }
    }
    for (name, pool) in [("keys", keys), ("values", values)] {
        if let Some(at) = pool.iter().position(|&byte| byte != UNTOUCHED) {
            return Err(format!("{kernel} {case:?}: byte {at} of {name} was written"));
        }
    }
    let plain: Vec<f64> = expected_qkv.iter().map(|&x| T::from_f64(x).to_f64()).collect();
    check_error(&format!("{kernel} {case:?}: qkv"), &got_qkv, &expected_qkv, &plain, 1e-5)
}

/// f32 arithmetic may fall to the other side of a tie: then the result is as near as the nearest number.
fn check_ties(what: &str, got: &[f32], exact: &[f64], nearest: &[f64]) -> Result<(), String> {
    for (i, ((got, exact), nearest)) in got.iter().zip(exact).zip(nearest).enumerate() {
        let (error, least) = ((f64::from(*got) - exact).abs(), (nearest - exact).abs());
        if error > least * 1.0001 + 1e-5 || error.is_nan() {
            return Err(format!(
                "{what}: element {i} is {got}, error {error:.3e} > {least:.3e} of the nearest, {nearest}"
            ));
        }
    }
    Ok(())
}

fn check(case: &Case) {
    run::<bf16>(Library::kernels(), case).unwrap();
    run::<f16>(Library::kernels(), case).unwrap();
}

#[test]
fn matches_the_oracle_in_every_shape() {
    for head_dim in [64, 96, 128, 256] {
        for block_size in [16, 64, 128] {
            for norm in [false, true] {
                for fp8 in [false, true] {
                    check(&Case { head_dim, block_size, norm, fp8, ..BASE });
                }
            }
        }
    }
}

#[test]
fn matches_the_oracle_with_any_heads_and_tokens() {
    for (num_heads, num_kv_heads) in [(1, 1), (8, 1), (40, 40), (32, 8), (7, 7)] {
        for tokens in [1, 33] {
            check(&Case { tokens, num_heads, num_kv_heads, norm: true, ..BASE });
        }
    }
}

#[test]
fn wrong_rotations_and_appends_are_noticed() {
    for (old, new, expected) in [
        ("a * cos[i] - b * sin[i]", "a * cos[i] + b * sin[i]", "error"),
        ("warp_sum<Shape::kLanes>", "warp_sum<Shape::kLanes / 2>", "error"),
        ("is_query ? params.q_norm", "!is_query ? params.q_norm", "error"),
        ("is_value ? params.cache.values : params.cache.keys", "params.cache.keys", ""),
        ("slot >> params.cache.block_size_log2", "slot >> (params.cache.block_size_log2 + 1)", ""),
        ("row + Shape::kHalf, second", "row + Shape::kHalf + 8, second", ""),
        ("is_value ? params.cache.value_scales", "!is_value ? params.cache.value_scales", "error"),
    ] {
        let library = mutate("rotary.cu", old, 0, new, |line| {
            !line.starts_with("ROTARY_APPEND(") || line.contains("(bf16, Bf16, 64)")
        });
        let case = Case { norm: true, ..BASE };
        let in_fp8 = Case { fp8: true, ..case.clone() };
        let error = run::<bf16>(&library, &case).err().or_else(|| run::<bf16>(&library, &in_fp8).err());
        let error = error.unwrap_or_else(|| panic!("{old:?} → {new:?} was not noticed"));
        assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
    }
}
