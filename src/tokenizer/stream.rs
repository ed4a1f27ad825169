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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::goldens;
    use super::*;

    fn pieces(tokenizer: &Tokenizer, ids: &[u32], skip_special_tokens: bool) -> Vec<String> {
        let mut stream = TextStream::new(skip_special_tokens);
        let mut pieces: Vec<_> = ids.iter().map(|&id| stream.push(tokenizer, id).unwrap()).collect();
        pieces.push(stream.finish(tokenizer).unwrap());
        pieces
    }

    fn check(name: &str, ids: &[u32], expected: &[&str]) {
        let tokenizer = Tokenizer::open(&goldens::dir(name)).unwrap();
        assert_eq!(pieces(&tokenizer, ids, false), expected, "{name} {ids:?}");
    }

    #[test]
    fn text_comes_as_soon_as_it_is_certain() {
        // In `spm` byte n has the id n + 4; 267 is `▁a`, 420 `▁`, 424 `a`.
        let byte = |byte: u32| byte + 4;
        check("spm", &[267, 267, 424], &["a", " a", "a", ""]);
        check("spm", &[420, 420, 424], &["", " ", "a", ""]);
        check("spm", &[byte(0xf0), byte(0x9f), byte(0x99), byte(0x82)], &["", "", "", "🙂", ""]);
        check("spm", &[byte(0xf0), byte(0x9f), 424], &["", "", "\u{fffd}\u{fffd}a", ""]);
        check("spm", &[byte(0xff), byte(0xc3), byte(0xa9)], &["\u{fffd}", "", "é", ""]);
        check("spm", &[byte(b' '.into()), 424], &["", "a", ""]);
        check("spm", &[424, byte(0xe2), byte(0x82)], &["a", "", "", "\u{fffd}\u{fffd}"]);
        check("spm", &[424, 1_000_000, 424], &["a", "", "a", ""]);
        check("byte-level", &[172, 253, 247, 224], &["", "", "", "🙂", ""]);
        check("byte-level", &[64, 172, 253, 64], &["a", "", "", "\u{fffd}a", ""]);
        check("byte-level", &[262, 172, 253], &[" a", "", "", "\u{fffd}"]);
    }

    #[test]
    fn a_stream_holds_three_bytes_at_most() {
        let tokenizer = Tokenizer::open(&goldens::dir("byte-level")).unwrap();
        let mut stream = TextStream::new(false);
        for id in 0..tokenizer.vocab_size() as u32 {
            stream.push(&tokenizer, id).unwrap();
            assert!(stream.pending.len() <= 3, "{id}");
        }
    }

    proptest! {
        #[test]
        fn byte_level_pieces_join_to_what_the_library_decodes(
            ids in prop::collection::vec(0_u32..515, 0..60),
            skip: bool,
        ) {
            let dir = goldens::dir("byte-level");
            let tokenizer = Tokenizer::open(&dir).unwrap();
            let library = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
            let joined = pieces(&tokenizer, &ids, skip).concat();
            prop_assert_eq!(&joined, &library.decode(&ids, skip).unwrap());
            prop_assert_eq!(joined, tokenizer.decode(&ids, skip).unwrap());
        }

        #[test]
        fn sentencepiece_pieces_join_to_the_bytes_of_their_tokens(
            ids in prop::collection::vec(prop_oneof![3_u32..516, 132_u32..260], 0..60),
        ) {
            let tokenizer = Tokenizer::open(&goldens::dir("spm")).unwrap();
            let mut bytes = Vec::new();
            for token in ids.iter().filter_map(|&id| tokenizer.token(id)) {
                match token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')) {
                    Some(digits) => bytes.push(u8::from_str_radix(digits, 16).unwrap()),
                    None => bytes.extend(token.replace('▁', " ").into_bytes()),
                }
            }
            let mut expected = String::new();
            for chunk in bytes.utf8_chunks() {
                expected.push_str(chunk.valid());
                expected.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            let expected = expected.strip_prefix(' ').unwrap_or(&expected);
            prop_assert_eq!(pieces(&tokenizer, &ids, false).concat(), expected);
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected);
        }

        #[test]
        fn what_was_encoded_streams_back(text: String, name in prop_oneof![Just("spm-new"), Just("byte-level")]) {
            let text = text.replace('▁', " ");
            let tokenizer = Tokenizer::open(&goldens::dir(name)).unwrap();
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(pieces(&tokenizer, &ids, false).concat(), text);
        }
    }
}
