//! The weights that a model loads: a checkpoint, with an adapter merged into what it targets.

use super::TensorSource;
use super::lora::LoraAdapter;
use super::weights::Checkpoint;
use crate::backend::HostTensor;
use crate::error::{Error, Result};

/// How many base weights an error lists that an adapter wants and the model lacks.
const MAX_LISTED: usize = 10;

/// A checkpoint and the adapter on top of it.
pub struct WeightSource {
    checkpoint: Checkpoint,
    adapter: Option<LoraAdapter>,
}

impl WeightSource {
    /// Puts an adapter on a checkpoint.
    ///
    /// # Errors
    /// `InvalidData` listing the base weights that the adapter targets and the checkpoint lacks.
    pub fn new(checkpoint: Checkpoint, adapter: Option<LoraAdapter>) -> Result<Self> {
        if let Some(adapter) = &adapter {
            let mut lacking = adapter.target_names();
            lacking.retain(|name| checkpoint.info(name).is_none());
            if !lacking.is_empty() {
                let listed = lacking[..lacking.len().min(MAX_LISTED)].join(", ");
                let more = match lacking.len().saturating_sub(MAX_LISTED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                return Err(Error::invalid_data(format!(
                    "the adapter targets {} weights that the model lacks: {listed}{more}",
                    lacking.len()
                ))
                .with_path(adapter.dir())
                .with_hint("check that the adapter was trained on this base model"));
            }
        }
        Ok(Self { checkpoint, adapter })
    }

    /// The checkpoint below the adapter.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl TensorSource for WeightSource {
    /// A tensor of this shape: borrowed from the checkpoint, or an f32 copy with the adapter merged.
    ///
    /// # Errors
    /// `InvalidData` naming both shapes when they differ, and those of [`Checkpoint::tensor`] and [`LoraAdapter::merge`].
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        if let Some(info) = self.checkpoint.info(name)
            && info.shape != shape
        {
            return Err(Error::invalid_data(format!(
                "tensor `{name}` has another shape than the model needs"
            ))
            .with_expected(format_args!("{shape:?}"), format_args!("{:?}", info.shape)));
        }
        let base = self.checkpoint.tensor(name)?;
        match &self.adapter {
            Some(adapter) if adapter.targets(name) => adapter.merge(name, &base),
            _ => Ok(base),
        }
    }

    /// See [`Checkpoint::prefetch`].
    fn prefetch(&self, name: &str) {
        self.checkpoint.prefetch(name);
    }

    /// Tells that a tensor is copied and its pages are not needed any more; see [`Checkpoint::release`].
    fn release(&self, name: &str) {
        self.checkpoint.release(name);
    }
}
