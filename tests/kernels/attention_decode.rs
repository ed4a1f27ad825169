//! Decode attention against f64, over query rows, contexts, groups, splits, windows, block sizes, head dimensions and cache formats.

use std::fmt;

use half::{bf16, f16};
use swebench_infer::backend::DType;
use swebench_infer::backend::cuda::Kernel;
use swebench_infer::backend::cuda::geometry::{CacheFormat, DecodePipeline};
use swebench_infer::backend::cuda::params::{AttentionDecodeParams, KvCache, Sequences};

use crate::emulator::Library;
use crate::mutations::mutate;
use crate::numerics::{Element, Random, check_error, e4m3_from_f64, e4m3_to_f64, run_all};

/// A ragged batch of decoded tokens and drafts.
#[derive(Debug, Clone)]
pub struct Case {
    /// `(query_len, kv_len)` of each sequence.
    pub sequences: &'static [(usize, usize)],
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    /// Of the shortest splits; longer ones when there would be more than `most_splits`.
    pub split_len: usize,
    pub most_splits: usize,
    /// 0 for all keys.
    pub window: usize,
    /// Whether the cache is FP8.
    pub fp8: bool,
    /// Rows of a tile: 16, or 64; 0 for the smallest that holds all rows of a sequence.
    pub rows: usize,
    /// Whether by the deeper pipeline.
    pub deep: bool,
}

pub const BASE: Case = Case {
    sequences: &[(1, 64)],
    num_heads: 1,
    num_kv_heads: 1,
    head_dim: 64,
    block_size: 64,
    split_len: 256,
    most_splits: 128,
    window: 0,
    fp8: false,
    rows: 0,
    deep: false,
};

/// What a launch wrote, in the launch's types.
pub struct Output<T> {
    /// `[tokens, num_heads, head_dim]`.
    pub out: Vec<T>,
    /// The same in f64, from keys and values as they are stored.
    pub oracle: Vec<f64>,
    /// The same, with weights and results rounded to `T`.
    pub plain: Vec<f64>,
    /// In f64, from keys and values before they were stored.
    pub before_storage: Vec<f64>,
}

/// One sequence's keys and values of one head, as drawn and as stored.
struct Context {
    keys: Vec<f64>,
    values: Vec<f64>,
    stored_keys: Vec<f64>,
    stored_values: Vec<f64>,
}

/// Numbers of a head's keys or values depend on where the sequence's queries start, not on its place in the batch.
fn draw(start: usize, head: usize, is_value: bool) -> Random {
    Random(start as u64 * 7919 + head as u64 * 104_729 + u64::from(is_value) * 1_299_709)
}

/// Physical block of a sequence's `index`th block, in an order that is not the logical one.
fn physical(num_blocks: usize, first: usize, index: usize) -> usize {
    num_blocks - 1 - first - index
}

struct Pools<S> {
    keys: Vec<S>,
    values: Vec<S>,
}

impl Case {
    fn blocks(&self, sequence: usize) -> usize {
        self.sequences[sequence].1.div_ceil(self.block_size)
    }

    fn first_block(&self, sequence: usize) -> usize {
        (0..sequence).map(|s| self.blocks(s)).sum()
    }

    /// Pools with the contexts' stored values by `store`; unused blocks and the tails of used ones hold `poison`.
    fn pools<S: Copy>(
        &self,
        contexts: &[Vec<Context>],
        poison: S,
        store: impl Fn(f64, usize, bool) -> S,
    ) -> Pools<S> {
        let num_blocks = self.first_block(self.sequences.len()) + 2;
        let len = num_blocks * self.num_kv_heads * self.block_size * self.head_dim;
        let (mut keys, mut values) = (vec![poison; len], vec![poison; len]);
        for (s, heads) in contexts.iter().enumerate() {
            for (head, context) in heads.iter().enumerate() {
                for token in 0..self.sequences[s].1 {
                    let block = physical(num_blocks, self.first_block(s), token / self.block_size);
                    let at = ((block * self.num_kv_heads + head) * self.block_size + token % self.block_size)
                        * self.head_dim;
                    for d in 0..self.head_dim {
                        keys[at + d] = store(context.stored_keys[token * self.head_dim + d], head, false);
                        values[at + d] = store(context.stored_values[token * self.head_dim + d], head, true);
                    }
                }
            }
        }
        Pools { keys, values }
    }

    /// Scale of a head of an FP8 cache.
    fn scale(head: usize, is_value: bool) -> f64 {
        if is_value { 1.0 / 416.0 } else { f64::from(head as u32 + 2) / 448.0 / 2.0 }
    }
}

