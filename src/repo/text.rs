//! The bytes of a file as text.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8};

/// What a file's bytes turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text<'a> {
    /// UTF-8, which nearly all source code is.
    Utf8(Cow<'a, str>),
    /// Decoded from the encoding of this name, which the file declares or which was guessed.
    Decoded(String, &'static str),
    /// No text.
    Binary,
}

impl Text<'_> {
    /// The text, unless the file is binary.
    pub fn into_string(self) -> Option<String> {
        match self {
            Self::Utf8(text) => Some(text.into_owned()),
            Self::Decoded(text, _) => Some(text),
            Self::Binary => None,
        }
    }
}

/// Reads a file's bytes as Python's text mode does, with LF for every line end; a byte order mark of UTF-8 stays.
///
/// What is not UTF-8 is decoded as UTF-16 where it begins with that mark, else as a declaration in one of the first two
/// lines says (PEP 263), else as a guess by its letters. Bytes with a NUL are no text.
pub fn decode(bytes: &[u8]) -> Text<'_> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return if text.contains('\0') {
            Text::Binary
        } else {
            Text::Utf8(unix_line_ends(Cow::Borrowed(text)))
        };
    }
    if let Some((encoding, _)) = Encoding::for_bom(bytes).filter(|(encoding, _)| *encoding != UTF_8) {
        return decode_as(encoding, bytes);
    }
    if bytes.contains(&0) {
        return Text::Binary;
    }
    match declared_encoding(bytes).filter(|encoding| *encoding != UTF_8) {
        Some(encoding) => decode_as(encoding, bytes),
        None => decode_as(guess(bytes), bytes),
    }
}

fn decode_as<'a>(encoding: &'static Encoding, bytes: &[u8]) -> Text<'a> {
    let (text, encoding, has_errors) = encoding.decode(bytes);
    if has_errors || text.contains('\0') {
        return Text::Binary;
    }
    Text::Decoded(unix_line_ends(text).into_owned(), encoding.name())
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Deny)
}

/// The encoding of a `coding: NAME` or `coding=NAME` comment in the first two lines.
fn declared_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    bytes.split(|byte| *byte == b'\n').take(2).find_map(|line| {
        let comment = line.strip_prefix(b"#").or_else(|| line.trim_ascii_start().strip_prefix(b"#"))?;
        let after = comment.windows(7).position(|word| matches!(word, b"coding:" | b"coding="))? + 7;
        let name = comment[after..].trim_ascii_start();
        let end = name.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"-_.".contains(byte)));
        let name = &name[..end.unwrap_or(name.len())];
        // Python's names of Latin-1 and the like use either mark.
        let hyphens: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        Encoding::for_label(name).or_else(|| Encoding::for_label(&hyphens)).or(match &hyphens[..] {
            b"latin-1" => Some(encoding_rs::WINDOWS_1252),
            _ => None,
        })
    })
}

/// CRLF and lone CR become LF.
fn unix_line_ends(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\r') { Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_in_every_encoding() {
        let russian =
            encoding_rs::WINDOWS_1251.encode("# Строка документации модуля, написанная по-русски\n").0;
        let japanese =
            encoding_rs::SHIFT_JIS.encode("# これは日本語で書かれた説明です。とても長い文章。\n").0;
        let utf16: Vec<u8> = "\u{feff}a = 'é'\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, expected, encoding) in [
            (
                &b"# caf\xe9 au lait, \xe0 la carte\r\nx\ry\n"[..],
                "# café au lait, à la carte\nx\ny\n",
                "windows-1252",
            ),
            (
                b"#!/usr/bin/python\n# -*- coding: latin_1 -*-\n\xd0\xf3\n",
                "#!/usr/bin/python\n# -*- coding: latin_1 -*-\nÐó\n",
                "windows-1252",
            ),
            (&russian, "# Строка документации модуля, написанная по-русски\n", "windows-1251"),
            (&japanese, "# これは日本語で書かれた説明です。とても長い文章。\n", "Shift_JIS"),
            (&utf16, "a = 'é'\n", "UTF-16LE"),
        ] {
            assert_eq!(decode(bytes), Text::Decoded(expected.into(), encoding));
        }
    }

    #[test]
    fn utf8_is_kept_but_for_its_line_ends() {
        for (bytes, expected) in [
            (&b"a\nb"[..], "a\nb"),
            (b"a\r\nb\rc\r", "a\nb\nc\n"),
            (b"\xef\xbb\xbfx", "\u{feff}x"),
            (b"", ""),
            ("é\u{2028}\u{c}".as_bytes(), "é\u{2028}\u{c}"),
        ] {
            assert_eq!(decode(bytes), Text::Utf8(expected.into()));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_called_so() {
        for bytes in [&b"\x7fELF\x02\x01\x01\0\0\0"[..], b"\x89PNG\r\n\x1a\n\0\0", b"a\0b", b"\xff\xfe\0"] {
            assert_eq!(decode(bytes), Text::Binary, "{bytes:?}");
        }
    }
}
