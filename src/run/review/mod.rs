//! Predictions files after a run: checked, merged, converted and shown.

mod check;
mod config;
mod merge;
mod page;
mod read;
mod summary;
mod write;

pub use check::Verdicts;
pub use config::{Action, Conflict, Layout, PredictionsConfig};
pub use merge::Merged;
pub use read::{Problem, Record};
pub use summary::{InstanceSummary, Totals};

use std::path::PathBuf;

use serde::Serialize;

use crate::cancel::CancelToken;
use crate::error::{Error, Result};

/// What came of an action; parts that it has nothing to do with are absent.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Counts over all records.
    pub totals: Totals,
    /// Lines and values that are no predictions, and instances that have several.
    pub problems: Vec<Problem>,
    /// Instances that had several records, for a merge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
    /// One entry an instance, when it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceSummary>,
    /// What was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
}

/// Does what the configuration asks for.
///
/// # Errors
/// `NotFound` and `Io` for files that cannot be read or written, `InvalidData` for files that hold no predictions at all and for
/// records that contradict each other in a merge, `Cancelled`.
pub fn run(config: &PredictionsConfig, cancel: &CancelToken) -> Result<Outcome> {
    let (records, mut problems) = read::read(&config.files)?;
    cancel.check()?;
    match config.action {
        Action::Validate => {
            let verdicts = check::check(&records, config, cancel)?;
            problems.extend(merge::duplicates(&records));
            let totals = Totals::new(&records, &verdicts);
            let instances = summary::lacking(&records, &verdicts);
            Ok(Outcome { totals, problems, merged: None, instances, output: None })
        }
        Action::Merge | Action::Convert => {
            // A file that has a record twice is no valid file in the other layout either.
            let (records, merged) = merge::merge(records, config.on_conflict)?;
            let output = config.required_output()?;
            refuse_losses(&problems, config)?;
            write::write(output, config.layout(), &records)?;
            let totals = Totals::new(&records, &Verdicts::default());
            let output = Some(output.to_path_buf());
            Ok(Outcome { totals, problems, merged: Some(merged), instances: Vec::new(), output })
        }
        Action::Show => {
            let verdicts = check::check(&records, config, cancel)?;
            problems.extend(merge::duplicates(&records));
            let totals = Totals::new(&records, &verdicts);
            let wanted = |record: &&Record| {
                config.instance_ids.as_ref().is_none_or(|ids| ids.contains(&record.instance_id))
            };
            let instances: Vec<_> =
                records.iter().filter(wanted).map(|record| InstanceSummary::new(record, &verdicts)).collect();
            if let Some(output) = &config.output {
                write::replace(output, page::page(&totals, &problems, &instances)?.as_bytes())?;
                return Ok(Outcome {
                    totals,
                    problems,
                    merged: None,
                    instances: Vec::new(),
                    output: Some(output.clone()),
                });
            }
            Ok(Outcome { totals, problems, merged: None, instances, output: None })
        }
    }
}

/// Files are not rewritten without what could not be read in them, unless that was asked for.
fn refuse_losses(problems: &[Problem], config: &PredictionsConfig) -> Result<()> {
    match problems.first() {
        Some(first) if !config.skip_unreadable => {
            Err(Error::invalid_data(format!("{} records cannot be read: {}", problems.len(), first.what))
                .with_path(&first.file)
                .with_hint("leave them out with `skip_unreadable` (--skip-unreadable)"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
