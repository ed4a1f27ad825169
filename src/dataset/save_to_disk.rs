//! Directories that Python's `datasets` wrote with `save_to_disk`: a `DatasetDict` or a plain `Dataset`.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::columns::list;
use super::source::{DataFile, Format, missing_split};
use crate::error::{Error, Result};

const DICT: &str = "dataset_dict.json";
const STATE: &str = "state.json";

#[derive(Deserialize)]
struct DatasetDict {
    splits: Vec<String>,
}

#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    data_files: Vec<StateFile>,
    #[serde(rename = "_split", default)]
    split: Option<String>,
    /// Written by `datasets` 1.x for shuffled and filtered sets, whose rows are not the files' rows.
    #[serde(rename = "_indices_data_files", default)]
    indices: Option<Vec<StateFile>>,
}

#[derive(Deserialize)]
struct StateFile {
    filename: String,
}

/// The files of `split`, in order; `None` when `root` was not written by `save_to_disk`.
pub(super) fn find(root: &Path, split: &str) -> Result<Option<Vec<DataFile>>> {
    if root.join(DICT).is_file() {
        let dict: DatasetDict = read_json(&root.join(DICT))?;
        if !dict.splits.iter().any(|name| name == split) {
            return Err(missing_split(split, &dict.splits).with_path(root));
        }
        return split_files(&inside(root, split)?).map(Some);
    }
    if root.join(STATE).is_file() {
        return plain_files(root, split).map(Some);
    }
    match inside(root, split) {
        Ok(directory) if directory.join(STATE).is_file() => split_files(&directory).map(Some),
        _ => Ok(None),
    }
}

/// The splits of a `DatasetDict`, sorted; `None` for anything else.
pub(super) fn splits(root: &Path) -> Result<Option<Vec<String>>> {
    if !root.join(DICT).is_file() {
        return Ok(None);
    }
    let mut dict: DatasetDict = read_json(&root.join(DICT))?;
    dict.splits.sort();
    Ok(Some(dict.splits))
}

fn split_files(directory: &Path) -> Result<Vec<DataFile>> {
    data_files(directory, read_json(&directory.join(STATE))?)
}

/// A plain `Dataset` may know which split it was; if not, it is taken for the one asked for.
fn plain_files(root: &Path, split: &str) -> Result<Vec<DataFile>> {
    let state: State = read_json(&root.join(STATE))?;
    match &state.split {
        Some(name) if name != split && !name.starts_with(&format!("{split}[")) => {
            Err(missing_split(split, std::slice::from_ref(name)).with_path(root))
        }
        _ => data_files(root, state),
    }
}

fn data_files(directory: &Path, state: State) -> Result<Vec<DataFile>> {
    if state.indices.is_some_and(|files| !files.is_empty()) {
        return Err(Error::unsupported("the dataset was saved with a separate table of row indices")
            .with_path(directory)
            .with_hint("load it in Python, call flatten_indices() and save_to_disk() again"));
    }
    state
        .data_files
        .iter()
        .map(|file| Ok(DataFile { path: inside(directory, &file.filename)?, format: Format::Arrow }))
        .collect()
}

/// `directory/name`, where `name` comes from a file and must not lead anywhere else.
fn inside(directory: &Path, name: &str) -> Result<PathBuf> {
    let relative = Path::new(name);
    let stays = relative.components().all(|part| matches!(part, Component::Normal(_))) && !name.is_empty();
    if stays && !name.contains('\\') {
        return Ok(directory.join(relative));
    }
    Err(Error::invalid_data("the dataset names a file outside of its directory")
        .with_path(directory)
        .with_expected("a relative path without `..`", format_args!("`{}`", name.escape_debug())))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    const MAX_LEN: u64 = 64 << 20;
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
    if metadata.len() > MAX_LEN {
        return Err(Error::invalid_data("the file is too large to describe a dataset").with_path(path));
    }
    let text = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| {
        let keys = [DICT, STATE];
        Error::invalid_data(format!("not the {} of a saved dataset", list(&keys, "")))
            .with_path(path)
            .with_source(error)
            .with_hint("save the dataset again with save_to_disk()")
    })
}
