//! `config.json`: read as written, in the old and the new spelling, and resolved once into a [`ModelConfig`].

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::rope::{RopeConfig, RopeScaling};
use crate::backend::{DType, HeadLayout};
use crate::error::{Error, Result};

/// A `config.json` larger than this is not one.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Upper bound of every dimension, far above any published model: arithmetic on dimensions cannot overflow.
const MAX_DIMENSION: usize = 1 << 24;

/// The families of decoders that [`super::llama`] computes; they differ in biases, norms, windows and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1, 2 and 3.x, CodeLlama, SWE-Llama.
    Llama,
    /// Mistral and Devstral: sliding window in every layer.
    Mistral,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: RMSNorm on every query and key head.
    Qwen3,
}

impl Architecture {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Llama, "LlamaForCausalLM", "llama"),
        (Self::Mistral, "MistralForCausalLM", "mistral"),
        (Self::Qwen2, "Qwen2ForCausalLM", "qwen2"),
        (Self::Qwen3, "Qwen3ForCausalLM", "qwen3"),
    ];

    /// The class name in `config.json`'s `architectures`.
    pub fn class_name(self) -> &'static str {
        Self::ALL.iter().find(|(architecture, ..)| *architecture == self).map_or("", |(_, class, _)| class)
    }
}

/// Everything about a model that is not a weight, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Rows of the embedding; the tokenizer may have fewer ids.
    pub vocab_size: usize,
    /// The longest context that the model was made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Sliding window of each layer; `None` sees the whole context.
    pub windows: Vec<Option<usize>>,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of the attention has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalised per head.
    pub qk_norm: bool,
    /// Element type that the configuration states.
    pub dtype: Option<DType>,
}

impl ModelConfig {
    /// Reads `config.json` in a model directory.
    ///
    /// # Errors
    /// `NotFound` without the file, `InvalidData` for values that make no sense, `Unsupported` naming the architecture or
    /// RoPE type and what is supported.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let size = fs::metadata(&path).map_err(|source| {
            Error::io("read the model's configuration", &path, source).with_hint(
                "a model is a directory as Hugging Face lays it out: config.json, weights, tokenizer",
            )
        })?;
        if size.len() > MAX_CONFIG_BYTES {
            return Err(Error::invalid_data("configuration is too large")
                .with_path(&path)
                .with_expected(format_args!("at most {MAX_CONFIG_BYTES} bytes"), size.len()));
        }
        let text = fs::read_to_string(&path)
            .map_err(|source| Error::io("read the model's configuration", &path, source))?;
        Self::parse(&text).map_err(|error| error.with_path(&path))
    }

    /// Parses the text of a `config.json`.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|source| Error::invalid_data("configuration is not valid JSON").with_source(source))?;
        let Value::Object(map) = value else {
            return Err(Error::invalid_data("configuration is not a JSON object"));
        };
        resolve(&Fields(&map))
    }

    /// Head counts, and where the parts of a fused QKV row are.
    pub fn heads(&self) -> HeadLayout {
        HeadLayout { num_heads: self.num_heads, num_kv_heads: self.num_kv_heads, head_dim: self.head_dim }
    }

    /// The longest context that can be served: with dynamic or YaRN scaling it may exceed `max_position_embeddings`.
    pub fn context_len(&self) -> usize {
        let limit = self.max_position_embeddings;
        let scaled = match self.rope.scaling {
            // Whole tokens; a factor below 1 or beyond all bounds saturates.
            RopeScaling::DynamicNtk { factor, .. } => (limit as f64 * factor) as usize,
            RopeScaling::Yarn { factor, original_max_position_embeddings: original, .. } => {
                (original as f64 * factor) as usize
            }
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => limit,
        };
        scaled.clamp(limit, MAX_DIMENSION.max(limit))
    }

    /// Prompts of equal class have equal keys and values for equal first tokens, whatever follows.
    ///
    /// Dynamic NTK scaling rotates the tokens of a prompt for its whole length, once that exceeds the model's limit.
    pub fn rotation_class(&self, prompt_len: usize) -> usize {
        match self.rope.scaling {
            RopeScaling::DynamicNtk { max_position_embeddings, .. }
                if prompt_len > max_position_embeddings =>
            {
                prompt_len
            }
            _ => 0,
        }
    }

    /// Every tensor of the checkpoint with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let heads = self.heads();
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        let linears = [
            ("self_attn.q_proj", heads.q_width(), hidden, self.qkv_bias),
            ("self_attn.k_proj", heads.kv_width(), hidden, self.qkv_bias),
            ("self_attn.v_proj", heads.kv_width(), hidden, self.qkv_bias),
            ("self_attn.o_proj", hidden, heads.q_width(), self.output_bias),
            ("mlp.gate_proj", ffn, hidden, self.mlp_bias),
            ("mlp.up_proj", ffn, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, ffn, self.mlp_bias),
        ];
        for layer in 0..self.num_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            tensors.push((name("input_layernorm.weight"), vec![hidden]));
            tensors.push((name("post_attention_layernorm.weight"), vec![hidden]));
            for (linear, rows, cols, bias) in linears {
                tensors.push((name(&format!("{linear}.weight")), vec![rows, cols]));
                if bias {
                    tensors.push((name(&format!("{linear}.bias")), vec![rows]));
                }
            }
            if self.qk_norm {
                tensors.push((name("self_attn.q_norm.weight"), vec![self.head_dim]));
                tensors.push((name("self_attn.k_norm.weight"), vec![self.head_dim]));
            }
        }
        tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            tensors.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        tensors
    }

    /// Number of parameters.
    pub fn num_parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

