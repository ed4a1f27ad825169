//! The oracle: plain f32 loops on one thread, written to be read. Every other backend is tested against it.

use std::ops::Range;

use half::{bf16, f16};

use super::{
    AttentionParams, Backend, Batch, DType, HeadLayout, HostTensor, KvLayout, QkNorm, Quantization,
    RopeAngles, StepLimits, host_kv_memory,
};
use crate::error::{Error, ErrorKind, Result};

/// Plain f32 arithmetic; weights and cached keys and values are rounded to `dtype` when they are stored.
#[derive(Debug)]
pub struct ReferenceBackend {
    dtype: DType,
    quantize: Option<Quantization>,
}

/// Weight `[rows, cols]` and bias `[rows]`, or no bias.
#[derive(Debug)]
pub struct Linear {
    rows: usize,
    cols: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Row-major `[capacity, cols]`.
#[derive(Debug)]
pub struct Activation {
    cols: usize,
    data: Vec<f32>,
}

impl Activation {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..][..self.cols]
    }
}

/// Keys and values, `[layer][block][slot][kv head][head_dim]` each.
#[derive(Debug)]
pub struct KvCache {
    layout: KvLayout,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// Index of the first element of a token's head.
    fn index(&self, layer: usize, block_table: &[u32], position: usize, head: usize) -> usize {
        let KvLayout { num_kv_heads, head_dim, block_size, num_blocks, .. } = self.layout;
        let block = block_table[position / block_size] as usize;
        assert!(block < num_blocks, "block {block} of {num_blocks}");
        let slot = (layer * num_blocks + block) * block_size + position % block_size;
        (slot * num_kv_heads + head) * head_dim
    }
}

/// A copy of the step's batch and angles.
#[derive(Debug, Default)]
pub struct Step {
    batch: Batch,
    angles: RopeAngles,
}

impl ReferenceBackend {
    /// An oracle whose weights and cache are rounded to `dtype`.
    pub fn new(dtype: DType) -> Self {
        Self { dtype, quantize: None }
    }

    /// Rounds the weights of linear layers to what quantized kernels multiply with; inputs stay as they are.
    pub fn with_quantization(self, quantize: Option<Quantization>) -> Self {
        Self { quantize, ..self }
    }

    fn round(&self, value: f32) -> f32 {
        match self.dtype {
            DType::F32 => value,
            DType::F16 => f16::from_f32(value).to_f32(),
            DType::BF16 => bf16::from_f32(value).to_f32(),
        }
    }
}

impl Backend for ReferenceBackend {
    type Linear = Linear;
    type Vector = Vec<f32>;
    type Activation = Activation;
    type KvCache = KvCache;
    type Step = Step;

