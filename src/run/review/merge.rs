//! Records of one instance: which of them counts.

use std::collections::HashMap;

use serde::Serialize;

use super::config::Conflict;
use super::read::{Problem, Record};
use crate::error::{Error, Result};

/// What became of records that were not the only ones of their instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Records that say what another says.
    pub repeated: usize,
    /// Failures of instances that have a prediction, or another failure.
    pub failures_dropped: usize,
    /// Instances whose predictions differ, decided by the rule.
    pub conflicts: Vec<String>,
}

/// Leaves one record an instance, in the order of the first ones.
///
/// Equal records are one, and a prediction counts more than a failure. Of different predictions the rule chooses.
///
/// # Errors
/// `InvalidData` that names instances whose predictions differ, when that is the rule.
pub(super) fn merge(records: Vec<Record>, rule: Conflict) -> Result<(Vec<Record>, Merged)> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(records.len());
    let mut kept: Vec<Record> = Vec::with_capacity(records.len());
    let mut merged = Merged::default();
    for record in records {
        let Some(&place) = places.get(&record.instance_id) else {
            places.insert(record.instance_id.clone(), kept.len());
            kept.push(record);
            continue;
        };
        let known = &mut kept[place];
        match (known.error().is_some(), record.error().is_some()) {
            _ if known.fields == record.fields => merged.repeated += 1,
            (false, true) => merged.failures_dropped += 1,
            (true, false | true) => {
                merged.failures_dropped += 1;
                *known = record;
            }
            (false, false) => {
                if merged.conflicts.last() != Some(&record.instance_id) {
                    merged.conflicts.push(record.instance_id.clone());
                }
                if rule == Conflict::Last {
                    *known = record;
                }
            }
        }
    }
    if rule == Conflict::Error
        && let Some(first) = merged.conflicts.first()
    {
        let count = merged.conflicts.len();
        return Err(Error::invalid_data(format!(
            "{count} instances have different predictions, such as {first}"
        ))
        .with_hint("say which counts: `on_conflict` (--on-conflict) first or last"));
    }
    Ok((kept, merged))
}

/// Instances that have several records.
pub(super) fn duplicates(records: &[Record]) -> Vec<Problem> {
    let mut counts: HashMap<&str, usize> = HashMap::with_capacity(records.len());
    for record in records {
        *counts.entry(&record.instance_id).or_default() += 1;
    }
    let mut told = std::collections::HashSet::new();
    records
        .iter()
        .filter(|record| counts.get(record.instance_id.as_str()).is_some_and(|count| *count > 1))
        .filter(|record| told.insert(record.instance_id.as_str()))
        .map(|record| Problem {
            file: record.file.clone(),
            position: None,
            instance_id: Some(record.instance_id.clone()),
            what: format!("{} records of one instance", counts[record.instance_id.as_str()]),
        })
        .collect()
}
