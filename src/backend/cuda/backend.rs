//! The backend over a [`Launcher`]: which kernel computes an operation, and where its memory is.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activation::CudaActivation;
use super::geometry::{CacheFormat, HEAD_DIMS};
use super::kv_pool::CudaKvCache;
use super::launch::{
    AttentionDecode, AttentionPrefill, LinearSkinny, MAX_SKINNY_ROWS, PrefillKernel, QkNormWeights, RmsNorm,
    RotaryAppend, attention_decode, attention_prefill, bias_add, embedding, gather_rows, linear_skinny,
    rms_norm, rotary_append, silu_mul,
};
use super::launcher::Launcher;
use super::matmul::matmul;
use super::self_check::check_products;
use super::step::{CudaStep, MAX_GROUP_ROWS};
use super::weights::{CudaLinear, CudaVector};
use super::workspace::Workspace;
use crate::backend::{
    AttentionParams, Backend, Batch, DType, HeadLayout, HostTensor, KvLayout, QkNorm, RopeAngles, StepLimits,
};
use crate::error::{Error, Result};

/// Tokens of a KV block: one box of the copy engine, and runs of memory that DRAM pages are used whole by.
const BLOCK_SIZE: usize = 64;

/// Query tokens of one step by default: products of fewer rows leave multiprocessors idle.
const STEP_TOKENS: usize = 2048;

/// Of the free memory, one part in this many is left to other programs and to what the driver and its libraries take later.
const FREE_MARGIN: u64 = 20;

/// A CUDA device, or what stands for one.
///
/// Weights, activations, and keys and values are bf16 or f16; the residual stream and every sum are f32.
pub struct CudaBackend {
    launcher: Arc<dyn Launcher>,
    dtype: DType,
    prefill: PrefillKernel,
    workspace: Mutex<Workspace>,
}

impl CudaBackend {
    /// Computes in `dtype` on what `launcher` runs.
    ///
    /// # Errors
    /// `Unsupported` for f32, which no kernel computes in, `OutOfMemory`, `Device` where products come out wrong.
    pub fn new(launcher: Arc<dyn Launcher>, dtype: DType) -> Result<Self> {
        if dtype == DType::F32 {
            return Err(Error::unsupported("models do not run in f32 on CUDA devices")
                .with_expected("bf16 or f16", dtype)
                .with_hint("choose another --dtype, or use --device cpu"));
        }
        check_products(&launcher, dtype)?;
        let workspace = Mutex::new(Workspace::new(&launcher)?);
        let prefill = PrefillKernel::best(launcher.properties(), CacheFormat::Model);
        Ok(Self { launcher, dtype, prefill, workspace })
    }

    fn launcher(&self) -> &dyn Launcher {
        self.launcher.as_ref()
    }

    fn workspace(&self) -> MutexGuard<'_, Workspace> {
        // Its content means nothing between calls, so a panic of an earlier call cannot have spoiled it.
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An activation that counts as used memory.
    fn activation(&self, dtype: DType, rows: usize, cols: usize) -> Result<CudaActivation> {
        let activation = CudaActivation::new(&self.launcher, dtype, rows, cols)
            .map_err(|error| error.context(format!("activations of {rows} rows and {cols} columns")))?;
        self.workspace().usage.workspace += activation.bytes();
        Ok(activation)
    }
}

impl Backend for CudaBackend {
    type Linear = CudaLinear;
    type Vector = CudaVector;
    type Activation = CudaActivation;
    type KvCache = CudaKvCache;
    type Step = CudaStep;

