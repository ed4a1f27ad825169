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

/// Rows of a tile of decode attention, counting each head of a group as one: one decoded token of most models, or a draft that is verified.
pub const DECODE_ROWS: [u32; 2] = [16, 64];

/// Rows and head dimensions of decode attention's deeper pipeline.
const DEEP_ROWS: u32 = DECODE_ROWS[1];
const DEEP_HEAD_DIMS: [u32; 2] = [128, 256];

/// Splits of one context that decode attention combines at most.
pub const DECODE_MOST_SPLITS: usize = 128;

/// Output features of one block of the few-row product.
pub const SKINNY_OUT_FEATURES: usize = 32;

/// Input features that a split of the few-row product has at least.
pub const SKINNY_MIN_DEPTH: usize = 1024;

/// Logits that one block of the sampling kernel reduces.
pub const SAMPLE_CHUNK: usize = 4096;

/// Heads of queries, keys and values that one block of the rotary kernel takes: a power of two of lanes share a head, 8 pairs each.
pub const fn rotary_heads(head_dim: usize) -> usize {
    let lanes = match head_dim / 2 / 8 {
        ..=4 => 4,
        5..=8 => 8,
        9.. => 16,
    };
    256 / lanes
}

/// Blocks of the kernels that work on each element on its own: rows, and 4096 columns a block.
pub fn elementwise_grid(rows: usize, cols: usize) -> [usize; 3] {
    const COLUMNS: usize = 4096;
    [rows, cols.div_ceil(COLUMNS), 1]
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

/// How much of the cache a block of decode attention has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecodePipeline {
    /// What fits the shared memory of every chip.
    Standard,
    /// A tile a team more, for chips with room for it: 64 rows over a 16-bit cache at head_dim 128 and 256, of which a multiprocessor holds one block.
    Deep,
}

/// A kernel's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "params.h says what each family computes")]
pub enum Kernel {
    AttentionPrefill { dtype: DType, head_dim: u32, cache: CacheFormat },
    AttentionPrefillSm90 { dtype: DType, head_dim: u32 },
    AttentionDecode { dtype: DType, head_dim: u32, rows: u32, cache: CacheFormat, pipeline: DecodePipeline },
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
                all.push(Self::AttentionPrefillSm90 { dtype, head_dim });
                for cache in [CacheFormat::Model, CacheFormat::Fp8] {
                    all.push(Self::AttentionPrefill { dtype, head_dim, cache });
                    all.extend(DECODE_ROWS.map(|rows| Self::AttentionDecode {
                        dtype,
                        head_dim,
                        rows,
                        cache,
                        pipeline: DecodePipeline::Standard,
                    }));
                    all.push(Self::RotaryAppend { dtype, head_dim, cache });
                }
            }
            all.extend(DEEP_HEAD_DIMS.map(|head_dim| Self::AttentionDecode {
                dtype,
                head_dim,
                rows: DEEP_ROWS,
                cache: CacheFormat::Model,
                pipeline: DecodePipeline::Deep,
            }));
            all.extend([
                Self::RmsNorm(dtype),
                Self::SiluMul(dtype),
                Self::Embedding(dtype),
                Self::BiasAdd(dtype),
            ]);
            all.extend([Self::GatherRows(dtype), Self::LinearSkinny(dtype), Self::Sample(dtype)]);
        }
        all.push(Self::Sample(DType::F32));
        all
    }

    /// Decode attention in tiles of `rows` rows, by the deeper pipeline where there is one and a block may have the shared memory that it takes.
    pub fn attention_decode(
        dtype: DType,
        head_dim: u32,
        rows: u32,
        cache: CacheFormat,
        max_shared_bytes: u32,
    ) -> Self {
        let with = |pipeline| Self::AttentionDecode { dtype, head_dim, rows, cache, pipeline };
        let deep = with(DecodePipeline::Deep);
        let exists = cache == CacheFormat::Model && rows == DEEP_ROWS && DEEP_HEAD_DIMS.contains(&head_dim);
        if exists && deep.block().shared_bytes <= max_shared_bytes {
            deep
        } else {
            with(DecodePipeline::Standard)
        }
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
            Self::Embedding(_) | Self::BiasAdd(_) | Self::GatherRows(_) => "embedding",
            Self::LinearSkinny(_) => "linear_skinny",
            Self::Sample(_) => "sampling",
        }
    }

    /// Threads and shared memory of its blocks.
    pub fn block(self) -> BlockShape {
        match self {
            // FP8 keys and values take half as much, and one widened tile of them the other half.
            Self::AttentionPrefill { head_dim, .. } => BlockShape {
                threads: 128,
                shared_bytes: (prefill_query_rows(head_dim) + 2 * PREFILL_KV_ROWS) * head_dim * 2,
            },
            Self::AttentionPrefillSm90 { head_dim, .. } => sm90_block(head_dim),
            Self::AttentionDecode { head_dim, rows, cache, pipeline, .. } => {
                decode_block(head_dim, rows, cache, pipeline)
            }
            // A float a warp, for the sum of squares.
            Self::RmsNorm(_) => BlockShape { threads: 512, shared_bytes: 512 / 32 * 4 },
            // Eight warps' sums of 16 rows of padded features, and a flag.
            Self::LinearSkinny(_) => {
                BlockShape { threads: 256, shared_bytes: (8 * 16 * (SKINNY_OUT_FEATURES as u32 + 4) + 1) * 4 }
            }
            // Keys of 4096 candidates, a reduction's scratch, two messages.
            Self::Sample(_) => BlockShape { threads: 512, shared_bytes: 4096 * 8 + 512 / 32 * 8 + 16 + 16 },
            Self::RotaryAppend { .. }
            | Self::SiluMul(_)
            | Self::Embedding(_)
            | Self::BiasAdd(_)
            | Self::GatherRows(_) => BlockShape { threads: 256, shared_bytes: 0 },
        }
    }
}

