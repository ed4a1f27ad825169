//! The index of a sharded checkpoint: which file holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use super::mapped::MappedFile;
use crate::error::{Error, Result};

/// The largest index that is read; the index of a thousand tensors has 100 KB.
const MAX_INDEX_LEN: usize = 64 << 20;

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
#[derive(Deserialize)]
pub(super) struct ShardIndex {
    /// File name by tensor name.
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index whose shards are files beside it.
    ///
    /// # Errors
    /// `InvalidData` when it is not valid JSON, lists nothing, or names a shard outside its directory.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        if file.bytes().len() > MAX_INDEX_LEN {
            return Err(Error::invalid_data("the index of a sharded checkpoint is too large")
                .with_path(path)
                .with_expected(format_args!("at most {MAX_INDEX_LEN} bytes"), file.bytes().len()));
        }
        let index: Self = serde_json::from_slice(file.bytes()).map_err(|error| {
            Error::invalid_data("the index of a sharded checkpoint is not valid")
                .with_path(path)
                .with_source(error)
        })?;
        if index.weight_map.is_empty() {
            return Err(Error::invalid_data("the index lists no tensors").with_path(path));
        }
        for (name, shard) in &index.weight_map {
            if !is_file_name(shard) {
                return Err(Error::invalid_data(format!(
                    "the index puts tensor `{name}` outside its directory"
                ))
                .with_path(path)
                .with_expected("the name of a file beside the index", format_args!("{shard:?}")));
            }
        }
        Ok(index)
    }

    /// The shards' file names, sorted, each once.
    pub(super) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// The names of the tensors that a shard holds.
    pub(super) fn tensors_of<'a>(&'a self, shard: &'a str) -> impl Iterator<Item = &'a str> {
        self.weight_map.iter().filter(move |(_, file)| *file == shard).map(|(name, _)| name.as_str())
    }
}

/// Whether `name` is one plain component, on any operating system.
fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(first)) if first == name)
        && components.next().is_none()
        && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_stay_in_the_directory() {
        for name in ["model-00001-of-00002.safetensors", "a", "a..b"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a/", "./a", "a\\b", "C:a", "a\0"] {
            assert!(!is_file_name(name), "{name}");
        }
    }

    #[test]
    fn invalid_indexes_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.json");
        let check = |text: &str, message: &str| {
            std::fs::write(&path, text).unwrap();
            let line = ShardIndex::read(&path).err().unwrap().to_line();
            assert!(line.contains(message) && line.contains("index.json"), "{text}: {line}");
        };
        check("{", "not valid");
        check("{}", "weight_map");
        check(r#"{"weight_map":{}}"#, "no tensors");
        check(r#"{"weight_map":{"w":1}}"#, "not valid");
        check(
            r#"{"weight_map":{"w":"../w.bin"}}"#,
            r#"tensor `w` outside its directory: expected the name of"#,
        );
        check(&format!("{}1{}", "[".repeat(9999), "]".repeat(9999)), "not valid");
    }
}