/// Runs one case on `library`.
pub fn launch<T: Element>(library: &Library, case: &Case) -> Result<Output<T>, String> {
    let Case { num_heads, num_kv_heads, head_dim, block_size, window, split_len, .. } = *case;
    let group = num_heads / num_kv_heads;
    let softmax_scale = 2.0 / (head_dim as f64).sqrt();
    let mut query_starts = vec![0_i32];
    case.sequences.iter().for_each(|s| query_starts.push(query_starts[query_starts.len() - 1] + s.0 as i32));
    let tokens = query_starts[case.sequences.len()] as usize;

    // Heads of other parts lie between the rows, as in a fused QKV row.
    let q_stride = num_heads * head_dim + 64;
    let mut q = vec![T::from_f64(f64::NAN); tokens * q_stride];
    let mut contexts = Vec::new();
    for (s, &(query_len, kv_len)) in case.sequences.iter().enumerate() {
        let mut heads = Vec::new();
        for head in 0..num_kv_heads {
            let side = |is_value: bool| {
                let mut random = draw(kv_len - query_len, head, is_value);
                let drawn: Vec<f64> = (0..kv_len * head_dim).map(|_| random.next()).collect();
                let scale = f64::from(Case::scale(head, is_value) as f32);
                let stored = drawn.iter().map(|&x| match case.fp8 {
                    true => e4m3_to_f64(e4m3_from_f64(x / scale)) * scale,
                    false => T::from_f64(x).to_f64(),
                });
                (stored.collect(), drawn)
            };
            let ((stored_keys, keys), (stored_values, values)) = (side(false), side(true));
            heads.push(Context { keys, values, stored_keys, stored_values });
        }
        contexts.push(heads);
        for row in 0..query_len {
            let mut random = Random((kv_len - query_len + row) as u64 * 104_729 + 3);
            let at = (query_starts[s] as usize + row) * q_stride;
            q[at..at + num_heads * head_dim].iter_mut().for_each(|x| *x = T::from_f64(random.next()));
        }
    }
    let half = (!case.fp8).then(|| case.pools(&contexts, T::from_f64(f64::NAN), |x, _, _| T::from_f64(x)));
    let bytes = case.fp8.then(|| {
        // The largest value in every place nobody may look.
        case.pools(&contexts, 0x7e_u8, |x, head, is_value| {
            e4m3_from_f64(x / f64::from(Case::scale(head, is_value) as f32))
        })
    });
    let num_blocks = case.first_block(case.sequences.len()) + 2;
    let table_len = (0..case.sequences.len()).map(|s| case.blocks(s)).max().unwrap();
    let mut tables = vec![i32::MAX; case.sequences.len() * table_len];
    for s in 0..case.sequences.len() {
        for b in 0..case.blocks(s) {
            tables[s * table_len + b] = physical(num_blocks, case.first_block(s), b) as i32;
        }
    }

    let max_query_len = case.sequences.iter().map(|s| s.0).max().unwrap();
    let rows = match case.rows {
        0 if max_query_len * group <= 16 => 16,
        0 => 64,
        rows => rows,
    };
    let row_tiles = (max_query_len * group).div_ceil(rows);
    let num_splits =
        case.sequences.iter().map(|s| s.1).max().unwrap().div_ceil(split_len).min(case.most_splits);
    let partial_rows = case.sequences.len() * num_kv_heads * num_splits * max_query_len * group;
    let poison = vec![T::from_f64(777.0); tokens * num_heads * head_dim];
    let no_partials = (vec![f32::NAN; partial_rows * head_dim], vec![f32::NAN; partial_rows]);
    let no_counts = vec![0_i32; case.sequences.len() * num_kv_heads * row_tiles];

    let half_buffers = half.map(|pools| [library.buffer(&pools.keys), library.buffer(&pools.values)]);
    let byte_buffers = bytes.map(|pools| [library.buffer(&pools.keys), library.buffer(&pools.values)]);
    let [keys, values] = match (&half_buffers, &byte_buffers) {
        (Some(buffers), _) => [buffers[0].address(), buffers[1].address()],
        (_, Some(buffers)) => [buffers[0].address(), buffers[1].address()],
        _ => [0, 0],
    };
    let scales = [false, true].map(|is_value| {
        library.buffer(&(0..num_kv_heads).map(|head| Case::scale(head, is_value) as f32).collect::<Vec<_>>())
    });
    let (q_buffer, out) = (library.buffer(&q), library.buffer(&poison));
    let (partial_out, partial_lse) = (library.buffer(&no_partials.0), library.buffer(&no_partials.1));
    let counters = library.buffer(&no_counts);
    let [tables, starts] = [&tables, &query_starts].map(|host| library.buffer(host));
    let lens = library.buffer(&case.sequences.iter().map(|s| s.1 as i32).collect::<Vec<_>>());
    let params = AttentionDecodeParams {
        q: q_buffer.address(),
        out: out.address(),
        partial_out: partial_out.address(),
        partial_lse: partial_lse.address(),
        counters: counters.address(),
        cache: KvCache {
            keys,
            values,
            key_scales: if case.fp8 { scales[0].address() } else { 0 },
            value_scales: if case.fp8 { scales[1].address() } else { 0 },
            block_stride: (num_kv_heads * block_size * head_dim) as i64,
            head_stride: (block_size * head_dim) as i64,
            block_size_log2: block_size.ilog2() as i32,
            num_kv_heads: num_kv_heads as i32,
        },
        sequences: Sequences {
            query_starts: starts.address(),
            kv_lens: lens.address(),
            block_tables: tables.address(),
            block_table_stride: table_len as i64,
            num_sequences: case.sequences.len() as i32,
            reserved: 0,
        },
        q_stride: q_stride as i64,
        out_stride: (num_heads * head_dim) as i64,
        num_heads: num_heads as i32,
        max_query_len: max_query_len as i32,
        num_splits: num_splits as i32,
        min_split_len: split_len as i32,
        window: window as i32,
        scale_log2e: (softmax_scale * std::f64::consts::LOG2_E) as f32,
    };
    let variant = [("_fp8", case.fp8), ("_deep", case.deep)].map(|(name, is)| if is { name } else { "" });
    let kernel = format!("attention_decode_{}_{head_dim}_rows{rows}{}", T::NAME, variant.concat());
    let grid = [num_splits, num_kv_heads * row_tiles, case.sequences.len()].map(|n| n as u32);
    // Counters are not put back: the kernel leaves them as the next launch needs them.
    let out = run_all(library, &kernel, &params, grid, || {
        let result = out.to_vec();
        out.fill(&poison);
        partial_out.fill(&no_partials.0);
        partial_lse.fill(&no_partials.1);
        result
    })?;
    if counters.to_vec() != no_counts {
        return Err(format!("{kernel}: counters are left at {:?}", counters.to_vec()));
    }

    let (mut oracle, mut plain, mut before_storage) = (Vec::new(), Vec::new(), Vec::new());
    for (s, &(query_len, kv_len)) in case.sequences.iter().enumerate() {
        for row in 0..query_len {
            let position = kv_len - query_len + row;
            let first = if window > 0 { (position + 1).saturating_sub(window) } else { 0 };
            for head in 0..num_heads {
                let from = (query_starts[s] as usize + row) * q_stride + head * head_dim;
                let q: Vec<f64> = q[from..from + head_dim].iter().map(|x| x.to_f64()).collect();
                let Context { keys, values, stored_keys, stored_values } = &contexts[s][head / group];
                let span = first * head_dim..(position + 1) * head_dim;
                let attend = |keys: &[f64], values: &[f64], weight: fn(f64) -> f64| {
                    attend(&q, &keys[span.clone()], &values[span.clone()], softmax_scale, weight)
                };
                before_storage.extend(attend(keys, values, |weight| weight));
                oracle.extend(attend(stored_keys, stored_values, |weight| weight));
                let rounded = attend(stored_keys, stored_values, |weight| T::from_f64(weight).to_f64());
                plain.extend(rounded.into_iter().map(|value| T::from_f64(value).to_f64()));
            }
        }
    }
    Ok(Output { out, oracle, plain, before_storage })
}

