//! Writing datasets: `save_to_disk` directories that Python's `datasets` loads, parquet as on the hub, JSON Lines.
//!
//! A dataset is written beside its place and then put there, so that what is there is whole. Splits that it had before stay.

mod arrow;
mod batch;
mod features;
mod jsonl;
mod parquet;
mod staging;

pub use batch::{Cell, Column, ColumnKind};
pub use staging::{DatasetWriter, existing_splits};

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a dataset is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputFormat {
    /// What Python's `DatasetDict.save_to_disk` writes.
    #[default]
    SaveToDisk,
    /// `data/SPLIT-00000-of-00001.parquet`, as on the hub.
    Parquet,
    /// `SPLIT.jsonl`.
    Jsonl,
}

/// One split being written.
pub struct SplitWriter<'a>(Sink<'a>);

enum Sink<'a> {
    Arrow(arrow::ArrowSink<'a>),
    Parquet(parquet::ParquetSink),
    Jsonl(jsonl::JsonlSink<'a>),
}

impl<'a> SplitWriter<'a> {
    fn create(directory: &Path, format: OutputFormat, split: &str, columns: &'a [Column]) -> Result<Self> {
        Ok(Self(match format {
            OutputFormat::SaveToDisk => Sink::Arrow(arrow::ArrowSink::create(directory, split, columns)?),
            OutputFormat::Parquet => Sink::Parquet(parquet::ParquetSink::create(directory, split, columns)?),
            OutputFormat::Jsonl => Sink::Jsonl(jsonl::JsonlSink::create(directory, split, columns)?),
        }))
    }

    /// Adds a row, with one cell for each column.
    ///
    /// # Errors
    /// `Io` when it cannot be written, `Internal` for cells that are not those of the columns.
    pub fn push(&mut self, row: &[Cell<'_>]) -> Result<()> {
        match &mut self.0 {
            Sink::Arrow(sink) => sink.push(row),
            Sink::Parquet(sink) => sink.push(row),
            Sink::Jsonl(sink) => sink.push(row),
        }
    }

    /// Writes what is left; the split is whole then.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Sink::Arrow(sink) => sink.finish(),
            Sink::Parquet(sink) => sink.finish(),
            Sink::Jsonl(sink) => sink.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::test_files::{ids, load_columns};

    const FORMATS: [OutputFormat; 3] = [OutputFormat::SaveToDisk, OutputFormat::Parquet, OutputFormat::Jsonl];

    fn columns() -> Vec<Column> {
        vec![
            Column::new("instance_id", ColumnKind::Text),
            Column::new("text", ColumnKind::Text),
            Column::new("hints", ColumnKind::Text),
            Column::new("input_ids", ColumnKind::Int32List),
            Column::new("labels", ColumnKind::Int64List),
        ]
    }

    fn write(path: &Path, format: OutputFormat, split: &str, names: &[String]) {
        let columns = columns();
        let mut writer = DatasetWriter::create(path, format).unwrap();
        let mut split = writer.split(split, &columns).unwrap();
        for name in names {
            let text = format!("text of {name}\nö");
            let row = [
                Cell::Text(Some(name)),
                Cell::Text(Some(&text)),
                Cell::Text(None),
                Cell::Int32s(&[1, 2, 3]),
                Cell::Int64s(&[-100, 3]),
            ];
            split.push(&row).unwrap();
        }
        split.finish().unwrap();
        writer.finish().unwrap();
    }

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|index| format!("{prefix}-{index}")).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for format in FORMATS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out/dataset");
            // More rows than a batch has.
            write(&path, format, "train", &names("a", 700));
            let read = load_columns(&path, "train", &["text", "hints", "input_ids", "labels"]).unwrap();
            assert_eq!(ids(&read), names("a", 700));
            assert_eq!(read.columns, ["instance_id", "text", "hints", "input_ids", "labels"]);
            let row = &read.instances[699];
            assert_eq!(row.text.as_deref(), Some("text of a-699\nö"));
            assert_eq!(row.fields["hints"], serde_json::Value::Null);
            assert_eq!(row.input_ids.as_deref(), Some(&[1, 2, 3][..]));
            assert_eq!(row.fields["labels"], serde_json::json!([-100, 3]));
        }
    }

    #[test]
    fn a_split_is_added_or_replaced_and_the_others_stay() {
        for format in FORMATS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("dataset");
            assert_eq!(existing_splits(&path, format).unwrap(), [""; 0]);
            write(&path, format, "train", &names("a", 2));
            write(&path, format, "test", &names("b", 1));
            write(&path, format, "train", &names("c", 1));
            assert_eq!(existing_splits(&path, format).unwrap(), ["test", "train"], "{format:?}");
            for (split, expected) in [("train", "c-0"), ("test", "b-0")] {
                assert_eq!(ids(&load_columns(&path, split, &[]).unwrap()), [expected], "{format:?}");
            }
            let left: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["dataset"]);
        }
    }

    #[test]
    fn an_empty_split_is_one() {
        for format in [OutputFormat::SaveToDisk, OutputFormat::Parquet] {
            let dir = tempfile::tempdir().unwrap();
            write(&dir.path().join("d"), format, "train", &[]);
            let read = load_columns(&dir.path().join("d"), "train", &[]).unwrap();
            assert_eq!((read.instances.len(), read.columns.len()), (0, 5));
        }
    }

    #[test]
    fn what_is_no_dataset_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        for format in FORMATS {
            let error = DatasetWriter::create(dir.path(), format).map(drop).unwrap_err();
            assert!(error.to_string().contains("no dataset"), "{error}");
        }
        assert!(dir.path().join("thesis.tex").exists());
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(DatasetWriter::create(&file, OutputFormat::Jsonl).is_err());
    }

    #[test]
    fn a_kill_between_the_two_renames_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        write(&path, OutputFormat::SaveToDisk, "train", &names("a", 1));
        std::fs::rename(&path, dir.path().join("d.old")).unwrap();
        write(&path, OutputFormat::SaveToDisk, "test", &names("b", 1));
        assert_eq!(existing_splits(&path, OutputFormat::SaveToDisk).unwrap(), ["test", "train"]);
        assert!(!dir.path().join("d.old").exists());
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let columns = columns();
        let mut writer = DatasetWriter::create(&dir.path().join("d"), OutputFormat::Parquet).unwrap();
        drop(writer.split("train", &columns).unwrap());
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
