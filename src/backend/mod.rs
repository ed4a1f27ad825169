//! Where tensors live and kernels run: the [`Backend`] contract and its implementations.
//!
//! The model is written once, generic over [`Backend`], in fused operations at the size of a kernel. `reference` is the
//! plain f32 oracle that every other implementation is tested against.

mod batch;
pub mod cpu;
pub mod cuda;
mod device;
mod dtype;
mod memory;
pub mod quantization;
pub mod reference;
mod tensor;

pub use batch::{Batch, BatchEntry, BatchSequence, LogitsRows};
pub use device::Device;
pub use dtype::DType;
pub use memory::{ResidentMemory, resident_memory};
pub use quantization::Quantization;
pub use tensor::HostTensor;

use std::ops::Range;

use memory::host_kv_memory;

use crate::error::Result;

/// Size and shape of the paged KV cache, the same for every layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvLayout {
    /// Decoder layers.
    pub num_layers: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of one head's key or value.
    pub head_dim: usize,
    /// Tokens in one block.
    pub block_size: usize,
    /// Physical blocks.
    pub num_blocks: usize,
}

impl KvLayout {
    /// Elements of one token's keys and values over all layers.
    pub fn elements_per_token(&self) -> usize {
        2 * self.num_layers * self.num_kv_heads * self.head_dim
    }
}

/// Head counts of the attention, and where the parts of a fused QKV row are: `[q heads | k heads | v heads]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl HeadLayout {
    /// Columns of the query part.
    pub fn q_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Columns of the key part, and of the value part.
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Columns of a fused QKV row.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Query heads that share one key/value head.
    pub fn group_size(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }
}

/// How one layer attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionParams {
    /// Decoder layer, whose part of the cache is read.
    pub layer: usize,
    /// Head counts.
    pub heads: HeadLayout,
    /// Factor on QKᵀ, usually `1 / sqrt(head_dim)`.
    pub softmax_scale: f32,
    /// A query at position `i` sees keys `j` with `j <= i` and, when set, `i - j < window`.
    pub window: Option<usize>,
}

/// The largest steps that a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Query tokens of a step.
    pub max_tokens: usize,
    /// Tokens of a sequence's context.
    pub max_context: usize,
    /// Tokens of a block of the KV cache.
    pub block_size: usize,
    /// Head counts of the attention.
    pub heads: HeadLayout,
}

/// RMSNorm of every query and key head before the rotation (Qwen3).
#[derive(Debug)]
pub struct QkNorm<'a, V> {
    /// Weight `[head_dim]` of the query norm.
    pub q: &'a V,
    /// Weight `[head_dim]` of the key norm.
    pub k: &'a V,
    /// Added to the mean square.
    pub eps: f32,
}

/// Cosines and sines of one step, `[tokens, head_dim / 2]` each, any attention factor already multiplied in.
///
/// Element `i` of a head's first half is rotated with element `i` of its second half (the "rotate half" form).
#[derive(Debug, Clone, Default)]
pub struct RopeAngles {
    /// Cosines, row-major.
    pub cos: Vec<f32>,
    /// Sines, row-major.
    pub sin: Vec<f32>,
}

/// What a device can do at best, measured with what the backend computes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakRates {
    /// Bytes a second read from memory.
    pub read_bandwidth: f64,
    /// Operations a second of matrix products in the type of the weights, a multiply-add counting two.
    pub matrix_rate: f64,
}

impl PeakRates {
    /// The higher of each rate: a measurement on a busy machine reads too low, and none too high.
    pub fn max(self, other: Self) -> Self {
        Self {
            read_bandwidth: self.read_bandwidth.max(other.read_bandwidth),
            matrix_rate: self.matrix_rate.max(other.matrix_rate),
        }
    }
}

