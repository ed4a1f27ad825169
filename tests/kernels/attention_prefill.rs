//! Prefill attention against f64, over ragged batches, groups, windows, block sizes, head dimensions and cache formats.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::{AttentionPrefillParams, AttentionTile, KvCache, Sequences};

use crate::emulator::{Buffer, Library};
use crate::mutations::mutate;
use crate::numerics::{Element, Random, check_error, e4m3_from_f64, e4m3_to_f64, run_all};

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
    /// Whether the cache is FP8.
    pub fp8: bool,
}

pub const BASE: Case = Case {
    sequences: &[(64, 64)],
    num_heads: 1,
    num_kv_heads: 1,
    head_dim: 128,
    block_size: 64,
    window: 0,
    fp8: false,
};

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

    /// Scales of an FP8 cache's heads: all different, and the largest key and value near the format's largest.
    fn scales(&self, is_value: bool) -> Vec<f32> {
        let most = if is_value { 2.0 } else { 1.0 };
        (0..self.num_kv_heads).map(|head| most * (head + 1) as f32 / 440.0).collect()
    }
}

/// The cache's keys or values `[num_blocks, num_kv_heads, block_size, head_dim]`: what they are worth, and how they are stored.
enum Pool<T> {
    Model(Vec<T>),
    Fp8 { codes: Vec<u8>, scales: Vec<f32>, head_stride: usize },
}

impl<T: Element> Pool<T> {
    /// NaN everywhere: what a place holds that nobody may look at.
    fn new(case: &Case, is_value: bool) -> Self {
        let head_stride = case.block_size * case.head_dim;
        let len = case.num_blocks() * case.num_kv_heads * head_stride;
        match case.fp8 {
            // Kernels read NaN as 480.
            true => Self::Fp8 { codes: vec![0x7f; len], scales: case.scales(is_value), head_stride },
            false => Self::Model(vec![T::from_f64(f64::NAN); len]),
        }
    }

    fn set(&mut self, at: usize, value: f64) {
        match self {
            Self::Model(values) => values[at] = T::from_f64(value),
            Self::Fp8 { codes, scales, head_stride } => {
                codes[at] = e4m3_from_f64(value / f64::from(scales[at / *head_stride % scales.len()]));
            }
        }
    }

    fn get(&self, at: usize) -> f64 {
        match self {
            Self::Model(values) => values[at].to_f64(),
            Self::Fp8 { codes, scales, head_stride } => {
                e4m3_to_f64(codes[at]) * f64::from(scales[at / head_stride % scales.len()])
            }
        }
    }

    /// Its bytes, and the scales.
    fn upload<'a>(&self, library: &'a Library) -> (Buffer<'a, u8>, Buffer<'a, f32>) {
        match self {
            Self::Model(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bytes()).collect();
                (library.buffer(&bytes), library.buffer(&[]))
            }
            Self::Fp8 { codes, scales, .. } => (library.buffer(codes), library.buffer(scales)),
        }
    }
}

/// Runs one case of `attention_prefill_*` on `library` and compares it with the oracle.
pub fn run<T: Element>(library: &Library, case: &Case) -> Result<(), String> {
    let suffix = if case.fp8 { "_fp8" } else { "" };
    let kernel = format!("attention_prefill_{}_{}{suffix}", T::NAME, case.head_dim);
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
    let [mut keys, mut values] = [false, true].map(|is_value| Pool::<T>::new(case, is_value));
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
                        keys.set(at + d, random.next());
                        values.set(at + d, random.next());
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
    let [(keys_buffer, key_scales), (values_buffer, value_scales)] =
        [&keys, &values].map(|pool| pool.upload(library));
    let q_buffer = library.buffer(&q);
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
            key_scales: if case.fp8 { key_scales.address() } else { 0 },
            value_scales: if case.fp8 { value_scales.address() } else { 0 },
            block_stride: block_stride as i64,
            head_stride: head_stride as i64,
            block_size_log2: block_size.ilog2() as i32,
            num_kv_heads: num_kv_heads as i32,
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
                        q.iter().zip(at(token)..).map(|(q, at)| q * keys.get(at)).sum::<f64>() * scale
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let (mut exact, mut rounded) = (vec![0.0; head_dim], vec![0.0; head_dim]);
                for (token, weight) in (first..visible).zip(&weights) {
                    for d in 0..head_dim {
                        let value = values.get(at(token) + d);
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

/// In both types and both cache formats.
fn check(case: &Case) {
    for fp8 in [false, true] {
        let case = Case { fp8, ..case.clone() };
        run::<bf16>(Library::kernels(), &case).unwrap();
        run::<f16>(Library::kernels(), &case).unwrap();
    }
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

/// The change is noticed in an FP8 cache of two heads, with sequences that end inside a tile.
fn check_fp8(old: &str, nth: usize, new: &str, expected: &str) {
    let library = mutate("attention_prefill.cu", old, nth, new, |line| {
        !line.starts_with("ATTENTION_PREFILL_FORMATS(") || line.contains("(bf16, Bf16, 64)")
    });
    let sequences = &[(130, 300), (70, 70)];
    let case = Case { sequences, num_heads: 2, num_kv_heads: 2, head_dim: 64, fp8: true, ..BASE };
    let error = run::<bf16>(&library, &case).expect_err(&format!("{old:?} → {new:?} was not noticed"));
    assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
}

#[test]
fn wrong_scales_of_an_fp8_cache_are_noticed() {
    check_fp8("params.cache.value_scales", 0, "params.cache.key_scales", "error");
    check_fp8("params.cache.key_scales + kv_head_index", 0, "params.cache.key_scales", "error");
}

#[test]
fn widening_without_a_barrier_is_noticed() {
    for nth in 0..4 {
        check_fp8("sync_threads();", nth, "", "");
    }
}
