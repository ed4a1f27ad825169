//! The directory beside a dataset's place in which it is written, and putting it there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::arrow::write_json;
use super::batch::Column;
use super::{OutputFormat, SplitWriter};
use crate::error::{Error, Result};

const DICT: &str = "dataset_dict.json";

/// Writes a dataset, split by split.
pub struct DatasetWriter {
    path: PathBuf,
    staging: PathBuf,
    format: OutputFormat,
    splits: BTreeSet<String>,
    is_finished: bool,
}

impl DatasetWriter {
    /// Prepares a dataset at `path`; the splits of one that is there stay, unless they are written again.
    ///
    /// # Errors
    /// `InvalidArgument` when something is at `path` that is no dataset of this format; `Io`.
    pub fn create(path: &Path, format: OutputFormat) -> Result<Self> {
        let (staging, old) = (beside(path, ".partial"), beside(path, ".old"));
        if !path.exists() && old.exists() {
            // A process was killed between the two renames of `finish`.
            fs::rename(&old, path).map_err(|error| Error::io("restore", path, error))?;
        }
        remove(&staging)?;
        let splits = existing_splits(path, format)?;
        if splits.is_empty() && path.exists() && !is_empty(path) {
            return Err(Error::invalid_argument(
                "what is here is no dataset of the format that is to be written",
            )
            .with_path(path)
            .with_hint("move it away, or choose another output directory"));
        }
        fs::create_dir_all(&staging).map_err(|error| Error::io("create", &staging, error))?;
        let writer = Self {
            path: path.to_path_buf(),
            staging,
            format,
            splits: splits.into_iter().collect(),
            is_finished: false,
        };
        if path.exists() {
            link_all(path, &writer.staging)?;
        }
        Ok(writer)
    }

    /// Begins a split, in place of one of this name. Its name is a file's: letters, digits, `-`, `_` and `.`.
    ///
    /// # Errors
    /// `InvalidArgument` for another name; `Io`.
    pub fn split<'a>(&mut self, name: &str, columns: &'a [Column]) -> Result<SplitWriter<'a>> {
        check_split(name)?;
        if self.splits.contains(name) {
            for path in split_files(&self.staging, self.format, name) {
                remove(&path)?;
            }
        }
        self.splits.insert(name.to_owned());
        SplitWriter::create(&self.staging, self.format, name, columns)
    }

    /// Puts the dataset in its place.
    ///
    /// # Errors
    /// `Io`; what was in the place before is then still there, or beside it with `.old` at its name's end.
    pub fn finish(mut self) -> Result<()> {
        if self.format == OutputFormat::SaveToDisk {
            write_json(&self.staging.join(DICT), &json!({"splits": self.splits}))?;
        }
        let old = beside(&self.path, ".old");
        if self.path.exists() {
            remove(&old)?;
            fs::rename(&self.path, &old).map_err(|error| Error::io("rename", &self.path, error))?;
        }
        fs::rename(&self.staging, &self.path).map_err(|error| Error::io("rename", &self.staging, error))?;
        self.is_finished = true;
        remove(&old)
    }
}

impl Drop for DatasetWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = remove(&self.staging);
        }
    }
}

/// The splits of the dataset at `path`, sorted; none when there is no dataset of this format.
///
/// # Errors
/// `InvalidData` when the file that lists them is corrupt.
pub fn existing_splits(path: &Path, format: OutputFormat) -> Result<Vec<String>> {
    let mut splits: Vec<String> = match format {
        OutputFormat::SaveToDisk => {
            let file = path.join(DICT);
            if !file.exists() {
                return Ok(Vec::new());
            }
            let text = fs::read_to_string(&file).map_err(|error| Error::io("read", &file, error))?;
            let dict: Value = serde_json::from_str(&text).map_err(|error| {
                Error::invalid_data("not the list of splits").with_path(&file).with_source(error)
            })?;
            let splits = dict["splits"].as_array().into_iter().flatten();
            splits.filter_map(|split| split.as_str().map(str::to_owned)).collect()
        }
        OutputFormat::Parquet => file_names(&path.join("data"))
            .filter_map(|name| {
                let stem = name.strip_suffix(".parquet")?;
                stem.rsplitn(4, '-').nth(3).map(str::to_owned)
            })
            .collect(),
        OutputFormat::Jsonl => {
            file_names(path).filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned)).collect()
        }
    };
    splits.sort();
    splits.dedup();
    Ok(splits)
}

/// What a split consists of.
fn split_files(root: &Path, format: OutputFormat, split: &str) -> Vec<PathBuf> {
    match format {
        OutputFormat::SaveToDisk => vec![root.join(split)],
        OutputFormat::Jsonl => vec![root.join(format!("{split}.jsonl"))],
        OutputFormat::Parquet => {
            let data = root.join("data");
            let of_split = |name: &String| {
                name.strip_suffix(".parquet").and_then(|stem| stem.rsplitn(4, '-').nth(3)) == Some(split)
            };
            file_names(&data).filter(of_split).map(|name| data.join(name)).collect()
        }
    }
}

fn file_names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn check_split(name: &str) -> Result<()> {
    let is_name = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_name {
        return Ok(());
    }
    Err(Error::invalid_argument("not the name of a split")
        .with_expected("letters, digits, `-`, `_` and `.`", format_args!("`{}`", name.escape_debug())))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Gives every file of `from` a second name below `to`; a copy where the file system has no links.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(|error| Error::io("list", from, error))? {
        let entry = entry.map_err(|error| Error::io("list", from, error))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let linked = match source.is_dir() {
            true => {
                fs::create_dir_all(&target).map_err(|error| Error::io("create", &target, error))?;
                link_all(&source, &target)?;
                continue;
            }
            false => fs::hard_link(&source, &target).or_else(|_| fs::copy(&source, &target).map(drop)),
        };
        linked.map_err(|error| Error::io("copy", &source, error))?;
    }
    Ok(())
}
