//! `tokenizer.json` through the `tokenizers` crate.

use std::borrow::Cow;
use std::path::Path;

use tokenizers::Tokenizer as Library;

use super::decoding::Decoding;
use super::side_files::SideFiles;
use super::{Vocabulary, file, library};
use crate::error::{Error, Result};

/// The largest known file has 33 MB (Gemma 3); a bound on memory.
const MAX_BYTES: u64 = 256 << 20;

/// A tokenizer as its `tokenizer.json` defines it.
///
/// BOS and EOS are added by its post-processor and by nothing else: `add_bos_token` and `add_eos_token` of
/// `tokenizer_config.json` are not read when there is a `tokenizer.json`, as in transformers 5.
pub(super) struct JsonTokenizer {
    library: Library,
}

impl JsonTokenizer {
    /// Opens the file at `path`; `None` when there is no such file.
    pub(super) fn open(path: &Path, side_files: &SideFiles) -> Result<Option<(Self, Decoding)>> {
        let Some(bytes) = file::read_optional(path, MAX_BYTES)? else { return Ok(None) };
        Self::new(&bytes, side_files).map(Some).map_err(|error| error.with_path(path))
    }

    fn new(bytes: &[u8], side_files: &SideFiles) -> Result<(Self, Decoding)> {
        let mut library = library::call(|| Library::from_bytes(bytes))?;
        // Files may carry what was set when they were saved; both are for training in batches.
        library::call(|| library.with_truncation(None).map(drop))?;
        library.with_padding(None);
        let decoder = serde_json::to_value(library.get_decoder())
            .map_err(|error| Error::invalid_data("the decoder is malformed").with_source(error))?;
        let decoding = Decoding::from_json(&decoder)?;
        let mut missing: Vec<_> =
            side_files.added_tokens().values().cloned().chain(side_files.special_tokens()).collect();
        missing.retain(|token| library.token_to_id(&token.content).is_none());
        library::call(|| library.add_tokens(missing))?;
        let tokenizer = Self { library };
        // A post-processor that contradicts itself shows now and not in the middle of a run.
        tokenizer.encode("a", true)?;
        Ok((tokenizer, decoding))
    }
}

impl Vocabulary for JsonTokenizer {
    fn len(&self) -> usize {
        self.library.get_vocab_size(true)
    }

    fn piece(&self, id: u32) -> Option<Cow<'_, str>> {
        let added = self.library.get_added_vocabulary().simple_id_to_token(id);
        added.or_else(|| self.library.id_to_token(id)).map(Cow::Owned)
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }

    fn is_special(&self, id: u32) -> bool {
        self.library
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = library::call(|| self.library.encode_fast(text, add_special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Tokenizer, goldens};
    use super::*;

    /// The golden tokenizer with `change` made to its definition, and a `tokenizer_config.json`.
    fn open(change: impl FnOnce(&mut Value), config: &Value) -> Result<Tokenizer> {
        let mut definition = serde_json::from_slice(
            &std::fs::read(goldens::dir("byte-level").join("tokenizer.json")).unwrap(),
        )
        .unwrap();
        change(&mut definition);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), definition.to_string()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Tokenizer::open(dir.path())
    }

    #[test]
    fn the_post_processor_alone_adds_special_tokens() {
        let check = |post_processor: Option<Value>, add_bos_token: bool, expected: bool| {
            let config = json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": add_bos_token});
            let change = |definition: &mut Value| {
                if let Some(post_processor) = post_processor {
                    definition["post_processor"] = post_processor;
                }
            };
            let tokenizer = open(change, &config).unwrap();
            assert_eq!(tokenizer.special_tokens().add_bos, expected);
            assert_eq!(tokenizer.encode("a", true).unwrap().len(), 1 + usize::from(expected));
            assert_eq!(tokenizer.special_tokens().eos, [509]);
        };
        check(None, false, true);
        check(None, true, true);
        check(Some(Value::Null), true, false);
    }

    #[test]
    fn truncation_and_padding_are_for_training() {
        let change = |definition: &mut Value| {
            definition["truncation"] =
                json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
            definition["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 510, "pad_type_id": 0, "pad_token": "<pad>"});
        };
        let ids = open(change, &json!({})).unwrap().encode("a b c d", true).unwrap();
        assert!(ids.len() > 2 && !ids.contains(&510), "{ids:?}");
    }

    #[test]
    fn tokens_of_the_config_that_the_definition_lacks_are_added() {
        let config = json!({"pad_token": "<new>", "added_tokens_decoder": {"512": {"content": "<x>", "special": false}}});
        let tokenizer = open(|_| {}, &config).unwrap();
        assert_eq!(tokenizer.encode("<x><new>", false).unwrap(), [512, 513]);
        assert_eq!(tokenizer.decode(&[512, 513], true).unwrap(), "<x>");
        assert_eq!(tokenizer.vocab_size(), 514);
    }

    #[test]
    fn what_is_malformed_or_unknown_is_an_error() {
        let check = |change: &dyn Fn(&mut Value), part: &str| {
            let error = open(change, &json!({})).unwrap_err();
            assert!(error.to_line().contains(part), "{}", error.to_line());
        };
        check(
            &|definition| definition["model"] = json!({"type": "BPE"}),
            "tokenizer.json: the tokenizer is malformed",
        );
        check(&|definition| definition["decoder"] = Value::Null, "decoder is not supported");
        check(
            &|definition| {
                definition["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true})
            },
            "WordPiece",
        );
        check(&|definition| *definition = json!([]), "malformed");
        // The template of one text wants a second one: the library panics on it.
        let second = json!([{"Sequence": {"id": "B", "type_id": 0}}]);
        check(
            &|definition| definition["post_processor"]["processors"][1]["single"] = second.clone(),
            "malformed",
        );
    }
}
