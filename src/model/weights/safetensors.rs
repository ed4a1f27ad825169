//! The header of a safetensors file (<https://github.com/huggingface/safetensors#format>).

use std::collections::HashSet;
use std::fmt;

use safetensors::tensor::{Dtype, TensorInfo as HeaderEntry};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::TensorInfo;
use super::stored::{ReadableTensor, StoredTensor};
use crate::backend::DType;
use crate::error::{Error, Result};

/// Bytes of the little-endian length before the header.
const LENGTH_SIZE: usize = 8;

/// The format's own limit of a header, in bytes.
const MAX_HEADER_LEN: usize = 100_000_000;

/// Reads and validates the header: all tensors together cover the data without hole or overlap.
///
/// The `safetensors` crate's own `read_metadata` is not used, because it adds a hostile end offset without a check, lets
/// the last of two tensors with one name win, and does not say which tensor is at fault.
///
/// # Errors
/// `InvalidData` naming the tensor and what is wrong with it.
pub(super) fn read_tensors(file: &[u8]) -> Result<Vec<(String, StoredTensor)>> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_SIZE>() else {
        return Err(Error::invalid_data("the file is too short for safetensors")
            .with_expected(format_args!("at least {LENGTH_SIZE} bytes"), file.len()));
    };
    let header = usize::try_from(u64::from_le_bytes(*length))
        .ok()
        .filter(|&length| length <= MAX_HEADER_LEN)
        .and_then(|length| rest.get(..length));
    let Some(header) = header else {
        return Err(Error::invalid_data("not a safetensors file, or a truncated one").with_expected(
            format_args!("a header of at most {} bytes", rest.len().min(MAX_HEADER_LEN)),
            format_args!("{} bytes", u64::from_le_bytes(*length)),
        ));
    };
    let Header(mut entries) = serde_json::from_slice(header)
        .map_err(|error| Error::invalid_data("the safetensors header is not valid").with_source(error))?;
    let data_start = LENGTH_SIZE + header.len();
    let data_len = file.len() - data_start;

    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut covered = 0;
    for (name, entry) in entries {
        let (start, end) = entry.data_offsets;
        if start != covered || end < start || end > data_len {
            return Err(Error::invalid_data(format!("tensor `{name}` is not where the one before it ends"))
                .with_expected(
                    format_args!("a range from {covered} on, within {data_len} bytes"),
                    format_args!("{start}..{end}"),
                )
                .with_hint("the file is truncated or corrupt; download it again"));
        }
        covered = end;
        let tensor = stored_tensor(entry, data_start)
            .map_err(|error| error.context(format!("tensor `{name}` is not valid")))?;
        tensors.push((name, tensor));
    }
    if covered != data_len {
        return Err(Error::invalid_data("the tensors do not cover the file")
            .with_expected(format_args!("{covered} bytes of data"), data_len));
    }
    Ok(tensors)
}

fn stored_tensor(entry: HeaderEntry, data_start: usize) -> Result<StoredTensor> {
    let dtype = match entry.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Ok(StoredTensor::Unsupported { element: other.to_string(), shape: entry.shape }),
    };
    let (start, end) = entry.data_offsets;
    let info = TensorInfo { dtype, shape: entry.shape };
    Ok(StoredTensor::Readable(ReadableTensor::dense(info, data_start + start..data_start + end)?))
}

/// The JSON object of the header, without its free-form `__metadata__`.
struct Header(Vec<(String, HeaderEntry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("tensor `{name}` appears twice")));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Header(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data_len: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data_len, 0);
        file
    }

    const VALID: &str = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]},
        "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
        "ids":{"dtype":"I64","shape":[1],"data_offsets":[12,20]},
        "none":{"dtype":"F16","shape":[0,7],"data_offsets":[20,20]}}"#;

    #[test]
    fn a_valid_header_gives_all_tensors() {
        let tensors = read_tensors(&file(VALID, 20)).unwrap();
        let names: Vec<&str> = tensors.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a", "b", "ids", "none"]);
        let StoredTensor::Readable(b) = &tensors[1].1 else { panic!("b is readable") };
        assert_eq!(b.info(), &TensorInfo { dtype: DType::BF16, shape: vec![2, 2] });
        assert_eq!(b.bytes(), 8 + VALID.len() + 4..8 + VALID.len() + 12);
        assert_eq!(tensors[2].1, StoredTensor::Unsupported { element: "I64".into(), shape: vec![1] });
    }

    #[test]
    fn invalid_headers_are_refused_with_the_reason() {
        let check = |file: &[u8], message: &str| {
            let error = read_tensors(file).unwrap_err();
            assert!(error.to_line().contains(message), "{message}: {}", error.to_line());
        };
        let tensor = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        check(b"short", "too short");
        check(&u64::MAX.to_le_bytes(), "truncated");
        check(&[&100_u64.to_le_bytes()[..], b"{}"].concat(), "truncated");
        check(&file("[]", 0), "expected an object of tensors");
        check(&file("{\"w\":1}", 0), "not valid");
        check(&file(&tensor("F99", "[1]", "[0,4]"), 4), "unknown variant `F99`");
        check(&file(&tensor("F32", "[-1]", "[0,4]"), 4), "not valid");
        check(&file(&tensor("F32", "[1]", "[0,4]"), 3), "within 3 bytes");
        check(&file(&tensor("F32", "[1]", "[0,4]"), 5), "do not cover");
        check(&file(&tensor("F32", "[2]", "[0,4]"), 4), "8 bytes for f32 [2]");
        check(&file(&tensor("F32", "[1]", "[4,8]"), 8), "from 0 on");
        check(&file(&tensor("F32", "[1]", "[4,0]"), 4), "from 0 on");
        check(&file(&tensor("F32", "[4611686018427387904,4]", "[0,0]"), 0), "overflows");
        check(
            &file(&tensor("U8", "[18446744073709551600]", "[0,18446744073709551600]"), 0),
            "within 0 bytes",
        );
        check(&file(&VALID.replace("\"b\"", "\"a\""), 20), "tensor `a` appears twice");
        check(&file(&VALID.replace("[4,12]", "[0,8]"), 20), "from 4 on");
        check(&file(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), 0), "not valid");
    }

    proptest! {
        #[test]
        fn mutated_files_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
                                     keep in any::<prop::sample::Index>()) {
            let mut file = file(VALID, 20);
            for (at, byte) in edits {
                let at = at.index(file.len());
                file[at] = byte;
            }
            file.truncate(keep.index(2 * file.len()).max(1));
            if let Ok(tensors) = read_tensors(&file) {
                for (_, tensor) in tensors {
                    if let StoredTensor::Readable(tensor) = tensor {
                        let _ = tensor.read(&file);
                    }
                }
            }
        }
    }
}
