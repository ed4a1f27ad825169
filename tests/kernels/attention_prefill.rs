//! Prefill attention against f64, over ragged batches, groups, windows, block sizes and head dimensions.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::{AttentionPrefillParams, AttentionTile, KvCache, Sequences};

use crate::emulator::Library;
use crate::numerics::{Element, Random, check_error, run_all};

/// A ragged batch.
#[derive(Debug, Clone)]
pub struct Case {
    /// `(query_len, kv_len)` of each sequence.
    pub sequences: &'static [(usize, usize)],
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    /// 0 for all keys.
    pub window: usize,
}

const BASE: Case =
    Case { sequences: &[(64, 64)], num_heads: 1, num_kv_heads: 1, head_dim: 128, block_size: 64, window: 0 };

impl Case {
    /// Query rows of one thread block, as the kernel has them.
    fn query_rows(&self) -> usize {
        if self.head_dim <= 128 { 128 } else { 64 }
    }

    /// Rows of `q`.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.0).sum()
    }

    /// Blocks of the pools: two are no sequence's.
    pub fn num_blocks(&self) -> usize {
        self.sequences.iter().map(|s| s.1.div_ceil(self.block_size)).sum::<usize>() + 2
    }
}

/// Runs one case of `attention_prefill_*` on `library` and compares it with the oracle.
pub fn run<T: Element>(library: &Library, case: &Case) -> Result<(), String> {
    let kernel = format!("attention_prefill_{}_{}", T::NAME, case.head_dim);
    run_with::<T>(library, case, case.query_rows(), |params, output| {
        let grid = [params.num_heads as u32, params.num_tiles as u32, 1];
        run_all(library, &kernel, params, grid, output)
    })
    .map_err(|error| format!("{kernel} {case:?}: {error}"))
}

