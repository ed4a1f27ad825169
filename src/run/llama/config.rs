//! What a local-model run is asked to do; the keys are the flags of `swebench-cli run-llama`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::{DType, Device, Quantization};
use crate::engine::{Sampling, StopRules};
use crate::error::{Error, Result};
use crate::model::LoadOptions;
use crate::patch::Mode;
use crate::run::names::LlamaRunName;
use crate::run::shard::{Shard, ShardMode};

/// The repetition rule of the reference: the last 100 tokens hold at most this many distinct ones.
const REPETITION_DISTINCT: usize = 10;

/// Which instances come first, by the length of their prompts; equal ones by their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunOrder {
    /// Most predictions come early.
    ShortestFirst,
    /// No long prompt is left for the end, where it would run alone.
    LongestFirst,
}

/// A run of a local model over a dataset. Keys that are left out have the values of [`RunLlamaConfig::default`], which are
/// the reference's where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunLlamaConfig {
    /// Directory or hub name of the model. Required.
    pub model_name_or_path: String,
    /// Directory or hub name of a PEFT LoRA adapter; none by default.
    pub peft_path: Option<String>,
    /// Path or hub name of a dataset with `text` or `input_ids`. Required.
    pub dataset_path: String,
    /// The dataset's split; `test` by default.
    pub split: String,
    /// Where the predictions file goes; `./outputs` by default.
    pub output_dir: PathBuf,
    /// Only these instances; all by default.
    pub instance_ids: Option<Vec<String>>,

    /// Sampling temperature, 0 (greedy) by default.
    pub temperature: f64,
    /// Nucleus threshold in (0, 1], 1 (off) by default.
    pub top_p: f64,
    /// Only the k most probable tokens; 0 (off) by default.
    pub top_k: usize,
    /// Seed of every instance's sampling; chosen by the system by default.
    pub seed: Option<u64>,
    /// Most tokens to generate for an instance; 1024 by default.
    pub max_new_tokens: usize,
    /// Strings that end a generation and are not part of it; none by default.
    pub stop: Vec<String>,
    /// Whether a generation ends when its last 100 tokens hold at most 10 distinct ones; true by default.
    pub repetition_stop: bool,
    /// The rules by which patches are found: `robust`, which also mends the counts of their hunks, or `legacy`, the
    /// reference's byte for byte; `robust` by default.
    pub patch_mode: Mode,

    /// Which instances come first: `shortest_first`, as in the reference, by default.
    pub order: RunOrder,
    /// Skip prompts of fewer tokens; no limit by default.
    pub min_len: Option<usize>,
    /// Skip prompts of this many tokens and more; no limit by default.
    pub max_len: Option<usize>,
    /// Work on this part of the dataset, from 0; needs `num_shards`.
    pub shard_id: Option<usize>,
    /// The number of parts.
    pub num_shards: Option<usize>,
    /// `auto` finds the part in the environment of a cluster job instead of `shard_id`.
    pub shard: Option<ShardMode>,

    /// `auto`, `cpu`, `reference`, `cuda` or `cuda:N`; `auto` by default.
    pub device: String,
    /// Type of weights and KV cache: `auto` (the checkpoint's), `f32`, `bf16` or `f16`; `auto` by default.
    pub dtype: String,
    /// Weights of linear layers: `none` keeps them in `dtype`, `int8` makes 8-bit integers of them; `none` by default.
    pub quantize: String,
    /// Worker threads; one per available core by default.
    pub threads: Option<usize>,
    /// Most instances generated at once; as many as the KV cache holds by default.
    pub batch_size: Option<usize>,
    /// Whether tokens are guessed by copying from the prompt and verified together, which changes no text; true by default.
    pub prompt_lookup: bool,
    /// Whether prompts that begin alike share their beginning's keys and values, which changes no text; true by default.
    pub prefix_cache: bool,
    /// Bytes for the KV cache; chosen by the model's loader by default.
    pub kv_memory: Option<u64>,
    /// Longest context to serve, in tokens; the model's by default.
    pub max_context: Option<usize>,
    /// Most query tokens of one step; chosen by the model's loader by default.
    pub max_step_tokens: Option<usize>,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl Default for RunLlamaConfig {
    fn default() -> Self {
        Self {
            model_name_or_path: String::new(),
            peft_path: None,
            dataset_path: String::new(),
            split: "test".into(),
            output_dir: "./outputs".into(),
            instance_ids: None,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: None,
            max_new_tokens: 1024,
            stop: Vec::new(),
            repetition_stop: true,
            patch_mode: Mode::Robust,
            order: RunOrder::ShortestFirst,
            min_len: None,
            max_len: None,
            shard_id: None,
            num_shards: None,
            shard: None,
            device: "auto".into(),
            dtype: "auto".into(),
            quantize: "none".into(),
            threads: None,
            batch_size: None,
            prompt_lookup: true,
            prefix_cache: true,
            kv_memory: None,
            max_context: None,
            max_step_tokens: None,
            cache_dir: None,
        }
    }
}