/// A device with its kernels.
///
/// Activations are row-major matrices `[rows, cols]` whose row capacity is fixed at allocation; operations work on the
/// first `rows` rows and allocate nothing. Shapes are the model's responsibility and checked with assertions.
/// All methods are called from one thread at a time, the engine's; implementations parallelise inside.
pub trait Backend: Send + Sync + 'static {
    /// A linear layer's weight `[out_features, in_features]` with its optional bias, in the layout of the kernels.
    type Linear: Send + Sync;
    /// A norm's weight `[n]`.
    type Vector: Send + Sync;
    /// An activation matrix `[rows, cols]`.
    type Activation: Send;
    /// The paged keys and values of all layers.
    type KvCache: Send;
    /// A step's metadata where the kernels can reach it: tokens, sequences, block tables, angles.
    type Step: Send;

    /// Name of the backend and the instruction set or device in use, such as `cpu (avx512-bf16)`.
    fn describe(&self) -> String;

    /// Element type of weights and KV cache.
    fn dtype(&self) -> DType;

    /// Elements that the kernels give a head of `head_dim`: as many or more, the rest being zeros.
    ///
    /// # Errors
    /// `Unsupported` for a head that no kernel takes.
    fn head_dim(&self, head_dim: usize) -> Result<usize> {
        Ok(head_dim)
    }

    /// Tokens in one KV block that suit the kernels.
    fn block_size(&self) -> usize;

    /// Query tokens that a step may have by default: enough to keep the device busy, few enough to cancel soon.
    fn default_step_tokens(&self) -> usize {
        512
    }

    /// Bytes that a KV cache may take by default, of what is free now; `None` where that is unknown.
    fn free_kv_memory(&self) -> Result<Option<u64>>;

    /// Measures the device's limits in a fraction of a second; `None` from a backend that is not meant to be fast.
    ///
    /// # Errors
    /// `OutOfMemory` without room for what is read.
    fn peak_rates(&self) -> Result<Option<PeakRates>> {
        Ok(None)
    }

    /// Bytes of memory that a weight takes, as the kernels read it.
    fn linear_bytes(&self, weight: &Self::Linear) -> usize;

    /// Packs weights `[out_i, in]`, stacked along their rows (fused QKV, fused gate/up), and their biases, likewise.
    ///
    /// # Errors
    /// `InvalidData` when the parts' widths differ, `OutOfMemory`.
    fn load_linear(&self, weights: &[HostTensor<'_>], bias: &[HostTensor<'_>]) -> Result<Self::Linear>;

    /// Copies a norm weight, kept in f32.
    fn load_vector(&self, weight: &HostTensor<'_>) -> Result<Self::Vector>;

    /// A zeroed activation matrix.
    fn alloc_activation(&self, rows: usize, cols: usize) -> Result<Self::Activation>;

    /// An activation matrix for the residual stream, which is f32 on every device.
    fn alloc_residual(&self, rows: usize, cols: usize) -> Result<Self::Activation> {
        self.alloc_activation(rows, cols)
    }

    /// An activation matrix that [`Backend::read`] takes.
    fn alloc_logits(&self, rows: usize, cols: usize) -> Result<Self::Activation> {
        self.alloc_activation(rows, cols)
    }

    /// A KV cache with the given layout.
    ///
    /// # Errors
    /// `OutOfMemory`, stating the bytes asked for.
    fn alloc_kv_cache(&self, layout: &KvLayout) -> Result<Self::KvCache>;

    /// Room for the metadata of steps within `limits`, and for what the operations need to compute them.
    fn alloc_step(&self, limits: &StepLimits) -> Result<Self::Step>;

    /// Fills `step` for the operations that follow.
    fn begin_step(&self, step: &mut Self::Step, batch: &Batch, angles: &RopeAngles) -> Result<()>;

    /// `out[i] = table[tokens[i]]` for every query token, into the residual stream; `table` is `[vocab, hidden]`.
    fn embed(&self, step: &Self::Step, table: &Self::Linear, out: &mut Self::Activation) -> Result<()>;

    /// `out = residual / sqrt(mean(residual²) + eps) · weight`, row by row.
    fn rms_norm(
        &self,
        rows: usize,
        residual: &Self::Activation,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Activation,
    ) -> Result<()>;

    /// `residual += delta`, then `out = rms_norm(residual)`.
    fn add_rms_norm(
        &self,
        rows: usize,
        residual: &mut Self::Activation,
        delta: &Self::Activation,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Activation,
    ) -> Result<()>;

    /// `out = input · weightᵀ + bias`.
    fn linear(
        &self,
        rows: usize,
        input: &Self::Activation,
        weight: &Self::Linear,
        out: &mut Self::Activation,
    ) -> Result<()>;

    /// Normalises (when asked) and rotates the queries and keys of `qkv` in place, and appends keys and values to the cache.
    fn rotary_append(
        &self,
        step: &Self::Step,
        layer: usize,
        heads: &HeadLayout,
        norm: Option<QkNorm<'_, Self::Vector>>,
        qkv: &mut Self::Activation,
        cache: &mut Self::KvCache,
    ) -> Result<()>;

    /// Causal attention of the queries of `qkv` over the cached context: `out` is `[tokens, num_heads · head_dim]`.
    fn attention(
        &self,
        step: &Self::Step,
        params: &AttentionParams,
        qkv: &Self::Activation,
        cache: &Self::KvCache,
        out: &mut Self::Activation,
    ) -> Result<()>;

    /// `out = silu(gate) · up` where a row of `gate_up` is `[gate | up]`.
    fn silu_mul(&self, rows: usize, gate_up: &Self::Activation, out: &mut Self::Activation) -> Result<()>;

    /// `out[i] = input[logits_rows[part][i]]`: some of the rows whose logits are wanted, side by side.
    fn gather_logits_rows(
        &self,
        step: &Self::Step,
        part: Range<usize>,
        input: &Self::Activation,
        out: &mut Self::Activation,
    ) -> Result<()>;

    /// The first `rows` rows of logits on the host, row-major f32; waits for the device.
    fn read<'a>(&self, rows: usize, activation: &'a mut Self::Activation) -> Result<&'a [f32]>;
}
