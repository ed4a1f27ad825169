//! Rows to Arrow batches of bounded size.

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};

use super::features::metadata;
use crate::error::{Error, Result};

/// Rows of a batch.
const MAX_ROWS: usize = 256;
/// Bytes of a batch; one row may be longer.
const MAX_BYTES: usize = 32 << 20;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Strings; some may be null.
    Text,
    /// Lists of 32-bit integers.
    Int32List,
    /// Lists of 64-bit integers.
    Int64List,
}

/// A column's name and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnKind,
}

impl Column {
    /// A column of this name.
    pub fn new(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self { name: name.into(), kind }
    }
}

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// Of a [`ColumnKind::Text`]; `None` is null.
    Text(Option<&'a str>),
    /// Of a [`ColumnKind::Int32List`].
    Int32s(&'a [i32]),
    /// Of a [`ColumnKind::Int64List`].
    Int64s(&'a [i64]),
}

impl Cell<'_> {
    /// Bytes of the value.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.map_or(0, str::len),
            Self::Int32s(values) => size_of_val(*values),
            Self::Int64s(values) => size_of_val(*values),
        }
    }
}

/// The Arrow schema of these columns, as `datasets` describes it.
pub(super) fn schema(columns: &[Column]) -> Arc<Schema> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
            let data_type = match column.kind {
                ColumnKind::Text => DataType::Utf8,
                ColumnKind::Int32List => list(DataType::Int32),
                ColumnKind::Int64List => list(DataType::Int64),
            };
            Field::new(&column.name, data_type, true)
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, metadata(columns)))
}

enum Builder {
    Text(StringBuilder),
    Int32s(ListBuilder<Int32Builder>),
    Int64s(ListBuilder<Int64Builder>),
}

impl Builder {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text => Self::Text(StringBuilder::new()),
            ColumnKind::Int32List => Self::Int32s(ListBuilder::new(Int32Builder::new())),
            ColumnKind::Int64List => Self::Int64s(ListBuilder::new(Int64Builder::new())),
        }
    }

    fn append(&mut self, cell: &Cell<'_>) -> Result<()> {
        match (self, cell) {
            (Self::Text(builder), Cell::Text(text)) => builder.append_option(*text),
            (Self::Int32s(builder), Cell::Int32s(values)) => {
                builder.values().append_slice(values);
                builder.append(true);
            }
            (Self::Int64s(builder), Cell::Int64s(values)) => {
                builder.values().append_slice(values);
                builder.append(true);
            }
            _ => return Err(Error::internal("a value is not of its column's kind")),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Int32s(builder) => Arc::new(builder.finish()),
            Self::Int64s(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Collects rows until they are a batch.
pub(super) struct BatchBuilder {
    schema: Arc<Schema>,
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

impl BatchBuilder {
    pub(super) fn new(columns: &[Column]) -> Self {
        let builders = columns.iter().map(|column| Builder::new(column.kind)).collect();
        Self { schema: schema(columns), builders, rows: 0, bytes: 0 }
    }

    pub(super) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Adds a row; a batch when it is full.
    pub(super) fn push(&mut self, row: &[Cell<'_>]) -> Result<Option<RecordBatch>> {
        if row.len() != self.builders.len() {
            return Err(Error::internal("a row has another number of values than the dataset has columns"));
        }
        let len: usize = row.iter().map(Cell::len).sum();
        // Before the row: lengths within a batch have 32 bits.
        let full =
            if self.rows > 0 && self.bytes.saturating_add(len) > MAX_BYTES { self.finish()? } else { None };
        self.builders.iter_mut().zip(row).try_for_each(|(builder, cell)| builder.append(cell))?;
        self.rows += 1;
        self.bytes += len;
        match full {
            None if self.rows == MAX_ROWS => self.finish(),
            full => Ok(full),
        }
    }

    /// What has been collected, `None` when that is nothing.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map(Some).map_err(|error| Error::internal("rows are no batch").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_rows_and_by_bytes() {
        let columns = [Column::new("text", ColumnKind::Text)];
        let rows_of = |texts: &[&str]| {
            let mut builder = BatchBuilder::new(&columns);
            let mut sizes: Vec<usize> = Vec::new();
            for text in texts {
                sizes.extend(builder.push(&[Cell::Text(Some(text))]).unwrap().map(|batch| batch.num_rows()));
            }
            sizes.extend(builder.finish().unwrap().map(|batch| batch.num_rows()));
            sizes
        };
        assert_eq!(rows_of(&[""; 600]), [256, 256, 88]);
        let long = "x".repeat(MAX_BYTES / 2);
        assert_eq!(rows_of(&[&long, &long, &long, ""]), [2, 2]);
        let mut builder = BatchBuilder::new(&columns);
        assert!(builder.push(&[]).is_err());
        assert!(builder.push(&[Cell::Int32s(&[])]).is_err());
    }
}