fn resolve(fields: &Fields<'_>) -> Result<ModelConfig> {
    let architecture = architecture(fields)?;
    let hidden_size = fields.dimension("hidden_size", None)?;
    let num_heads = fields.dimension("num_attention_heads", None)?;
    let num_kv_heads = match (fields.get("num_key_value_heads"), architecture) {
        (Some(_), _) | (None, Architecture::Llama) => {
            fields.dimension("num_key_value_heads", Some(num_heads))?
        }
        (None, Architecture::Mistral) => {
            if fields.has("num_key_value_heads") {
                num_heads
            } else {
                8
            }
        }
        (None, _) => {
            if fields.has("num_key_value_heads") {
                num_heads
            } else {
                32
            }
        }
    };
    let default_head_dim = match architecture {
        Architecture::Qwen3 => 128,
        _ => hidden_size / num_heads,
    };
    let head_dim = fields.dimension("head_dim", Some(default_head_dim))?;
    let num_layers = fields.dimension("num_hidden_layers", None)?;
    let max_position_embeddings = fields.dimension(
        "max_position_embeddings",
        Some(match architecture {
            Architecture::Llama => 2048,
            Architecture::Mistral => 131_072,
            Architecture::Qwen2 | Architecture::Qwen3 => 32_768,
        }),
    )?;
    let attention_bias = fields.flag("attention_bias", false)?;
    let (qkv_bias, output_bias) = match architecture {
        Architecture::Llama | Architecture::Qwen3 => (attention_bias, attention_bias),
        Architecture::Qwen2 => (true, false),
        Architecture::Mistral => (false, false),
    };
    if let Some(activation) = fields.get("hidden_act").or_else(|| fields.get("hidden_activation"))
        && !matches!(activation.as_str(), Some("silu" | "swish"))
    {
        return Err(Error::unsupported("unsupported `hidden_act`").with_expected("silu", activation));
    }
    if fields.get("quantization_config").is_some() {
        return Err(Error::unsupported("the checkpoint is quantised (`quantization_config`)")
            .with_hint("use the checkpoint's f32, f16 or bf16 original"));
    }
    let config = ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: fields.dimension("intermediate_size", None)?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        vocab_size: fields.dimension("vocab_size", None)?,
        max_position_embeddings,
        rms_norm_eps: fields.number("rms_norm_eps", Some(1e-6))? as f32,
        rope: rope(fields, max_position_embeddings)?,
        windows: windows(fields, architecture, num_layers)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        qkv_bias,
        output_bias,
        mlp_bias: architecture == Architecture::Llama && fields.flag("mlp_bias", false)?,
        qk_norm: architecture == Architecture::Qwen3,
        dtype: dtype(fields)?,
    };
    if !config.num_heads.is_multiple_of(config.num_kv_heads) {
        return Err(Error::invalid_data("`num_key_value_heads` does not divide `num_attention_heads`")
            .with_expected(format_args!("a divisor of {num_heads}"), num_kv_heads));
    }
    if !config.head_dim.is_multiple_of(2) || config.head_dim > 1024 {
        return Err(
            Error::invalid_data("unusable `head_dim`").with_expected("an even number up to 1024", head_dim)
        );
    }
    Ok(config)
}

