//! The dataset, read twice: first ids and lengths, then the prompts that are left to do, which wait on the disk.
//!
//! Memory holds an id and a place for each instance, whatever its prompt's length; requests go out in the order of lengths,
//! for which a dataset's own files would have to be decoded over and over.

use std::collections::HashMap;
use std::path::Path;

use super::select::Row;
use crate::cancel::CancelToken;
use crate::dataset::{Instance, Split, require_column};
use crate::error::{Error, Result};
use crate::run::spill::{Place, Spill, SpillWriter};

/// An instance and what the model is asked; empty when the dataset has no text for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) instance_id: String,
    pub(super) text: String,
}

impl From<Instance> for Prompt {
    fn from(instance: Instance) -> Self {
        Self { instance_id: instance.instance_id, text: instance.text.unwrap_or_default() }
    }
}

/// Every row's id and length, in the dataset's order.
///
/// # Errors
/// `NotFound` for a dataset without a column `text`, `Cancelled`, and what reading it gives.
pub(super) fn survey(split: &Split, cancel: &CancelToken) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let columns = split.for_each(|instance| {
        cancel.check()?;
        let num_chars = instance.text.map_or(0, |text| text.chars().count());
        rows.push(Row { number: rows.len(), instance_id: instance.instance_id, num_chars });
        Ok(())
    })?;
    require_column(&columns, "text")?;
    Ok(rows)
}

/// Calls `visit` with the prompts of the rows at `pending`, in the dataset's order, and with their positions there.
///
/// # Errors
/// `InvalidData` when the dataset is not the one that was surveyed, `Cancelled`, and what `visit` gives.
pub(super) fn for_each_pending(
    split: &Split,
    pending: &[Row],
    cancel: &CancelToken,
    mut visit: impl FnMut(usize, Prompt) -> Result<()>,
) -> Result<()> {
    let positions: HashMap<usize, usize> =
        pending.iter().enumerate().map(|(position, row)| (row.number, position)).collect();
    let (mut number, mut found) = (0, 0);
    let changed = || Error::invalid_data("the dataset changed while it was read");
    split.for_each(|instance| {
        cancel.check()?;
        number += 1;
        let Some(&position) = positions.get(&(number - 1)) else { return Ok(()) };
        if pending[position].instance_id != instance.instance_id {
            return Err(changed());
        }
        found += 1;
        visit(position, instance.into())
    })?;
    if found == pending.len() { Ok(()) } else { Err(changed()) }
}

/// Prompts on the disk, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Prompts {
    pending: std::vec::IntoIter<(Row, Option<Place>)>,
    spill: Spill,
}

impl Prompts {
    /// Copies the prompts of the `pending` rows to the file system of `dir`.
    ///
    /// # Errors
    /// As [`for_each_pending`], and `Io` when there is no room for them.
    pub(super) fn gather(split: &Split, pending: Vec<Row>, dir: &Path, cancel: &CancelToken) -> Result<Self> {
        let mut writer = SpillWriter::create_in(dir)?;
        let mut places = vec![None; pending.len()];
        for_each_pending(split, &pending, cancel, |position, prompt| {
            places[position] = Some(writer.append(&prompt.text)?);
            Ok(())
        })?;
        let pending: Vec<_> = pending.into_iter().zip(places).collect();
        Ok(Self { pending: pending.into_iter(), spill: writer.finish()? })
    }
}

impl Iterator for Prompts {
    type Item = Result<Prompt>;

    fn next(&mut self) -> Option<Self::Item> {
        let (row, place) = self.pending.next()?;
        let text = place.map_or_else(|| Ok(String::new()), |place| self.spill.read(place));
        Some(text.map(|text| Prompt { instance_id: row.instance_id, text }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pending.size_hint()
    }
}

impl ExactSizeIterator for Prompts {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetSpec;
    use crate::error::ErrorKind;

    fn split(path: &Path) -> Split {
        let spec = DatasetSpec {
            name_or_path: path.to_str().unwrap().into(),
            split: "test".into(),
            columns: vec!["text".into()],
            cache_dir: None,
        };
        Split::open(spec, || unreachable!()).unwrap()
    }

    #[test]
    fn prompts_come_in_the_order_that_was_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.jsonl");
        std::fs::write(
            &path,
            "{\"instance_id\":\"a\",\"text\":\"äää\"}\n{\"instance_id\":\"b\",\"text\":null}\n{\"instance_id\":\"c\",\"text\":\"cc\"}\n",
        )
        .unwrap();
        let (split, cancel) = (split(&path), CancelToken::new());
        let mut rows = survey(&split, &cancel).unwrap();
        assert_eq!(rows.iter().map(|row| row.num_chars).collect::<Vec<_>>(), [3, 0, 2]);
        rows.reverse();
        rows.pop();
        let prompts = Prompts::gather(&split, rows.clone(), dir.path(), &cancel).unwrap();
        assert_eq!(prompts.len(), 2);
        let prompts: Vec<_> = prompts.map(|prompt| prompt.unwrap()).collect();
        let texts: Vec<_> =
            prompts.iter().map(|prompt| (prompt.instance_id.as_str(), prompt.text.as_str())).collect();
        assert_eq!(texts, [("c", "cc"), ("b", "")]);

        std::fs::write(&path, "{\"instance_id\":\"z\",\"text\":\"t\"}\n").unwrap();
        let error = Prompts::gather(&split, rows, dir.path(), &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        cancel.cancel();
        assert_eq!(survey(&split, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
