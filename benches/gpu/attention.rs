//! Attention: prefill in TFLOP/s, decode in bytes of keys and values a second.

use swebench_infer::backend::cuda::geometry::CacheFormat;
use swebench_infer::backend::cuda::launch::{
    AttentionDecode, AttentionPrefill, Cache, DecodeWorkspace, PrefillKernel, PrefillTiles, attention_decode,
    attention_prefill,
};
use swebench_infer::backend::cuda::{Buffer, DeviceSequences};
use swebench_infer::backend::{Batch, BatchEntry, HeadLayout, LogitsRows};
use swebench_infer::error::Result;

use crate::measure::Bench;
use crate::report::{Figure, Report};
use crate::torch::{Request, Torch};

const BLOCK_SIZE: usize = 64;

/// A batch of equal sequences and their cache.
struct Input {
    q: Buffer,
    out: Buffer,
    keys: Buffer,
    values: Buffer,
    sequences: DeviceSequences,
    heads: HeadLayout,
    tokens: usize,
}

impl Input {
    fn new(bench: &Bench, heads: HeadLayout, count: usize, query_len: usize, kv_len: usize) -> Result<Self> {
        let blocks_each = kv_len.div_ceil(BLOCK_SIZE);
        let pool = count * blocks_each * BLOCK_SIZE * heads.kv_width();
        let mut batch = Batch::default();
        let query = vec![0; query_len];
        for sequence in 0..count {
            // Neighbouring blocks lie far apart, as in a pool that has been in use.
            let total = (count * blocks_each) as u32;
            let step =
                (1..total).rev().find(|step| gcd(*step, total) == 1 && *step < total / 2 + 1).unwrap_or(1);
            let table: Vec<u32> = (0..blocks_each)
                .map(|b| ((sequence * blocks_each + b) as u64 * u64::from(step) % u64::from(total)) as u32)
                .collect();
            let entry = BatchEntry {
                tokens: &query,
                kv_len,
                block_table: &table,
                prompt_len: kv_len,
                logits: LogitsRows::Last,
            };
            batch.push(entry);
        }
        let mut sequences = DeviceSequences::new(&bench.launcher, BLOCK_SIZE)?;
        sequences.fill(&batch)?;
        let tokens = count * query_len;
        Ok(Self {
            q: bench.random(tokens * heads.q_width())?,
            out: bench.random(tokens * heads.q_width())?,
            keys: bench.random(pool)?,
            values: bench.random(pool)?,
            sequences,
            heads,
            tokens,
        })
    }

