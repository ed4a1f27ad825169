//! Object ids: SHA-1 or SHA-256.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The id of a commit, a tree or a blob; 20 or 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Zeros follow the id's own bytes.
    bytes: [u8; 32],
    len: u8,
}

impl ObjectId {
    /// The id with these bytes; `None` unless there are 20 or 32.
    pub fn from_bytes(id: &[u8]) -> Option<Self> {
        if !matches!(id.len(), 20 | 32) {
            return None;
        }
        let mut bytes = [0; 32];
        bytes[..id.len()].copy_from_slice(id);
        Some(Self { bytes, len: u8::try_from(id.len()).ok()? })
    }

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether the text is a whole id in hexadecimal, which names nothing but an object.
    pub fn is_id(text: &str) -> bool {
        text.parse::<Self>().is_ok()
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    /// Reads 40 or 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?))
            .collect();
        bytes.and_then(|bytes| Self::from_bytes(&bytes)).ok_or_else(|| {
            Error::invalid_data("not the id of a git object")
                .with_expected("40 or 64 hexadecimal digits", format_args!("`{}`", text.escape_debug()))
        })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        for text in ["0123456789abcdef0123456789abcdef01234567", &"5a".repeat(32)] {
            let id: ObjectId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(ObjectId::from_bytes(id.as_bytes()), Some(id));
        }
        for text in ["", "HEAD", "0123", &"g".repeat(40), &"0".repeat(41), &"é".repeat(20)] {
            assert!(!ObjectId::is_id(text), "{text}");
        }
    }
}
