//! How every kernel is launched: its entry's name, threads and shared memory of a block. `tests/kernels` compares them with what the entries were compiled for.

use std::fmt;

use crate::backend::DType;

/// Query rows that one block of prefill attention computes.
pub const fn prefill_query_rows(head_dim: u32) -> u32 {
    if head_dim <= 128 { 128 } else { 64 }
}

/// Tokens of keys and values that prefill attention holds at a time.
const PREFILL_KV_ROWS: u32 = 64;

/// Rows of queries, counting each head of a group as one, that one block of Hopper's prefill attention computes.
pub const fn sm90_rows(head_dim: u32) -> u32 {
    if head_dim == 64 { 192 } else { 128 }
}

/// Tokens of keys and values that Hopper's prefill attention brings at a time.
pub const fn sm90_kv_rows(head_dim: u32) -> u32 {
    if head_dim == 256 { 64 } else { 128 }
}

/// Rows of queries, counting each head of a group as one, that one block of decode attention computes: the smaller tile where it holds all.
pub const fn decode_rows(rows_of_a_sequence: usize) -> u32 {
    if rows_of_a_sequence <= 16 { 16 } else { 64 }
}

/// Threads and shared memory of decode attention: `DecodeShape` in `attention_decode.cu`.
const fn decode_block(head_dim: u32, cache: CacheFormat, rows: u32) -> BlockShape {
    let teams = if head_dim <= 128 { 4 } else { 2 };
    let team_warps = if rows == 64 && head_dim <= 128 { 2 } else { rows / 16 };
    let stored_bytes = match cache {
        CacheFormat::Model => 2,
        CacheFormat::Fp8 => 1,
    };
    let stage_bytes = teams * 2 * 16 * head_dim * stored_bytes;
    let stages = match 98_304 / stage_bytes {
        0..=2 => 2,
        3 => 3,
        _ => 4,
    };
    let (ring_bytes, out_bytes) = (stages * stage_bytes, rows * (head_dim * 4 + 32));
    let kv_bytes = if ring_bytes > out_bytes { ring_bytes } else { out_bytes };
    BlockShape { threads: teams * team_warps * 32, shared_bytes: rows * head_dim * 2 + kv_bytes }
}

/// The most splits of a context.
pub const MAX_DECODE_SPLITS: usize = 128;

/// Threads of a block of the rotary kernel.
const ROTARY_THREADS: u32 = 256;

/// Heads that one block of the rotary kernel takes: a head's lanes hold 16 elements each and are a power of two.
pub const fn rotary_heads(head_dim: u32) -> u32 {
    ROTARY_THREADS / (head_dim / 16).next_power_of_two()
}

/// Blocks of decode attention that a multiprocessor holds.
pub const DECODE_BLOCKS_PER_MULTIPROCESSOR: usize = 2;

/// Blocks of the few-row product that a multiprocessor holds.
pub const SKINNY_BLOCKS_PER_MULTIPROCESSOR: usize = 2;

/// Output features of one block of the few-row product.
pub const SKINNY_OUT_FEATURES: usize = 32;

/// Input features that a split of the few-row product has at least.
pub const SKINNY_MIN_DEPTH: usize = 1024;

/// Floats that sampling `rows` rows works in.
pub const fn sample_workspace_len(rows: usize, vocabulary: usize) -> usize {
    rows * vocabulary
}

/// Blocks of kernels that compute each 16-byte vector of a row on its own.
pub fn elementwise_grid(_kernel: Kernel, rows: usize, _cols: usize) -> [usize; 3] {
    [rows, 1, 1]
}

/// Head dimensions that attention and rotary kernels are compiled for.
pub const HEAD_DIMS: [u32; 4] = [64, 96, 128, 256];

/// Types of weights and activations.
pub const DTYPES: [DType; 2] = [DType::BF16, DType::F16];

/// How the cache stores keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheFormat {
    /// In the model's type.
    Model,
    /// As e4m3 with a scale a head.
    Fp8,
}

/// A kernel's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "params.h says what each family computes")]
pub enum Kernel {
    AttentionPrefill { dtype: DType, head_dim: u32 },
    AttentionPrefillSm90 { dtype: DType, head_dim: u32 },
    AttentionDecode { dtype: DType, head_dim: u32, cache: CacheFormat, rows: u32 },
    RotaryAppend { dtype: DType, head_dim: u32, cache: CacheFormat },
    RmsNorm(DType),
    SiluMul(DType),
    Embedding(DType),
    BiasAdd(DType),
    GatherRows(DType),
    LinearSkinny(DType),
    Sample(DType),
}

