//! The dataset that a run ends with: the instances that have prompts, with the columns of the reference.

use std::borrow::Cow;
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
    let mut writer = DatasetWriter::create(output, config.output_format)?;
    for (split, progress) in made {
        let dataset = open_split(spec(config, split, &COLUMNS), cancel)?.load()?;
        let with_prompt = |instance: &&Instance| progress.is_finished(&instance.instance_id);
        let rows: Vec<&Instance> = dataset.instances.iter().filter(with_prompt).collect();
        let mut parts = vec![(*split, rows)];
        if *split == TRAIN && config.validation_ratio > 0.0 {
            parts = match divide(&parts[0].1, config.validation_ratio) {
                Some((train, validation)) => vec![(TRAIN, train), (VALIDATION, validation)],
                None => {
                    let message = format!("`{TRAIN}` has too few instances for a split `{VALIDATION}`");
                    on_event(RunEvent::Warning { message });
                    parts
                }
            };
        }
        for (name, rows) in parts {
            let mut split = writer.split(name, &columns)?;
            for instance in rows {
                cancel.check()?;
                let Some(text) = progress.text(&instance.instance_id)? else { continue };
                let values: Vec<Option<Cow<'_, str>>> =
                    COLUMNS.iter().map(|column| value(instance, column)).collect();
                let mut row = vec![Cell::Text(Some(&instance.instance_id)), Cell::Text(Some(&text))];
                row.extend(values.iter().map(|value| Cell::Text(value.as_deref())));
                split.push(&row)?;
            }
            split.finish()?;
        }
    }
    writer.finish()
}

/// Training and validation rows as `train_test_split` of Python's `datasets` chooses and orders them; `None` when one of
/// them would be empty.
fn divide<'a>(rows: &[&'a Instance], ratio: f64) -> Option<(Vec<&'a Instance>, Vec<&'a Instance>)> {
    let held_out = (ratio * rows.len() as f64).ceil() as usize;
    if held_out == 0 || held_out >= rows.len() {
        return None;
    }
    let order = permutation(SEED, rows.len());
    let (validation, train) = order.split_at(held_out);
    let pick = |order: &[usize]| order.iter().map(|&index| rows[index]).collect();
    Some((pick(train), pick(validation)))
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
    fn training_rows_are_divided_as_in_python() {
        let instances: Vec<Instance> =
            (0..12).map(|id| Instance { instance_id: id.to_string(), ..Instance::default() }).collect();
        let rows: Vec<&Instance> = instances.iter().collect();
        let ids = |rows: &[&Instance]| rows.iter().map(|row| row.instance_id.clone()).collect::<Vec<_>>();
        let (train, validation) = divide(&rows, 0.1).unwrap();
        assert_eq!(ids(&validation), ["0", "7"]);
        assert_eq!(ids(&train), ["6", "9", "11", "3", "5", "2", "4", "10", "1", "8"]);
        assert!(
            divide(&rows[..1], 0.01).is_none() && divide(&[], 0.5).is_none() && divide(&rows, 0.99).is_none()
        );
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
