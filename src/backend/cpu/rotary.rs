//! Rotary position embedding of queries and keys, the optional norm before it, and the append to the KV cache.

use super::kv_cache::{CpuKvCache, KvSlot};
use super::norm::rms_norm_in_place;
use super::simd::{Dispatch, Kernel, Simd};
use super::step::CpuStep;
use super::threads::{SharedSlice, ThreadPool};
use crate::backend::HeadLayout;

/// Norm weights of queries and keys, `[head_dim]` each.
#[derive(Clone, Copy)]
pub struct HeadNorm<'a> {
    /// For queries.
    pub q: &'a [f32],
    /// For keys.
    pub k: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// One call of the operation.
pub struct RotaryAppend<'a> {
    /// The step.
    pub step: &'a CpuStep,
    /// Decoder layer.
    pub layer: usize,
    /// Layout of a row of `qkv`.
    pub heads: &'a HeadLayout,
    /// Norm of every query and key head before the rotation.
    pub norm: Option<HeadNorm<'a>>,
    /// `[tokens, qkv_width]`; queries and keys are rotated in place.
    pub qkv: &'a mut [f32],
    /// Takes the keys and values.
    pub cache: &'a mut CpuKvCache,
}

impl RotaryAppend<'_> {
    /// Computes, in parallel over tokens when there are many.
    pub fn run(self, dispatch: Dispatch, pool: &ThreadPool) {
        let Self { step, layer, heads, norm, qkv, cache } = self;
        let width = heads.qkv_width();
        let half = heads.head_dim / 2;
        let tokens = step.tokens.len();
        assert_eq!(qkv.len(), tokens * width, "fused queries, keys and values");
        assert!(step.angles.cos.len() == tokens * half && step.angles.sin.len() == tokens * half, "angles");
        assert_eq!(
            (cache.layout().num_kv_heads, cache.layout().head_dim),
            (heads.num_kv_heads, heads.head_dim),
            "heads of the cache"
        );
        let block_size = cache.layout().block_size;
        let qkv = SharedSlice::new(qkv);
        let writer = cache.writer();
        pool.for_ranges(tokens, 2 * width, &|rows| {
            for row in rows {
                // SAFETY: rows are handed out once.
                let qkv = unsafe { qkv.range(row * width..(row + 1) * width) };
                let angles = row * half..(row + 1) * half;
                let (cos, sin) = (&step.angles.cos[angles.clone()], &step.angles.sin[angles]);
                dispatch.run(RotateRow { heads, norm, cos, sin, qkv });

                let sequence = step.sequence_of(row);
                let position = sequence.kv_len - sequence.query_len + (row - sequence.first_row);
                let block = step.block_at(sequence, position, block_size);
                let slot = position % block_size;
                let (keys, values) = qkv[heads.q_width()..].split_at(heads.kv_width());
                let pairs = keys.chunks_exact(heads.head_dim).zip(values.chunks_exact(heads.head_dim));
                for (head, (key, value)) in pairs.enumerate() {
                    let at = KvSlot { layer, block, head, slot };
                    // SAFETY: each row is another token and no two sequences write one block, so slots are distinct; the
                    // slot after the last token belongs to nobody.
                    unsafe {
                        writer.write(at, key, value);
                        if position + 1 == sequence.kv_len && slot.is_multiple_of(2) {
                            writer.clear_value(KvSlot { slot: slot + 1, ..at });
                        }
                    }
                }
            }
        });
    }
}

/// Norm and rotation of one token's queries and keys.
struct RotateRow<'a> {
    heads: &'a HeadLayout,
    norm: Option<HeadNorm<'a>>,
    cos: &'a [f32],
    sin: &'a [f32],
    qkv: &'a mut [f32],
}

impl Kernel for RotateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let heads = self.heads;
        let rotated = heads.q_width() + heads.kv_width();
        for (index, head) in self.qkv[..rotated].chunks_exact_mut(heads.head_dim).enumerate() {
            if let Some(norm) = self.norm {
                let weight = if index < heads.num_heads { norm.q } else { norm.k };
                rms_norm_in_place(simd, head, weight, norm.eps);
            }
            let (first, second) = head.split_at_mut(heads.head_dim / 2);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(self.cos).zip(self.sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}