/// Queries and two stages of keys and values in planes of 128-byte lines, one item of work, and the barriers.
const fn sm90_block(head_dim: u32) -> BlockShape {
    const STAGES: u32 = 2;
    const WORK_BYTES: u32 = 32;
    const BARRIERS: u32 = 2 + 4 * STAGES;
    let consumers = sm90_rows(head_dim) / 64;
    let lines = head_dim.div_ceil(64) * (sm90_rows(head_dim) + 2 * STAGES * sm90_kv_rows(head_dim));
    BlockShape { threads: (1 + consumers) * 128, shared_bytes: lines * 128 + WORK_BYTES + BARRIERS * 8 }
}

/// Queries, and stages of keys and values of each team of warps, whose place the teams' results take.
const fn decode_block(head_dim: u32, rows: u32, cache: CacheFormat, pipeline: DecodePipeline) -> BlockShape {
    const TOKENS: u32 = 16;
    let element_bytes = match cache {
        CacheFormat::Model => 2,
        CacheFormat::Fp8 => 1,
    };
    let teams = if head_dim <= 128 { 4 } else { 2 };
    let row_tiles = if rows == 64 && head_dim <= 128 { 2 } else { 1 };
    let stage_bytes = teams * 2 * TOKENS * head_dim * element_bytes;
    let fitting = match pipeline {
        DecodePipeline::Standard => 81_920 / stage_bytes,
        DecodePipeline::Deep => 98_304 / stage_bytes,
    };
    let stages = if fitting < 4 { fitting } else { 4 };
    let (tiles, results) = (stages * stage_bytes, rows * (head_dim * 4 + 32));
    BlockShape {
        threads: teams * (rows / 16 / row_tiles) * 32,
        shared_bytes: rows * head_dim * 2 + if tiles > results { tiles } else { results },
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
            Self::AttentionPrefill { dtype, head_dim, cache } => {
                write!(f, "attention_prefill_{dtype}_{head_dim}{}", cache_suffix(cache))
            }
            Self::AttentionPrefillSm90 { dtype, head_dim } => {
                write!(f, "attention_prefill_sm90_{dtype}_{head_dim}")
            }
            Self::AttentionDecode { dtype, head_dim, rows, cache, pipeline } => {
                let pipeline_suffix = match pipeline {
                    DecodePipeline::Standard => "",
                    DecodePipeline::Deep => "_deep",
                };
                write!(
                    f,
                    "attention_decode_{dtype}_{head_dim}_rows{rows}{}{pipeline_suffix}",
                    cache_suffix(cache)
                )
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

    #[test]
    fn every_operation_fits_the_shared_memory_of_every_chip() {
        // A block's on sm_86, sm_89 and sm_120, on an A100 and on an H100.
        const CHIPS: [u32; 3] = [101_376, 166_912, 232_448];
        for kernel in Kernel::all() {
            let smallest = match kernel {
                Kernel::AttentionPrefillSm90 { .. } => CHIPS[2],
                Kernel::AttentionDecode { pipeline: DecodePipeline::Deep, .. } => CHIPS[1],
                _ => CHIPS[0],
            };
            assert!(kernel.block().shared_bytes <= smallest, "{kernel}: {:?}", kernel.block());
        }
        for head_dim in DEEP_HEAD_DIMS {
            let entries = CHIPS.map(|most| {
                Kernel::attention_decode(DType::BF16, head_dim, 64, CacheFormat::Model, most).to_string()
            });
            let deep = entries.map(|entry| entry.ends_with("_deep"));
            assert_eq!(deep, [false, true, true], "head_dim {head_dim}");
        }
        let fp8 = Kernel::attention_decode(DType::BF16, 128, 64, CacheFormat::Fp8, CHIPS[2]);
        assert_eq!(fp8.to_string(), "attention_decode_bf16_128_rows64_fp8");
    }
}
