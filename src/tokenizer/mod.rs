//! Text to token ids and back: `tokenizer.json`, or `tokenizer.model` alone, with the rules of their side files.

mod added_tokens;
mod decoding;
mod file;
mod json;
mod library;
mod llama;
mod merges;
mod protobuf;
mod sentencepiece;
mod side_files;
mod stream;

#[cfg(test)]
mod goldens;

use std::borrow::Cow;
use std::path::Path;

use self::decoding::Decoding;
use self::json::JsonTokenizer;
use self::llama::LlamaTokenizer;
use self::side_files::SideFiles;
pub use self::stream::TextStream;
use crate::error::{Error, Result};

/// The special tokens and the rules for adding them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// Every token that ends a generation, from `generation_config.json`, `config.json` and `tokenizer_config.json`.
    pub eos: Vec<u32>,
    /// Whether [`Tokenizer::encode`] puts BOS in front.
    pub add_bos: bool,
    /// Whether [`Tokenizer::encode`] puts EOS at the end.
    pub add_eos: bool,
}

impl SpecialTokens {
    fn new(vocabulary: &dyn Vocabulary, side_files: &SideFiles) -> Result<Self> {
        let named = |name| side_files.named_token(name).and_then(|token| vocabulary.id(&token.content));
        let bos = named("bos_token").or_else(|| side_files.bos_token_id());
        let mut eos = side_files.eos_token_ids();
        if let Some(id) = named("eos_token").filter(|id| !eos.contains(id)) {
            eos.push(id);
        }
        let around_nothing = vocabulary.encode("", true)?;
        let add_bos = bos.is_some() && around_nothing.first().copied() == bos;
        let added_after = around_nothing.get(usize::from(add_bos)..).and_then(<[u32]>::last);
        let add_eos = added_after.is_some_and(|id| eos.contains(id));
        Ok(Self { bos, eos, add_bos, add_eos })
    }
}

/// What the formats of tokenizer files have in common.
trait Vocabulary: Send + Sync {
    /// Number of tokens.
    fn len(&self) -> usize;
    /// The token with this id as the file has it.
    fn piece(&self, id: u32) -> Option<Cow<'_, str>>;
    /// The id of a token as the file has it.
    fn id(&self, token: &str) -> Option<u32>;
    /// Whether the id is left out of a text without special tokens.
    fn is_special(&self, id: u32) -> bool;
    /// Text to ids.
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>>;
}

/// A tokenizer; immutable, shared by any number of threads.
pub struct Tokenizer {
    vocabulary: Box<dyn Vocabulary>,
    decoding: Decoding,
    special_tokens: SpecialTokens,
}

impl Tokenizer {
    /// Opens the tokenizer of a model directory: `tokenizer.json`, or else `tokenizer.model`.
    ///
    /// # Errors
    /// `NotFound` when there is neither, `InvalidData` for malformed files, `Unsupported` for kinds of tokenizers that
    /// no Llama-family model has.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut side_files = SideFiles::open(dir)?;
        let (vocabulary, decoding): (Box<dyn Vocabulary>, _) = if let Some((json, decoding)) =
            JsonTokenizer::open(&dir.join("tokenizer.json"), &side_files)?
        {
            (Box::new(json), decoding)
        } else {
            side_files.set_default("bos_token", "<s>");
            side_files.set_default("eos_token", "</s>");
            side_files.set_default("unk_token", "<unk>");
            let Some((llama, decoding)) = LlamaTokenizer::open(&dir.join("tokenizer.model"), &side_files)?
            else {
                return Err(missing(dir));
            };
            (Box::new(llama), decoding)
        };
        let special_tokens = SpecialTokens::new(&*vocabulary, &side_files)?;
        Ok(Self { vocabulary, decoding, special_tokens })
    }

    /// Special tokens and rules.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special_tokens
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Token ids of `text`, with BOS and EOS as the model's rules say when `add_special_tokens`.
    ///
    /// Special tokens that occur in the text become their ids.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        self.vocabulary.encode(text, add_special_tokens)
    }

    /// Number of ids of `text`, without BOS and EOS.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.encode(text, false)?.len())
    }

    /// Text of `ids`; bytes that are not UTF-8 become U+FFFD, ids that are not in the vocabulary nothing.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let mut stream = TextStream::new(skip_special_tokens);
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(self, id)?);
        }
        text.push_str(&stream.finish(self)?);
        Ok(text)
    }

    /// The token with this id as the vocabulary has it, such as `▁the`, `Ġthe` or `<0x0A>`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.vocabulary.piece(id).map(Cow::into_owned)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("decoding", &self.decoding)
            .field("special_tokens", &self.special_tokens)
            .finish()
    }
}

fn missing(dir: &Path) -> Error {
    if !dir.is_dir() {
        return Error::not_found("there is no such model directory").with_path(dir);
    }
    Error::not_found("the model directory has no tokenizer")
        .with_path(dir)
        .with_expected("tokenizer.json or tokenizer.model", "neither")
        .with_hint("copy the tokenizer files of the base model into the directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tokenizer::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::NotFound);
        assert!(error.to_string().contains("tokenizer.json or tokenizer.model"), "{error}");
        assert!(error.hint().is_some());
        let error = Tokenizer::open(&dir.path().join("nowhere")).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::NotFound);
        assert!(error.to_string().contains("no such model directory"), "{error}");
    }
}
