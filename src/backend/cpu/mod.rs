//! The CPU backend: blocked, vectorised kernels chosen at run time, on a persistent pool of threads.
//!
//! | module | holds |
//! | --- | --- |
//! | `isa`, `simd` | instruction sets, their vector operations, and the one place that dispatches |
//! | `threads`, `memory` | the pool; aligned memory |
//! | `format`, `multiply`, `tile_product` | packed matrices and the product that linear layers and attention share |
//! | `weights`, `linear` | linear layers |
//! | `int8`, `layer` | linear layers with 8-bit weights; weights of either form |
//! | `kv_cache`, `attention` | the paged cache and attention over it |
//! | `norm`, `rotary`, `silu`, `rows` | the other operations |
//! | `roofline` | what the machine could do at best, for benchmarks |

mod attention;
mod format;
mod int8;
mod isa;
mod kv_cache;
mod layer;
mod linear;
mod memory;
mod multiply;
mod norm;
mod roofline;
mod rotary;
mod rows;
mod silu;
mod simd;
mod step;
mod threads;
mod tile_product;
mod weights;
mod work_items;

pub use isa::Isa;
pub use kv_cache::CpuKvCache;
pub use layer::CpuLinear;
pub use roofline::Roofline;
pub use step::CpuStep;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::attention::{Attention, AttentionWorkspace};
use self::int8::{ByteDispatch, Int8Linear, Int8Weights};
use self::linear::{Linear, input_bytes};
use self::memory::Buffer;
use self::norm::RmsNorm;
use self::rotary::{HeadNorm, RotaryAppend};
use self::simd::Dispatch;
use self::threads::ThreadPool;
use self::weights::PackedLinear;
use super::{
    AttentionParams, Backend, Batch, DType, HeadLayout, HostTensor, KvLayout, PeakRates, QkNorm,
    Quantization, RopeAngles, StepLimits, host_kv_memory,
};
use crate::error::Result;

/// How to run on the CPU.
#[derive(Debug, Clone)]
pub struct CpuOptions {
    /// Element type of weights and KV cache.
    pub dtype: DType,
    /// Threads; `None` takes one for each processor that this process may use.
    pub threads: Option<usize>,
    /// Instruction set; `None` takes the fastest of this machine.
    pub isa: Option<Isa>,
    /// How linear layers hold their weights; `None` is in `dtype`.
    pub quantize: Option<Quantization>,
}

/// The CPU with one instruction set and a pool of threads.
pub struct CpuBackend {
    dtype: DType,
    dispatch: Dispatch,
    /// For 8-bit weights.
    bytes: ByteDispatch,
    quantize: Option<Quantization>,
    pool: ThreadPool,
    workspace: Mutex<Workspace>,
}

/// Memory of the operations, kept between calls. Grows only where activations and caches are allocated.
struct Workspace {
    /// Inputs of a linear layer.
    inputs: Buffer<u8>,
    attention: AttentionWorkspace,
    /// [`THREAD_SCRATCH`] for each thread.
    scratch: Buffer<f32>,
}

/// f32 of scratch memory of one thread.
const THREAD_SCRATCH: usize =
    larger(larger(linear::THREAD_SCRATCH, int8::THREAD_SCRATCH), attention::THREAD_SCRATCH);

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Measurements of the machine's limits of which the best counts; together they take a third of a second.
const PEAK_ROUNDS: usize = 20;

/// An activation matrix `[rows, cols]`, row-major f32.
pub struct CpuActivation {
    rows: usize,
    cols: usize,
    data: Buffer<f32>,
}

impl CpuActivation {
    /// All elements, row-major.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    fn rows(&self, rows: usize) -> &[f32] {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        &self.data[..rows * self.cols]
    }

    fn rows_mut(&mut self, rows: usize) -> &mut [f32] {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        &mut self.data[..rows * self.cols]
    }
}