impl RunLlamaConfig {
    /// Checks everything that needs no file, network or environment.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key, what it may be, and what it is.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in
            [("model_name_or_path", &self.model_name_or_path), ("dataset_path", &self.dataset_path)]
        {
            if value.is_empty() {
                return Err(out_of_range(key, "a path or a name on the hub", "nothing"));
            }
        }
        if self.peft_path.as_deref() == Some("") {
            return Err(out_of_range("peft_path", "a path or a name on the hub", "an empty string"));
        }
        // The split becomes part of a file name.
        if self.split.is_empty() || self.split.contains(['/', '\0']) {
            return Err(out_of_range(
                "split",
                "a name such as `test`",
                format!("`{}`", self.split.escape_debug()),
            ));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(out_of_range("temperature", "0 or more", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(out_of_range("top_p", "more than 0 and at most 1", self.top_p));
        }
        for (key, value) in [
            ("max_new_tokens", Some(self.max_new_tokens)),
            ("threads", self.threads),
            ("batch_size", self.batch_size),
            ("max_context", self.max_context),
            ("max_step_tokens", self.max_step_tokens),
        ] {
            if value == Some(0) {
                return Err(out_of_range(key, "at least 1", 0));
            }
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(out_of_range("stop", "strings that are not empty", "an empty string"));
        }
        if let (Some(min_len), Some(max_len)) = (self.min_len, self.max_len)
            && min_len >= max_len
        {
            return Err(out_of_range("min_len", format!("less than max_len ({max_len})"), min_len));
        }
        self.device()?;
        self.dtype()?;
        Quantization::parse(&self.quantize)?;
        Shard::choose(self.shard, self.shard_id, self.num_shards).map(drop)
    }

    /// The part of the dataset, with a cluster's environment behind `lookup` where `shard` is `auto`; `None` is all of it.
    ///
    /// # Errors
    /// `InvalidArgument` as [`RunLlamaConfig::validate`] and [`Shard::from_environment`].
    pub fn resolve_shard(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Shard>> {
        Shard::choose(self.shard, self.shard_id, self.num_shards)?.resolve(lookup, self.num_shards)
    }

    /// How the run is named.
    pub fn name(&self, shard: Option<Shard>) -> LlamaRunName<'_> {
        LlamaRunName {
            model_name_or_path: &self.model_name_or_path,
            peft_path: self.peft_path.as_deref(),
            dataset_path: &self.dataset_path,
            split: &self.split,
            temperature: self.temperature,
            top_p: self.top_p,
            min_len: self.min_len,
            max_len: self.max_len,
            shard,
        }
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature as f32,
            top_p: self.top_p as f32,
            top_k: self.top_k,
            seed: self.seed,
        }
    }

    /// When generations end, with the model's EOS ids.
    pub fn stop_rules(&self, eos_token_ids: Vec<u32>) -> StopRules {
        StopRules {
            max_new_tokens: self.max_new_tokens,
            eos_token_ids,
            stop_strings: self.stop.clone(),
            repetition_distinct: if self.repetition_stop { REPETITION_DISTINCT } else { 0 },
        }
    }

    /// How the model is loaded, with the directory of its adapter.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown device, dtype or quantization.
    pub fn load_options(&self, adapter: Option<PathBuf>) -> Result<LoadOptions> {
        Ok(LoadOptions {
            device: self.device()?,
            dtype: self.dtype()?,
            quantize: Quantization::parse(&self.quantize)?,
            adapter,
            threads: self.threads,
            isa: None,
            kv_memory: self.kv_memory,
            max_context: self.max_context,
            max_step_tokens: self.max_step_tokens,
        })
    }

    fn device(&self) -> Result<Device> {
        self.device.parse()
    }

