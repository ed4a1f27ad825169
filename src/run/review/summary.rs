//! Counts over a run, and what is worth knowing of each instance.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::check::Verdicts;
use super::read::Record;
use crate::patch::extract;

/// Counts over all records.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
    /// Records that name an instance.
    pub records: usize,
    /// Models that they are from, with their numbers of records.
    pub models: BTreeMap<String, usize>,
    /// Records of failures.
    pub failed: usize,
    /// Predictions without a patch.
    pub empty: usize,
    /// Predictions with a text in which no diff can be read.
    pub no_diff: usize,
    /// Patches that apply.
    pub applies: usize,
    /// Patches that do not.
    pub does_not_apply: usize,
    /// Patches that could not be checked, or were not to be.
    pub unchecked: usize,
    /// Instances of the dataset without a record; `None` without a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<usize>,
    /// Records of instances that the dataset lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<usize>,
    /// Why generations ended.
    pub finish_reasons: BTreeMap<String, usize>,
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Dollars, as far as prices were known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

/// What is worth knowing of an instance.
#[derive(Debug, Serialize)]
pub struct InstanceSummary {
    /// The instance.
    pub instance_id: String,
    /// The model.
    pub model: String,
    /// `failed`, `empty`, `no_diff`, `applies`, `does_not_apply` or `patch` for one that was not checked.
    pub status: &'static str,
    /// Why: the failure, or what git says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the generation ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Characters of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_chars: Option<usize>,
    /// Tokens generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
    /// Dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Files that the patch changes.
    pub files: Vec<String>,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
    /// The patch.
    pub patch: String,
    /// What the model wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_output: Option<String>,
}

impl Totals {
    pub(super) fn new(records: &[Record], verdicts: &Verdicts) -> Self {
        let mut totals = Self { records: records.len(), ..Self::default() };
        for record in records {
            let model = record.text("model_name_or_path").unwrap_or("?");
            *totals.models.entry(model.to_owned()).or_default() += 1;
            match status(record, verdicts) {
                "failed" => totals.failed += 1,
                "empty" => totals.empty += 1,
                "no_diff" => totals.no_diff += 1,
                "applies" => totals.applies += 1,
                "does_not_apply" => totals.does_not_apply += 1,
                _ => totals.unchecked += 1,
            }
            if let Some(reason) = record.text("finish_reason") {
                *totals.finish_reasons.entry(reason.to_owned()).or_default() += 1;
            }
            totals.prompt_tokens += tokens(record, "prompt_tokens").unwrap_or(0);
            totals.completion_tokens += tokens(record, "completion_tokens").unwrap_or(0);
            if let Some(cost) = number(record, "cost") {
                *totals.cost.get_or_insert(0.0) += cost;
            }
        }
        if let Some(known) = &verdicts.known {
            let is_known = |record: &&Record| known.contains(&record.instance_id);
            let found: std::collections::HashSet<&str> =
                records.iter().filter(is_known).map(|record| record.instance_id.as_str()).collect();
            totals.missing = Some(known.len() - found.len());
            totals.unknown = Some(records.iter().filter(|record| !is_known(record)).count());
        }
        totals
    }
}

impl InstanceSummary {
    pub(super) fn new(record: &Record, verdicts: &Verdicts) -> Self {
        let id = &record.instance_id;
        let (files, added, removed) = {
            let found = extract(record.patch()).files;
            let count = |of: fn(&crate::patch::FileDiff<'_>) -> usize| {
                found.iter().map(|found| of(&found.diff)).sum::<usize>()
            };
            let files = found.iter().map(|found| found.diff.path().to_owned()).collect();
            (files, count(|diff| diff.num_added()), count(|diff| diff.num_removed()))
        };
        let verdict = verdicts.applies.get(id).and_then(|verdict| verdict.reason.clone());
        let prompt = record.text("text").or(record.text("text_inputs")).map(|text| text.chars().count());
        Self {
            instance_id: id.clone(),
            model: record.text("model_name_or_path").unwrap_or("?").to_owned(),
            status: status(record, verdicts),
            reason: record.error().or(verdict).or_else(|| verdicts.unchecked.get(id).cloned()),
            finish_reason: record.text("finish_reason").map(str::to_owned),
            prompt_tokens: tokens(record, "prompt_tokens"),
            prompt_chars: prompt.or_else(|| verdicts.prompt_chars.get(id).copied()),
            completion_tokens: tokens(record, "completion_tokens"),
            cost: number(record, "cost"),
            latency_ms: number(record, "latency_ms"),
            files,
            added,
            removed,
            patch: record.patch().to_owned(),
            full_output: record.text("full_output").map(str::to_owned),
        }
    }
}

/// The instances whose predictions will count as nothing: failed, empty, or with a patch that does not apply.
pub(super) fn lacking(records: &[Record], verdicts: &Verdicts) -> Vec<InstanceSummary> {
    records
        .iter()
        .filter(|record| !matches!(status(record, verdicts), "applies" | "patch"))
        .map(|record| InstanceSummary { full_output: None, ..InstanceSummary::new(record, verdicts) })
        .collect()
}

fn status(record: &Record, verdicts: &Verdicts) -> &'static str {
    if record.error().is_some() {
        "failed"
    } else if record.patch().trim().is_empty() {
        "empty"
    } else if let Some(verdict) = verdicts.applies.get(&record.instance_id) {
        if verdict.applies { "applies" } else { "does_not_apply" }
    } else if extract(record.patch()).files.is_empty() {
        "no_diff"
    } else {
        "patch"
    }
}

fn number(record: &Record, field: &str) -> Option<f64> {
    record.fields.get(field).and_then(Value::as_f64)
}

fn tokens(record: &Record, field: &str) -> Option<u64> {
    record.fields.get("usage").and_then(|usage| usage.get(field)).and_then(Value::as_u64)
}
