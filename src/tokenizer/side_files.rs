//! The JSON files beside a tokenizer: special tokens, and who asks for which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::file;
use crate::error::{Error, Result};

/// Far above the largest known file; a bound on memory.
const MAX_BYTES: u64 = 64 << 20;

/// The special tokens that `tokenizer_config.json` names, in the order in which Hugging Face transformers adds them.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The side files of a model directory; a missing file is an empty object.
#[derive(Debug, Default)]
pub(super) struct SideFiles {
    tokenizer_config: Map<String, Value>,
    special_tokens_map: Map<String, Value>,
    added_tokens: Map<String, Value>,
    generation_config: Map<String, Value>,
    config: Map<String, Value>,
    tokenizer_config_path: PathBuf,
}

impl SideFiles {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            tokenizer_config: read_object(&dir.join("tokenizer_config.json"))?,
            special_tokens_map: read_object(&dir.join("special_tokens_map.json"))?,
            added_tokens: read_object(&dir.join("added_tokens.json"))?,
            generation_config: read_object(&dir.join("generation_config.json"))?,
            config: read_object(&dir.join("config.json"))?,
            tokenizer_config_path: dir.join("tokenizer_config.json"),
        })
    }

    /// A boolean of `tokenizer_config.json`; anything else counts as absent.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.tokenizer_config.get(key).and_then(Value::as_bool)
    }

    /// Names a special token where `tokenizer_config.json` does not.
    pub(super) fn set_default(&mut self, name: &str, content: &str) {
        self.tokenizer_config.entry(name).or_insert_with(|| content.into());
    }

    /// The special token under a name such as `bos_token`.
    ///
    /// As in transformers, `special_tokens_map.json` is for directories from before `added_tokens_decoder`: there it
    /// has the last word, later it is not read.
    pub(super) fn named_token(&self, name: &str) -> Option<AddedToken> {
        let map = if self.tokenizer_config.contains_key("added_tokens_decoder") {
            None
        } else {
            self.special_tokens_map.get(name)
        };
        map.and_then(token).or_else(|| self.tokenizer_config.get(name).and_then(token))
    }

    /// All special tokens that have a name, and the additional ones.
    pub(super) fn special_tokens(&self) -> Vec<AddedToken> {
        let mut tokens: Vec<_> = NAMES.iter().filter_map(|name| self.named_token(name)).collect();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let listed = self.special_tokens_map.get(key).or_else(|| self.tokenizer_config.get(key));
            let listed = listed.and_then(Value::as_array).into_iter().flatten();
            tokens.extend(listed.filter_map(token));
        }
        tokens
    }

    /// The tokens that were added to the model's own, by id: `added_tokens_decoder`, or else `added_tokens.json`.
    ///
    /// # Errors
    /// `InvalidData` for an id that is not a number below 2³¹.
    pub(super) fn added_tokens(&self) -> Result<BTreeMap<u32, AddedToken>> {
        let mut tokens = BTreeMap::new();
        let invalid = |id: &dyn std::fmt::Display| {
            Error::invalid_data("an added token has an invalid id")
                .with_path(&self.tokenizer_config_path)
                .with_expected("a number below 2147483648", id)
        };
        if let Some(decoder) = self.tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, value) in decoder {
                let id = id.parse().ok().filter(is_id).ok_or_else(|| invalid(id))?;
                if let Some(token) = token(value) {
                    tokens.insert(id, token);
                }
            }
        } else {
            let special: Vec<_> = self.special_tokens().into_iter().map(|token| token.content).collect();
            for (content, id) in &self.added_tokens {
                let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let number = number.filter(is_id).ok_or_else(|| invalid(id))?;
                tokens.insert(number, AddedToken::from(content, special.contains(content)));
            }
        }
        Ok(tokens)
    }

    /// The ids under `eos_token_id` of `generation_config.json`, then of `config.json`, each once.
    pub(super) fn eos_token_ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        for file in [&self.generation_config, &self.config] {
            for id in token_ids(file.get("eos_token_id")) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        ids
    }

    /// The id under `bos_token_id` of `generation_config.json`, or of `config.json`.
    pub(super) fn bos_token_id(&self) -> Option<u32> {
        [&self.generation_config, &self.config]
            .into_iter()
            .find_map(|file| token_ids(file.get("bos_token_id")).first().copied())
    }
}

fn is_id(id: &u32) -> bool {
    *id < 1 << 31
}

/// A number or a list of numbers; published files hold `null`, -1 and strings as well, which name no token.
fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let values = match value {
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    values.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).filter(is_id).collect()
}

/// A token written as a string or as an object with `content` and flags.
fn token(value: &Value) -> Option<AddedToken> {
    let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
    let flag = |key| value.get(key).and_then(Value::as_bool);
    (!content.is_empty()).then(|| {
        AddedToken::from(content, flag("special").unwrap_or(true))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .single_word(flag("single_word").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(false))
    })
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = file::read_optional(path, MAX_BYTES)? else { return Ok(Map::new()) };
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid_data("not a JSON object").with_path(path).with_source(error))
}