/// What a block of a kernel is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    /// Threads.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

impl Kernel {
    /// Every entry.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for dtype in DTYPES {
            for head_dim in HEAD_DIMS {
                all.push(Self::AttentionPrefill { dtype, head_dim });
                all.push(Self::AttentionPrefillSm90 { dtype, head_dim });
                for cache in [CacheFormat::Model, CacheFormat::Fp8] {
                    all.extend([16, 64].map(|rows| Self::AttentionDecode { dtype, head_dim, cache, rows }));
                    all.push(Self::RotaryAppend { dtype, head_dim, cache });
                }
            }
            all.extend([Self::RmsNorm(dtype), Self::SiluMul(dtype), Self::Embedding(dtype), Self::BiasAdd(dtype)]);
            all.extend([Self::GatherRows(dtype), Self::LinearSkinny(dtype), Self::Sample(dtype)]);
        }
        all.push(Self::Sample(DType::F32));
        all
    }

    /// The kernel with this entry.
    pub fn named(entry: &str) -> Option<Self> {
        Self::all().into_iter().find(|kernel| kernel.to_string() == entry)
    }

    /// The file in `kernels/` that holds it, without its extension.
    pub fn file(self) -> &'static str {
        match self {
            Self::AttentionPrefill { .. } => "attention_prefill",
            Self::AttentionPrefillSm90 { .. } => "attention_prefill_sm90",
            Self::AttentionDecode { .. } => "attention_decode",
            Self::RotaryAppend { .. } => "rotary",
            Self::RmsNorm(_) => "rms_norm",
            Self::SiluMul(_) => "silu_mul",
            Self::Embedding(_) => "embedding",
            Self::BiasAdd(_) => "bias_add",
            Self::GatherRows(_) => "gather_rows",
            Self::LinearSkinny(_) => "linear_skinny",
            Self::Sample(_) => "sampling",
        }
    }

    /// Threads and shared memory of its blocks.
    pub fn block(self) -> BlockShape {
        match self {
            Self::AttentionPrefill { head_dim, .. } => BlockShape {
                threads: 128,
                shared_bytes: (prefill_query_rows(head_dim) + 2 * PREFILL_KV_ROWS) * head_dim * 2,
            },
            Self::AttentionPrefillSm90 { head_dim, .. } => BlockShape { threads: 384, shared_bytes: head_dim * 1024 },
            Self::AttentionDecode { head_dim, cache, rows, .. } => decode_block(head_dim, cache, rows),
            Self::RotaryAppend { .. } => BlockShape { threads: ROTARY_THREADS, shared_bytes: 0 },
            Self::RmsNorm(_)
            | Self::SiluMul(_)
            | Self::Embedding(_)
            | Self::BiasAdd(_)
            | Self::GatherRows(_)
            | Self::LinearSkinny(_)
            | Self::Sample(_) => BlockShape { threads: 256, shared_bytes: 0 },
        }
    }
}

impl fmt::Display for Kernel {
    /// The entry's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache_suffix = |cache| match cache {
            CacheFormat::Model => "",
            CacheFormat::Fp8 => "_fp8",
        };
        match *self {
            Self::AttentionPrefill { dtype, head_dim } => write!(f, "attention_prefill_{dtype}_{head_dim}"),
            Self::AttentionPrefillSm90 { dtype, head_dim } => {
                write!(f, "attention_prefill_sm90_{dtype}_{head_dim}")
            }
            Self::AttentionDecode { dtype, head_dim, cache, rows } => {
                write!(f, "attention_decode_{dtype}_{head_dim}_rows{rows}{}", cache_suffix(cache))
            }
            Self::RotaryAppend { dtype, head_dim, cache } => {
                write!(f, "rotary_append_{dtype}_{head_dim}{}", cache_suffix(cache))
            }
            Self::RmsNorm(dtype) => write!(f, "rms_norm_{dtype}"),
            Self::SiluMul(dtype) => write!(f, "silu_mul_{dtype}"),
            Self::Embedding(dtype) => write!(f, "embedding_{dtype}"),
            Self::BiasAdd(dtype) => write!(f, "bias_add_{dtype}"),
            Self::GatherRows(dtype) => write!(f, "gather_rows_{dtype}"),
            Self::LinearSkinny(dtype) => write!(f, "linear_skinny_{dtype}"),
            Self::Sample(dtype) => write!(f, "sample_{dtype}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_different_names() {
        let all = Kernel::all();
        for &kernel in &all {
            assert_eq!(Kernel::named(&kernel.to_string()), Some(kernel));
        }
        assert_eq!(Kernel::named("attention"), None);
    }
}
