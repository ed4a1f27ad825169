//! Reading whole files with a bound on their size.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// The content of the file at `path`, or `None` when there is none.
///
/// # Errors
/// `InvalidData` when the file has more than `max_bytes`, whatever its metadata claims; `Io` when it cannot be read.
pub(super) fn read_optional(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::invalid_data("the file is too large")
            .with_path(path)
            .with_expected(format!("at most {max_bytes} bytes"), "more"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read_optional(&path, 3).unwrap().is_none());
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_optional(&path, 3).unwrap().unwrap(), b"abc");
        let error = read_optional(&path, 2).unwrap_err();
        assert!(error.to_string().contains("at most 2 bytes"), "{error}");
        assert!(read_optional(dir.path(), 3).is_err());
    }
}
