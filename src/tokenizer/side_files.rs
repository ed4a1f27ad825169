//! The JSON files beside a tokenizer: special tokens, and who asks for which.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

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
    generation_config: Map<String, Value>,
    config: Map<String, Value>,
    added_tokens: BTreeMap<u32, AddedToken>,
}

impl SideFiles {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut files = Self {
            tokenizer_config: read_object(&dir.join("tokenizer_config.json"))?,
            special_tokens_map: read_object(&dir.join("special_tokens_map.json"))?,
            generation_config: read_object(&dir.join("generation_config.json"))?,
            config: read_object(&dir.join("config.json"))?,
            added_tokens: BTreeMap::new(),
        };
        files.added_tokens = files.read_added_tokens(dir)?;
        Ok(files)
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
    pub(super) fn named_token(&self, name: &str) -> Option<AddedToken> {
        self.map_entry(name).and_then(token).or_else(|| self.tokenizer_config.get(name).and_then(token))
    }

    /// All special tokens that have a name, and the additional ones.
    pub(super) fn special_tokens(&self) -> Vec<AddedToken> {
        let mut tokens: Vec<_> = NAMES.iter().filter_map(|name| self.named_token(name)).collect();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let listed = self.map_entry(key).or_else(|| self.tokenizer_config.get(key));
            let listed = listed.and_then(Value::as_array).into_iter().flatten();
            tokens.extend(listed.filter_map(token));
        }
        tokens
    }

    /// An entry of `special_tokens_map.json`.
    ///
    /// As in transformers the file is for directories from before `added_tokens_decoder`: there it has the last word,
    /// later it is not read.
    fn map_entry(&self, key: &str) -> Option<&Value> {
        let is_old = !self.tokenizer_config.contains_key("added_tokens_decoder");
        self.special_tokens_map.get(key).filter(|_| is_old)
    }

    /// The tokens that were added to the model's own, by id: `added_tokens_decoder`, or else `added_tokens.json`.
    pub(super) fn added_tokens(&self) -> &BTreeMap<u32, AddedToken> {
        &self.added_tokens
    }

    fn read_added_tokens(&self, dir: &Path) -> Result<BTreeMap<u32, AddedToken>> {
        let mut tokens = BTreeMap::new();
        if let Some(decoder) = self.tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object) {
            for (key, value) in decoder {
                let id = key.parse().ok().filter(is_id);
                let id = id.ok_or_else(|| invalid_id(key).with_path(dir.join("tokenizer_config.json")))?;
                if let Some(token) = token(value) {
                    tokens.insert(id, token);
                }
            }
        } else {
            let path = dir.join("added_tokens.json");
            let special: HashSet<_> = self.special_tokens().into_iter().map(|token| token.content).collect();
            for (content, value) in read_object(&path)? {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(is_id);
                let id = id.ok_or_else(|| invalid_id(&value).with_path(&path))?;
                let is_special = special.contains(&content);
                tokens.insert(id, AddedToken::from(content, is_special));
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

fn invalid_id(got: &dyn std::fmt::Display) -> Error {
    Error::invalid_data("an added token has an invalid id").with_expected("a number below 2147483648", got)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(files: &[(&str, &str)]) -> Result<SideFiles> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        SideFiles::open(dir.path())
    }

    #[test]
    fn eos_ids_are_the_union_in_order() {
        let check = |generation: &str, config: &str, expected: &[u32]| {
            let files = [("generation_config.json", generation), ("config.json", config)];
            assert_eq!(open(&files).unwrap().eos_token_ids(), expected, "{generation} {config}");
        };
        check("{}", "{}", &[]);
        check(r#"{"eos_token_id": 5}"#, r#"{"eos_token_id": [2, 5, 3]}"#, &[5, 2, 3]);
        check(r#"{"eos_token_id": [7, 7], "use_cache": ".cache"}"#, r#"{"eos_token_id": null}"#, &[7]);
        check(r#"{"eos_token_id": -1}"#, r#"{"eos_token_id": ["2", 4294967295, 1.5, 3]}"#, &[3]);
    }

    #[test]
    fn added_tokens_come_from_the_newer_place_alone() {
        let old = [
            ("added_tokens.json", r#"{"<a>": 10, "<pad>": 11}"#),
            (
                "special_tokens_map.json",
                r#"{"pad_token": "<pad>", "bos_token": {"content": "<b>", "lstrip": true}}"#,
            ),
            ("tokenizer_config.json", r#"{"pad_token": null, "bos_token": "<s>"}"#),
        ];
        let files = open(&old).unwrap();
        let added = files.added_tokens();
        assert_eq!(
            added.iter().map(|(id, token)| (*id, token.special)).collect::<Vec<_>>(),
            [(10, false), (11, true)]
        );
        let bos = files.named_token("bos_token").unwrap();
        assert!(bos.content == "<b>" && bos.lstrip && bos.special);

        let config =
            r#"{"bos_token": "<s>", "added_tokens_decoder": {"12": {"content": "<x>", "special": false}}}"#;
        let files = open(&[old[0], old[1], ("tokenizer_config.json", config)]).unwrap();
        let added = files.added_tokens();
        assert_eq!(added.iter().map(|(id, token)| (*id, token.special)).collect::<Vec<_>>(), [(12, false)]);
        assert_eq!(files.named_token("bos_token").unwrap().content, "<s>");
        assert!(files.named_token("pad_token").is_none());
    }

    #[test]
    fn malformed_files_are_errors_that_name_them() {
        let check = |name: &str, content: &str, part: &str| {
            let error = open(&[(name, content)]).unwrap_err();
            let line = error.to_line();
            assert!(line.contains(part), "{line}");
        };
        check("generation_config.json", "[1]", "generation_config.json: not a JSON object");
        check("config.json", "{\"a\": ", "config.json: not a JSON object");
        check("added_tokens.json", r#"{"<a>": -1}"#, "added_tokens.json: an added token has an invalid id");
        let config = r#"{"added_tokens_decoder": {"4294967295": {"content": "<a>"}}}"#;
        check("tokenizer_config.json", config, "tokenizer_config.json: an added token has an invalid id");
    }
}
