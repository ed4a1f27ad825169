//! The dataset that a run ends with: the instances that have prompts, with the columns of the reference.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::config::TextDatasetConfig;
use super::event::RunEvent;
use super::progress::Progress;
use super::spec;
use crate::cancel::CancelToken;
use crate::dataset::{Cell, Column, ColumnKind, DatasetWriter, Instance};
use crate::error::Result;
use crate::run::permutation::permutation;
use crate::run::split::open_split;

/// The columns besides `instance_id` and `text`.
const COLUMNS: [&str; 11] = [
    "repo",
    "base_commit",
    "problem_statement",
    "hints_text",
    "created_at",
    "patch",
    "test_patch",
    "version",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "environment_setup_commit",
];
const TRAIN: &str = "train";
const VALIDATION: &str = "validation";
/// The seed of the reference's validation split.
const SEED: u32 = 42;

/// Writes the splits; those that were there before stay.
pub(super) fn write(
    config: &TextDatasetConfig,
    output: &Path,
    made: &mut [(&str, Progress)],
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<()> {
    let columns: Vec<Column> = ["instance_id", "text"]
        .into_iter()
        .chain(COLUMNS)
        .map(|name| Column::new(name, ColumnKind::Text))
        .collect();
    let mut writer = DatasetWriter::create(output, config.format())?;
    for (split, progress) in made {
        let held_out = match *split {
            TRAIN if config.validation_ratio > 0.0 => held_out(config, split, progress, cancel)?,
            _ => HashSet::new(),
        };
        if *split == TRAIN && config.validation_ratio > 0.0 && held_out.is_empty() {
            let message = format!("`{TRAIN}` has too few instances for a split `{VALIDATION}`");
            on_event(RunEvent::Warning { message });
        }
        let mut rows = writer.split(split, &columns)?;
        let mut validation = match held_out.is_empty() {
            true => None,
            false => Some(writer.split(VALIDATION, &columns)?),
        };
        open_split(spec(config, split, &COLUMNS), cancel)?.for_each(|instance| {
            cancel.check()?;
            let Some(text) = progress.text(&instance.instance_id)? else { return Ok(()) };
            let values: Vec<Option<Cow<'_, str>>> =
                COLUMNS.iter().map(|column| value(&instance, column)).collect();
            let mut row = vec![Cell::Text(Some(&instance.instance_id)), Cell::Text(Some(&text))];
            row.extend(values.iter().map(|value| Cell::Text(value.as_deref())));
            match validation.as_mut().filter(|_| held_out.contains(&instance.instance_id)) {
                Some(validation) => validation.push(&row),
                None => rows.push(&row),
            }
        })?;
        rows.finish()?;
        if let Some(validation) = validation {
            validation.finish()?;
        }
    }
    writer.finish()
}

/// The instances that `train_test_split` of Python's `datasets` would hold out; none when one part would be empty. Both parts
/// stay in the dataset's order, where Python shuffles them.
fn held_out(
    config: &TextDatasetConfig,
    split: &str,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<HashSet<String>> {
    let mut ids = Vec::new();
    open_split(spec(config, split, &[]), cancel)?.for_each(|instance| {
        if progress.is_finished(&instance.instance_id) {
            ids.push(instance.instance_id);
        }
        Ok(())
    })?;
    Ok(chosen(ids.len(), config.validation_ratio).into_iter().map(|index| ids[index].clone()).collect())
}

/// Which of `count` rows are held out.
fn chosen(count: usize, ratio: f64) -> Vec<usize> {
    let held_out = (ratio * count as f64).ceil() as usize;
    if held_out >= count {
        return Vec::new();
    }
    let mut order = permutation(SEED, count);
    order.truncate(held_out);
    order
}

/// What a column has for an instance: the gold patch in the tags that models answer with, text as it is, nothing as an empty
/// text, and other values as JSON, as on the hub.
fn value<'a>(instance: &'a Instance, column: &str) -> Option<Cow<'a, str>> {
    match (instance.fields.get(column), column) {
        (Some(Value::String(patch)), "patch") => Some(format!("<patch>\n{patch}\n</patch>").into()),
        (Some(Value::String(text)), _) => Some(text.into()),
        (Some(Value::Null), _) => None,
        (None, _) => Some("".into()),
        (Some(other), _) => Some(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_python_holds_out_are_held_out() {
        assert_eq!(chosen(12, 0.1), [0, 7]);
        assert_eq!(chosen(5, 0.01), [4]);
        for (count, ratio) in [(0, 0.5), (1, 0.01), (12, 0.99), (12, 0.0)] {
            assert_eq!(chosen(count, ratio), [0; 0], "{count} {ratio}");
        }
    }

    #[test]
    fn values_are_texts() {
        let fields =
            serde_json::json!({"patch": "d", "version": null, "FAIL_TO_PASS": ["a", "é"], "repo": "o/r"});
        let instance = Instance { fields: fields.as_object().unwrap().clone(), ..Instance::default() };
        for (column, expected) in [
            ("patch", Some("<patch>\nd\n</patch>")),
            ("version", None),
            ("FAIL_TO_PASS", Some("[\"a\",\"é\"]")),
            ("repo", Some("o/r")),
            ("hints_text", Some("")),
        ] {
            assert_eq!(value(&instance, column).as_deref(), expected, "{column}");
        }
    }
}
