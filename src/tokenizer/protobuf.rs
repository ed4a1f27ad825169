//! The protobuf wire format, as far as reading a message field by field needs it.
//!
//! <https://protobuf.dev/programming-guides/encoding/>. Nothing is copied or allocated, so a lying length costs nothing.

use crate::error::{Error, Result};

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(wrong_type("bytes", other)),
        }
    }

    pub(super) fn string(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|error| Error::invalid_data("a string is not UTF-8").with_source(error))
    }

    pub(super) fn integer(self) -> Result<u64> {
        match self {
            Self::Varint(integer) => Ok(integer),
            other => Err(wrong_type("a varint", other)),
        }
    }

    pub(super) fn boolean(self) -> Result<bool> {
        Ok(self.integer()? != 0)
    }

    pub(super) fn float(self) -> Result<f32> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            other => Err(wrong_type("a float", other)),
        }
    }
}

fn wrong_type(expected: &str, got: Value<'_>) -> Error {
    let got = match got {
        Value::Varint(_) => "a varint",
        Value::Fixed64(_) => "a 64-bit value",
        Value::Bytes(_) => "bytes",
        Value::Fixed32(_) => "a 32-bit value",
    };
    Error::invalid_data("a field has the wrong type").with_expected(expected, got)
}

/// The fields of one message in the order they are written: field number and value.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            return Err(Error::invalid_data("the file ends inside a field")
                .with_expected(format!("{len} bytes"), self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::invalid_data("a varint has more than 64 bits"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            other => {
                return Err(Error::invalid_data("a field has an unknown wire type")
                    .with_expected("0, 1, 2 or 5", other));
            }
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(message: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
        Fields::new(message).collect()
    }

    #[test]
    fn every_wire_type_is_read() {
        let message = [
            0x08, 0x96, 0x01, // 1: 150
            0x11, 1, 0, 0, 0, 0, 0, 0, 0, // 2: 1 as 64 bits
            0x1a, 2, b'h', b'i', // 3: "hi"
            0x25, 0, 0, 0x80, 0x3f, // 4: 1.0
        ];
        let fields = read(&message).unwrap();
        assert_eq!(
            fields,
            [
                (1, Value::Varint(150)),
                (2, Value::Fixed64(1)),
                (3, Value::Bytes(b"hi")),
                (4, Value::Fixed32(0x3f80_0000))
            ]
        );
        assert_eq!(fields[0].1.integer().unwrap(), 150);
        assert_eq!(fields[2].1.string().unwrap(), "hi");
        assert_eq!(fields[3].1.float().unwrap(), 1.0);
        assert!(fields[3].1.string().unwrap_err().to_string().contains("expected bytes, got a 32-bit value"));
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        let check = |message: &[u8], part: &str| {
            let error = read(message).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        check(&[0x08], "ends inside a field");
        check(&[0x08, 0x80], "ends inside a field");
        check(&[0x11, 1, 2, 3], "expected 8 bytes, got 3");
        check(&[0x1a, 5, b'h'], "expected 5 bytes, got 1");
        check(&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "ends inside a field");
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "more than 64 bits");
        check(&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], "more than 64 bits");
        check(&[0x0b], "unknown wire type");
    }

    #[test]
    fn the_largest_varint_is_read() {
        let message = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&message).unwrap(), [(1, Value::Varint(u64::MAX))]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(message: Vec<u8>) {
            let count = Fields::new(&message).count();
            prop_assert!(count <= message.len());
        }
    }
}
