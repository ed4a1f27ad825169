//! Attention against a plain f64 softmax, over ragged batches, scattered blocks and poisoned slots.

use super::super::kv_cache::KvSlot;
use super::super::tests::{limits, noise, round, unit_roundoff};
use super::super::{CpuBackend, CpuOptions, Isa};
use super::*;
use crate::backend::HeadLayout;
use crate::backend::{Backend, Batch, BatchEntry, DType, KvLayout, LogitsRows, RopeAngles};

struct Case {
    heads: HeadLayout,
    block_size: usize,
    window: Option<usize>,
    /// `(query_len, kv_len)` of each sequence.
    sequences: Vec<(usize, usize)>,
}

/// Rows of keys or values of one sequence, `[kv_len, kv_width]`.
struct Context {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn params(&self) -> AttentionParams {
        AttentionParams {
            layer: 1,
            heads: self.heads,
            softmax_scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            window: self.window,
        }
    }

    fn contexts(&self) -> Vec<Context> {
        let contexts = self.sequences.iter().enumerate().map(|(index, &(_, kv_len))| {
            let len = kv_len * self.heads.kv_width();
            Context { keys: noise(len, 10 + index as u32), values: noise(len, 90 + index as u32) }
        });
        contexts.collect()
    }

    /// Queries of each sequence, `[query_len, q_width]`, large enough for a peaked softmax.
    fn queries(&self) -> Vec<Vec<f32>> {
        let queries = self.sequences.iter().enumerate().map(|(index, &(query_len, _))| {
            let values = noise(query_len * self.heads.q_width(), 50 + index as u32);
            values.iter().map(|x| 4.0 * x).collect()
        });
        queries.collect()
    }

    /// Physical blocks of each sequence, scattered.
    fn tables(&self) -> (Vec<Vec<u32>>, usize) {
        let lens: Vec<usize> = self.sequences.iter().map(|s| s.1.div_ceil(self.block_size)).collect();
        let total: usize = lens.iter().sum();
        // Any odd factor that shares no divisor with the number of blocks scatters them.
        let count = total.next_power_of_two();
        let mut next = 0;
        let tables = lens.iter().map(|&len| {
            next += len;
            (next - len..next).map(|i| ((i * 5 + 3) % count) as u32).collect()
        });
        (tables.collect(), count)
    }

    /// Runs the chosen sequences as one batch, the last `query_lens` tokens of each; the cache is full of NaN before.
    fn run(&self, backend: &CpuBackend, chosen: &[(usize, usize)]) -> Vec<Vec<f32>> {
        let heads = self.heads;
        let (tables, num_blocks) = self.tables();
        let layout = KvLayout {
            num_layers: 2,
            num_kv_heads: heads.num_kv_heads,
            head_dim: heads.head_dim,
            block_size: self.block_size,
            num_blocks,
        };
        let mut cache = backend.alloc_kv_cache(&layout).unwrap();
        let writer = cache.writer();
        let poison = vec![f32::NAN; heads.head_dim];
        for block in 0..num_blocks {
            for head in 0..heads.num_kv_heads {
                for slot in 0..self.block_size {
                    // SAFETY: one thread.
                    unsafe { writer.write(KvSlot { layer: 1, block, head, slot }, &poison, &poison) };
                }
            }
        }
        let (contexts, queries) = (self.contexts(), self.queries());
        // The context is appended in two steps, each with its queries, and attended to in the second.
        let mut step = backend.alloc_step(&limits(8)).unwrap();
        let mut out = Vec::new();
        for last in [false, true] {
            let mut batch = Batch::default();
            let mut qkv_values = Vec::new();
            let mut widths = Vec::new();
            for &(index, query_len) in chosen {
                let kv_len = self.sequences[index].1;
                let range = if last { kv_len - query_len..kv_len } else { 0..kv_len - query_len };
                if range.is_empty() {
                    continue;
                }
                let tokens = vec![0; range.len()];
                let logits = LogitsRows::None;
                let block_table = &tables[index];
                batch.push(BatchEntry {
                    tokens: &tokens,
                    kv_len: range.end,
                    block_table,
                    prompt_len: 0,
                    logits,
                });
                widths.push(range.len() * heads.q_width());
                for token in range {
                    let first = kv_len - self.sequences[index].0;
                    let query = match token.checked_sub(first) {
                        Some(row) => &queries[index][row * heads.q_width()..][..heads.q_width()],
                        None => &vec![0.0; heads.q_width()],
                    };
                    qkv_values.extend_from_slice(query);
                    let at = token * heads.kv_width();
                    qkv_values.extend_from_slice(&contexts[index].keys[at..at + heads.kv_width()]);
                    qkv_values.extend_from_slice(&contexts[index].values[at..at + heads.kv_width()]);
                }
            }
            let rows = batch.len();
            if rows == 0 {
                continue;
            }
            let half = rows * heads.head_dim / 2;
            let angles = RopeAngles { cos: vec![1.0; half], sin: vec![0.0; half] };
            backend.begin_step(&mut step, &batch, &angles).unwrap();
            let mut qkv = backend.alloc_activation(rows, heads.qkv_width()).unwrap();
            qkv.values_mut().copy_from_slice(&qkv_values);
            backend.rotary_append(&step, 1, &heads, None, &mut qkv, &mut cache).unwrap();
            if last {
                let mut result = backend.alloc_activation(rows, heads.q_width()).unwrap();
                backend.attention(&step, &self.params(), &qkv, &cache, &mut result).unwrap();
                let mut values = backend.read(rows, &mut result).unwrap();
                for width in widths {
                    let (sequence, rest) = values.split_at(width);
                    out.push(sequence.to_vec());
                    values = rest;
                }
            }
        }
        out
    }

