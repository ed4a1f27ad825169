//! Reading predictions in each of the layouts that the harness reads, one bad record at a time.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A prediction as it is in the file, with every field that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The instance.
    pub instance_id: String,
    /// All fields, `instance_id` included.
    pub fields: Map<String, Value>,
    /// The file that it is from.
    pub file: PathBuf,
}

impl Record {
    /// A field's text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }

    /// The patch; an absent one and `null` are empty.
    pub fn patch(&self) -> &str {
        self.text("model_patch").unwrap_or_default()
    }

    /// Why the instance failed, if it did.
    pub fn error(&self) -> Option<String> {
        match self.fields.get("error")? {
            Value::Null => None,
            Value::String(error) => Some(error.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// Something wrong with a file or a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, or the position in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The instance, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// Reads all files, in order.
///
/// # Errors
/// `NotFound` or `Io` for a file that cannot be read; `InvalidData` for a `.json` file that is neither a list nor an object.
pub(super) fn read(files: &[PathBuf]) -> Result<(Vec<Record>, Vec<Problem>)> {
    let mut reading = Reading { records: Vec::new(), problems: Vec::new() };
    for file in files {
        let bytes = std::fs::read(file).map_err(|error| Error::io("read", file, error))?;
        if file.extension() == Some("json".as_ref()) {
            reading.json(file, &bytes)?;
        } else {
            reading.lines(file, &bytes);
        }
    }
    Ok((reading.records, reading.problems))
}

struct Reading {
    records: Vec<Record>,
    problems: Vec<Problem>,
}

impl Reading {
    fn lines(&mut self, file: &Path, bytes: &[u8]) {
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(value) => self.record(file, index + 1, value, None),
                Err(error) => self.problem(file, index + 1, None, format!("no JSON: {error}")),
            }
        }
    }

    fn json(&mut self, file: &Path, bytes: &[u8]) -> Result<()> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            Error::invalid_data("the file is no JSON")
                .with_path(file)
                .with_source(error)
                .with_hint("JSON Lines files are named `.jsonl`")
        })?;
        match value {
            Value::Array(values) => {
                for (index, value) in values.into_iter().enumerate() {
                    self.record(file, index + 1, value, None);
                }
            }
            Value::Object(values) => {
                for (index, (key, value)) in values.into_iter().enumerate() {
                    self.record(file, index + 1, value, Some(key));
                }
            }
            _ => {
                return Err(Error::invalid_data("the file holds no predictions")
                    .with_path(file)
                    .with_expected("a list of records, or an object by instance", "a single value"));
            }
        }
        Ok(())
    }

    /// Keeps a record that names its instance; other things that are wrong with it are told.
    fn record(&mut self, file: &Path, position: usize, value: Value, key: Option<String>) {
        let Value::Object(mut fields) = value else {
            return self.problem(file, position, key, "no JSON object".into());
        };
        let named = fields.get("instance_id").and_then(Value::as_str).map(str::to_owned);
        let Some(instance_id) = named.clone().or(key.clone()).filter(|id| !id.is_empty()) else {
            return self.problem(file, position, None, "no `instance_id`".into());
        };
        if let (Some(named), Some(key)) = (&named, &key)
            && named != key
        {
            let what = format!("its `instance_id` is `{named}`, its key is `{key}`");
            self.problem(file, position, Some(instance_id.clone()), what);
        }
        if named.is_none() {
            fields.insert("instance_id".into(), instance_id.clone().into());
        }
        for (field, may_be_null) in [("model_name_or_path", false), ("model_patch", true)] {
            let what = match fields.get(field) {
                Some(Value::String(_)) => continue,
                Some(Value::Null) if may_be_null => continue,
                Some(_) => format!("`{field}` is no text"),
                None => format!("no `{field}`"),
            };
            self.problem(file, position, Some(instance_id.clone()), what);
        }
        self.records.push(Record { instance_id, fields, file: file.to_path_buf() });
    }

    fn problem(&mut self, file: &Path, position: usize, instance_id: Option<String>, what: String) {
        self.problems.push(Problem { file: file.to_path_buf(), position: Some(position), instance_id, what });
    }
}