/// Softmax-weighted values of one row; `weight` rounds the normalised weights.
pub fn attend(q: &[f64], keys: &[f64], values: &[f64], scale: f64, weight: fn(f64) -> f64) -> Vec<f64> {
    let scores: Vec<f64> = keys
        .chunks_exact(q.len())
        .map(|key| q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * scale)
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let mut out = vec![0.0; q.len()];
    for (score, value) in scores.iter().zip(values.chunks_exact(q.len())) {
        let weight = weight((score - max).exp() / sum);
        out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
    }
    out
}

/// Whether the deeper pipeline runs here.
fn runs_deep(head_dim: usize) -> bool {
    let (dtype, head_dim, cache) = (DType::BF16, head_dim as u32, CacheFormat::Model);
    let pipeline = DecodePipeline::Deep;
    Library::kernels().runs(Kernel::AttentionDecode { dtype, head_dim, rows: 64, cache, pipeline })
}

/// Runs one case and compares it with the oracle.
pub fn run<T: Element + fmt::Debug>(library: &Library, case: &Case) -> Result<(), String> {
    let Output { out, oracle, plain, .. } = launch::<T>(library, case)?;
    check_error(&format!("{} {case:?}", T::NAME), &out, &oracle, &plain, 1e-4)
}

fn check(case: &Case) {
    run::<bf16>(Library::kernels(), case).unwrap();
    run::<f16>(Library::kernels(), case).unwrap();
}

