//! Writing predictions in each layout, in one step that a kill cannot divide.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::Layout;
use super::read::Record;
use crate::error::{Error, Result};
use crate::run::predictions::to_line;

/// Writes the records.
pub(super) fn write(output: &Path, layout: Layout, records: &[Record]) -> Result<()> {
    let mut bytes = Vec::new();
    match layout {
        Layout::Jsonl => {
            for record in records {
                bytes.extend(to_line(&record.fields)?);
            }
        }
        Layout::List => {
            let fields: Vec<&Map<String, Value>> = records.iter().map(|record| &record.fields).collect();
            bytes = to_line(&fields)?;
        }
        Layout::Dict => {
            let by_id: Map<String, Value> = records
                .iter()
                .map(|record| (record.instance_id.clone(), Value::Object(record.fields.clone())))
                .collect();
            bytes = to_line(&by_id)?;
        }
    }
    replace(output, &bytes)
}

/// Puts a file with this content in the place of what is there.
pub(super) fn replace(output: &Path, bytes: &[u8]) -> Result<()> {
    let about = |error| Error::io("write", output, error);
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(about)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(about)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(about)?;
    file.persist(output).map_err(|error| about(error.error))?;
    Ok(())
}
