//! One split as JSON Lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::batch::{Cell, Column};
use crate::error::{Error, Result};

pub(super) struct JsonlSink<'a> {
    path: PathBuf,
    columns: &'a [Column],
    writer: BufWriter<File>,
}

impl<'a> JsonlSink<'a> {
    pub(super) fn create(root: &Path, split: &str, columns: &'a [Column]) -> Result<Self> {
        let path = root.join(format!("{split}.jsonl"));
        let file = File::create(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { path, columns, writer: BufWriter::new(file) })
    }

    pub(super) fn push(&mut self, row: &[Cell<'_>]) -> Result<()> {
        let value = |cell: &Cell<'_>| match cell {
            Cell::Text(text) => Value::from(*text),
            Cell::Int32s(values) => Value::from(*values),
            Cell::Int64s(values) => Value::from(*values),
        };
        let row: Map<String, Value> =
            self.columns.iter().zip(row).map(|(column, cell)| (column.name.clone(), value(cell))).collect();
        writeln!(self.writer, "{}", Value::Object(row))
            .map_err(|error| Error::io("write the dataset", &self.path, error))
    }

    pub(super) fn finish(self) -> Result<()> {
        let Self { path, writer, .. } = self;
        let file =
            writer.into_inner().map_err(|error| Error::io("write the dataset", &path, error.into_error()))?;
        file.sync_all().map_err(|error| Error::io("write the dataset", &path, error))
    }
}
