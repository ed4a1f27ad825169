//! Both attention kernels through the launch layer, over a paged cache of either format, against f64.

use std::sync::Arc;

use half::bf16;
use swebench_infer::backend::HeadLayout;
use swebench_infer::backend::cuda::Launcher;
use swebench_infer::backend::cuda::geometry::CacheFormat;
use swebench_infer::backend::cuda::launch::{
    AttentionDecode, AttentionPrefill, DecodeWorkspace, PrefillKernel, PrefillTiles, attention_decode,
    attention_prefill,
};

use super::{DeviceCache, Pool, Step, run_in_every_order, runs, upload};
use crate::attention_decode::attend;
use crate::numerics::{Random, check_error};

const HEADS: HeadLayout = HeadLayout { num_heads: 16, num_kv_heads: 2, head_dim: 64 };
const SCALE: f32 = 0.125;

/// A step's queries, keys and values.
struct Input {
    step: Step,
    window: Option<usize>,
    qkv: Vec<bf16>,
    keys: Pool,
    values: Pool,
}

impl Input {
    /// Numbers of a sequence depend on its lengths alone, not on its place in the batch.
    fn new(lens: &[(usize, usize)], block_size: usize, format: CacheFormat, window: Option<usize>) -> Self {
        let step = Step::new(lens, block_size);
        let (mut keys, mut values) = (Pool::new(format, HEADS, &step), Pool::new(format, HEADS, &step));
        let mut qkv = Vec::new();
        for (sequence, &(query_len, kv_len)) in lens.iter().enumerate() {
            let mut random = Random((query_len * 7919 + kv_len) as u64);
            for position in 0..kv_len {
                for pool in [&mut keys, &mut values] {
                    for head in 0..HEADS.num_kv_heads {
                        let drawn: Vec<_> =
                            (0..HEADS.head_dim).map(|_| pool.rounded(head, random.next())).collect();
                        pool.set(step.slot(sequence, position), head, &drawn);
                    }
                }
            }
            qkv.extend(random.values::<bf16>(query_len * HEADS.qkv_width()));
        }
        Self { step, window, qkv, keys, values }
    }

    fn oracle(&self, weight: fn(f64) -> f64) -> Vec<f64> {
        let mut out = Vec::new();
        let mut rows = self.qkv.chunks_exact(HEADS.qkv_width());
        for (sequence, &(query_len, kv_len)) in self.step.lens.iter().enumerate() {
            for position in kv_len - query_len..kv_len {
                let row = rows.next().unwrap();
                let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
                for (head, q) in row[..HEADS.q_width()].chunks_exact(HEADS.head_dim).enumerate() {
                    let of = |pool: &Pool| -> Vec<f64> {
                        let slots = (first..=position).map(|key| self.step.slot(sequence, key));
                        slots.flat_map(|slot| pool.get(slot, head / HEADS.group_size()).to_vec()).collect()
                    };
                    let q: Vec<f64> = q.iter().map(|x| x.to_f64()).collect();
                    out.extend(attend(&q, &of(&self.keys), &of(&self.values), SCALE.into(), weight));
                }
            }
        }
        out
    }

    /// By decode attention, or by one of the kernels for prompts.
    fn run(&self, launcher: &Arc<dyn Launcher>, prefill: Option<PrefillKernel>) -> Vec<bf16> {
        let tokens = self.step.tokens();
        let cache = DeviceCache::new(launcher, &self.keys, &self.values);
        let (qkv, out) =
            (upload(launcher, &self.qkv), upload(launcher, &vec![bf16::NAN; tokens * HEADS.q_width()]));
        let q = qkv.matrix(0, tokens, HEADS.q_width(), HEADS.qkv_width()).unwrap();
        let to = out.matrix(0, tokens, HEADS.q_width(), HEADS.q_width()).unwrap();
        let (sequences, cache) = (self.step.sequences(launcher), cache.view());
        let (heads, window, softmax_scale) = (HEADS, self.window, SCALE);
        match prefill {
            None => {
                let mut workspace = DecodeWorkspace::new(launcher).unwrap();
                let sequences = &sequences;
                let arguments =
                    AttentionDecode { q, out: to, cache, sequences, heads, window, softmax_scale };
                attention_decode(launcher.as_ref(), &arguments, &mut workspace).unwrap();
                // A second time: the counters were left at zero.
                attention_decode(launcher.as_ref(), &arguments, &mut workspace).unwrap();
            }
            Some(which) => {
                let mut tiles = PrefillTiles::new(launcher);
                tiles.fill(&sequences, which.query_rows(&HEADS)).unwrap();
                let maps = (which == PrefillKernel::Hopper).then(|| cache.maps(launcher.as_ref()).unwrap());
                let arguments = AttentionPrefill {
                    q,
                    out: to,
                    cache,
                    maps: maps.as_ref(),
                    sequences: &sequences,
                    tiles: &tiles,
                    heads,
                    window,
                    softmax_scale,
                };
                attention_prefill(launcher.as_ref(), &arguments).unwrap();
                // Likewise the counter of tiles.
                attention_prefill(launcher.as_ref(), &arguments).unwrap();
            }
        }
        out.to_vec().unwrap()
    }

    fn check(&self, prefill: Option<PrefillKernel>) -> Vec<bf16> {
        let what = format!("{prefill:?}, {:?}, {:?}, {:?}", self.step.lens, self.keys.format, self.window);
        let out = run_in_every_order(&what, |launcher| self.run(launcher, prefill));
        let round = |value: f64| bf16::from_f64(value).to_f64();
        let plain: Vec<f64> =
            self.oracle(|weight| bf16::from_f64(weight).to_f64()).into_iter().map(round).collect();
        check_error(&what, &out, &self.oracle(|weight| weight), &plain, 1e-3).unwrap();
        out
    }
}

#[test]
fn prefill_runs_through_the_launch_layer() {
    let (portable, hopper) = (PrefillKernel::Portable, PrefillKernel::Hopper);
    for (which, format, window) in [
        (portable, CacheFormat::Model, None),
        (portable, CacheFormat::Fp8, Some(30)),
        (hopper, CacheFormat::Model, None),
        (hopper, CacheFormat::Model, Some(30)),
    ]
    .into_iter()
    .filter(|&(which, ..)| runs(which))
    {
        // One of them is a chunk of a longer context.
        Input::new(&[(20, 20), (5, 40)], 16, format, window).check(Some(which));
    }
}

#[test]
fn decoding_runs_through_the_launch_layer() {
    for (format, window) in
        [(CacheFormat::Model, None), (CacheFormat::Model, Some(300)), (CacheFormat::Fp8, None)]
    {
        // Several splits of the longest, one token of the shortest, and drafts that take one and two tiles of rows.
        Input::new(&[(1, 700), (2, 65), (1, 1)], 64, format, window).check(None);
        Input::new(&[(16, 300), (3, 90)], 64, format, window).check(None);
    }
}

#[test]
fn a_draft_in_the_batch_does_not_change_the_bits_of_others() {
    let alone = Input::new(&[(1, 700)], 64, CacheFormat::Model, None).check(None);
    let in_company = Input::new(&[(16, 300), (1, 700)], 64, CacheFormat::Model, None).check(None);
    assert_eq!(in_company[16 * HEADS.q_width()..], alone);
}
