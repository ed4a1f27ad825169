//! Parquet files, with only the wanted columns decoded.

use std::fs::File;
use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::batch::visit_batch;
use super::budget::{ExpansionBudget, guard_decoder};
use super::columns::{WantedColumns, require_instance_id};
use super::rows::Rows;
use crate::error::{Error, Result};

/// Rows decoded at once: prompts take up to a megabyte each, and a batch is only passing through.
const BATCH_ROWS: usize = 64;

/// Visits the rows of the file.
pub(super) fn read(path: &Path, wanted: WantedColumns<'_>, rows: &mut Rows<'_>) -> Result<()> {
    guard_decoder(path, || read_unguarded(path, wanted, rows))
}

fn read_unguarded(path: &Path, wanted: WantedColumns<'_>, rows: &mut Rows<'_>) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("open the dataset", path, error))?;
    let len = file.metadata().map_err(|error| Error::io("read the dataset", path, error))?.len();
    let mut budget = ExpansionBudget::for_file(len);

    // The embedded Arrow schema is a hint that asks for wider types; without it text has 32-bit offsets, so that no
    // batch can grow over 2 GiB whatever the file claims.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|error| parquet_error(path, error))?;

    let columns: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    require_instance_id(&columns, path)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.positions(&columns));
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| parquet_error(path, error))?;

    columns.iter().for_each(|name| rows.columns.add(name));
    for batch in reader {
        let batch = batch.map_err(|error| {
            Error::invalid_data("the parquet file is corrupt").with_path(path).with_source(error)
        })?;
        visit_batch(&batch, path, &mut budget, rows)?;
    }
    Ok(())
}

fn parquet_error(path: &Path, error: ParquetError) -> Error {
    let new = match error {
        ParquetError::NYI(_) => Error::unsupported("the parquet file uses something that is not supported"),
        _ => Error::invalid_data("not a parquet file, or a truncated or corrupt one"),
    };
    new.with_path(path).with_source(error)
}
