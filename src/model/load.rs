//! From a model directory to a [`Decoder`]: configuration, checkpoint, adapter, backend.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::llama::{Limits, Llama};
use super::lora::LoraAdapter;
use super::weights::Checkpoint;
use super::{Decoder, ModelConfig, RandomWeights, TensorSource, WeightSource};
use crate::backend::cpu::{CpuBackend, CpuOptions, Isa};
use crate::backend::cuda::{CudaBackend, CudaDevice, cuda_is_expected};
use crate::backend::reference::ReferenceBackend;
use crate::backend::{Backend, DType, Device, KvLayout, Quantization};
use crate::error::{Error, ErrorKind, Result};

/// Full contexts beyond which more KV cache would hardly be used, by default.
const DEFAULT_CONTEXTS: usize = 32;

/// The environment variable that forces an instruction set on the CPU kernels: `portable`, `avx2`, `avx512`,
/// `avx512-bf16` or `amx`; empty is as unset. For tests and measurements.
pub const ISA_VARIABLE: &str = "SWEBENCH_CPU_ISA";

/// What to load and how.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where to run.
    pub device: Device,
    /// Element type of weights and KV cache; `None` takes the checkpoint's.
    pub dtype: Option<DType>,
    /// How linear layers hold their weights, made at load; `None` is in `dtype`.
    pub quantize: Option<Quantization>,
    /// A PEFT LoRA adapter to merge.
    pub adapter: Option<PathBuf>,
    /// Worker threads; `None` takes one per available core.
    pub threads: Option<usize>,
    /// Instruction set of the CPU kernels; `None` takes the one that the environment variable [`ISA_VARIABLE`] names, and
    /// without it the fastest of this machine.
    pub isa: Option<Isa>,
    /// Bytes for the KV cache; `None` takes what 32 full contexts need, within what is free when the weights are loaded: three quarters of it on the
    /// CPU, where pages that nothing has been written to take no memory, and nearly all on a CUDA device.
    pub kv_memory: Option<u64>,
    /// The longest context to serve, prompt and generated tokens; `None`, and more than the model's, take the model's.
    pub max_context: Option<usize>,
    /// Most query tokens of one step; `None` takes 512 on the CPU, and 2048 on a CUDA device.
    pub max_step_tokens: Option<usize>,
}

/// Loads the model in `dir`.
///
/// # Errors
/// `NotFound` and `InvalidData` name the file and the tensors, `Unsupported` the architecture or option, `Device` what was
/// looked for, `OutOfMemory` the bytes asked for.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Decoder>> {
    let config = ModelConfig::open(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let tied = config.tie_word_embeddings;
    // Old checkpoints store frequencies, and tied ones may store the head again; both are derived here.
    let ignore = |name: &str| name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
    checkpoint.check(&config.tensors(), &ignore).map_err(|error| error.with_path(dir))?;
    let dtype = options.dtype.or(config.dtype).or_else(|| stored_dtype(&checkpoint)).unwrap_or(DType::BF16);
    let adapter = options.adapter.as_deref().map(LoraAdapter::open).transpose()?;
    if let Some(base) = adapter.as_ref().and_then(LoraAdapter::base_model)
        && file_name(Path::new(base)) != file_name(dir)
    {
        log::warn!("the adapter was trained on `{base}`, and is merged into `{}`", dir.display());
    }
    let source = WeightSource::new(checkpoint, adapter)?;
    log::info!("loading {} ({:.2} B parameters)", dir.display(), config.num_parameters() as f64 / 1e9);
    decoder(config, &source, dtype, options)
}

/// Makes a model with random weights from its configuration alone, for benchmarks.
///
/// # Errors
/// As [`load`], but for the checkpoint's.
pub fn load_random(config: ModelConfig, options: &LoadOptions) -> Result<Box<dyn Decoder>> {
    let dtype = options.dtype.or(config.dtype).unwrap_or(DType::BF16);
    decoder(config, &RandomWeights::new(dtype), dtype, options)
}

fn decoder(
    config: ModelConfig,
    source: &dyn TensorSource,
    dtype: DType,
    options: &LoadOptions,
) -> Result<Box<dyn Decoder>> {
    match options.device {
        Device::Auto => {
            if cuda_is_expected() {
                let loaded = on_cuda(0, config.clone(), source, dtype, options);
                if let Some(loaded) = unless_the_cpu_may_do_it(loaded) {
                    return loaded;
                }
            }
            on_cpu(config, source, dtype, options)
        }
        Device::Cpu => on_cpu(config, source, dtype, options),
        Device::Reference => {
            let backend = ReferenceBackend::new(dtype).with_quantization(options.quantize);
            on_backend(backend, config, source, options)
        }
        Device::Cuda(ordinal) => on_cuda(ordinal, config, source, dtype, options),
    }
}

fn on_cpu(
    config: ModelConfig,
    source: &dyn TensorSource,
    dtype: DType,
    options: &LoadOptions,
) -> Result<Box<dyn Decoder>> {
    let isa = match options.isa {
        Some(isa) => Some(isa),
        None => isa_named_by(env::var_os(ISA_VARIABLE).as_deref())?,
    };
    let LoadOptions { threads, quantize, .. } = *options;
    on_backend(CpuBackend::new(CpuOptions { dtype, threads, isa, quantize })?, config, source, options)
}