/// Prepares a case whose tiles hold `tile_queries` queries, has `launch` run it, and compares what it returns with the oracle.
///
/// `launch` gets the parameters and what [`run_all`] calls after every run.
pub fn run_with<T: Element>(
    library: &Library,
    case: &Case,
    tile_queries: usize,
    launch: impl FnOnce(&AttentionPrefillParams, &dyn Fn() -> Vec<T>) -> Result<Vec<T>, String>,
) -> Result<(), String> {
    let Case { num_heads, num_kv_heads, head_dim, block_size, window, .. } = *case;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut random = Random(case.sequences.len() as u64 + head_dim as u64);
    let query_starts: Vec<i32> = std::iter::once(0)
        .chain(case.sequences.iter().scan(0, |sum, s| {
            *sum += s.0 as i32;
            Some(*sum)
        }))
        .collect();
    let tokens = case.tokens();
    // Heads of other parts lie between the rows, as in a fused QKV row.
    let q_stride = num_heads * head_dim + 64;
    let q: Vec<T> = random.values(tokens * q_stride);

    // Physical blocks in an order that is not the logical one; unused ones and the tails of used ones hold NaN.
    let table_len = case.sequences.iter().map(|s| s.1.div_ceil(block_size)).max().unwrap();
    let num_blocks = case.num_blocks();
    let head_stride = block_size * head_dim;
    let block_stride = num_kv_heads * head_stride;
    let nan = T::from_f64(f64::NAN);
    let (mut keys, mut values) = (vec![nan; num_blocks * block_stride], vec![nan; num_blocks * block_stride]);
    let mut tables = vec![i32::MAX; case.sequences.len() * table_len];
    let mut next = 0;
    for (s, &(_, kv_len)) in case.sequences.iter().enumerate() {
        for b in 0..kv_len.div_ceil(block_size) {
            let block = num_blocks - 1 - next;
            next += 1;
            tables[s * table_len + b] = block as i32;
            for head in 0..num_kv_heads {
                for token in 0..block_size.min(kv_len - b * block_size) {
                    let at = block * block_stride + head * head_stride + token * head_dim;
                    for d in 0..head_dim {
                        keys[at + d] = T::from_f64(random.next());
                        values[at + d] = T::from_f64(random.next());
                    }
                }
            }
        }
    }
    let mut tiles: Vec<_> = (0..case.sequences.len())
        .flat_map(|s| (0..case.sequences[s].0).step_by(tile_queries).map(move |first| (s, first)))
        .map(|(s, first)| AttentionTile { sequence: s as i32, first_query: first as i32 })
        .collect();
    tiles.reverse();

    let poison = vec![T::from_f64(777.0); tokens * num_heads * head_dim];
    let out = library.buffer(&poison);
    let [keys_buffer, values_buffer, q_buffer] = [&keys, &values, &q].map(|host| library.buffer(host));
    let [tables_buffer, starts_buffer] = [&tables, &query_starts].map(|host| library.buffer(host));
    let lens_buffer = library.buffer(&case.sequences.iter().map(|s| s.1 as i32).collect::<Vec<_>>());
    let tiles_buffer = library.buffer(&tiles);
    let params = AttentionPrefillParams {
        q: q_buffer.address(),
        out: out.address(),
        tiles: tiles_buffer.address(),
        cache: KvCache {
            keys: keys_buffer.address(),
            values: values_buffer.address(),
            block_stride: block_stride as i64,
            head_stride: head_stride as i64,
            block_size_log2: block_size.ilog2() as i32,
            num_kv_heads: num_kv_heads as i32,
            ..KvCache::default()
        },
        sequences: Sequences {
            query_starts: starts_buffer.address(),
            kv_lens: lens_buffer.address(),
            block_tables: tables_buffer.address(),
            block_table_stride: table_len as i64,
            num_sequences: case.sequences.len() as i32,
            reserved: 0,
        },
        q_stride: q_stride as i64,
        out_stride: (num_heads * head_dim) as i64,
        num_heads: num_heads as i32,
        num_tiles: tiles.len() as i32,
        window: window as i32,
        scale_log2e: (scale * std::f64::consts::LOG2_E) as f32,
    };
    let got = launch(&params, &|| {
        let result = out.to_vec();
        out.fill(&poison);
        result
    })?;

    let (mut oracle, mut plain) = (Vec::new(), Vec::new());
    for (s, &(query_len, kv_len)) in case.sequences.iter().enumerate() {
        for row in 0..query_len {
            // Rows before the context's first token see nothing.
            let visible = (kv_len + row + 1).saturating_sub(query_len);
            let first = if window > 0 { visible.saturating_sub(window) } else { 0 };
            for head in 0..num_heads {
                let kv_head = head / (num_heads / num_kv_heads);
                let at = |token: usize| {
                    let block = tables[s * table_len + token / block_size] as usize;
                    block * block_stride + kv_head * head_stride + token % block_size * head_dim
                };
                let from = (query_starts[s] as usize + row) * q_stride + head * head_dim;
                let q: Vec<f64> = q[from..from + head_dim].iter().map(|x| x.to_f64()).collect();
                let scores: Vec<f64> = (first..visible)
                    .map(|token| {
                        let key = &keys[at(token)..at(token) + head_dim];
                        q.iter().zip(key).map(|(q, k)| q * k.to_f64()).sum::<f64>() * scale
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let (mut exact, mut rounded) = (vec![0.0; head_dim], vec![0.0; head_dim]);
                for (token, weight) in (first..visible).zip(&weights) {
                    for d in 0..head_dim {
                        let value = values[at(token) + d].to_f64();
                        exact[d] += weight / sum * value;
                        rounded[d] += T::from_f64(weight / sum).to_f64() * value;
                    }
                }
                oracle.extend(exact);
                plain.extend(rounded.into_iter().map(|value| T::from_f64(value).to_f64()));
            }
        }
    }
    check_error("attention", &got, &oracle, &plain, 1e-4)
}

fn check(case: &Case) {
    run::<bf16>(Library::kernels(), case).unwrap();
    run::<f16>(Library::kernels(), case).unwrap();
}

#[test]
fn matches_the_oracle_at_odd_lengths() {
    for sequences in
        [&[(1, 1)][..], &[(2, 63)], &[(17, 128)], &[(64, 129)], &[(129, 129)], &[(129, 1000)], &[(1, 4097)]]
    {
        check(&Case { sequences, ..BASE });
    }
}

#[test]
fn matches_the_oracle_in_ragged_batches_with_groups() {
    let sequences = &[(3, 70), (1, 129), (130, 130), (17, 17)][..];
    for (num_heads, num_kv_heads) in [(2, 2), (4, 1), (8, 2), (8, 1)] {
        check(&Case { sequences, num_heads, num_kv_heads, head_dim: 64, ..BASE });
    }
}

#[test]
fn matches_the_oracle_at_every_head_dim_and_block_size() {
    for head_dim in [64, 96, 128, 256] {
        for block_size in [16, 32, 64, 128] {
            check(&Case { sequences: &[(65, 190)], head_dim, block_size, num_heads: 2, ..BASE });
        }
    }
}

#[test]
fn matches_the_oracle_with_a_sliding_window() {
    for window in [1, 2, 63, 64, 65, 200] {
        check(&Case { sequences: &[(130, 300), (1, 257)], window, head_dim: 64, ..BASE });
    }
}
