//! Tokenizers.

use super::sys::{self, swebench_tokenizer};
use super::{Result, borrow_ids, call, call_for_object, call_for_text, lend};

/// A tokenizer; any number of threads may use it at once.
pub struct Tokenizer(*mut swebench_tokenizer);

// SAFETY: a tokenizer may be used and freed on any thread.
unsafe impl Send for Tokenizer {}
// SAFETY: every method takes `const swebench_tokenizer *`, which threads may share.
unsafe impl Sync for Tokenizer {}

/// The flags of encoding and decoding.
fn flags(special_tokens: bool) -> u32 {
    if special_tokens { sys::SWEBENCH_SPECIAL_TOKENS } else { 0 }
}

impl Tokenizer {
    /// Opens the tokenizer of a model directory.
    pub fn open(path: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        call_for_object(|out, error| unsafe { sys::swebench_tokenizer_open(lend(path), out, error) })
            .map(Self)
    }

    pub(super) fn new(tokenizer: *mut swebench_tokenizer) -> Self {
        Self(tokenizer)
    }

    /// Vocabulary size, special tokens and rules, as JSON.
    pub fn info(&self) -> Result<String> {
        // SAFETY: the tokenizer is alive, the outputs live during the call.
        call_for_text(|out, error| unsafe { sys::swebench_tokenizer_info(self.0, out, error) })
    }

    /// Token ids of a text, with BOS and EOS as the model's rules say when `special_tokens`.
    pub fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>> {
        // SAFETY: the tokenizer is alive; text and outputs live during the call.
        let tokens = call_for_object(|out, error| unsafe {
            sys::swebench_tokenizer_encode(self.0, lend(text), flags(special_tokens), out, error)
        })?;
        let mut len = 0;
        // SAFETY: the list is alive until it is freed here, once.
        unsafe {
            let data = sys::swebench_tokens_data(tokens, &raw mut len);
            let ids = borrow_ids(data, len).to_vec();
            sys::swebench_tokens_free(tokens);
            Ok(ids)
        }
    }

    /// The number of ids that [`Tokenizer::encode`] gives.
    pub fn count(&self, text: &str, special_tokens: bool) -> Result<usize> {
        let mut count = 0;
        // SAFETY: the tokenizer is alive; text and outputs live during the call.
        call(|error| unsafe {
            sys::swebench_tokenizer_count(self.0, lend(text), flags(special_tokens), &raw mut count, error)
        })?;
        Ok(count)
    }

    /// Text of token ids, with special tokens written out when `special_tokens`.
    pub fn decode(&self, ids: &[u32], special_tokens: bool) -> Result<String> {
        let pointer = if ids.is_empty() { std::ptr::null() } else { ids.as_ptr() };
        // SAFETY: the tokenizer is alive; ids and outputs live during the call.
        call_for_text(|out, error| unsafe {
            sys::swebench_tokenizer_decode(self.0, pointer, ids.len(), flags(special_tokens), out, error)
        })
    }
}

impl Drop for Tokenizer {
    fn drop(&mut self) {
        // SAFETY: from the library, freed once.
        unsafe { sys::swebench_tokenizer_free(self.0) }
    }
}