    fn dtype(&self) -> Result<Option<DType>> {
        if self.dtype == "auto" {
            return Ok(None);
        }
        self.dtype.parse().map(Some).map_err(|_: Error| {
            Error::invalid_argument("unknown dtype")
                .with_expected("auto, f32, bf16 or f16", format!("`{}`", self.dtype.escape_debug()))
        })
    }
}

fn out_of_range(key: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("`{key}` is out of range")).with_expected(expected, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<RunLlamaConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn left_out_keys_have_the_defaults_of_the_reference() {
        let config = parse(r#"{"model_name_or_path": "m", "dataset_path": "d", "temperature": 0}"#).unwrap();
        config.validate().unwrap();
        assert_eq!(config.name(None).file_name(), "d__test__m__temp-0.0__top-p-1.0.jsonl");
        assert_eq!(config.sampling(), Sampling::default());
        assert_eq!(
            config.stop_rules(vec![2]),
            StopRules {
                max_new_tokens: 1024,
                eos_token_ids: vec![2],
                stop_strings: vec![],
                repetition_distinct: 10
            }
        );
        let options = config.load_options(None).unwrap();
        assert_eq!((options.device, options.dtype), (Device::Auto, None));
    }

    #[test]
    fn a_configuration_survives_the_way_through_json() {
        let config =
            RunLlamaConfig { seed: Some(u64::MAX), shard: Some(ShardMode::Auto), ..Default::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(parse(&json).unwrap(), config);
    }

    #[test]
    fn unknown_keys_and_negative_counts_are_refused() {
        let error = parse(r#"{"tempreature": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `tempreature`") && error.contains("`temperature`"), "{error}");
        assert!(parse(r#"{"shard_id": -1}"#).is_err());
        assert!(parse(r#"{"shard": "3/4"}"#).is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut RunLlamaConfig), expected: &str) {
            let mut config = RunLlamaConfig {
                model_name_or_path: "m".into(),
                dataset_path: "d".into(),
                ..RunLlamaConfig::default()
            };
            config.validate().unwrap();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), expected);
        }
        check(
            |config| config.model_name_or_path.clear(),
            "`model_name_or_path` is out of range: expected a path or a name on the hub, got nothing",
        );
        check(
            |config| config.temperature = -0.5,
            "`temperature` is out of range: expected 0 or more, got -0.5",
        );
        check(
            |config| config.temperature = f64::NAN,
            "`temperature` is out of range: expected 0 or more, got NaN",
        );
        check(
            |config| config.top_p = 0.0,
            "`top_p` is out of range: expected more than 0 and at most 1, got 0",
        );
        check(
            |config| config.batch_size = Some(0),
            "`batch_size` is out of range: expected at least 1, got 0",
        );
        check(
            |config| (config.min_len, config.max_len) = (Some(5), Some(5)),
            "`min_len` is out of range: expected less than max_len (5), got 5",
        );
        check(
            |config| config.split = "../x".into(),
            "`split` is out of range: expected a name such as `test`, got `../x`",
        );
        check(
            |config| config.dtype = "int8".into(),
            "unknown dtype: expected auto, f32, bf16 or f16, got `int8`",
        );
        check(
            |config| config.quantize = "int4".into(),
            "unknown quantization: expected none or int8, got int4",
        );
        check(
            |config| config.device = "tpu".into(),
            "unknown device: expected auto, cpu, reference, cuda or cuda:N, got tpu",
        );
        check(|config| config.shard_id = Some(1), "`shard_id` needs `num_shards`");
        check(
            |config| config.num_shards = Some(1),
            "`num_shards` needs `shard_id`, or `shard` set to `auto`",
        );
        check(
            |config| (config.shard_id, config.num_shards) = (Some(2), Some(2)),
            "the shard's number is out of range: expected shard_id below num_shards (2), got 2",
        );
        check(
            |config| (config.shard_id, config.shard) = (Some(2), Some(ShardMode::Auto)),
            "`shard_id` and `shard` set to `auto` exclude each other",
        );
    }

    #[test]
    fn an_automatic_shard_comes_from_the_environment() {
        let config =
            RunLlamaConfig { shard: Some(ShardMode::Auto), num_shards: Some(4), ..RunLlamaConfig::default() };
        let lookup = |name: &str| (name == "JOB_COMPLETION_INDEX").then(|| "3".to_owned());
        assert_eq!(config.resolve_shard(&lookup).unwrap(), Some(Shard::new(3, 4).unwrap()));
        assert!(config.resolve_shard(&|_| None).is_err());
    }
}
