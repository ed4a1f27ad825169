//! The columns that a caller wants, and those that a dataset turns out to have.

use std::path::Path;

use crate::error::{Error, Result};

pub(super) const INSTANCE_ID: &str = "instance_id";
pub(super) const TEXT: &str = "text";
pub(super) const INPUT_IDS: &str = "input_ids";

/// The columns to read: those asked for, and `instance_id`.
#[derive(Clone, Copy)]
pub(super) struct WantedColumns<'a>(pub(super) &'a [String]);

impl WantedColumns<'_> {
    pub(super) fn contains(&self, name: &str) -> bool {
        name == INSTANCE_ID || self.0.iter().any(|wanted| wanted == name)
    }

    /// The positions of the wanted ones among `columns`, in order: a reader's projection.
    pub(super) fn positions(&self, columns: &[String]) -> Vec<usize> {
        (0..columns.len()).filter(|&index| self.contains(&columns[index])).collect()
    }
}

/// The columns found, in the order in which they appeared.
#[derive(Default)]
pub(super) struct FoundColumns(pub(super) Vec<String>);

impl FoundColumns {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|found| found == name)
    }

    pub(super) fn add(&mut self, name: &str) {
        if !self.has(name) {
            self.0.push(name.to_owned());
        }
    }
}

/// Refuses a file without ids before its rows are read.
pub(super) fn require_instance_id(columns: &[String], path: &Path) -> Result<()> {
    if columns.iter().any(|name| name == INSTANCE_ID) {
        return Ok(());
    }
    Err(missing_column(INSTANCE_ID, columns).with_path(path))
}

/// The error for a column that is not there: it lists the ones that are, and says how to get this one.
pub(super) fn missing_column(column: &str, found: &[String]) -> Error {
    let error = Error::not_found("the dataset lacks a column")
        .with_expected(format_args!("a column `{column}`"), list(found, "no columns"));
    match column {
        TEXT => error.with_hint(
            "build a dataset with prompts first: swebench-cli make-datasets create-text-dataset \
             --dataset-name-or-path <this dataset> --output-dir <directory>",
        ),
        INPUT_IDS => error.with_hint(
            "build a tokenized dataset first: swebench-cli make-datasets tokenize-dataset \
             --dataset-name-or-path <this dataset> --output-dir <directory>",
        ),
        INSTANCE_ID => error.with_hint("SWE-bench datasets name every row in `instance_id`"),
        _ => error,
    }
}

/// `` `a`, `b`, `c` ``, or `nothing` for an empty list; long lists are cut.
pub(super) fn list<S: AsRef<str>>(names: &[S], nothing: &str) -> String {
    const SHOWN: usize = 30;
    if names.is_empty() {
        return nothing.to_owned();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