fn architecture(fields: &Fields<'_>) -> Result<Architecture> {
    let class = fields.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let model_type = fields.get("model_type").and_then(Value::as_str);
    let found = Architecture::ALL.iter().find(|(_, known_class, known_type)| match class {
        Some(class) => class == *known_class,
        None => model_type == Some(known_type),
    });
    found.map(|(architecture, ..)| *architecture).ok_or_else(|| {
        let supported: Vec<_> = Architecture::ALL.iter().map(|(_, class, _)| *class).collect();
        Error::unsupported("unsupported architecture").with_expected(
            supported.join(", "),
            class.or(model_type).unwrap_or("neither `architectures` nor `model_type`"),
        )
    })
}

fn dtype(fields: &Fields<'_>) -> Result<Option<DType>> {
    let Some(value) = fields.get("dtype").or_else(|| fields.get("torch_dtype")) else { return Ok(None) };
    let name = value.as_str().ok_or_else(|| wrong_type("dtype", "a string", value))?;
    // A dtype that weights cannot have here is reported by the tensors themselves.
    Ok(name.parse().ok())
}

fn windows(fields: &Fields<'_>, architecture: Architecture, num_layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match fields.get("sliding_window") {
        Some(_) => Some(fields.dimension("sliding_window", None)?),
        None if fields.has("sliding_window") => None,
        None => Some(4096),
    };
    match architecture {
        Architecture::Llama => Ok(vec![None; num_layers]),
        Architecture::Mistral => Ok(vec![window; num_layers]),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let window = window.filter(|_| fields.0.get("use_sliding_window") == Some(&Value::Bool(true)));
            if let Some(Value::Array(types)) = fields.get("layer_types") {
                if types.len() != num_layers {
                    return Err(Error::invalid_data("`layer_types` has the wrong length")
                        .with_expected(num_layers, types.len()));
                }
                return types.iter().map(|kind| layer_window(kind, window)).collect();
            }
            let first = fields.count("max_window_layers", 28)?;
            Ok((0..num_layers).map(|layer| window.filter(|_| layer >= first)).collect())
        }
    }
}

fn layer_window(kind: &Value, window: Option<usize>) -> Result<Option<usize>> {
    match kind.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") if window.is_some() => Ok(window),
        Some("sliding_attention") => Err(Error::invalid_data(
            "`layer_types` has `sliding_attention`, but there is no `sliding_window` in use",
        )),
        _ => Err(Error::unsupported("unsupported entry of `layer_types`")
            .with_expected("full_attention or sliding_attention", kind)),
    }
}

