//! What a token stands for in a text: the `decoder` of a `tokenizer.json`, token by token.

use std::borrow::Cow;

use serde::Deserialize;

use crate::error::{Error, Result};

/// How tokens become text.
///
/// Only decoders that look at one token at a time are here, which is what makes decoding a stream exact and linear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Each character of a token stands for a byte (GPT-2's table).
    ByteLevel,
    /// A token is its text, or one byte written as `<0x0A>`.
    Pieces {
        /// Replaced in every token, in this order; the first is what SentencePiece has for a space.
        replacements: Vec<(String, String)>,
        /// Whether `<0x0A>` is a byte.
        byte_fallback: bool,
        /// How many spaces are dropped at the start of the text.
        strip_start: usize,
    },
}

/// What one token adds to a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text; bytes before it that are not UTF-8 are wrong for good.
    Text(Cow<'a, str>),
    /// Bytes that may end inside a character.
    Bytes(Vec<u8>),
}

/// The decoders of a `tokenizer.json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
enum Definition {
    ByteLevel,
    Sequence {
        decoders: Vec<Definition>,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    ByteFallback,
    Fuse,
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    Metaspace {
        replacement: char,
        prepend_scheme: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
enum Pattern {
    String(String),
    Regex(#[expect(dead_code, reason = "read to be refused")] String),
}

impl Decoding {
    /// From the `decoder` of a `tokenizer.json`.
    ///
    /// # Errors
    /// `Unsupported` for a decoder that this library does not know.
    pub(super) fn from_json(decoder: &serde_json::Value) -> Result<Self> {
        let unsupported = || {
            Error::unsupported("the tokenizer's decoder is not supported").with_expected(
                "ByteLevel, Metaspace, or a sequence of Replace, ByteFallback, Fuse and Strip",
                decoder,
            )
        };
        let definition =
            Definition::deserialize(decoder).map_err(|error| unsupported().with_source(error))?;
        let steps = match definition {
            Definition::Sequence { decoders } => decoders,
            one => vec![one],
        };
        if let [Definition::ByteLevel] = steps[..] {
            return Ok(Self::ByteLevel);
        }
        let mut replacements = Vec::new();
        let (mut byte_fallback, mut fused, mut strip_start) = (false, false, 0);
        for step in steps {
            match step {
                Definition::Replace { pattern: Pattern::String(pattern), content } if !fused => {
                    replacements.push((pattern, content));
                }
                Definition::Metaspace { replacement, prepend_scheme } if !fused => {
                    replacements.push((replacement.to_string(), " ".to_owned()));
                    strip_start = usize::from(prepend_scheme != "never");
                    fused = true;
                }
                Definition::ByteFallback if !fused => byte_fallback = true,
                Definition::Fuse => fused = true,
                Definition::Strip { content: ' ', start, stop: 0 } if fused => strip_start += start,
                _ => return Err(unsupported()),
            }
        }
        Ok(Self::Pieces { replacements, byte_fallback, strip_start })
    }

    /// How many spaces are dropped at the start of the text.
    pub(super) fn strip_start(&self) -> usize {
        match self {
            Self::ByteLevel => 0,
            Self::Pieces { strip_start, .. } => *strip_start,
        }
    }

    /// Whether each byte of a cut or impossible character becomes a U+FFFD of its own, as SentencePiece has it.
    pub(super) fn replaces_each_byte(&self) -> bool {
        matches!(self, Self::Pieces { .. })
    }

    pub(super) fn part<'a>(&self, token: Cow<'a, str>) -> Part<'a> {
        match self {
            Self::ByteLevel => Part::Bytes(byte_level_bytes(&token)),
            Self::Pieces { replacements, byte_fallback, .. } => {
                let mut token = token;
                for (pattern, content) in replacements {
                    if token.contains(pattern) {
                        token = Cow::Owned(token.replace(pattern, content));
                    }
                }
                match byte_of(&token).filter(|_| *byte_fallback) {
                    Some(byte) => Part::Bytes(vec![byte]),
                    None => Part::Text(token),
                }
            }
        }
    }
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The bytes whose stand-ins a token consists of; a token with any other character stands for itself.
fn byte_level_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_level_byte).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes are numbered from U+0100.
fn byte_level_byte(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_byte_level_table_is_the_library_s() {
        let mut characters: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(characters.len(), 256);
        characters.sort_unstable();
        let mut bytes: Vec<u8> =
            characters.iter().map(|&character| byte_level_byte(character).unwrap()).collect();
        let text = String::from_utf8(vec![0xc2, 0xad, 0x7f, b' ']).unwrap();
        assert_eq!(byte_level_bytes("ÂŃġĠ"), text.as_bytes());
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 256);
    }

    #[test]
    fn known_decoders_are_read_and_others_refused() {
        let check = |decoder: serde_json::Value, expected: Option<Decoding>| {
            assert_eq!(Decoding::from_json(&decoder).ok(), expected, "{decoder}");
        };
        let pieces = |byte_fallback, strip_start| {
            let replacements = vec![("▁".to_owned(), " ".to_owned())];
            Some(Decoding::Pieces { replacements, byte_fallback, strip_start })
        };
        let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let bytes = json!({"type": "ByteFallback"});
        let fuse = json!({"type": "Fuse"});
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let sequence = |steps: &[&serde_json::Value]| json!({"type": "Sequence", "decoders": steps});
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        check(byte_level.clone(), Some(Decoding::ByteLevel));
        check(sequence(&[&byte_level]), Some(Decoding::ByteLevel));
        check(sequence(&[&replace, &bytes, &fuse, &strip]), pieces(true, 1));
        check(sequence(&[&replace, &bytes, &fuse]), pieces(true, 0));
        let metaspace = |scheme| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        check(metaspace("always"), pieces(false, 1));
        check(metaspace("never"), pieces(false, 0));
        check(sequence(&[&fuse, &replace]), None);
        check(sequence(&[&replace, &strip]), None);
        check(json!({"type": "Strip", "content": " ", "start": 0, "stop": 1}), None);
        check(json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), None);
        check(json!({"type": "Replace", "pattern": {"Regex": "a|b"}, "content": " "}), None);
        check(serde_json::Value::Null, None);
    }
}