    fn describe(&self) -> String {
        "reference".to_owned()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn block_size(&self) -> usize {
        32
    }

    fn free_kv_memory(&self) -> Result<Option<u64>> {
        Ok(host_kv_memory())
    }

    fn linear_bytes(&self, weight: &Linear) -> usize {
        size_of::<f32>() * (weight.weight.len() + weight.bias.len())
    }

    fn load_linear(&self, weights: &[HostTensor<'_>], bias: &[HostTensor<'_>]) -> Result<Linear> {
        let mut linear = Linear { rows: 0, cols: 0, weight: Vec::new(), bias: Vec::new() };
        for part in weights {
            let (rows, cols) = part.rows_cols()?;
            assert!(linear.rows == 0 || linear.cols == cols, "stacked weights differ in width");
            linear.rows += rows;
            linear.cols = cols;
            let mut values = part.to_f32();
            match self.quantize {
                None => values.iter_mut().for_each(|value| *value = self.round(*value)),
                Some(quantization) => quantization.round_rows(cols, &mut values),
            }
            linear.weight.append(&mut values);
        }
        for part in bias {
            linear.bias.extend(part.to_f32().iter().map(|&value| self.round(value)));
        }
        assert!(linear.bias.is_empty() || linear.bias.len() == linear.rows, "bias of another height");
        Ok(linear)
    }

    fn load_vector(&self, weight: &HostTensor<'_>) -> Result<Vec<f32>> {
        Ok(weight.to_f32())
    }

    fn alloc_activation(&self, rows: usize, cols: usize) -> Result<Activation> {
        Ok(Activation { cols, data: vec![0.0; rows * cols] })
    }

    fn alloc_kv_cache(&self, layout: &KvLayout) -> Result<KvCache> {
        let elements = layout.elements_per_token() / 2 * layout.block_size * layout.num_blocks;
        let zeroed = || {
            let mut data = Vec::new();
            data.try_reserve_exact(elements).map_err(|source| {
                Error::new(ErrorKind::OutOfMemory, format!("cannot allocate {elements} elements of KV cache"))
                    .with_source(source)
            })?;
            data.resize(elements, 0.0);
            Ok(data)
        };
        Ok(KvCache { layout: layout.clone(), keys: zeroed()?, values: zeroed()? })
    }

    fn alloc_step(&self, _: &StepLimits) -> Result<Step> {
        Ok(Step::default())
    }

    fn begin_step(&self, step: &mut Step, batch: &Batch, angles: &RopeAngles) -> Result<()> {
        step.batch.clone_from(batch);
        step.angles.clone_from(angles);
        Ok(())
    }

    fn embed(&self, step: &Step, table: &Linear, out: &mut Activation) -> Result<()> {
        for (row, &token) in step.batch.tokens().iter().enumerate() {
            out.row_mut(row).copy_from_slice(&table.weight[token as usize * table.cols..][..table.cols]);
        }
        Ok(())
    }

    fn rms_norm(
        &self,
        rows: usize,
        input: &Activation,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut Activation,
    ) -> Result<()> {
        for row in 0..rows {
            let out = out.row_mut(row);
            out.copy_from_slice(input.row(row));
            rms_norm(out, weight, eps);
        }
        Ok(())
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        residual: &mut Activation,
        delta: &Activation,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut Activation,
    ) -> Result<()> {
        for row in 0..rows {
            for (residual, delta) in residual.row_mut(row).iter_mut().zip(delta.row(row)) {
                *residual += delta;
            }
        }
        self.rms_norm(rows, residual, weight, eps, out)
    }

    fn linear(&self, rows: usize, input: &Activation, weight: &Linear, out: &mut Activation) -> Result<()> {
        assert_eq!((input.cols, out.cols), (weight.cols, weight.rows), "linear layer's shape");
        for row in 0..rows {
            let input = input.row(row);
            for (j, out) in out.row_mut(row).iter_mut().enumerate() {
                let weights = &weight.weight[j * weight.cols..][..weight.cols];
                *out = dot(input, weights) + weight.bias.get(j).unwrap_or(&0.0);
            }
        }
        Ok(())
    }

    fn rotary_append(
        &self,
        step: &Step,
        layer: usize,
        heads: &HeadLayout,
        norm: Option<QkNorm<'_, Vec<f32>>>,
        qkv: &mut Activation,
        cache: &mut KvCache,
    ) -> Result<()> {
        let dim = heads.head_dim;
        for sequence in step.batch.sequences() {
            let table = step.batch.block_table(sequence);
            for (row, position) in sequence.query.clone().zip(sequence.first_position()..) {
                let (cos, sin) = (&step.angles.cos[row * dim / 2..], &step.angles.sin[row * dim / 2..]);
                let (queries, rest) = qkv.row_mut(row).split_at_mut(heads.q_width());
                let (keys, values) = rest.split_at_mut(heads.kv_width());
                for query in queries.chunks_exact_mut(dim) {
                    if let Some(norm) = &norm {
                        rms_norm(query, norm.q, norm.eps);
                    }
                    rotate(query, cos, sin);
                }
                for (head, (key, value)) in
                    keys.chunks_exact_mut(dim).zip(values.chunks_exact(dim)).enumerate()
                {
                    if let Some(norm) = &norm {
                        rms_norm(key, norm.k, norm.eps);
                    }
                    rotate(key, cos, sin);
                    let start = cache.index(layer, table, position, head);
                    for i in 0..dim {
                        cache.keys[start + i] = self.round(key[i]);
                        cache.values[start + i] = self.round(value[i]);
                    }
                }
            }
        }
        Ok(())
    }

    fn attention(
        &self,
        step: &Step,
        params: &AttentionParams,
        qkv: &Activation,
        cache: &KvCache,
        out: &mut Activation,
    ) -> Result<()> {
        let heads = &params.heads;
        for sequence in step.batch.sequences() {
            let table = step.batch.block_table(sequence);
            for (row, position) in sequence.query.clone().zip(sequence.first_position()..) {
                for head in 0..heads.num_heads {
                    let columns = head * heads.head_dim..(head + 1) * heads.head_dim;
                    let query = &qkv.row(row)[columns.clone()];
                    let kv_head = head / heads.group_size();
                    let context = Context { cache, layer: params.layer, table, kv_head };
                    attend(&context, position, query, params, &mut out.row_mut(row)[columns]);
                }
            }
        }
        Ok(())
    }

    fn silu_mul(&self, rows: usize, gate_up: &Activation, out: &mut Activation) -> Result<()> {
        let width = out.cols;
        for row in 0..rows {
            let (gate, up) = gate_up.row(row).split_at(width);
            for (out, (gate, up)) in out.row_mut(row).iter_mut().zip(gate.iter().zip(up)) {
                *out = gate / (1.0 + (-gate).exp()) * up;
            }
        }
        Ok(())
    }

    fn gather_logits_rows(
        &self,
        step: &Step,
        part: Range<usize>,
        input: &Activation,
        out: &mut Activation,
    ) -> Result<()> {
        for (to, &from) in step.batch.logits_rows()[part].iter().enumerate() {
            out.row_mut(to).copy_from_slice(input.row(from as usize));
        }
        Ok(())
    }

    fn read<'a>(&self, rows: usize, activation: &'a mut Activation) -> Result<&'a [f32]> {
        Ok(&activation.data[..rows * activation.cols])
    }
}

