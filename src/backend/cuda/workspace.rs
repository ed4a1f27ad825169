//! What kernels work in beside activations, sized when a model is loaded, and how much memory went where.

use std::fmt;
use std::sync::Arc;

use super::launch::{DecodeWorkspace, SkinnyWorkspace};
use super::launcher::Launcher;
use crate::error::Result;

/// Memory of the kernels that split their work.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Of the product for few rows.
    pub(super) skinny: SkinnyWorkspace,
    /// Of decode attention.
    pub(super) decode: DecodeWorkspace,
    /// What has been allocated for the model.
    pub(super) usage: MemoryUsage,
}

impl Workspace {
    /// Without room yet.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(launcher: &Arc<dyn Launcher>) -> Result<Self> {
        Ok(Self {
            skinny: SkinnyWorkspace::new(launcher)?,
            decode: DecodeWorkspace::new(launcher)?,
            usage: MemoryUsage::default(),
        })
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> usize {
        self.skinny.bytes() + self.decode.bytes()
    }
}

/// Bytes of device memory by what they are for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MemoryUsage {
    /// Linear layers and norms.
    pub(super) weights: usize,
    /// Activations, steps' metadata and what kernels work in.
    pub(super) workspace: usize,
    /// Keys and values.
    pub(super) kv_cache: usize,
}

impl fmt::Display for MemoryUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "weights {:.2} GiB, activations and workspaces {:.2} GiB, KV cache {:.2} GiB",
            gib(self.weights),
            gib(self.workspace),
            gib(self.kv_cache)
        )
    }
}