/// Resolves `rope_parameters` (new) or `rope_scaling` with `rope_theta` (old); `rope_scaling` wins as a whole.
fn rope(fields: &Fields<'_>, max_position_embeddings: usize) -> Result<RopeConfig> {
    let empty = Map::new();
    let dictionary = ["rope_scaling", "rope_parameters"]
        .iter()
        .find_map(|key| fields.get(key).and_then(Value::as_object).filter(|map| !map.is_empty()))
        .unwrap_or(&empty);
    let scaling = Fields(dictionary);
    let theta = if scaling.has("rope_theta") {
        scaling.number("rope_theta", None)?
    } else {
        fields.number("rope_theta", Some(10_000.0))?
    };
    if theta.is_nan() || theta <= 1.0 {
        return Err(Error::invalid_data("unusable `rope_theta`").with_expected("a number above 1", theta));
    }
    for source in [fields, &scaling] {
        let partial = source.number("partial_rotary_factor", Some(1.0))?;
        if partial != 1.0 {
            return Err(Error::unsupported("unsupported `partial_rotary_factor`").with_expected(1, partial));
        }
    }
    let original = || -> Result<usize> {
        let key = "original_max_position_embeddings";
        if fields.get(key).is_some() {
            return fields.dimension(key, None);
        }
        scaling.dimension(key, Some(max_position_embeddings))
    };
    let name = scaling.get("rope_type").or_else(|| scaling.get("type"));
    let scaling = match name.map(|name| name.as_str().unwrap_or_default()) {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: scaling.factor()? },
        Some("dynamic") => RopeScaling::DynamicNtk { factor: scaling.factor()?, max_position_embeddings },
        Some("llama3") => RopeScaling::Llama3 {
            factor: scaling.factor()?,
            low_freq_factor: scaling.number("low_freq_factor", None)?,
            high_freq_factor: scaling.number("high_freq_factor", None)?,
            original_max_position_embeddings: original()?,
        },
        Some("yarn") => {
            let original = original()?;
            let natural = max_position_embeddings as f64 / original as f64;
            RopeScaling::Yarn {
                factor: scaling.number("factor", Some(natural))?,
                beta_fast: scaling.number("beta_fast", Some(32.0))?,
                beta_slow: scaling.number("beta_slow", Some(1.0))?,
                attention_factor: scaling.optional_number("attention_factor")?,
                mscale: scaling.optional_number("mscale")?,
                mscale_all_dim: scaling.optional_number("mscale_all_dim")?,
                truncate: scaling.flag("truncate", true)?,
                original_max_position_embeddings: original,
            }
        }
        Some(other) => {
            let got = if other.is_empty() {
                name.map(Value::to_string).unwrap_or_default()
            } else {
                other.to_owned()
            };
            return Err(Error::unsupported("unsupported RoPE type")
                .with_expected("default, linear, dynamic, llama3 or yarn", got));
        }
    };
    Ok(RopeConfig { theta, scaling })
}

fn wrong_type(key: &str, expected: &str, got: &Value) -> Error {
    Error::invalid_data(format!("`{key}` has the wrong type")).with_expected(expected, got)
}