#[test]
fn matches_the_oracle_at_odd_lengths() {
    for sequences in [&[(1, 1)][..], &[(2, 63)], &[(8, 128)], &[(16, 129)], &[(1, 1000)], &[(2, 4097)]] {
        check(&Case { sequences, ..BASE });
        check(&Case { sequences, fp8: true, ..BASE });
    }
}

#[test]
fn matches_the_oracle_in_ragged_batches_with_groups() {
    let sequences = &[(3, 70), (1, 129), (16, 16), (8, 300)][..];
    for (num_heads, num_kv_heads) in [(2, 2), (4, 1), (8, 1)] {
        for split_len in [64, 512] {
            check(&Case { sequences, num_heads, num_kv_heads, split_len, ..BASE });
        }
        check(&Case { sequences, num_heads, num_kv_heads, fp8: true, ..BASE });
    }
}

#[test]
fn matches_the_oracle_at_every_head_dim_and_block_size() {
    for head_dim in [64, 96, 128, 256] {
        for block_size in [16, 64, 128] {
            for rows in [16, 64] {
                for fp8 in [false, true] {
                    check(&Case {
                        sequences: &[(2, 190)],
                        head_dim,
                        block_size,
                        rows,
                        fp8,
                        split_len: 128,
                        ..BASE
                    });
                }
            }
        }
    }
}

#[test]
fn matches_the_oracle_with_a_deeper_pipeline() {
    for head_dim in [128, 256].into_iter().filter(|&head_dim| runs_deep(head_dim)) {
        for (sequences, window) in [(&[(2, 190), (16, 700)][..], 0), (&[(5, 330), (1, 1)], 100)] {
            check(&Case { sequences, head_dim, window, num_heads: 4, rows: 64, deep: true, ..BASE });
        }
    }
}

#[test]
fn matches_the_oracle_with_any_number_of_splits() {
    for split_len in [16, 48, 256, 1008] {
        check(&Case { sequences: &[(2, 1000), (1, 63)], num_heads: 4, split_len, ..BASE });
    }
    for most_splits in [1, 3, 5, 7] {
        let sequences = &[(2, 1000), (1, 63), (3, 450)];
        check(&Case { sequences, num_heads: 4, split_len: 64, most_splits, ..BASE });
    }
}

#[test]
fn matches_the_oracle_with_a_sliding_window() {
    for window in [1, 2, 63, 64, 65, 200] {
        check(&Case { sequences: &[(5, 300), (1, 257)], window, split_len: 64, ..BASE });
    }
}

#[test]
fn sequences_without_queries_are_left_alone() {
    check(&Case { sequences: &[(0, 0), (1, 80), (0, 33)], ..BASE });
}

/// A row's bits, whatever is in the batch, however many rows its sequence has and in whichever tile it is.
#[test]
fn a_row_has_the_same_bits_alone_and_in_every_company() {
    for (head_dim, window) in [(64, 0), (64, 100), (256, 0)] {
        let base = Case { head_dim, window, num_heads: 8, num_kv_heads: 2, split_len: 128, ..BASE };
        let width = base.num_heads * head_dim;
        // The sequence's numbers are drawn from its start, 400 tokens before the queries.
        let of = |case: Case| launch::<bf16>(Library::kernels(), &case).unwrap().out;
        let draft = of(Case { sequences: &[(8, 408)], ..base.clone() });
        let in_company = of(Case { sequences: &[(1, 700), (8, 408), (3, 60)], ..base.clone() });
        assert_eq!(in_company[width..9 * width], draft);
        let in_small_tiles = of(Case { sequences: &[(8, 408)], rows: 16, ..base.clone() });
        assert_eq!(in_small_tiles, draft);
        if head_dim == 256 && runs_deep(head_dim) {
            let deep = of(Case { sequences: &[(8, 408)], rows: 64, deep: true, ..base.clone() });
            assert_eq!(deep, draft);
        }
        let shorter_draft = of(Case { sequences: &[(3, 403)], ..base.clone() });
        assert_eq!(shorter_draft, draft[..3 * width]);
    }
}

