//! From a model directory to a [`Decoder`]: configuration, checkpoint, adapter, backend.

use std::path::{Path, PathBuf};

use super::Decoder;
use crate::backend::{DType, Device};
use crate::error::Result;

/// What to load and how.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where to run.
    pub device: Device,
    /// Element type of weights and KV cache; `None` takes the checkpoint's.
    pub dtype: Option<DType>,
    /// A PEFT LoRA adapter to merge.
    pub adapter: Option<PathBuf>,
    /// Worker threads; `None` takes one per available core.
    pub threads: Option<usize>,
    /// Bytes for the KV cache; `None` takes what one sequence at the full context needs, within the free memory.
    pub kv_memory: Option<u64>,
    /// The longest context to serve; `None` takes the model's.
    pub max_context: Option<usize>,
    /// Most query tokens of one step.
    pub max_step_tokens: Option<usize>,
}

/// Loads the model in `dir`.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Decoder>> {
    let _ = (dir, options);
    todo!()
}
