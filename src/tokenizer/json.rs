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
        for token in side_files.added_tokens()?.into_values().chain(side_files.special_tokens()) {
            if library.token_to_id(&token.content).is_none() {
                library::call(|| library.add_tokens([token]))?;
            }
        }
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
