//! A JSON file: a list of rows, `{split: [rows]}`, `{instance_id: row}`, or JSON Lines under another name.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::columns::WantedColumns;
use super::instance::Instance;
use super::jsonl;
use super::row::{RowSeed, json_error};
use super::rows::Rows;
use super::source::missing_split;
use crate::error::{Error, Result};

/// Visits the rows of the file; `split` chooses when the file holds several.
pub(super) fn read(path: &Path, split: &str, wanted: WantedColumns<'_>, rows: &mut Rows<'_>) -> Result<()> {
    if jsonl::looks_like(path)? {
        return jsonl::read(path, wanted, rows);
    }
    let file = File::open(path).map_err(|error| Error::io("open the dataset", path, error))?;
    let mut document = Document { split, wanted, rows, splits: Vec::new(), refusal: None };
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::new(file));
    let result = deserializer.deserialize_any(&mut document).and_then(|()| deserializer.end());
    let Document { splits, refusal, .. } = document;
    if let Some(error) = refusal {
        return Err(error);
    }
    result.map_err(|error| unreadable(path, error))?;
    if !splits.is_empty() && !splits.iter().any(|name| name == split) {
        return Err(missing_split(split, &splits).with_path(path));
    }
    Ok(())
}

fn unreadable(path: &Path, error: serde_json::Error) -> Error {
    if error.is_io() {
        Error::io("read the dataset", path, error.into())
    } else {
        json_error(&error, None).with_path(path)
    }
}

/// What has been read of the file.
struct Document<'a, 'v> {
    split: &'a str,
    wanted: WantedColumns<'a>,
    rows: &'a mut Rows<'v>,
    /// The keys that hold lists of rows.
    splits: Vec<String>,
    /// Why a row was not taken, which is no error of the JSON.
    refusal: Option<Error>,
}

impl Document<'_, '_> {
    fn row(&mut self, key: Option<String>) -> RowSeed<'_> {
        RowSeed { wanted: self.wanted, columns: &mut self.rows.columns, key }
    }

    fn push<E: serde::de::Error>(&mut self, instance: Instance) -> Result<(), E> {
        self.rows.push(instance).map_err(|error| {
            self.refusal = Some(error);
            E::custom("refused")
        })
    }

    fn rows<'de, A: SeqAccess<'de>>(&mut self, mut rows: A) -> Result<(), A::Error> {
        loop {
            let row = self.rows.len() + 1;
            let next = rows.next_element_seed(self.row(None));
            match next.map_err(|error| A::Error::custom(format_args!("row {row}: {error}")))? {
                Some(instance) => self.push(instance)?,
                None => return Ok(()),
            }
        }
    }
}

impl<'de> Visitor<'de> for &mut Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows, an object of lists of rows by split, or an object of rows by id")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, rows: A) -> Result<(), A::Error> {
        self.rows(rows)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(Entry { document: &mut *self, key })?;
        }
        Ok(())
    }
}

/// One key of the outermost object: a split with its rows, or an id with its row.
struct Entry<'d, 'a, 'v> {
    document: &'d mut Document<'a, 'v>,
    key: String,
}

impl<'de> DeserializeSeed<'de> for Entry<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of rows or one row under the key `{}`", self.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let is_wanted = self.key == self.document.split;
        self.document.splits.push(self.key);
        if is_wanted {
            return self.document.rows(rows);
        }
        while rows.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, row: A) -> Result<(), A::Error> {
        let instance = self.document.row(Some(self.key)).visit_map(row)?;
        self.document.push(instance)
    }
}
