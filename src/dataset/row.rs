//! One row from JSON, for the `.jsonl` and the `.json` reader: unwanted columns are skipped, not built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::columns::{FoundColumns, INPUT_IDS, INSTANCE_ID, TEXT, WantedColumns};
use super::instance::Instance;
use crate::error::Error;

/// Reads an object as an instance and adds its keys to `columns`.
///
/// `instance_id` comes from the column, or else from `key`; without either it stays empty for the reader to refuse.
pub(super) struct RowSeed<'a> {
    pub(super) wanted: WantedColumns<'a>,
    pub(super) columns: &'a mut FoundColumns,
    pub(super) key: Option<String>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Instance;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Instance, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Instance;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row, that is an object with a value for every column")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut row: A) -> Result<Instance, A::Error> {
        let mut instance =
            Instance { instance_id: self.key.take().unwrap_or_default(), ..Instance::default() };
        if !instance.instance_id.is_empty() {
            self.columns.add(INSTANCE_ID);
        }
        while let Some(name) = row.next_key::<String>()? {
            self.columns.add(&name);
            let in_column = |error| A::Error::custom(format_args!("column `{name}`: {error}"));
            match name.as_str() {
                INSTANCE_ID => instance.instance_id = row.next_value::<String>().map_err(in_column)?,
                TEXT if self.wanted.contains(TEXT) => {
                    instance.text = row.next_value::<Option<String>>().map_err(in_column)?;
                }
                INPUT_IDS if self.wanted.contains(INPUT_IDS) => {
                    instance.input_ids = row.next_value::<Option<Vec<u32>>>().map_err(in_column)?;
                }
                _ if self.wanted.contains(&name) => {
                    let value = row.next_value::<Value>().map_err(in_column)?;
                    instance.fields.insert(name, value);
                }
                _ => {
                    row.next_value::<IgnoredAny>().map_err(in_column)?;
                }
            }
        }
        Ok(instance)
    }
}

/// Says where in the file the JSON went wrong; `line` replaces the parser's own count when it only saw one line.
pub(super) fn json_error(error: &serde_json::Error, line: Option<usize>) -> Error {
    let suffix = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&suffix).unwrap_or(&message);
    let line = line.unwrap_or(error.line());
    // The parser counts no characters in a value that is wrong as a whole.
    match error.column() {
        0 => Error::invalid_data(format!("line {line}: {message}")),
        column => Error::invalid_data(format!("line {line}, character {column}: {message}")),
    }
}
