//! One split as a parquet file, named as on the hub.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::batch::{BatchBuilder, Cell, Column};
use crate::error::{Error, Result};

/// What a row group may take in memory before it is written.
const MAX_GROUP_BYTES: usize = 128 << 20;

pub(super) struct ParquetSink {
    path: PathBuf,
    rows: BatchBuilder,
    writer: ArrowWriter<File>,
}

impl ParquetSink {
    pub(super) fn create(root: &Path, split: &str, columns: &[Column]) -> Result<Self> {
        let directory = root.join("data");
        fs::create_dir_all(&directory).map_err(|error| Error::io("create", &directory, error))?;
        let path = directory.join(format!("{split}-00000-of-00001.parquet"));
        let file = File::create(&path).map_err(|error| Error::io("create", &path, error))?;
        let rows = BatchBuilder::new(columns);
        let properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(rows.schema()), Some(properties))
            .map_err(|error| unwritable(&path, error))?;
        Ok(Self { path, rows, writer })
    }

    pub(super) fn push(&mut self, row: &[Cell<'_>]) -> Result<()> {
        let Some(batch) = self.rows.push(row)? else { return Ok(()) };
        let written = self.writer.write(&batch).and_then(|()| {
            if self.writer.in_progress_size() > MAX_GROUP_BYTES { self.writer.flush() } else { Ok(()) }
        });
        written.map_err(|error| unwritable(&self.path, error))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let last = self.rows.finish()?;
        let written = last.map_or(Ok(()), |batch| self.writer.write(&batch));
        let closed = written.and_then(|()| self.writer.close());
        closed.map(drop).map_err(|error| unwritable(&self.path, error))
    }
}

fn unwritable(path: &Path, error: ParquetError) -> Error {
    Error::new(crate::ErrorKind::Io, "cannot write the dataset").with_path(path).with_source(error)
}