    fn describe(&self) -> String {
        self.launcher.name()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn head_dim(&self, head_dim: usize) -> Result<usize> {
        let dims = HEAD_DIMS.map(|dim| dim as usize);
        dims.into_iter().find(|&dim| dim >= head_dim).ok_or_else(|| {
            Error::unsupported("heads of this size do not run on CUDA devices")
                .with_expected(format_args!("head_dim up to {}", dims[dims.len() - 1]), head_dim)
                .with_hint("use --device cpu")
        })
    }

    fn block_size(&self) -> usize {
        BLOCK_SIZE
    }

    fn default_step_tokens(&self) -> usize {
        STEP_TOKENS
    }

    fn free_kv_memory(&self) -> Result<Option<u64>> {
        let free = self.launcher.free_memory()?;
        Ok(Some(free - free / FREE_MARGIN))
    }

    fn linear_bytes(&self, weight: &CudaLinear) -> usize {
        weight.bytes()
    }

    fn load_linear(&self, weights: &[HostTensor<'_>], bias: &[HostTensor<'_>]) -> Result<CudaLinear> {
        let linear = CudaLinear::load(&self.launcher, self.dtype, weights, bias)?;
        let (out_features, in_features) = linear.shape();
        let mut workspace = self.workspace();
        workspace.skinny.reserve_layer(self.dtype, out_features, in_features)?;
        workspace.usage.weights += linear.bytes();
        Ok(linear)
    }

    fn load_vector(&self, weight: &HostTensor<'_>) -> Result<CudaVector> {
        let vector = CudaVector::load(&self.launcher, self.dtype, weight)?;
        self.workspace().usage.weights += vector.bytes();
        Ok(vector)
    }

    fn alloc_activation(&self, rows: usize, cols: usize) -> Result<CudaActivation> {
        self.activation(self.dtype, rows, cols)
    }

    fn alloc_residual(&self, rows: usize, cols: usize) -> Result<CudaActivation> {
        self.activation(DType::F32, rows, cols)
    }

    fn alloc_logits(&self, rows: usize, cols: usize) -> Result<CudaActivation> {
        Ok(self.activation(self.dtype, rows, cols)?.readable())
    }

    /// Also reports what went where: the cache is the last to be allocated.
    fn alloc_kv_cache(&self, layout: &KvLayout) -> Result<CudaKvCache> {
        let with_maps = self.prefill == PrefillKernel::Hopper;
        let cache = CudaKvCache::new(&self.launcher, self.dtype, layout, with_maps)?;
        let mut workspace = self.workspace();
        workspace.usage.kv_cache += cache.bytes();
        workspace.usage.workspace += workspace.bytes();
        let (usage, tokens) = (workspace.usage, layout.num_blocks * layout.block_size);
        let free = self.launcher.free_memory()? as f64 / f64::from(1 << 30);
        log::info!("{}: {usage} ({tokens} tokens), free {free:.2} GiB", self.launcher.name());
        Ok(cache)
    }

    fn alloc_step(&self, limits: &StepLimits) -> Result<CudaStep> {
        let tile_rows = self.prefill.query_rows(&limits.heads);
        if tile_rows == 0 {
            return Err(Error::unsupported("attention of this shape does not run on this CUDA device")
                .with_expected("at most 128 query heads a key/value head", limits.heads.group_size())
                .with_hint("use --device cpu"));
        }
        let step = CudaStep::new(&self.launcher, limits, tile_rows)?;
        let mut workspace = self.workspace();
        workspace.decode.reserve_rows(self.dtype, CacheFormat::Model, &limits.heads, MAX_GROUP_ROWS)?;
        workspace.usage.workspace += step.bytes();
        Ok(step)
    }

    fn begin_step(&self, step: &mut CudaStep, batch: &Batch, angles: &RopeAngles) -> Result<()> {
        step.fill(batch, angles)
    }

    fn embed(&self, step: &CudaStep, table: &CudaLinear, out: &mut CudaActivation) -> Result<()> {
        embedding(self.launcher(), step.tokens()?, &table.weight()?, &out.matrix(step.num_tokens())?)
    }

    fn rms_norm(
        &self,
        rows: usize,
        residual: &CudaActivation,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaActivation,
    ) -> Result<()> {
        let (residual, out) = (residual.matrix(rows)?, out.matrix(rows)?);
        let weight = weight.vector();
        rms_norm(self.launcher(), &RmsNorm { residual, delta: None, weight, out, rows, eps })
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        residual: &mut CudaActivation,
        delta: &CudaActivation,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaActivation,
    ) -> Result<()> {
        let (residual, delta, out) = (residual.matrix(rows)?, Some(delta.matrix(rows)?), out.matrix(rows)?);
        rms_norm(self.launcher(), &RmsNorm { residual, delta, weight: weight.vector(), out, rows, eps })
    }

    fn linear(
        &self,
        rows: usize,
        input: &CudaActivation,
        weight: &CudaLinear,
        out: &mut CudaActivation,
    ) -> Result<()> {
        let (input, out, bias) = (input.matrix(rows)?, out.matrix(rows)?, weight.bias());
        let weight = weight.weight()?;
        if rows <= MAX_SKINNY_ROWS {
            let arguments = LinearSkinny { input, weight, bias, out, rows };
            return linear_skinny(self.launcher(), &arguments, &mut self.workspace().skinny);
        }
        matmul(self.launcher(), rows, &input, &weight, &out)?;
        bias.map_or(Ok(()), |bias| bias_add(self.launcher(), rows, &out, &bias))
    }

    fn rotary_append(
        &self,
        step: &CudaStep,
        layer: usize,
        heads: &HeadLayout,
        norm: Option<QkNorm<'_, CudaVector>>,
        qkv: &mut CudaActivation,
        cache: &mut CudaKvCache,
    ) -> Result<()> {
        let [cos, sin] = step.angles()?;
        let arguments = RotaryAppend {
            qkv: qkv.matrix(step.num_tokens())?,
            cos,
            sin,
            norm: norm.map(|norm| QkNormWeights { q: norm.q.vector(), k: norm.k.vector(), eps: norm.eps }),
            slots: step.slots()?,
            cache: cache.layer(layer)?,
            heads: *heads,
        };
        rotary_append(self.launcher(), &arguments)
    }

    fn attention(
        &self,
        step: &CudaStep,
        params: &AttentionParams,
        qkv: &CudaActivation,
        cache: &CudaKvCache,
        out: &mut CudaActivation,
    ) -> Result<()> {
        let AttentionParams { layer, heads, softmax_scale, window } = *params;
        let rows = step.num_tokens();
        let (q, out) = (qkv.columns(rows, heads.q_width())?, out.matrix(rows)?);
        let (maps, cache) = (cache.maps(layer), cache.layer(layer)?);
        let mut workspace = self.workspace();
        for group in step.groups() {
            let sequences = &group.sequences;
            match group.tiles() {
                None => {
                    let arguments =
                        AttentionDecode { q, out, cache, sequences, heads, window, softmax_scale };
                    attention_decode(self.launcher(), &arguments, &mut workspace.decode)?;
                }
                Some(tiles) => {
                    let arguments = AttentionPrefill {
                        q,
                        out,
                        cache,
                        maps,
                        sequences,
                        tiles,
                        heads,
                        window,
                        softmax_scale,
                    };
                    attention_prefill(self.launcher(), &arguments)?;
                }
            }
        }
        Ok(())
    }

    fn silu_mul(&self, rows: usize, gate_up: &CudaActivation, out: &mut CudaActivation) -> Result<()> {
        silu_mul(self.launcher(), rows, &gate_up.matrix(rows)?, &out.matrix(rows)?)
    }

    fn gather_logits_rows(
        &self,
        step: &CudaStep,
        part: Range<usize>,
        input: &CudaActivation,
        out: &mut CudaActivation,
    ) -> Result<()> {
        let rows = step.logits_rows()?.part(part)?;
        gather_rows(self.launcher(), &rows, &input.matrix(step.num_tokens())?, &out.matrix(rows.len())?)
    }

    fn read<'a>(&self, rows: usize, activation: &'a mut CudaActivation) -> Result<&'a [f32]> {
        activation.read(rows)
    }
}