/// Root mean square of the difference to what attention over the values before storage is, relative to that.
fn relative_error<T: Element>(output: &Output<T>) -> f64 {
    let pairs = output.out.iter().zip(&output.before_storage);
    let (error, size) =
        pairs.fold((0.0, 0.0), |(error, size), (got, o)| (error + (got.to_f64() - o).powi(2), size + o * o));
    (error / size).sqrt()
}

#[test]
fn fp8_costs_little_accuracy_and_no_more_at_long_contexts() {
    let error = |sequences, fp8| {
        let case = Case { sequences, num_heads: 8, head_dim: 128, fp8, ..BASE };
        relative_error(&launch::<bf16>(Library::kernels(), &case).unwrap())
    };
    let [short, long] =
        [&[(1, 256)], &[(1, 4096)]].map(|sequences| [false, true].map(|fp8| error(sequences, fp8)));
    assert!(long[0] < 0.004 && long[1] < 0.04, "{long:?}");
    assert!(long[1] < 1.2 * short[1], "{short:?} → {long:?}");
}

/// The change is noticed on a case with several splits, tiles and query rows, and a window that begins inside a tile.
fn check_attention_decode(old: &str, nth: usize, new: &str, expected: &str) {
    let case = Case { sequences: &[(3, 600), (2, 70)], num_heads: 2, split_len: 256, window: 390, ..BASE };
    let library = mutate("attention_decode.cu", old, nth, new, |line| {
        let is_entry = line.starts_with("ATTENTION_DECODE_ROWS(") || line.starts_with("ATTENTION_DECODE(");
        !is_entry || line.contains("(bf16, Bf16, 64)")
    });
    let notice = |case| run::<bf16>(&library, &case).err();
    let in_large_tiles = Case { rows: 64, ..case.clone() };
    let in_fp8 = Case { fp8: true, ..case.clone() };
    let error = notice(case).or_else(|| notice(in_large_tiles)).or_else(|| notice(in_fp8));
    let error = error.unwrap_or_else(|| panic!("{old:?} → {new:?} was not noticed"));
    assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
}

#[test]
fn decode_without_a_barrier_is_noticed() {
    // Not the barrier of a team of one warp: its matrix loads bring the lanes together in the emulation.
    check_attention_decode("barrier_sync(1 + team, Shape::kTeamThreads);", 0, "sync_warp();", "");
    // All but the one before the counter, whose absence shows only between blocks that run at one time.
    for nth in [0, 1, 2, 3, 4, 5, 7] {
        check_attention_decode("sync_threads();", nth, "sync_warp();", "");
    }
}

#[test]
fn decode_without_a_wait_is_noticed() {
    check_attention_decode("copy_async_wait<kStages - 2>();", 0, "copy_async_wait<kStages - 1>();", "");
    check_attention_decode("copy_async_wait<0>();", 0, "copy_async_wait<kStages>();", "");
}

#[test]
fn decode_with_a_wrong_mask_is_noticed() {
    check_attention_decode("key <= position &&", 0, "key < position &&", "error");
    check_attention_decode("key <= position &&", 0, "key <= position + 1 &&", "error");
    check_attention_decode("key + params.window > position", 0, "key + params.window >= position", "error");
    check_attention_decode(
        "first_position - params.window + 1",
        0,
        "first_position - params.window + 17",
        "error",
    );
    check_attention_decode("last_position + 1)", 0, "last_position - 15)", "error");
    check_attention_decode("span.kv_len - token, team_thread", 1, "kTokens, team_thread", "other bits");
}

#[test]
fn decode_that_merges_wrongly_is_noticed() {
    check_attention_decode("atomic_add(counter, 1)", 0, "atomic_add(counter, 2)", "");
    check_attention_decode("if (thread_index() == 0) global_store(counter, 0);", 0, "", "");
    check_attention_decode(
        "exp2_approx(shared_load<float>(weights + split * 4) - highest)",
        0,
        "1.0f",
        "error",
    );
    check_attention_decode(
        "keys[i % 2][i / 2][0], keys[i % 2][i / 2][1]",
        0,
        "keys[i % 2][i / 2][1], keys[i % 2][i / 2][0]",
        "error",
    );
}