/// One sequence's cached keys and values of one layer and head.
struct Context<'a> {
    cache: &'a KvCache,
    layer: usize,
    table: &'a [u32],
    kv_head: usize,
}

impl Context<'_> {
    fn index(&self, position: usize) -> usize {
        self.cache.index(self.layer, self.table, position, self.kv_head)
    }
}

/// Softmax attention of one query `[head_dim]` at `position`.
fn attend(context: &Context<'_>, position: usize, query: &[f32], params: &AttentionParams, out: &mut [f32]) {
    let first = params.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut scores: Vec<f32> = (first..=position)
        .map(|key| {
            dot(query, &context.cache.keys[context.index(key)..][..query.len()]) * params.softmax_scale
        })
        .collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in &mut scores {
        *score = (*score - max).exp();
        sum += *score;
    }
    out.fill(0.0);
    for (key, score) in (first..=position).zip(&scores) {
        let values = &context.cache.values[context.index(key)..][..out.len()];
        for (out, value) in out.iter_mut().zip(values) {
            *out += score / sum * value;
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean_square = row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
    let scale = 1.0 / (mean_square + eps).sqrt();
    for (value, weight) in row.iter_mut().zip(weight) {
        *value *= scale * weight;
    }
}

/// Rotates element `i` of the first half with element `i` of the second.
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = head.len() / 2;
    for i in 0..half {
        let (a, b) = (head[i], head[half + i]);
        head[i] = a * cos[i] - b * sin[i];
        head[half + i] = b * cos[i] + a * sin[i];
    }
}
