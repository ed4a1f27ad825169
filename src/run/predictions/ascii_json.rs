//! JSON in ASCII, as Python's `json.dumps` writes it by default.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::error::{Error, Result};

/// `value` on one line of ASCII with its newline.
///
/// Model output holds every character; readers that split at U+2028 or open files in the locale's encoding, as the
/// reference does, still read these lines.
pub(in crate::run) fn to_line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, AsciiFormatter);
    value
        .serialize(&mut serializer)
        .map_err(|error| Error::internal("cannot write a record as JSON").with_source(error))?;
    line.push(b'\n');
    Ok(line)
}

struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(position) = rest.find(|c: char| !c.is_ascii()) {
            let (ascii, tail) = rest.split_at(position);
            CompactFormatter.write_string_fragment(writer, ascii)?;
            let mut characters = tail.chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_in_python() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let line = String::from_utf8(to_line(&text).unwrap()).unwrap();
            assert_eq!(line, format!("\"{expected}\"\n"));
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
        check("a\n\"b\"\\", r#"a\n\"b\"\\"#);
        check("naïve", r"na\u00efve");
        check("\u{2028}é", r"\u2028\u00e9");
        check("😀!", r"\ud83d\ude00!");
        check("\u{0}\u{1f}", r"\u0000\u001f");
    }
}
