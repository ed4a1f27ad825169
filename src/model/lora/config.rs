//! `adapter_config.json`: ranks and scales, and what an adapter may ask for that cannot be merged.

use std::fs;
use std::path::Path;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Settings that change what the adapter computes in a way that is not merged, when they are set to anything but
/// `null`, `false` or an empty value.
const REFUSED: [&str; 13] = [
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "layer_replication",
    "megatron_config",
    "use_qalora",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
];

/// Initialisations that change the base weights, so that the adapter belongs to weights that no checkpoint holds.
const REFUSED_INITS: [&str; 5] = ["pissa", "corda", "olora", "loftq", "lora_ga"];

/// The file as written, as far as merging needs it; defaults are PEFT's.
#[derive(Deserialize)]
struct Written {
    base_model_name_or_path: Option<String>,
    #[serde(default = "default_rank")]
    r: u32,
    #[serde(default = "default_alpha")]
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
}

fn default_rank() -> u32 {
    8
}

fn default_alpha() -> f64 {
    8.0
}

/// A resolved adapter configuration.
pub(super) struct AdapterConfig {
    /// The base model that the adapter was trained on.
    pub(super) base_model: Option<String>,
    /// Whether base weights may be stored `[in, out]`.
    pub(super) fan_in_fan_out: bool,
    rank: u32,
    alpha: f64,
    use_rslora: bool,
    rank_pattern: Pattern<u32>,
    alpha_pattern: Pattern<f64>,
}

/// Rank and scale of one module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ModuleScale {
    /// Rows of `lora_A` and columns of `lora_B`.
    pub(super) rank: usize,
    /// The factor of `B·A`.
    pub(super) scale: f32,
}

impl AdapterConfig {
    /// Reads and resolves the file.
    ///
    /// # Errors
    /// `Unsupported` naming the setting that cannot be merged exactly, `InvalidData` for what is not a configuration.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
        Self::parse(&text).map_err(|error| error.with_path(path))
    }

    fn parse(text: &str) -> Result<Self> {
        let invalid =
            |error| Error::invalid_data("the adapter's configuration is not valid").with_source(error);
        let settings: Map<String, Value> = serde_json::from_str(text).map_err(invalid)?;
        refuse_unsupported(&settings)?;
        let written = Written::deserialize(Value::Object(settings)).map_err(invalid)?;
        Ok(Self {
            base_model: written.base_model_name_or_path.filter(|name| !name.is_empty()),
            fan_in_fan_out: written.fan_in_fan_out,
            rank: written.r,
            alpha: written.lora_alpha,
            use_rslora: written.use_rslora,
            rank_pattern: Pattern::new("rank_pattern", written.rank_pattern)?,
            alpha_pattern: Pattern::new("alpha_pattern", written.alpha_pattern)?,
        })
    }

    /// The rank and scale of a module such as `model.layers.0.self_attn.q_proj`.
    ///
    /// # Errors
    /// `InvalidData` when the rank is zero.
    pub(super) fn scale_of(&self, module: &str) -> Result<ModuleScale> {
        let rank = self.rank_pattern.value(module).unwrap_or(self.rank);
        let alpha = self.alpha_pattern.value(module).unwrap_or(self.alpha);
        if rank == 0 {
            return Err(Error::invalid_data(format!("the adapter's rank for `{module}` is zero")));
        }
        let divisor = if self.use_rslora { f64::from(rank).sqrt() } else { f64::from(rank) };
        Ok(ModuleScale { rank: rank as usize, scale: (alpha / divisor) as f32 })
    }
}

fn refuse_unsupported(settings: &Map<String, Value>) -> Result<()> {
    let refuse = |name: &str, value: &Value| {
        Err(Error::unsupported(format!("the adapter's `{name}` is not supported: {value}"))
            .with_hint("merge the adapter with PEFT (merge_and_unload) and load the merged model"))
    };
    let text = |name: &str| settings.get(name).and_then(Value::as_str);
    for (name, supported) in [("peft_type", "LORA"), ("bias", "none")] {
        match settings.get(name) {
            Some(value) if text(name) != Some(supported) => return refuse(name, value),
            _ => {}
        }
    }
    for name in REFUSED {
        match settings.get(name) {
            Some(value) if is_set(value) => return refuse(name, value),
            _ => {}
        }
    }
    let name = "init_lora_weights";
    match (text(name), settings.get(name)) {
        (Some(init), Some(value)) if REFUSED_INITS.iter().any(|it| init.to_lowercase().starts_with(it)) => {
            refuse(name, value)
        }
        _ => Ok(()),
    }
}

/// Whether a setting is anything but absent in one of JSON's ways.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(_) => true,
        Value::String(value) => !value.is_empty(),
        Value::Array(value) => !value.is_empty(),
        Value::Object(value) => !value.is_empty(),
    }
}

/// Values for the modules whose names match; the first match counts (PEFT's `get_pattern_key`).
struct Pattern<T>(Vec<(Regex, T)>);

