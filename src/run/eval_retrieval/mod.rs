//! Recall of retrieval: of the files that the gold patches change, how many the prompts of a dataset show.

mod files;

use std::path::PathBuf;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::split::open_split;
use crate::cancel::CancelToken;
use crate::dataset::{DatasetSpec, Instance, require_column};
use crate::error::{Error, ErrorKind, Result};
use files::{gold_files, retrieved_files};

/// What to evaluate. Keys that are left out have the values of [`EvalRetrievalConfig::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalRetrievalConfig {
    /// Path or hub name of a dataset with `text` and `patch`; `SWE-bench/SWE-bench_bm25_13K` by default.
    pub dataset_name_or_path: String,
    /// The dataset's split; `test` by default.
    pub split: String,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl Default for EvalRetrievalConfig {
    fn default() -> Self {
        Self {
            dataset_name_or_path: "SWE-bench/SWE-bench_bm25_13K".into(),
            split: "test".into(),
            cache_dir: None,
        }
    }
}

impl EvalRetrievalConfig {
    /// Checks everything that needs no file or network.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("dataset_name_or_path", &self.dataset_name_or_path), ("split", &self.split)] {
            if value.is_empty() {
                return Err(Error::invalid_argument(format!("`{key}` is out of range"))
                    .with_expected("a name", "nothing"));
            }
        }
        Ok(())
    }
}

/// A report of the evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// Something about an instance that the user should know.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// The recall of a split; a share is `None` where no instance has a gold file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Instances of the split.
    pub total: usize,
    /// Those without a file to find, which count nowhere.
    pub without_gold_files: usize,
    /// Mean share of an instance's gold files that were retrieved.
    pub average_recall: Option<f64>,
    /// Share of the instances with all their gold files.
    pub all_recall: Option<f64>,
    /// Share of the instances with one of their gold files at least.
    pub any_recall: Option<f64>,
    /// Wall time.
    pub seconds: f64,
    /// Whether the run was cancelled before its end.
    pub interrupted: bool,
}

/// Computes the recall of a split.
///
/// # Errors
/// `InvalidArgument` for the configuration; `NotFound` for a dataset, a split or a column that is not there.
pub fn run(
    config: &EvalRetrievalConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let start = Instant::now();
    config.validate()?;
    let spec = DatasetSpec {
        name_or_path: config.dataset_name_or_path.clone(),
        split: config.split.clone(),
        columns: vec!["text".into(), "patch".into()],
        cache_dir: config.cache_dir.clone(),
    };
    let mut summary = match evaluate(spec, cancel, on_event) {
        Err(error) if error.kind() == ErrorKind::Cancelled && cancel.is_cancelled() => {
            RunSummary { interrupted: true, ..RunSummary::default() }
        }
        summary => summary?,
    };
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

fn evaluate(
    spec: DatasetSpec,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let split = open_split(spec, cancel)?;
    let mut recalls = Recalls::default();
    let columns = split.for_each(|instance| {
        recalls.add(&instance);
        cancel.check()
    })?;
    // Without these columns every row would look as if it had no files.
    ["text", "patch"].iter().try_for_each(|column| require_column(&columns, column))?;
    for message in std::mem::take(&mut recalls.warnings) {
        on_event(RunEvent::Warning { message });
    }
    Ok(recalls.summary())
}

/// The recall of each instance that has gold files.
#[derive(Debug, Default)]
struct Recalls {
    total: usize,
    recalls: Vec<f64>,
    warnings: Vec<String>,
}

impl Recalls {
    fn add(&mut self, instance: &Instance) {
        self.total += 1;
        let mut warn = |what: &str| self.warnings.push(format!("{} has no {what}", instance.instance_id));
        let patch = instance.fields.get("patch").and_then(|patch| patch.as_str());
        let gold = gold_files(patch.unwrap_or_default());
        if gold.is_empty() {
            warn("gold files");
            return;
        }
        let retrieved = retrieved_files(instance.text.as_deref().unwrap_or_default());
        if retrieved.is_empty() {
            warn("retrieved files");
        }
        self.recalls.push(gold.intersection(&retrieved).count() as f64 / gold.len() as f64);
    }

    fn summary(&self) -> RunSummary {
        let mean = |value: fn(f64) -> f64| {
            let sum: f64 = self.recalls.iter().map(|&recall| value(recall)).sum();
            (!self.recalls.is_empty()).then(|| sum / self.recalls.len() as f64)
        };
        RunSummary {
            total: self.total,
            without_gold_files: self.total - self.recalls.len(),
            average_recall: mean(|recall| recall),
            all_recall: mean(|recall| f64::from(u8::from(recall >= 1.0))),
            any_recall: mean(|recall| f64::from(u8::from(recall > 0.0))),
            ..RunSummary::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, gold: &[&str], shown: &[&str]) -> Instance {
        let patch = gold.iter().map(|path| format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n"));
        let text = shown.iter().map(|path| format!("[start of {path}]\n1 a\n[end of {path}]\n"));
        Instance {
            instance_id: id.into(),
            text: Some(text.collect()),
            fields: [("patch".to_owned(), patch.collect::<String>().into())].into_iter().collect(),
            ..Instance::default()
        }
    }

    #[test]
    fn recall_counts_gold_files_among_retrieved_ones() {
        let mut recalls = Recalls::default();
        for (id, gold, shown) in [
            ("all", &["a", "b"][..], &["README.md", "c", "b", "a"][..]),
            ("half", &["a", "b"], &["a"]),
            ("none", &["a"], &["b"]),
            ("nothing retrieved", &["a"], &[]),
            ("nothing gold", &[], &["a"]),
        ] {
            recalls.add(&instance(id, gold, shown));
        }
        let summary = recalls.summary();
        assert_eq!((summary.total, summary.without_gold_files), (5, 1));
        assert_eq!(summary.average_recall, Some(1.5 / 4.0));
        assert_eq!(summary.all_recall, Some(0.25));
        assert_eq!(summary.any_recall, Some(0.5));
        assert_eq!(
            recalls.warnings,
            ["nothing retrieved has no retrieved files", "nothing gold has no gold files"]
        );
    }

    #[test]
    fn without_gold_files_there_is_no_recall() {
        let mut recalls = Recalls::default();
        recalls.add(&instance("x", &[], &[]));
        let summary = recalls.summary();
        assert_eq!((summary.average_recall, summary.all_recall, summary.any_recall), (None, None, None));
    }
}