/// Typed look-ups that name the key in their errors. `null` counts as absent, except for [`Fields::has`].
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn count(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| wrong_type(key, "a whole number", value))
    }

    /// A positive size below [`MAX_DIMENSION`]; required without a default.
    fn dimension(&self, key: &str, default: Option<usize>) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return default
                .filter(|&size| size > 0)
                .ok_or_else(|| Error::invalid_data(format!("configuration lacks `{key}`")));
        };
        match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) if (1..=MAX_DIMENSION).contains(&size) => Ok(size),
            _ => Err(Error::invalid_data(format!("unusable `{key}`"))
                .with_expected(format_args!("a whole number from 1 to {MAX_DIMENSION}"), value)),
        }
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| wrong_type(key, "a number", value))
    }

    fn number(&self, key: &str, default: Option<f64>) -> Result<f64> {
        self.optional_number(key)?
            .or(default)
            .ok_or_else(|| Error::invalid_data(format!("configuration lacks `{key}`")))
    }

    fn factor(&self) -> Result<f64> {
        let factor = self.number("factor", None)?;
        if factor.is_finite() && factor > 0.0 {
            return Ok(factor);
        }
        Err(Error::invalid_data("unusable RoPE `factor`").with_expected("a positive number", factor))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong_type(key, "true or false", value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(architecture: &str, extra: &str) -> Result<ModelConfig> {
        ModelConfig::parse(&format!(
            r#"{{"architectures": ["{architecture}"], "hidden_size": 64, "intermediate_size": 128,
                "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100, "num_key_value_heads": 2{extra}}}"#
        ))
    }

    #[test]
    fn both_spellings_resolve_alike() {
        let old = config(
            "LlamaForCausalLM",
            r#", "rope_theta": 500000.0, "torch_dtype": "bfloat16",
               "rope_scaling": {"type": "linear", "factor": 2.0}"#,
        );
        let new = config(
            "LlamaForCausalLM",
            r#", "dtype": "bfloat16",
               "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}"#,
        );
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn every_architecture_has_its_rules() {
        let llama = config("LlamaForCausalLM", "").unwrap();
        assert_eq!((llama.head_dim, llama.qkv_bias, llama.qk_norm), (16, false, false));
        assert_eq!(llama.windows, [None; 3]);
        let biased = config("LlamaForCausalLM", r#", "attention_bias": true, "mlp_bias": true"#).unwrap();
        assert!(biased.qkv_bias && biased.output_bias && biased.mlp_bias);
        assert_eq!(config("MistralForCausalLM", "").unwrap().windows, [Some(4096); 3]);
        assert_eq!(config("MistralForCausalLM", r#", "sliding_window": null"#).unwrap().windows, [None; 3]);
        let qwen2 = config("Qwen2ForCausalLM", r#", "sliding_window": 8"#).unwrap();
        assert_eq!((qwen2.qkv_bias, qwen2.output_bias), (true, false));
        assert_eq!(qwen2.windows, [None; 3]);
        let windowed = r#", "sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1"#;
        assert_eq!(config("Qwen2ForCausalLM", windowed).unwrap().windows, [None, Some(8), Some(8)]);
        let qwen3 = config("Qwen3ForCausalLM", "").unwrap();
        assert_eq!((qwen3.head_dim, qwen3.qk_norm), (128, true));
    }

    #[test]
    fn the_context_grows_with_dynamic_and_yarn_scaling() {
        for (scaling, context_len) in [
            (r#"null"#, 2048),
            (r#"{"type": "linear", "factor": 4.0}"#, 2048),
            (r#"{"type": "dynamic", "factor": 2.5}"#, 5120),
            (r#"{"type": "dynamic", "factor": 0.5}"#, 2048),
            (r#"{"type": "dynamic", "factor": 1e300}"#, MAX_DIMENSION),
            (r#"{"type": "yarn", "factor": 4.0}"#, 8192),
            (r#"{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}"#, 4096),
            (r#"{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}"#, 2048),
        ] {
            let config = config("LlamaForCausalLM", &format!(r#", "rope_scaling": {scaling}"#)).unwrap();
            assert_eq!(config.context_len(), context_len, "{scaling}");
        }
    }

    #[test]
    fn only_long_prompts_under_dynamic_scaling_rotate_by_their_length() {
        let dynamic = r#", "rope_scaling": {"type": "dynamic", "factor": 2.0}"#;
        for (extra, prompt_len, class) in
            [("", 5000, 0), (dynamic, 100, 0), (dynamic, 2048, 0), (dynamic, 2049, 2049)]
        {
            assert_eq!(config("LlamaForCausalLM", extra).unwrap().rotation_class(prompt_len), class);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |architecture: &str, extra: &str, words: &[&str]| {
            let line = config(architecture, extra).unwrap_err().to_line();
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        };
        check("GPT2LMHeadModel", "", &["GPT2LMHeadModel", "LlamaForCausalLM", "Qwen3ForCausalLM"]);
        check("LlamaForCausalLM", r#", "rope_scaling": {"rope_type": "longrope"}"#, &["longrope", "yarn"]);
        check("LlamaForCausalLM", r#", "rope_scaling": {"rope_type": "linear"}"#, &["factor"]);
        check("LlamaForCausalLM", r#", "head_dim": 0"#, &["head_dim"]);
        check("LlamaForCausalLM", r#", "head_dim": 15"#, &["head_dim", "15"]);
        check(
            "LlamaForCausalLM",
            r#", "max_position_embeddings": "many""#,
            &["max_position_embeddings", "many"],
        );
        check("LlamaForCausalLM", r#", "hidden_act": "gelu""#, &["hidden_act", "gelu"]);
        check("Qwen2ForCausalLM", r#", "layer_types": ["full_attention"]"#, &["layer_types", "3"]);
        let line = ModelConfig::parse(r#"{"model_type": "llama"}"#).unwrap_err().to_line();
        assert!(line.contains("hidden_size"), "{line}");
    }
}
