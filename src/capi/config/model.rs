//! The configuration of a model: what to load, and where it runs.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::backend::{DType, Device, Quantization};
use crate::error::{Error, Result};
use crate::model::LoadOptions;

/// What to load, and where it runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(in crate::capi) struct ModelConfig {
    /// The model's directory as Hugging Face lays it out (config.json, weights, tokenizer), or its name on the hub.
    pub path: String,
    /// Directory or hub name of a PEFT LoRA adapter to merge into the weights.
    pub adapter: Option<String>,
    /// Where downloads are cached; by default the usual Hugging Face cache.
    pub cache_dir: Option<PathBuf>,
    /// `auto`, `cpu`, `reference` (plain f32 loops), `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// Element type of weights and KV cache: `auto` (the checkpoint's), `bf16`, `f16` or `f32`.
    #[serde(default = "auto")]
    pub dtype: String,
    /// Weights of linear layers: `none` keeps them in `dtype`, `int8` makes 8-bit integers of them at load.
    #[serde(default = "none")]
    pub quantize: String,
    /// Worker threads on the CPU; by default one per available core.
    pub threads: Option<usize>,
    /// The longest context to serve, in tokens; by default the model's own.
    pub max_context: Option<usize>,
    /// Memory for the KV cache, in bytes; by default what one sequence at the full context needs.
    pub kv_memory: Option<u64>,
    /// The most prompt tokens computed in one step; by default the backend's choice.
    pub max_step_tokens: Option<usize>,
    /// The most generations decoded at once; by default as many as the KV cache holds.
    pub max_sequences: Option<usize>,
    /// Whether tokens are guessed by copying from the prompt and verified together, which changes no text.
    #[serde(default = "yes")]
    pub prompt_lookup: bool,
    /// Whether prompts that begin alike share their beginning's keys and values, which changes no text.
    #[serde(default = "yes")]
    pub prefix_cache: bool,
}

fn yes() -> bool {
    true
}

impl ModelConfig {
    /// The options in the library's own types.
    pub(in crate::capi) fn load_options(&self, adapter: Option<PathBuf>) -> Result<LoadOptions> {
        Ok(LoadOptions {
            device: self.device.parse()?,
            dtype: dtype(&self.dtype)?,
            quantize: Quantization::parse(&self.quantize)?,
            adapter,
            threads: self.threads,
            isa: None,
            kv_memory: self.kv_memory,
            max_context: self.max_context,
            max_step_tokens: self.max_step_tokens,
        })
    }
}

impl Config for ModelConfig {
    const KIND: &'static str = "model";

    fn check(&self) -> Result<()> {
        self.load_options(None)?;
        positive("threads", self.threads)?;
        positive("max_context", self.max_context)?;
        positive("max_step_tokens", self.max_step_tokens)?;
        positive("max_sequences", self.max_sequences)
    }
}

/// The default of keys whose value the library can choose.
fn auto() -> String {
    "auto".to_owned()
}

/// The default of `quantize`.
fn none() -> String {
    "none".to_owned()
}

/// `None` for `auto`.
fn dtype(text: &str) -> Result<Option<DType>> {
    match text {
        "auto" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            Error::invalid_argument("unknown dtype").with_expected("auto, bf16, f16 or f32", text)
        }),
    }
}

/// Refuses an unknown dtype.
pub(super) fn check_dtype(text: &str) -> Result<()> {
    dtype(text).map(|_| ())
}

/// Refuses an unknown device.
pub(super) fn check_device(text: &str) -> Result<()> {
    text.parse::<Device>().map(|_| ())
}

/// Refuses a zero where only a positive number makes sense.
pub(super) fn positive(key: &str, value: Option<usize>) -> Result<()> {
    match value {
        Some(0) => {
            Err(Error::invalid_argument(format!("`{key}` is out of range")).with_expected("at least 1", 0))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn defaults_are_filled_in() {
        let config: ModelConfig = parse("{\"path\": \"m\", \"dtype\": \"f32\"}").unwrap();
        assert_eq!(config.device, "auto");
        let options = config.load_options(None).unwrap();
        assert_eq!((options.dtype, options.quantize), (Some(DType::F32), None));
        let config: ModelConfig = parse("{\"path\": \"m\", \"quantize\": \"int8\"}").unwrap();
        assert_eq!(config.load_options(None).unwrap().quantize, Some(Quantization::Int8));
    }

    #[test]
    fn wrong_values_are_refused() {
        let cases = [
            ("{}", "incomplete"),
            (
                "{\"path\": \"m\", \"device\": \"tpu\"}",
                "expected auto, cpu, reference, cuda or cuda:N, got tpu",
            ),
            ("{\"path\": \"m\", \"dtype\": \"int4\"}", "expected auto, bf16, f16 or f32, got int4"),
            ("{\"path\": \"m\", \"quantize\": \"int4\"}", "expected none or int8, got int4"),
            ("{\"path\": \"m\", \"threads\": 0}", "`threads` is out of range: expected at least 1, got 0"),
        ];
        for (json, message) in cases {
            let error = parse::<ModelConfig>(json).unwrap_err();
            assert!(error.to_string().contains(message), "{json}: {error}");
        }
    }
}
