//! From a path and a split to the files that hold the split's rows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::columns::list;
use super::save_to_disk;
use crate::error::{Error, Result};

/// The formats of data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    // In the order of preference: a directory that holds several has the same rows in each.
    Parquet,
    Arrow,
    JsonLines,
    Json,
}

/// One file with rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    pub(super) format: Format,
}

impl Format {
    pub(super) fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "arrow" => Some(Self::Arrow),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The files below the local `path` that hold `split`, in the order of their rows.
pub(super) fn find(path: &Path, split: &str) -> Result<Vec<DataFile>> {
    if !path.is_dir() {
        return file(path).map(|file| vec![file]);
    }
    if let Some(files) = save_to_disk::find(path, split)? {
        return Ok(files);
    }
    let names = walk(path)?;
    let chosen = choose(&names, split).map_err(|error| error.with_path(path))?;
    in_directory(path, &chosen)
}

/// The files that [`choose`] chose, below the directory where they are.
pub(super) fn in_directory(directory: &Path, names: &[String]) -> Result<Vec<DataFile>> {
    names.iter().map(|name| file(&directory.join(name))).collect()
}

/// The splits below the local `path`, sorted.
pub(super) fn splits(path: &Path) -> Result<Vec<String>> {
    if !path.is_dir() {
        return Err(Error::invalid_argument("a single file does not say which split it holds")
            .with_path(path)
            .with_hint("say which with --splits"));
    }
    match save_to_disk::splits(path)? {
        Some(splits) => Ok(splits),
        None => splits_among(&walk(path)?).map_err(|error| error.with_path(path)),
    }
}

/// The splits that the data files among `names` stand for, sorted.
pub(super) fn splits_among(names: &[String]) -> Result<Vec<String>> {
    let data = names.iter().filter(|name| !is_description(name) && Format::of(name).is_some());
    let splits: BTreeSet<&str> = data.map(|name| split_of(name)).collect();
    if splits.is_empty() {
        return Err(no_dataset(names));
    }
    Ok(splits.into_iter().map(str::to_owned).collect())
}

/// One file, whatever split it holds.
fn file(path: &Path) -> Result<DataFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match Format::of(&name) {
        Some(format) => Ok(DataFile { path: path.to_path_buf(), format }),
        None => Err(Error::unsupported("not a dataset file")
            .with_path(path)
            .with_expected("a name ending in .parquet, .arrow, .jsonl or .json", format_args!("`{name}`"))),
    }
}

/// The error for a split that is not there.
pub(super) fn missing_split<S: AsRef<str>>(split: &str, found: &[S]) -> Error {
    let error = Error::not_found("the dataset lacks a split")
        .with_expected(format_args!("a split `{split}`"), list(found, "no splits"));
    if found.is_empty() { error } else { error.with_hint("choose one of the dataset's splits with --split") }
}

/// The names of the files below `root`, relative and with `/`, two directories deep: `default/test/0000.parquet`.
fn walk(root: &Path) -> Result<Vec<String>> {
    const MAX_DEPTH: usize = 2;
    const MAX_ENTRIES: usize = 100_000;
    let mut names = Vec::new();
    let mut pending = vec![(root.to_path_buf(), String::new(), 0)];
    while let Some((directory, prefix, depth)) = pending.pop() {
        let unreadable = |error| Error::io("list the directory", &directory, error);
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let name = format!("{prefix}{name}");
            if !entry.path().is_dir() {
                names.push(name);
            } else if depth < MAX_DEPTH {
                pending.push((entry.path(), format!("{name}/"), depth + 1));
            }
            if names.len() + pending.len() > MAX_ENTRIES {
                return Err(Error::invalid_argument("the directory holds too many files for a dataset")
                    .with_path(root));
            }
        }
    }
    Ok(names)
}

/// The data files among `names` that belong to `split`, in order of their names.
///
/// The hub's layouts: `data/test-00000-of-00002.parquet`, `test.jsonl`, `test-part1.parquet`, `default/test/0000.parquet`.
pub(super) fn choose(names: &[String], split: &str) -> Result<Vec<String>> {
    let data: Vec<(&str, Format)> = names
        .iter()
        .filter(|name| !is_description(name))
        .filter_map(|name| Some((name.as_str(), Format::of(name)?)))
        .collect();
    if data.is_empty() {
        return Err(no_dataset(names));
    }
    let belonging = |test: &dyn Fn(&str) -> bool| -> Vec<(&str, Format)> {
        data.iter().copied().filter(|(name, _)| test(name)).collect()
    };
    let mut matching = belonging(&|name| split_of(name) == split);
    if matching.is_empty() {
        matching = belonging(&|name| {
            stem(name).strip_prefix(split).is_some_and(|rest| rest.starts_with(['-', '_', '.']))
        });
    }
    let Some(best) = matching.iter().map(|(_, format)| *format).min() else {
        let found: BTreeSet<&str> = data.iter().map(|(name, _)| split_of(name)).collect();
        return Err(missing_split(split, &found.into_iter().collect::<Vec<_>>()));
    };
    let mut chosen: Vec<String> =
        matching.into_iter().filter(|(_, format)| *format == best).map(|(name, _)| name.to_owned()).collect();
    chosen.sort();
    check_one_directory(&chosen, split)?;
    check_shards(&chosen)?;
    Ok(chosen)
}

