//! Arrow IPC files as `datasets` saves them: the stream format, and the file format that wraps one.
//!
//! <https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc>

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, Schema};

use super::arrow_frames;
use super::batch::visit_batch;
use super::budget::{ExpansionBudget, guard_decoder};
use super::columns::{WantedColumns, require_instance_id};
use super::rows::Rows;
use crate::error::{Error, Result};

/// The file format is this, the stream, and a footer that readers in order have no use for.
const FILE_FORMAT_MAGIC: &[u8; 8] = b"ARROW1\0\0";

/// Visits the rows of the file.
pub(super) fn read(path: &Path, wanted: WantedColumns<'_>, rows: &mut Rows<'_>) -> Result<()> {
    guard_decoder(path, || read_unguarded(path, wanted, rows))
}

fn read_unguarded(path: &Path, wanted: WantedColumns<'_>, rows: &mut Rows<'_>) -> Result<()> {
    let io_error = |error| Error::io("read the dataset", path, error);
    let mut file = File::open(path).map_err(|error| Error::io("open the dataset", path, error))?;
    let len = file.metadata().map_err(io_error)?.len();
    let start = stream_start(&mut file).map_err(io_error)?;
    let mut budget = ExpansionBudget::for_file(len);
    arrow_frames::check(&mut file, start, len, &mut budget).map_err(|error| error.with_path(path))?;

    let mut open = |projection| {
        file.seek(SeekFrom::Start(start)).map_err(io_error)?;
        let file = file.try_clone().map_err(io_error)?;
        StreamReader::try_new(BufReader::new(file), projection).map_err(|error| arrow_error(path, error))
    };
    let columns = names(&open(None)?.schema());
    require_instance_id(&columns, path)?;
    let reader = open(Some(wanted.positions(&columns)))?;

    columns.iter().for_each(|name| rows.columns.add(name));
    for batch in reader {
        let batch = batch.map_err(|error| arrow_error(path, error))?;
        visit_batch(&batch, path, &mut budget, rows)?;
    }
    Ok(())
}

/// Where the stream begins: at the file's start, or behind the magic of the file format and its padding with zeros, which
/// is 2 bytes in pyarrow's files and up to 58 in those of arrow-rs.
fn stream_start(file: &mut File) -> std::io::Result<u64> {
    const MAX_PADDED: usize = 64;
    let mut head = Vec::new();
    file.by_ref().take(MAX_PADDED as u64).read_to_end(&mut head)?;
    if !head.starts_with(FILE_FORMAT_MAGIC) {
        return Ok(0);
    }
    let padded = head.chunks(8).skip(1).position(|word| word.iter().any(|&byte| byte != 0));
    Ok(padded.map_or(head.len(), |words| 8 * (1 + words)) as u64)
}

fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn arrow_error(path: &Path, error: ArrowError) -> Error {
    match error {
        // Decompressors report corrupt data as I/O errors, too; the system's have a number.
        ArrowError::IoError(_, io) if io.raw_os_error().is_some() => Error::io("read the dataset", path, io),
        ArrowError::NotYetImplemented(_) => {
            Error::unsupported("the Arrow file uses something that is not supported")
                .with_path(path)
                .with_source(error)
        }
        _ => Error::invalid_data("the Arrow file is corrupt").with_path(path).with_source(error),
    }
}
