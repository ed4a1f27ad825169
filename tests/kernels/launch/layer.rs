//! A whole layer through the launch layer over a mixed ragged batch of prompts, drafts and decoded tokens, against the same layer in f64.

use std::sync::Arc;

use half::bf16;
use swebench_infer::backend::HeadLayout;
use swebench_infer::backend::cuda::geometry::CacheFormat;
use swebench_infer::backend::cuda::launch::{
    AttentionDecode, AttentionPrefill, DecodeWorkspace, LinearSkinny, MAX_SKINNY_ROWS, PrefillKernel,
    PrefillTiles, RmsNorm, RotaryAppend, SkinnyWorkspace, attention_decode, attention_prefill, linear_skinny,
    rms_norm, rotary_append, silu_mul,
};
use swebench_infer::backend::cuda::{Buffer, Indices, Launcher, Matrix};

use super::rotary::{angles, rotate};
use super::{DeviceCache, Pool, Step, run_in_every_order, runs, to_f64, upload};
use crate::attention_decode::attend;
use crate::numerics::{Random, check_error};

const HEADS: HeadLayout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 64 };
const HIDDEN: usize = 128;
const INTERMEDIATE: usize = 192;
const EPS: f32 = 1e-5;
const SCALE: f32 = 0.125;

/// Prompts, one of them a chunk of a longer context; then a decoded token, a draft, and a sequence's first token.
const LENS: [(usize, usize); 5] = [(20, 20), (17, 50), (1, 300), (3, 45), (1, 1)];
const PROMPTS: usize = 2;
const PROMPT_TOKENS: usize = 37;
const TOKENS: usize = 42;

/// Weights, inputs and what the cache holds of earlier steps.
struct Layer {
    step: Step,
    residual: Vec<f32>,
    norms: [Vec<bf16>; 3],
    qkv: Vec<bf16>,
    qkv_bias: Vec<bf16>,
    out: Vec<bf16>,
    gate_up: Vec<bf16>,
    down: Vec<bf16>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    keys: Pool,
    values: Pool,
}

impl Layer {
    fn new(format: CacheFormat) -> Self {
        let step = Step::new(&LENS, 16);
        let mut random = Random(31);
        let mut small =
            |len: usize| (0..len).map(|_| bf16::from_f64(random.next() / 8.0)).collect::<Vec<_>>();
        let (qkv, qkv_bias) = (small(HEADS.qkv_width() * HIDDEN), small(HEADS.qkv_width()));
        let (out, gate_up) = (small(HIDDEN * HEADS.q_width()), small(2 * INTERMEDIATE * HIDDEN));
        let down = small(HIDDEN * INTERMEDIATE);
        let positions: Vec<_> =
            LENS.iter().flat_map(|&(query_len, kv_len)| kv_len - query_len..kv_len).collect();
        let (cos, sin) = angles(&positions, HEADS.head_dim);
        let pools = [0, 1].map(|_| {
            let mut pool = Pool::new(format, HEADS, &step);
            for (sequence, &(query_len, kv_len)) in LENS.iter().enumerate() {
                for position in 0..kv_len - query_len {
                    for head in 0..HEADS.num_kv_heads {
                        let drawn: Vec<_> =
                            (0..HEADS.head_dim).map(|_| pool.rounded(head, random.next())).collect();
                        pool.set(step.slot(sequence, position), head, &drawn);
                    }
                }
            }
            pool
        });
        let [keys, values] = pools;
        let norms = [0; 3].map(|_| (0..HIDDEN).map(|_| bf16::from_f64(1.0 + random.next() / 2.0)).collect());
        let residual = random.values(TOKENS * HIDDEN);
        Self { step, residual, norms, qkv, qkv_bias, out, gate_up, down, cos, sin, keys, values }
    }

