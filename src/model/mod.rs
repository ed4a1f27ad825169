//! The Llama-family decoder: configuration, weights, adapters, rotary embeddings and the forward pass.
//!
//! A model sees one [`Batch`] at a time and never a sequence's history.

pub mod config;
pub mod llama;
pub mod lora;
pub mod rope;
pub mod source;
pub mod weights;

mod cost;
mod head_padding;
mod load;
mod random;

pub use config::ModelConfig;
pub use cost::StepCost;
pub use load::{ISA_VARIABLE, LoadOptions, load, load_random};
pub use random::RandomWeights;
pub use source::WeightSource;

use crate::backend::{Batch, DType, HostTensor, KvLayout, PeakRates};
use crate::error::Result;

/// Where weights come from, by their checkpoint names.
pub trait TensorSource {
    /// The tensor, in any float dtype.
    ///
    /// # Errors
    /// `InvalidData` when it is missing or has another shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>>;

    /// Tells that the tensor will be read soon.
    fn prefetch(&self, _name: &str) {}

    /// Tells that the tensor will not be read again.
    fn release(&self, _name: &str) {}
}

/// A loaded model with its KV cache, without its type of backend.
pub trait Decoder: Send {
    /// The model's configuration.
    fn config(&self) -> &ModelConfig;

    /// Backend and instruction set or device, for people.
    fn backend(&self) -> String;

    /// Element type of weights and KV cache, before any quantisation.
    fn dtype(&self) -> DType {
        self.config().dtype.unwrap_or(DType::F32)
    }

    /// Bytes of memory that the weights take; 0 for a decoder without.
    fn weight_bytes(&self) -> usize {
        0
    }

    /// What a step costs at least; nothing for a decoder that does not compute.
    fn cost(&self, _batch: &Batch) -> StepCost {
        StepCost::default()
    }

    /// Measures what the device can do at best; `None` where that is unknown.
    ///
    /// # Errors
    /// `OutOfMemory` without room for the measurement.
    fn peak_rates(&self) -> Result<Option<PeakRates>> {
        Ok(None)
    }

    /// Shape of the KV cache; physical blocks are numbered from 0.
    fn kv_layout(&self) -> &KvLayout;

    /// The most query tokens that one step may hold.
    fn max_step_tokens(&self) -> usize;

    /// Most tokens of one sequence, prompt and generated: the model's limit, or less when asked for at load.
    fn max_context(&self) -> usize {
        self.config().context_len()
    }

    /// Runs one step and returns f32 logits `[batch.logits_rows().len(), vocab_size]`.
    ///
    /// # Errors
    /// `InvalidArgument` for a token id outside the vocabulary, `Device` or `OutOfMemory` from the backend.
    fn step(&mut self, batch: &Batch) -> Result<&[f32]>;
}
