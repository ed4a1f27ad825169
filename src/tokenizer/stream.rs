//! Incremental decoding of ids that arrive one by one.

use super::Tokenizer;
use super::decoding::Part;
use crate::error::Result;

/// Incremental decoding: never emits half a character, and the pieces join to what [`Tokenizer::decode`] returns.
///
/// Holds at most three bytes, and each id costs the same however long the text is. All ids must go through the
/// same tokenizer.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    skip_special_tokens: bool,
    /// The beginning of a character whose end has not come.
    pending: Vec<u8>,
    /// Spaces dropped at the start of the text.
    stripped: usize,
    /// The start of the text is behind.
    started: bool,
}

impl TextStream {
    /// A stream at the start of a text.
    pub fn new(skip_special_tokens: bool) -> Self {
        Self { skip_special_tokens, ..Self::default() }
    }

    /// Adds one id and returns the text that is certain now; possibly empty.
    ///
    /// An id that is not in the vocabulary adds nothing: models may have more rows than their tokenizer has tokens.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        let mut text = String::new();
        if !(self.skip_special_tokens && tokenizer.vocabulary.is_special(id))
            && let Some(token) = tokenizer.vocabulary.piece(id)
        {
            let each_byte = tokenizer.decoding.replaces_each_byte();
            match tokenizer.decoding.part(token) {
                Part::Bytes(bytes) => {
                    self.pending.extend(bytes);
                    take_characters(&mut self.pending, each_byte, &mut text);
                }
                Part::Text(more) => {
                    self.replace_pending(each_byte, &mut text);
                    text.push_str(&more);
                }
            }
        }
        Ok(self.strip_start(text, tokenizer.decoding.strip_start()))
    }

    /// The rest, when no more ids come; an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let mut text = String::new();
        self.replace_pending(tokenizer.decoding.replaces_each_byte(), &mut text);
        Ok(self.strip_start(text, tokenizer.decoding.strip_start()))
    }

    fn replace_pending(&mut self, each_byte: bool, text: &mut String) {
        let count = if each_byte { self.pending.len() } else { self.pending.len().min(1) };
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
        self.pending.clear();
    }

    fn strip_start(&mut self, mut text: String, count: usize) -> String {
        if !self.started {
            let spaces = text.bytes().take_while(|&byte| byte == b' ').count();
            let strip = spaces.min(count - self.stripped);
            self.stripped += strip;
            self.started = strip < text.len() || self.stripped == count;
            text.drain(..strip);
        }
        text
    }
}

/// Moves what is complete in `bytes` to `text`; what remains is the beginning of a character.
fn take_characters(bytes: &mut Vec<u8>, each_byte: bool, text: &mut String) {
    let mut complete = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        complete += chunk.valid().len();
        let invalid = chunk.invalid();
        if !invalid.is_empty() && is_beginning(invalid, complete + invalid.len() == bytes.len()) {
            break;
        }
        let count = if each_byte { invalid.len() } else { invalid.len().min(1) };
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
        complete += invalid.len();
    }
    bytes.drain(..complete);
}

/// Whether an invalid chunk can still become a character: it is the last one and only lacks its end.
fn is_beginning(invalid: &[u8], is_last: bool) -> bool {
    is_last && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}