/// A checkpoint in f32 becomes bf16, which the device computes in; who asks for f32 is told that it does not.
fn on_cuda(
    ordinal: u32,
    config: ModelConfig,
    source: &dyn TensorSource,
    dtype: DType,
    options: &LoadOptions,
) -> Result<Box<dyn Decoder>> {
    let device = CudaDevice::open(ordinal)?;
    if options.quantize.is_some() {
        return Err(Error::unsupported("8-bit weights run on the CPU alone")
            .with_hint("leave --quantize out, or use --device cpu"));
    }
    let dtype = match (options.dtype, dtype) {
        (None, DType::F32) => DType::BF16,
        _ => dtype,
    };
    on_backend(CudaBackend::new(device, dtype)?, config, source, options)
}

/// What loading on a device that was not asked for gave; `None`, and a warning, where it is the device that cannot do it.
fn unless_the_cpu_may_do_it<T>(loaded: Result<T>) -> Option<Result<T>> {
    match loaded {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Device | ErrorKind::Unsupported | ErrorKind::OutOfMemory
            ) =>
        {
            log::warn!("running on the CPU, for the CUDA device cannot be used: {}", error.to_line());
            None
        }
        loaded => Some(loaded),
    }
}

fn on_backend<B: Backend>(
    backend: B,
    config: ModelConfig,
    source: &dyn TensorSource,
    options: &LoadOptions,
) -> Result<Box<dyn Decoder>> {
    let LoadOptions { max_step_tokens, max_context, .. } = *options;
    let limits = Limits { max_step_tokens, max_context, block_size: None };
    let context = config.context_len().min(max_context.unwrap_or(usize::MAX));
    let num_blocks = |backend: &B, layout: &KvLayout| num_blocks(backend, layout, context, options);
    Ok(Box::new(Llama::load(backend, config, source, limits, num_blocks)?))
}

/// Sizes the KV cache for contexts of `context` tokens; called when all else is in memory, so that what is free is known.
fn num_blocks<B: Backend>(
    backend: &B,
    layout: &KvLayout,
    context: usize,
    options: &LoadOptions,
) -> Result<usize> {
    let block_size = layout.block_size;
    let block_bytes = (layout.elements_per_token() * backend.dtype().size() * block_size) as u64;
    let free = backend.free_kv_memory()?;
    let blocks = match options.kv_memory {
        Some(bytes) => bytes / block_bytes,
        None => {
            let wanted = (context.div_ceil(block_size) * DEFAULT_CONTEXTS) as u64;
            free.map_or(wanted, |bytes| wanted.min(bytes / block_bytes))
        }
    };
    let num_blocks = usize::try_from(blocks).unwrap_or(usize::MAX).min(u32::MAX as usize);
    if num_blocks == 0 {
        return Err(Error::new(ErrorKind::OutOfMemory, "no room for the KV cache")
            .with_expected(
                format_args!("at least {block_bytes} bytes"),
                options.kv_memory.or(free).unwrap_or_default(),
            )
            .with_hint("give it more memory with --kv-memory"));
    }
    Ok(num_blocks)
}

/// The instruction set that the value of [`ISA_VARIABLE`] names.
fn isa_named_by(value: Option<&OsStr>) -> Result<Option<Isa>> {
    match value.map(OsStr::to_string_lossy) {
        None => Ok(None),
        Some(name) if name.is_empty() => Ok(None),
        Some(name) => name.parse().map(Some).map_err(|error: Error| {
            error.with_hint(format!("the environment variable {ISA_VARIABLE} names it"))
        }),
    }
}

fn stored_dtype(checkpoint: &Checkpoint) -> Option<DType> {
    checkpoint.info("model.embed_tokens.weight").map(|info| info.dtype)
}

fn file_name(path: &Path) -> Option<&OsStr> {
    path.file_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_asked_for_limits_the_models_own() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/goldens");
        for (case, asked, context) in [
            ("llama", None, ModelConfig::open(&dir.join("llama")).unwrap().max_position_embeddings),
            ("rope-dynamic", None, 64),
            ("rope-dynamic", Some(40), 40),
            ("rope-dynamic", Some(1000), 64),
        ] {
            let options =
                LoadOptions { device: Device::Reference, max_context: asked, ..LoadOptions::default() };
            let decoder = load(&dir.join(case), &options).unwrap();
            assert_eq!(decoder.max_context(), context, "{case}, {asked:?}");
            let KvLayout { block_size, num_blocks, .. } = *decoder.kv_layout();
            assert_eq!(num_blocks, context.div_ceil(block_size) * DEFAULT_CONTEXTS, "{case}, {asked:?}");
        }
    }

    #[test]
    fn the_cpu_stands_in_for_a_device_that_fails_and_for_nothing_else() {
        for kind in [ErrorKind::Device, ErrorKind::Unsupported, ErrorKind::OutOfMemory] {
            assert!(unless_the_cpu_may_do_it::<()>(Err(Error::new(kind, "no"))).is_none(), "{kind:?}");
        }
        let broken = unless_the_cpu_may_do_it::<()>(Err(Error::invalid_data("a broken checkpoint")));
        assert_eq!(broken.unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(unless_the_cpu_may_do_it(Ok(())).unwrap().is_ok());
    }

    #[test]
    fn the_variable_names_an_instruction_set_or_nothing() {
        let named = |value: Option<&str>| isa_named_by(value.map(OsStr::new));
        assert_eq!(named(None).unwrap(), None);
        assert_eq!(named(Some("")).unwrap(), None);
        assert_eq!(named(Some("portable")).unwrap(), Some(Isa::Portable));
        assert_eq!(named(Some("amx")).unwrap(), Some(Isa::Amx));
        let line = named(Some("sse9")).unwrap_err().to_line();
        assert!(line.contains("sse9") && line.contains("portable"), "{line}");
    }
}
