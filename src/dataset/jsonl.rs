//! JSON Lines: one row a line, read line by line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::DeserializeSeed;

use super::columns::{FoundColumns, INSTANCE_ID, WantedColumns, missing_column};
use super::row::{RowSeed, json_error};
use super::rows::Rows;
use crate::error::{Error, Result};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Visits the rows of the file; blank lines, CRLF and a byte order mark are tolerated.
pub(super) fn read(path: &Path, wanted: WantedColumns<'_>, rows: &mut Rows<'_>) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("open the dataset", path, error))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| Error::io("read the dataset", path, error))?
            == 0
        {
            break;
        }
        let text = without_byte_order_mark(&line, number);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let instance = RowSeed { wanted, columns: &mut rows.columns, key: None }
            .deserialize(&mut deserializer)
            .and_then(|instance| deserializer.end().map(|()| instance))
            .map_err(|error| json_error(&error, Some(number)).with_path(path))?;
        if instance.instance_id.is_empty() {
            return Err(missing_column(INSTANCE_ID, &rows.columns.0)
                .with_path(path)
                .context(format!("line {number}")));
        }
        rows.push(instance)?;
    }
    Ok(())
}

/// Whether the file's first line is by itself a row with an id: `.json` is what pandas calls JSON Lines, too.
pub(super) fn looks_like(path: &Path) -> Result<bool> {
    let file = File::open(path).map_err(|error| Error::io("open the dataset", path, error))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| Error::io("read the dataset", path, error))?
            == 0
        {
            break;
        }
        let text = without_byte_order_mark(&line, number);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut columns = FoundColumns::default();
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let row = RowSeed { wanted: WantedColumns(&[]), columns: &mut columns, key: None }
            .deserialize(&mut deserializer);
        return Ok(row.is_ok_and(|row| !row.instance_id.is_empty()) && deserializer.end().is_ok());
    }
    Ok(false)
}

fn without_byte_order_mark(line: &[u8], number: usize) -> &[u8] {
    match number {
        1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
        _ => line,
    }
}
