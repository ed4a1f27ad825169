//! Where readers put rows, one after another: what a dataset promises about all of them is checked on the way.

use std::collections::HashMap;

use super::columns::{FoundColumns, INSTANCE_ID, missing_column};
use super::instance::Instance;
use crate::error::{Error, Result};

/// Most characters of an id in a message.
const MAX_SHOWN: usize = 100;

/// The rows so far, of which only the ids are kept.
pub(super) struct Rows<'a> {
    /// The dataset, for messages about its rows.
    name: &'a str,
    /// The columns that the rows have had.
    pub(super) columns: FoundColumns,
    /// The number of each id's row, from 1: predictions are matched to instances by id.
    numbers: HashMap<String, usize>,
    visit: &'a mut dyn FnMut(Instance) -> Result<()>,
}

impl<'a> Rows<'a> {
    /// None yet; each goes to `visit`, which ends the reading with its first error.
    pub(super) fn new(name: &'a str, visit: &'a mut dyn FnMut(Instance) -> Result<()>) -> Self {
        Self { name, columns: FoundColumns::default(), numbers: HashMap::new(), visit }
    }

    /// How many there were.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// `NotFound` when the dataset names no rows, `InvalidData` for a row without an id or with that of another one, and
    /// what the visitor returns.
    pub(super) fn push(&mut self, instance: Instance) -> Result<()> {
        let row = self.len() + 1;
        if instance.instance_id.is_empty() {
            return Err(match self.columns.has(INSTANCE_ID) {
                true => Error::invalid_data(format!("row {row} has no `instance_id`")).with_path(self.name),
                false => self.nameless(),
            });
        }
        if let Some(first) = self.numbers.insert(instance.instance_id.clone(), row) {
            return Err(Error::invalid_data(format!(
                "rows {first} and {row} have the same `instance_id`, `{}`",
                instance.instance_id.escape_debug().take(MAX_SHOWN).collect::<String>()
            ))
            .with_path(self.name));
        }
        (self.visit)(instance)
    }

    /// The columns, after the last row.
    ///
    /// # Errors
    /// As [`Rows::push`], for a dataset without rows.
    pub(super) fn finish(self) -> Result<Vec<String>> {
        if self.columns.0.is_empty() && self.len() == 0 {
            return Err(Error::invalid_data("the dataset has no rows").with_path(self.name));
        }
        match self.columns.has(INSTANCE_ID) {
            true => Ok(self.columns.0),
            false => Err(self.nameless()),
        }
    }

    fn nameless(&self) -> Error {
        missing_column(INSTANCE_ID, &self.columns.0).with_path(self.name)
    }
}