impl CpuBackend {
    /// Starts the threads.
    ///
    /// # Errors
    /// `Unsupported` for an instruction set that this machine lacks, `InvalidArgument` for zero threads, `OutOfMemory`.
    pub fn new(options: CpuOptions) -> Result<Self> {
        let dispatch = Dispatch::new(options.isa.unwrap_or_else(Isa::detect))?;
        let pool = ThreadPool::new(options.threads)?;
        let workspace = Workspace {
            inputs: Buffer::zeroed(0, "inputs of linear layers")?,
            attention: AttentionWorkspace::default(),
            scratch: Buffer::zeroed(pool.num_threads() * THREAD_SCRATCH, "scratch memory")?,
        };
        Ok(Self {
            dtype: options.dtype,
            dispatch,
            bytes: ByteDispatch::beside(dispatch.isa()),
            quantize: options.quantize,
            pool,
            workspace: Mutex::new(workspace),
        })
    }

    /// Instruction set in use.
    pub fn isa(&self) -> Isa {
        self.dispatch.isa()
    }

    /// How linear layers hold their weights; `None` is in the dtype.
    pub fn quantization(&self) -> Option<Quantization> {
        self.quantize
    }

    /// Threads in use.
    pub fn num_threads(&self) -> usize {
        self.pool.num_threads()
    }

