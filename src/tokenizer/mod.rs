//! Text to token ids and back: `tokenizer.json`, or `tokenizer.model` alone, with the rules of their side files.

use std::path::Path;

use crate::error::Result;

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

/// A tokenizer; immutable, shared by any number of threads.
pub struct Tokenizer {}

impl Tokenizer {
    /// Opens the tokenizer of a model directory.
    pub fn open(dir: &Path) -> Result<Self> {
        let _ = dir;
        todo!()
    }

    /// Special tokens and rules.
    pub fn special_tokens(&self) -> &SpecialTokens {
        todo!()
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }

    /// Token ids of `text`, with BOS and EOS as the model's rules say when `add_special_tokens`.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let _ = (text, add_special_tokens);
        todo!()
    }

    /// Text of `ids`; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let _ = (ids, skip_special_tokens);
        todo!()
    }
}

/// Incremental decoding: never emits half a character, and the pieces join to what [`Tokenizer::decode`] returns.
pub struct TextStream {}

impl TextStream {
    /// A decoder for ids that arrive one by one.
    pub fn new(skip_special_tokens: bool) -> Self {
        let _ = skip_special_tokens;
        todo!()
    }

    /// Adds one id and returns the text that is certain now; possibly empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        let _ = (tokenizer, id);
        todo!()
    }

    /// The rest, when no more ids come; an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let _ = tokenizer;
        todo!()
    }
}