    /// The result in f64 on operands as the cache holds them, and a bound of the error for each element.
    fn want(&self, dtype: DType, index: usize) -> Vec<(f64, f64)> {
        let heads = self.heads;
        let (query_len, kv_len) = self.sequences[index];
        let context = &self.contexts()[index];
        let queries = &self.queries()[index];
        let params = self.params();
        let mut out = Vec::new();
        for row in 0..query_len {
            let position = kv_len - query_len + row;
            let in_window = |token: usize| self.window.is_none_or(|window| position - token < window);
            let seen: Vec<usize> = (0..=position).filter(|&token| in_window(token)).collect();
            for head in 0..heads.num_heads {
                let query = &queries[row * heads.q_width() + head * heads.head_dim..][..heads.head_dim];
                let of = |values: &[f32], token: usize, i: usize| {
                    let kv_head = head / heads.group_size();
                    f64::from(round(dtype, values[token * heads.kv_width() + kv_head * heads.head_dim + i]))
                };
                let mut size = 0.0_f64;
                let scores: Vec<f64> = seen
                    .iter()
                    .map(|&token| {
                        let products = query
                            .iter()
                            .enumerate()
                            .map(|(i, q)| f64::from(*q) * of(&context.keys, token, i));
                        let (dot, absolute) = products.fold((0.0, 0.0), |(a, b), x| (a + x, b + x.abs()));
                        size = size.max(absolute * f64::from(params.softmax_scale));
                        dot * f64::from(params.softmax_scale)
                    })
                    .collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                // Queries are rounded, so a score errs by `size` roundings, and probabilities are rounded once more.
                let tolerance = 2.0 * size * unit_roundoff(dtype) + 4.0 * unit_roundoff(dtype) + 1e-5;
                for i in 0..heads.head_dim {
                    let value: f64 =
                        seen.iter().zip(&weights).map(|(&token, w)| w * of(&context.values, token, i)).sum();
                    out.push((value / sum, tolerance));
                }
            }
        }
        out
    }

    fn check(&self, backend: &CpuBackend) {
        let all: Vec<(usize, usize)> = self.sequences.iter().map(|s| s.0).enumerate().collect();
        let together = self.run(backend, &all);
        for (&(index, query_len), got) in all.iter().zip(&together) {
            let what = format!(
                "{} {} {:?} block {} window {:?} {:?}",
                backend.isa(),
                backend.dtype(),
                self.heads,
                self.block_size,
                self.window,
                self.sequences[index]
            );
            let want = self.want(backend.dtype(), index);
            assert_eq!(got.len(), want.len());
            for (i, (got, (want, tolerance))) in got.iter().zip(&want).enumerate() {
                assert!((f64::from(*got) - want).abs() <= *tolerance, "{what} at {i}: {got} {want}");
            }
            // Alone, and as the last query alone: the same bits, whatever shared the step.
            assert!(self.run(backend, &[(index, query_len)])[0] == *got, "{what} alone");
            let width = self.heads.q_width();
            let last = &self.run(backend, &[(index, 1)])[0];
            assert!(last[..] == got[got.len() - width..], "{what}, last query");
        }
    }
}

fn heads(num_kv_heads: usize, group: usize, head_dim: usize) -> HeadLayout {
    HeadLayout { num_heads: num_kv_heads * group, num_kv_heads, head_dim }
}

fn check_all(dtypes: &[DType], cases: &[Case]) {
    for isa in Isa::supported() {
        for &dtype in dtypes {
            let backend =
                CpuBackend::new(CpuOptions { dtype, threads: Some(2), isa: Some(isa), quantize: None })
                    .unwrap();
            for case in cases {
                case.check(&backend);
            }
        }
    }
}

#[test]
fn ragged_batches_of_every_type() {
    let sequences = || vec![(1, 1), (1, 33), (2, 31), (17, 63), (64, 64), (1, 129), (5, 128), (3, 32)];
    let cases = [(1, 4, 8), (2, 1, 16), (1, 8, 24), (2, 2, 64)].map(|(kv, group, dim)| Case {
        heads: heads(kv, group, dim),
        block_size: 32,
        window: None,
        sequences: sequences(),
    });
    check_all(&[DType::F32, DType::F16, DType::BF16], &cases);
}

#[test]
fn long_contexts_cross_spans() {
    let cases = [(1, 8, 64), (1, 1, 128), (2, 4, 96)].map(|(kv, group, dim)| Case {
        heads: heads(kv, group, dim),
        block_size: 32,
        window: None,
        sequences: vec![(1, 1000), (129, 300), (4, 513)],
    });
    check_all(&[DType::BF16, DType::F32], &cases);
}

#[test]
fn windows_and_block_sizes() {
    let mut cases = Vec::new();
    for window in [1, 7, 32, 100, 400] {
        for block_size in [16, 48, 6] {
            cases.push(Case {
                heads: heads(1, 3, 16),
                block_size,
                window: Some(window),
                sequences: vec![(1, 700), (40, 90), (33, 290), (1, 1)],
            });
        }
    }
    check_all(&[DType::BF16], &cases);
}
