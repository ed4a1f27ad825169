//! The parameter structs of `kernels/params.h`, field for field; `tests/kernels` passes distinct values through a kernel and compares.
//!
//! Device addresses are `u64`; strides and offsets count elements. What each field means is said in `params.h`.

use std::mem::{offset_of, size_of};

/// A number inside a parameter struct: where it lies and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Path from the struct, as C writes it: `cache.keys`.
    pub path: String,
    /// Bytes from the struct's start.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// What a parameter struct is made of.
pub trait Field: Copy {
    /// Appends the numbers of a field that is called `path` and starts at `offset`.
    fn leaves(path: &str, offset: usize, out: &mut Vec<Leaf>);
}

/// A parameter struct of a kernel.
pub trait Params: Field + 'static {
    /// Its name in `params.h`.
    const NAME: &'static str;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn leaves(path: &str, offset: usize, out: &mut Vec<Leaf>) {
                out.push(Leaf { path: path.into(), offset, size: size_of::<Self>() });
            }
        }
    )*};
}

numbers!(u64, i64, i32, f32);

impl<F: Field, const N: usize> Field for [F; N] {
    fn leaves(path: &str, offset: usize, out: &mut Vec<Leaf>) {
        for i in 0..N {
            F::leaves(&format!("{path}[{i}]"), offset + i * size_of::<F>(), out);
        }
    }
}

macro_rules! params {
    ($($(#[$attribute:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$attribute])*
        #[expect(missing_docs, reason = "params.h says what the fields are")]
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub struct $name { $(pub $field: $type,)* }

        impl Field for $name {
            fn leaves(path: &str, offset: usize, out: &mut Vec<Leaf>) {
                $(<$type>::leaves(
                    &format!("{path}{}{}", if path.is_empty() { "" } else { "." }, stringify!($field)),
                    offset + offset_of!(Self, $field),
                    out,
                );)*
            }
        }

        impl Params for $name {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}

params! {
    /// The paged cache of one layer: `[num_blocks, num_kv_heads, block_size, head_dim]`, keys and values apart.
    KvCache {
        keys: u64,
        values: u64,
        key_scales: u64,
        value_scales: u64,
        block_stride: i64,
        head_stride: i64,
        block_size_log2: i32,
        num_kv_heads: i32,
    }

    /// The ragged batch of one step.
    Sequences {
        query_starts: u64,
        kv_lens: u64,
        block_tables: u64,
        block_table_stride: i64,
        num_sequences: i32,
        reserved: i32,
    }

    /// A tile of query rows that one thread block computes.
    AttentionTile {
        sequence: i32,
        first_query: i32,
    }

    /// An encoded `CUtensorMap`.
    #[repr(align(64))]
    TensorMap {
        opaque: [u64; 16],
    }

    /// `attention_prefill_*`.
    AttentionPrefillParams {
        q: u64,
        out: u64,
        tiles: u64,
        cache: KvCache,
        sequences: Sequences,
        q_stride: i64,
        out_stride: i64,
        num_heads: i32,
        num_tiles: i32,
        window: i32,
        scale_log2e: f32,
    }

    /// `attention_prefill_sm90_*`.
    AttentionPrefillSm90Params {
        queries: TensorMap,
        keys: TensorMap,
        values: TensorMap,
        attention: AttentionPrefillParams,
        tile_counter: u64,
        heads_per_section: i32,
        reserved: i32,
    }

    /// `attention_decode_*`.
    AttentionDecodeParams {
        q: u64,
        out: u64,
        partial_out: u64,
        partial_lse: u64,
        counters: u64,
        cache: KvCache,
        sequences: Sequences,
        q_stride: i64,
        out_stride: i64,
        num_heads: i32,
        max_query_len: i32,
        num_splits: i32,
        min_split_len: i32,
        window: i32,
        scale_log2e: f32,
    }

    /// `rotary_append_*`.
    RotaryAppendParams {
        qkv: u64,
        cos: u64,
        sin: u64,
        q_norm: u64,
        k_norm: u64,
        slots: u64,
        cache: KvCache,
        qkv_stride: i64,
        num_tokens: i32,
        num_heads: i32,
        norm_eps: f32,
        reserved: i32,
    }

    /// `rms_norm_*`.
    RmsNormParams {
        residual: u64,
        delta: u64,
        weight: u64,
        out: u64,
        row_stride: i64,
        rows: i32,
        cols: i32,
        eps: f32,
        reserved: i32,
    }

    /// `silu_mul_*`.
    SiluMulParams {
        gate_up: u64,
        out: u64,
        gate_up_stride: i64,
        out_stride: i64,
        rows: i32,
        cols: i32,
    }

    /// `embedding_*`.
    EmbeddingParams {
        tokens: u64,
        table: u64,
        out: u64,
        table_stride: i64,
        out_stride: i64,
        rows: i32,
        cols: i32,
    }

    /// `bias_add_*`.
    BiasAddParams {
        values: u64,
        bias: u64,
        row_stride: i64,
        rows: i32,
        cols: i32,
    }

    /// `gather_rows_*`.
    GatherRowsParams {
        input: u64,
        out: u64,
        rows: u64,
        input_stride: i64,
        out_stride: i64,
        num_rows: i32,
        cols: i32,
    }

    /// `linear_skinny_*`.
    LinearSkinnyParams {
        input: u64,
        weight: u64,
        bias: u64,
        out: u64,
        partial: u64,
        counters: u64,
        input_stride: i64,
        weight_stride: i64,
        out_stride: i64,
        rows: i32,
        in_features: i32,
        out_features: i32,
        num_splits: i32,
    }

    /// `sample_*`.
    SampleParams {
        logits: u64,
        temperatures: u64,
        top_ps: u64,
        top_ks: u64,
        seeds: u64,
        offsets: u64,
        tokens: u64,
        logprobs: u64,
        workspace: u64,
        logits_stride: i64,
        rows: i32,
        vocabulary: i32,
    }
}