fn no_dataset(names: &[String]) -> Error {
    let mut shown: Vec<&String> = names.iter().collect();
    shown.sort();
    Error::not_found("no dataset is here").with_expected(
        "a save_to_disk directory, or .parquet, .arrow, .jsonl or .json files",
        list(&shown, "no files"),
    )
}

/// JSON files that describe a dataset or a model and hold no rows.
fn is_description(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.starts_with("dataset_info")
        || matches!(
            file,
            "dataset_dict.json" | "state.json" | "config.json" | "package.json" | "tokenizer.json"
        )
}

/// `data/test-00000-of-00002.parquet` → `test-00000-of-00002`.
fn stem(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// The split that a file's name stands for; one that says nothing takes its directory's.
fn split_of(name: &str) -> &str {
    let own = stem(name).split('-').next().unwrap_or_default();
    if !own.is_empty() && !own.bytes().all(|byte| byte.is_ascii_digit()) && !["data", "part"].contains(&own) {
        return own;
    }
    name.rsplit('/').nth(1).unwrap_or(own)
}

/// Two directories with files of one split are two configurations of the dataset, not two halves of it.
fn check_one_directory(chosen: &[String], split: &str) -> Result<()> {
    let directories: BTreeSet<&str> =
        chosen.iter().map(|name| name.rsplit_once('/').map_or("", |(directory, _)| directory)).collect();
    if directories.len() < 2 {
        return Ok(());
    }
    let directories: Vec<&str> = directories.into_iter().collect();
    Err(Error::invalid_argument(format!("several directories hold a split `{split}`"))
        .with_expected("one", list(&directories, ""))
        .with_hint("give the path of the one that is meant"))
}

/// `-00000-of-00002` promises that there are two.
fn check_shards(chosen: &[String]) -> Result<()> {
    for name in chosen {
        let mut parts = stem(name).rsplit('-');
        let (Some(count), Some("of"), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let Ok(count) = count.parse::<usize>() else {
            continue;
        };
        let prefix = stem(name).rsplitn(4, '-').last().unwrap_or_default();
        let found = chosen.iter().filter(|other| stem(other).rsplitn(4, '-').last() == Some(prefix)).count();
        if found < count {
            return Err(Error::not_found(format!("shards of the split are missing beside `{name}`"))
                .with_expected(format_args!("{count} files"), found));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], split: &str, expected: std::result::Result<&[&str], &str>) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        match (choose(&names, split), expected) {
            (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected, "{split} of {names:?}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{split} of {names:?}: {error}");
            }
            (got, expected) => panic!("{split} of {names:?}: expected {expected:?}, got {got:?}"),
        }
    }

    #[test]
    fn a_split_is_found_in_every_layout() {
        let hub = [
            "README.md",
            "data/test-00001-of-00002.parquet",
            "data/test-00000-of-00002.parquet",
            "data/dev-00000-of-00001.parquet",
        ];
        check(&hub, "test", Ok(&["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]));
        check(&hub, "dev", Ok(&["data/dev-00000-of-00001.parquet"]));
        check(&hub, "train", Err("expected a split `train`, got `dev`, `test`"));
        check(&["test.parquet", "testing.parquet"], "test", Ok(&["test.parquet"]));
        check(&["test-a.parquet", "test-b.parquet"], "test", Ok(&["test-a.parquet", "test-b.parquet"]));
        check(&["test_oracle.parquet"], "test", Ok(&["test_oracle.parquet"]));
        check(
            &["default/test/0000.parquet", "default/train/0000.parquet"],
            "test",
            Ok(&["default/test/0000.parquet"]),
        );
        check(&["test.jsonl", "test.parquet", "test.json"], "test", Ok(&["test.parquet"]));
        check(&["test.JSONL", "dataset_infos.json", "state.json"], "test", Ok(&["test.JSONL"]));
    }

    #[test]
    fn splits_are_told_by_names() {
        let names = ["README.md", "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"];
        assert_eq!(splits_among(&names.map(str::to_owned)).unwrap(), ["test", "train"]);
        assert!(splits_among(&["README.md".to_owned()]).is_err());
    }

    #[test]
    fn what_is_not_a_dataset_or_not_whole_is_refused() {
        check(&[], "test", Err("got no files"));
        check(&["model.safetensors", "config.json"], "test", Err("got `config.json`, `model.safetensors`"));
        check(&["data/test-00001-of-00002.parquet"], "test", Err("expected 2 files, got 1"));
        check(&["a/test.parquet", "b/test.parquet"], "test", Err("expected one, got `a`, `b`"));
    }
}
