//! PEFT LoRA adapters, merged into the base weights in f32 when they are loaded.

use std::path::Path;

use crate::backend::HostTensor;
use crate::error::Result;

/// An adapter directory: `adapter_config.json` with `adapter_model.safetensors` or `adapter_model.bin`.
pub struct LoraAdapter {}

impl LoraAdapter {
    /// Opens an adapter; what cannot be merged exactly (DoRA, `modules_to_save`, biases) is refused by name.
    pub fn open(dir: &Path) -> Result<Self> {
        let _ = dir;
        todo!()
    }

    /// The base model that the adapter says it was trained on.
    pub fn base_model(&self) -> Option<&str> {
        todo!()
    }

    /// Whether the adapter changes the weight of this checkpoint name (`model.layers.0.self_attn.q_proj.weight`).
    pub fn targets(&self, name: &str) -> bool {
        let _ = name;
        todo!()
    }

    /// `base + scale · B·A` in f32.
    pub fn merge(&self, name: &str, base: &HostTensor<'_>) -> Result<HostTensor<'static>> {
        let _ = (name, base);
        todo!()
    }

    /// Names of base weights that the adapter targets; an error lists those that the model lacks.
    pub fn target_names(&self) -> Vec<&str> {
        todo!()
    }
}
