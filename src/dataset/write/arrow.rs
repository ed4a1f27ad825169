//! One split of a `save_to_disk` directory: Arrow streams, and the files that describe them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::batch::{BatchBuilder, Cell, Column};
use super::features::dataset_info;
use crate::error::{Error, Result};

/// Bytes of a file; Python's default, about.
const MAX_SHARD_BYTES: usize = 500 << 20;

pub(super) struct ArrowSink<'a> {
    directory: PathBuf,
    columns: &'a [Column],
    rows: BatchBuilder,
    writer: StreamWriter<BufWriter<File>>,
    /// Files begun so far.
    shards: usize,
    /// Bytes of rows in the last one.
    bytes: usize,
    /// Of all values: what names the content in caches of `datasets`.
    fingerprint: Sha256,
}

impl<'a> ArrowSink<'a> {
    pub(super) fn create(root: &Path, split: &str, columns: &'a [Column]) -> Result<Self> {
        let directory = root.join(split);
        fs::create_dir_all(&directory).map_err(|error| Error::io("create", &directory, error))?;
        let rows = BatchBuilder::new(columns);
        let writer = open(&directory.join(unnumbered(0)), &rows)?;
        Ok(Self { directory, columns, rows, writer, shards: 1, bytes: 0, fingerprint: Sha256::new() })
    }

    pub(super) fn push(&mut self, row: &[Cell<'_>]) -> Result<()> {
        for cell in row {
            self.fingerprint.update(cell.len().to_le_bytes());
            if let Cell::Text(Some(text)) = cell {
                self.fingerprint.update(text.as_bytes());
            }
        }
        match self.rows.push(row)? {
            Some(batch) => self.write(&batch),
            None => Ok(()),
        }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if let Some(batch) = self.rows.finish()? {
            self.write(&batch)?;
        }
        self.close_shard()?;
        let names: Vec<String> =
            (0..self.shards).map(|shard| format!("data-{shard:05}-of-{:05}.arrow", self.shards)).collect();
        for (shard, name) in names.iter().enumerate() {
            let from = self.directory.join(unnumbered(shard));
            fs::rename(&from, self.directory.join(name))
                .map_err(|error| Error::io("rename", &from, error))?;
        }
        let fingerprint: String =
            self.fingerprint.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let files: Vec<Value> = names.iter().map(|name| json!({"filename": name})).collect();
        let state = json!({
            "_data_files": files,
            "_fingerprint": fingerprint,
            "_format_columns": null,
            "_format_kwargs": {},
            "_format_type": null,
            "_output_all_columns": false,
            "_split": null,
        });
        write_json(&self.directory.join("state.json"), &state)?;
        write_json(&self.directory.join("dataset_info.json"), &dataset_info(self.columns))
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let len = batch.get_array_memory_size();
        if self.bytes > 0 && self.bytes + len > MAX_SHARD_BYTES {
            self.close_shard()?;
            self.writer = open(&self.directory.join(unnumbered(self.shards)), &self.rows)?;
            self.shards += 1;
            self.bytes = 0;
        }
        self.bytes += len;
        self.writer.write(batch).map_err(|error| unwritable(&self.directory, error))
    }

    fn close_shard(&mut self) -> Result<()> {
        self.writer
            .finish()
            .and_then(|()| {
                let file = self.writer.get_mut();
                file.flush().and_then(|()| file.get_mut().sync_all()).map_err(ArrowError::from)
            })
            .map_err(|error| unwritable(&self.directory, error))
    }
}

/// A file's name before the number of files is known.
fn unnumbered(shard: usize) -> String {
    format!("data-{shard:05}.arrow")
}

fn open(path: &Path, rows: &BatchBuilder) -> Result<StreamWriter<BufWriter<File>>> {
    let file = File::create(path).map_err(|error| Error::io("create", path, error))?;
    StreamWriter::try_new(BufWriter::new(file), rows.schema()).map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, error) => Error::io("write the dataset", path, error),
        error => Error::internal("cannot write the dataset").with_path(path).with_source(error),
    }
}

/// Writes a file of JSON anew: one that is there may be another dataset's, too.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::write(path, format!("{value:#}")).map_err(|error| Error::io("write", path, error))
}