    /// In f64, and rounded to what the kernels store after every operation when `rounds`.
    fn on_host(&self, rounds: bool) -> Vec<f64> {
        let round: fn(f64) -> f64 = if rounds { |x| bf16::from_f64(x).to_f64() } else { |x| x };
        let (mut keys, mut values) = (self.keys.clone(), self.values.clone());
        let slots = self.step.slots();
        let places = LENS.iter().enumerate().flat_map(|(sequence, &(query_len, kv_len))| {
            (kv_len - query_len..kv_len).map(move |position| (sequence, position))
        });
        let mut rows = Vec::new();
        for (token, residual) in self.residual.chunks_exact(HIDDEN).enumerate() {
            let residual: Vec<f64> = residual.iter().map(|&x| x.into()).collect();
            let mut qkv = linear(&norm(&residual, &self.norms[0], round), &self.qkv, round);
            for (x, bias) in qkv.iter_mut().zip(&self.qkv_bias) {
                *x = round(*x + bias.to_f64());
            }
            let turned = token * HEADS.head_dim / 2;
            for (head, x) in qkv.chunks_exact_mut(HEADS.head_dim).enumerate() {
                if head < HEADS.num_heads + HEADS.num_kv_heads {
                    rotate(x, None, &self.cos[turned..], &self.sin[turned..]);
                }
                let Some(head) = head.checked_sub(HEADS.num_heads) else {
                    x.iter_mut().for_each(|x| *x = round(*x));
                    continue;
                };
                let pool = if head < HEADS.num_kv_heads { &mut keys } else { &mut values };
                let head = head % HEADS.num_kv_heads;
                let stored: Vec<_> =
                    x.iter().map(|&x| if rounds { pool.rounded(head, x) } else { x }).collect();
                pool.set(slots[token] as usize, head, &stored);
            }
            qkv.truncate(HEADS.q_width());
            rows.push((residual, qkv));
        }
        let mut result = Vec::new();
        for ((mut residual, q), (sequence, position)) in rows.into_iter().zip(places) {
            let attention = q.chunks_exact(HEADS.head_dim).enumerate().flat_map(|(head, q)| {
                let seen = |pool: &Pool| -> Vec<f64> {
                    let slots = (0..=position).map(|key| self.step.slot(sequence, key));
                    slots.flat_map(|slot| pool.get(slot, head / HEADS.group_size()).to_vec()).collect()
                };
                attend(q, &seen(&keys), &seen(&values), SCALE.into(), round)
            });
            let attention: Vec<f64> = attention.map(round).collect();
            add(&mut residual, &linear(&attention, &self.out, round));
            let gate_up = linear(&norm(&residual, &self.norms[1], round), &self.gate_up, round);
            let (gate, up) = gate_up.split_at(INTERMEDIATE);
            let gated: Vec<f64> =
                gate.iter().zip(up).map(|(gate, up)| round(gate / (1.0 + (-gate).exp()) * up)).collect();
            add(&mut residual, &linear(&gated, &self.down, round));
            result.extend(norm(&residual, &self.norms[2], round));
        }
        result
    }

    /// By the kernels, prompts by `which`.
    fn on_device(&self, launcher: &Arc<dyn Launcher>, which: PrefillKernel) -> Vec<bf16> {
        let device = launcher.as_ref();
        let empty = |cols: usize| upload(launcher, &vec![bf16::NAN; TOKENS * cols]);
        let residual = upload(launcher, &self.residual);
        let (hidden, delta) = (empty(HIDDEN), empty(HIDDEN));
        let (qkv, attention) = (empty(HEADS.qkv_width()), empty(HEADS.q_width()));
        let (gate_up, gated) = (empty(2 * INTERMEDIATE), empty(INTERMEDIATE));
        let cache = DeviceCache::new(launcher, &self.keys, &self.values);
        let norm = |weight: &[bf16], delta: Option<&Buffer>| {
            let weight = upload(launcher, weight);
            let arguments = RmsNorm {
                residual: rows(&residual, 0, TOKENS, HIDDEN),
                delta: delta.map(|delta| rows(delta, 0, TOKENS, HIDDEN)),
                weight: weight.vector(),
                out: rows(&hidden, 0, TOKENS, HIDDEN),
                rows: TOKENS,
                eps: EPS,
            };
            rms_norm(device, &arguments).unwrap();
        };
        let mut workspace = SkinnyWorkspace::new(launcher).unwrap();
        // As many rows at a time as the kernel takes.
        let mut linear = |input: &Buffer, weight: &[bf16], bias: Option<&[bf16]>, out: &Buffer| {
            let (cols, out_features) = (input.len() / TOKENS, out.len() / TOKENS);
            let (weight, bias) = (upload(launcher, weight), bias.map(|bias| upload(launcher, bias)));
            for first in (0..TOKENS).step_by(MAX_SKINNY_ROWS) {
                let count = MAX_SKINNY_ROWS.min(TOKENS - first);
                let arguments = LinearSkinny {
                    input: rows(input, first, count, cols),
                    weight: rows(&weight, 0, out_features, cols),
                    bias: bias.as_ref().map(Buffer::vector),
                    out: rows(out, first, count, out_features),
                    rows: count,
                };
                linear_skinny(device, &arguments, &mut workspace).unwrap();
            }
        };

        norm(&self.norms[0], None);
        linear(&hidden, &self.qkv, Some(&self.qkv_bias), &qkv);
        let slots = Indices::new(launcher, &self.step.slots()).unwrap();
        let [cos, sin] = [&self.cos, &self.sin].map(|angles| upload(launcher, angles));
        let appended = RotaryAppend {
            qkv: rows(&qkv, 0, TOKENS, HEADS.qkv_width()),
            cos: rows(&cos, 0, TOKENS, HEADS.head_dim / 2),
            sin: rows(&sin, 0, TOKENS, HEADS.head_dim / 2),
            norm: None,
            slots: &slots,
            cache: cache.view(),
            heads: HEADS,
        };
        rotary_append(device, &appended).unwrap();
        self.attend(launcher, which, &cache, &qkv, &attention);
        linear(&attention, &self.out, None, &delta);
        norm(&self.norms[1], Some(&delta));
        linear(&hidden, &self.gate_up, None, &gate_up);
        let (gate_up, gates) =
            (rows(&gate_up, 0, TOKENS, 2 * INTERMEDIATE), rows(&gated, 0, TOKENS, INTERMEDIATE));
        silu_mul(device, TOKENS, &gate_up, &gates).unwrap();
        linear(&gated, &self.down, None, &delta);
        norm(&self.norms[2], Some(&delta));
        hidden.to_vec().unwrap()
    }