    fn cache(&self) -> Cache<'_> {
        Cache {
            keys: self.keys.vector(),
            values: self.values.vector(),
            scales: None,
            block_size: BLOCK_SIZE,
            num_kv_heads: self.heads.num_kv_heads,
            head_dim: self.heads.head_dim,
        }
    }

    fn bytes(&self) -> usize {
        2 * (self.q.len() + self.out.len() + self.keys.len() + self.values.len())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn scale(heads: &HeadLayout) -> f32 {
    1.0 / (heads.head_dim as f32).sqrt()
}

/// Causal prefill of one sequence of 4k, 8k and 16k tokens, by both kernels.
pub fn prefill(bench: &Bench, mut torch: Option<&mut Torch>, report: &mut Report) -> Result<()> {
    let launcher = bench.launcher.as_ref();
    let best = PrefillKernel::best(launcher.properties(), CacheFormat::Model);
    for (num_heads, num_kv_heads, head_dim) in [(32, 32, 128), (32, 8, 128), (32, 8, 64)] {
        let heads = HeadLayout { num_heads, num_kv_heads, head_dim };
        for len in [4096, 8192, 16_384] {
            let one = Input::new(bench, heads, 1, len, len)?;
            let turns = bench.turns(one.bytes());
            let mut inputs = vec![one];
            for _ in 1..turns {
                inputs.push(Input::new(bench, heads, 1, len, len)?);
            }
            // Half of all pairs, two products, two operations a multiply-add.
            let operations = 4.0 * (num_heads * head_dim) as f64 * (len * (len + 1) / 2) as f64;
            let case = format!("{num_heads}/{num_kv_heads} heads of {head_dim}, {len} tokens");
            let peers = match torch.as_deref_mut() {
                Some(torch) => torch.measure(&Request { heads, query_len: len, kv_len: len, turns })?,
                None => Vec::new(),
            };
            let kernels = if best == PrefillKernel::Hopper {
                vec![PrefillKernel::Hopper, PrefillKernel::Portable]
            } else {
                vec![PrefillKernel::Portable]
            };
            for which in kernels {
                let mut tiles = PrefillTiles::new(&bench.launcher);
                tiles.fill(&inputs[0].sequences, which.query_rows(&heads))?;
                let maps =
                    inputs.iter().map(|input| input.cache().maps(launcher)).collect::<Result<Vec<_>>>()?;
                let seconds = bench.seconds(turns, |turn| {
                    let input = &inputs[turn];
                    let matrix =
                        |buffer| Buffer::matrix(buffer, 0, input.tokens, heads.q_width(), heads.q_width());
                    let arguments = AttentionPrefill {
                        q: matrix(&input.q)?,
                        out: matrix(&input.out)?,
                        cache: input.cache(),
                        maps: (which == PrefillKernel::Hopper).then_some(&maps[turn]),
                        sequences: &input.sequences,
                        tiles: &tiles,
                        heads,
                        window: None,
                        softmax_scale: scale(&heads),
                    };
                    attention_prefill(launcher, &arguments)
                })?;
                report.add(Figure {
                    kernel: format!("attention_prefill {which:?}"),
                    case: case.clone(),
                    seconds,
                    bytes: inputs[0].bytes() as f64,
                    operations,
                    peers: peers.clone(),
                });
            }
        }
    }
    Ok(())
}

/// One decoded token and a draft of eight, at batch 1 and 16.
pub fn decode(bench: &Bench, mut torch: Option<&mut Torch>, report: &mut Report) -> Result<()> {
    let launcher = bench.launcher.as_ref();
    for (num_heads, num_kv_heads) in [(40, 40), (32, 8)] {
        let heads = HeadLayout { num_heads, num_kv_heads, head_dim: 128 };
        for (count, kv_len) in [(1, 8192), (1, 16_384), (1, 32_768), (16, 8192)] {
            for query_len in [1, 8] {
                let one = Input::new(bench, heads, count, query_len, kv_len)?;
                let turns = bench.turns(one.bytes());
                let mut inputs = vec![one];
                for _ in 1..turns {
                    inputs.push(Input::new(bench, heads, count, query_len, kv_len)?);
                }
                let mut workspace = DecodeWorkspace::new(&bench.launcher)?;
                let seconds = bench.seconds(turns, |turn| {
                    let input = &inputs[turn];
                    let matrix =
                        |buffer| Buffer::matrix(buffer, 0, input.tokens, heads.q_width(), heads.q_width());
                    let arguments = AttentionDecode {
                        q: matrix(&input.q)?,
                        out: matrix(&input.out)?,
                        cache: input.cache(),
                        sequences: &input.sequences,
                        heads,
                        window: None,
                        softmax_scale: scale(&heads),
                    };
                    attention_decode(launcher, &arguments, &mut workspace)
                })?;
                let peers = match torch.as_deref_mut() {
                    // With more rows a causal mask of PyTorch is aligned to the first token, not to the last.
                    Some(torch) if count == 1 && query_len == 1 => {
                        torch.measure(&Request { heads, query_len, kv_len, turns })?
                    }
                    _ => Vec::new(),
                };
                report.add(Figure {
                    kernel: "attention_decode".into(),
                    case: format!(
                        "{num_heads}/{num_kv_heads} heads of 128, {count} × {query_len} rows, {kv_len} tokens"
                    ),
                    seconds,
                    bytes: inputs[0].bytes() as f64,
                    operations: 4.0 * (count * query_len * num_heads * 128 * kv_len) as f64,
                    peers,
                });
            }
        }
    }
    Ok(())
}