impl<T: Copy + for<'de> Deserialize<'de>> Pattern<T> {
    fn new(setting: &str, written: Option<Map<String, Value>>) -> Result<Self> {
        let rule = |(key, value): (String, Value)| {
            let invalid = format!("the adapter's `{setting}` has an invalid rule `{key}`");
            // PEFT's `re.match(rf"(.*\.)?({key})$", module)`, which is anchored at the start.
            let regex = Regex::new(&format!(r"^(?:(.*\.)?({key})$)"))
                .map_err(|error| Error::invalid_data(invalid.clone()).with_source(error))?;
            let value =
                T::deserialize(value).map_err(|error| Error::invalid_data(invalid).with_source(error))?;
            Ok((regex, value))
        };
        written.unwrap_or_default().into_iter().map(rule).collect::<Result<_>>().map(Self)
    }

    fn value(&self, module: &str) -> Option<T> {
        self.0.iter().find(|(regex, _)| regex.is_match(module)).map(|&(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn patterns_choose_rank_and_alpha_as_peft_does() {
        let check = |config: &str, module: &str, rank: usize, scale: f32| {
            let config = AdapterConfig::parse(config).unwrap();
            assert_eq!(config.scale_of(module).unwrap(), ModuleScale { rank, scale }, "{module}");
        };
        let q = "model.layers.1.self_attn.q_proj";
        check("{}", q, 8, 1.0);
        check(r#"{"r":4,"lora_alpha":6}"#, q, 4, 1.5);
        check(r#"{"r":4,"lora_alpha":6,"use_rslora":true}"#, q, 4, 3.0);
        check(r#"{"r":4,"lora_alpha":8,"rank_pattern":{"q_proj":2}}"#, q, 2, 4.0);
        check(r#"{"r":4,"lora_alpha":8,"rank_pattern":{"proj":2}}"#, q, 4, 2.0);
        check(r#"{"r":4,"lora_alpha":8,"rank_pattern":{"^model\\.layers\\.\\d+\\..*":2}}"#, q, 2, 4.0);
        check(r#"{"r":4,"lora_alpha":8,"rank_pattern":{"k_proj|q_proj":2}}"#, q, 2, 4.0);
        check(
            r#"{"r":4,"lora_alpha":8,"alpha_pattern":{"layers.1.self_attn.q_proj":2.5,"q_proj":1}}"#,
            q,
            4,
            0.625,
        );
        check(r#"{"r":4,"lora_alpha":8,"alpha_pattern":{"layers.10.self_attn.q_proj":2}}"#, q, 4, 2.0);
        check(r#"{"r":4,"lora_alpha":8,"rank_pattern":null,"alpha_pattern":{}}"#, q, 4, 2.0);
    }

    #[test]
    fn what_cannot_be_merged_is_refused_by_name() {
        let check = |config: &str, kind: ErrorKind, name: &str| {
            let error = AdapterConfig::parse(config).err().unwrap();
            assert_eq!(error.kind(), kind, "{config}");
            assert!(error.to_line().contains(name), "{config}: {}", error.to_line());
        };
        for (name, value) in [
            ("use_dora", "true"),
            ("modules_to_save", r#"["lm_head"]"#),
            ("bias", r#""all""#),
            ("bias", "1"),
            ("lora_bias", "true"),
            ("peft_type", r#""LOHA""#),
            ("layer_replication", "[[0,4],[2,5]]"),
            ("use_qalora", "true"),
            ("trainable_token_indices", "[1]"),
            ("target_parameters", r#"["mlp.experts"]"#),
            ("alora_invocation_tokens", "[1]"),
            ("arrow_config", r#"{"top_k":3}"#),
            ("megatron_config", r#"{"a":1}"#),
            ("init_lora_weights", r#""pissa_niter_4""#),
            ("init_lora_weights", r#""OLoRA""#),
        ] {
            check(&format!(r#"{{"{name}":{value}}}"#), ErrorKind::Unsupported, &format!("`{name}`"));
        }
        check("[]", ErrorKind::InvalidData, "not valid");
        check(r#"{"r":-1}"#, ErrorKind::InvalidData, "not valid");
        check(
            r#"{"rank_pattern":{"(":1}}"#,
            ErrorKind::InvalidData,
            "`rank_pattern` has an invalid rule `(`",
        );
        check(
            r#"{"rank_pattern":{"q":"x"}}"#,
            ErrorKind::InvalidData,
            "`rank_pattern` has an invalid rule `q`",
        );
        check(r#"{"rank_pattern":{"a{1000}{1000}{1000}":1}}"#, ErrorKind::InvalidData, "invalid rule");
        let harmless = r#"{"peft_type":"LORA","bias":"none","init_lora_weights":"gaussian","modules_to_save":[],
            "loftq_config":{},"use_dora":false,"lora_dropout":0.1,"task_type":"CAUSAL_LM","future_setting":null}"#;
        AdapterConfig::parse(harmless).unwrap();
        assert!(AdapterConfig::parse(r#"{"r":0}"#).unwrap().scale_of("q").is_err());
    }
}