    /// For measuring what this machine could do at best.
    pub fn roofline(&self) -> Result<Roofline<'_>> {
        Roofline::new(self.dispatch, self.bytes, &self.pool, self.dtype)
    }

    fn workspace(&self) -> MutexGuard<'_, Workspace> {
        // Its content means nothing between calls, so a panic of an earlier call cannot have spoiled it.
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for CpuBackend {
    type Linear = CpuLinear;
    type Vector = Vec<f32>;
    type Activation = CpuActivation;
    type KvCache = CpuKvCache;
    type Step = CpuStep;

    fn describe(&self) -> String {
        let threads = self.num_threads();
        let int8 = match self.quantize {
            None => String::new(),
            Some(Quantization::Int8) => format!(", int8 by {}", self.bytes.name()),
        };
        format!("cpu ({}, {threads} thread{}{int8})", self.isa(), if threads == 1 { "" } else { "s" })
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    /// Two registers of 16 lanes in the score kernel.
    fn block_size(&self) -> usize {
        32
    }

    fn free_kv_memory(&self) -> Result<Option<u64>> {
        Ok(host_kv_memory())
    }

    fn peak_rates(&self) -> Result<Option<PeakRates>> {
        let roofline = self.roofline()?;
        let measure = |_| PeakRates {
            read_bandwidth: roofline.read_bandwidth(),
            matrix_rate: match self.quantize {
                None => roofline.matrix_rate(),
                // Attention stays in the dtype.
                Some(Quantization::Int8) => roofline.byte_rate().max(roofline.matrix_rate()),
            },
        };
        Ok((0..PEAK_ROUNDS).map(measure).reduce(PeakRates::max))
    }

    fn linear_bytes(&self, weight: &CpuLinear) -> usize {
        weight.bytes()
    }

    fn load_linear(&self, weights: &[HostTensor<'_>], bias: &[HostTensor<'_>]) -> Result<CpuLinear> {
        match self.quantize {
            None => PackedLinear::pack(&self.pool, self.dtype, weights, bias).map(CpuLinear::Packed),
            Some(Quantization::Int8) => {
                Int8Weights::pack(self.dispatch, &self.pool, weights, bias).map(CpuLinear::Int8)
            }
        }
    }

    fn load_vector(&self, weight: &HostTensor<'_>) -> Result<Vec<f32>> {
        Ok(weight.to_f32())
    }

    fn alloc_activation(&self, rows: usize, cols: usize) -> Result<CpuActivation> {
        let data = Buffer::zeroed(rows.saturating_mul(cols), "an activation")?;
        // Any activation may be a linear layer's input.
        let bytes = input_bytes(rows, cols).max(int8::input_bytes(rows, cols));
        let mut workspace = self.workspace();
        if workspace.inputs.len() < bytes {
            workspace.inputs = Buffer::zeroed(bytes, "inputs of linear layers")?;
        }
        Ok(CpuActivation { rows, cols, data })
    }

    fn alloc_kv_cache(&self, layout: &KvLayout) -> Result<CpuKvCache> {
        let cache = CpuKvCache::new(layout, self.dtype)?;
        self.workspace().attention.reserve(self.pool.num_threads(), &cache)?;
        Ok(cache)
    }

    fn alloc_step(&self, limits: &StepLimits) -> Result<CpuStep> {
        Ok(CpuStep::with_capacity(limits.max_tokens))
    }

    fn begin_step(&self, step: &mut CpuStep, batch: &Batch, angles: &RopeAngles) -> Result<()> {
        step.fill(batch, angles);
        Ok(())
    }

    fn embed(&self, step: &CpuStep, table: &CpuLinear, out: &mut CpuActivation) -> Result<()> {
        rows::embed(&self.pool, &step.tokens, table, out.rows_mut(step.tokens.len()));
        Ok(())
    }

    fn rms_norm(
        &self,
        rows: usize,
        input: &CpuActivation,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut CpuActivation,
    ) -> Result<()> {
        RmsNorm { weight, eps, out: out.rows_mut(rows) }.run(self.dispatch, &self.pool, input.rows(rows));
        Ok(())
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        residual: &mut CpuActivation,
        delta: &CpuActivation,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut CpuActivation,
    ) -> Result<()> {
        RmsNorm { weight, eps, out: out.rows_mut(rows) }.run_with_sum(
            self.dispatch,
            &self.pool,
            residual.rows_mut(rows),
            delta.rows(rows),
        );
        Ok(())
    }

    fn linear(
        &self,
        rows: usize,
        input: &CpuActivation,
        weight: &CpuLinear,
        out: &mut CpuActivation,
    ) -> Result<()> {
        let workspace = &mut *self.workspace();
        let (input, out) = (input.rows(rows), out.rows_mut(rows));
        let (packed, scratch) = (&mut *workspace.inputs, &mut *workspace.scratch);
        match weight {
            CpuLinear::Packed(weight) => {
                Linear { rows, input, weight, out, packed, scratch }.run(self.dispatch, &self.pool);
            }
            CpuLinear::Int8(weight) => {
                Int8Linear { input, weight, out, packed, scratch }.run(self.dispatch, self.bytes, &self.pool);
            }
        }
        Ok(())
    }

    fn rotary_append(
        &self,
        step: &CpuStep,
        layer: usize,
        heads: &HeadLayout,
        norm: Option<QkNorm<'_, Vec<f32>>>,
        qkv: &mut CpuActivation,
        cache: &mut CpuKvCache,
    ) -> Result<()> {
        let norm = norm.map(|norm| HeadNorm { q: norm.q, k: norm.k, eps: norm.eps });
        let qkv = qkv.rows_mut(step.tokens.len());
        RotaryAppend { step, layer, heads, norm, qkv, cache }.run(self.dispatch, &self.pool);
        Ok(())
    }

    fn attention(
        &self,
        step: &CpuStep,
        params: &AttentionParams,
        qkv: &CpuActivation,
        cache: &CpuKvCache,
        out: &mut CpuActivation,
    ) -> Result<()> {
        let rows = step.tokens.len();
        let workspace = &mut *self.workspace();
        Attention {
            step,
            params,
            qkv: qkv.rows(rows),
            cache,
            out: out.rows_mut(rows),
            workspace: &mut workspace.attention,
            scratch: &mut workspace.scratch,
        }
        .run(self.dispatch, &self.pool);
        Ok(())
    }

    fn silu_mul(&self, rows: usize, gate_up: &CpuActivation, out: &mut CpuActivation) -> Result<()> {
        silu::silu_mul(self.dispatch, &self.pool, out.cols, gate_up.rows(rows), out.rows_mut(rows));
        Ok(())
    }

    fn gather_logits_rows(
        &self,
        step: &CpuStep,
        part: Range<usize>,
        input: &CpuActivation,
        out: &mut CpuActivation,
    ) -> Result<()> {
        assert_eq!(input.cols, out.cols, "input and output of the gather");
        let rows = &step.logits_rows[part];
        let out = out.rows_mut(rows.len());
        rows::gather(rows, input.cols, input.rows(step.tokens.len()), out);
        Ok(())
    }

    fn read<'a>(&self, rows: usize, activation: &'a mut CpuActivation) -> Result<&'a [f32]> {
        Ok(activation.rows(rows))
    }
}

#[cfg(test)]
mod tests;