    /// Prompts by one kernel, the sequences behind them by the other.
    fn attend(
        &self,
        launcher: &Arc<dyn Launcher>,
        which: PrefillKernel,
        cache: &DeviceCache,
        qkv: &Buffer,
        out: &Buffer,
    ) {
        let device = launcher.as_ref();
        let q = |first: usize, count| {
            qkv.matrix(first * HEADS.qkv_width(), count, HEADS.q_width(), HEADS.qkv_width()).unwrap()
        };
        let cache = cache.view();
        let prompts = self.step.part(0..PROMPTS).sequences(launcher);
        let mut tiles = PrefillTiles::new(launcher);
        tiles.fill(&prompts, which.query_rows(&HEADS)).unwrap();
        let maps = (which == PrefillKernel::Hopper).then(|| cache.maps(device).unwrap());
        let arguments = AttentionPrefill {
            q: q(0, PROMPT_TOKENS),
            out: rows(out, 0, PROMPT_TOKENS, HEADS.q_width()),
            cache,
            maps: maps.as_ref(),
            sequences: &prompts,
            tiles: &tiles,
            heads: HEADS,
            window: None,
            softmax_scale: SCALE,
        };
        attention_prefill(device, &arguments).unwrap();
        let count = TOKENS - PROMPT_TOKENS;
        let arguments = AttentionDecode {
            q: q(PROMPT_TOKENS, count),
            out: rows(out, PROMPT_TOKENS, count, HEADS.q_width()),
            cache,
            sequences: &self.step.part(PROMPTS..LENS.len()).sequences(launcher),
            heads: HEADS,
            window: None,
            softmax_scale: SCALE,
        };
        attention_decode(device, &arguments, &mut DecodeWorkspace::new(launcher).unwrap()).unwrap();
    }
}

fn rows(buffer: &Buffer, first: usize, count: usize, cols: usize) -> Matrix<'_> {
    buffer.matrix(first * cols, count, cols, cols).unwrap()
}

fn norm(row: &[f64], weight: &[bf16], round: fn(f64) -> f64) -> Vec<f64> {
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
    row.iter().zip(weight).map(|(x, weight)| round(x * scale * weight.to_f64())).collect()
}

fn linear(row: &[f64], weight: &[bf16], round: fn(f64) -> f64) -> Vec<f64> {
    let weight = to_f64(weight);
    let dot = |weight: &[f64]| round(row.iter().zip(weight).map(|(x, weight)| x * weight).sum());
    weight.chunks_exact(row.len()).map(dot).collect()
}

fn add(residual: &mut [f64], delta: &[f64]) {
    residual.iter_mut().zip(delta).for_each(|(residual, delta)| *residual += delta);
}

#[test]
fn a_layer_over_a_mixed_batch_is_that_of_the_oracle() {
    let (portable, hopper) = (PrefillKernel::Portable, PrefillKernel::Hopper);
    for (which, format) in
        [(portable, CacheFormat::Model), (hopper, CacheFormat::Model), (portable, CacheFormat::Fp8)]
            .into_iter()
            .filter(|&(which, _)| runs(which))
    {
        let what = format!("a layer, {which:?}, {format:?}");
        let layer = Layer::new(format);
        let got = run_in_every_order(&what, |launcher| layer.on_device(launcher, which));
        check_error(&what, &got, &layer.on_host(false), &layer.on_host(true), 1e-3).unwrap();
    }
}
