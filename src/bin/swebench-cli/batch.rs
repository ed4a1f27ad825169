//! `run-api --batch`: what the steps of a run through batches print.

use std::fmt::Write;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::run_api::exit_of_cap;
use crate::swebench::Job;
use crate::talk::Talk;

/// What to do with batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BatchStep {
    /// Send what is not done; at most once, whenever it is killed.
    Submit,
    /// Print how far the batches are.
    Status,
    /// Write the predictions of batches that have ended.
    Fetch,
    /// Write the requests that are not done to a file, for vLLM's `run-batch`.
    Write,
    /// Write the predictions of a file of answers.
    Read,
}

/// Follows a step's job to its end.
pub(crate) fn run(step: BatchStep, job: Job, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let summary = Progress::new(talk, "asking the provider", "left out by the filter").follow(job)?;
    let exit = exit_of_cap(&summary);
    if exit == Exit::Interrupted {
        talk.news("interrupted: the same command continues", &summary);
        return Ok(exit);
    }
    if step == BatchStep::Status {
        output::write(table(&summary["batch"]["batches"]).as_bytes())?;
    }
    talk.news(&describe(step, &summary), &summary);
    let file = if step == BatchStep::Write { &summary["batch"]["file"] } else { &summary["output_file"] };
    if let Some(file) = file.as_str().filter(|_| step != BatchStep::Status) {
        output::line(file)?;
    }
    Ok(exit)
}

/// One row a batch, in columns.
fn table(batches: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let mut rows = vec![["BATCH", "STATE", "INSTANCES", "ANSWERED", "FAILED", "AGE"].map(str::to_owned)];
    for batch in batches.as_array().into_iter().flatten() {
        let mut state = text(&batch["state"]);
        if let Some(error) = batch["error"].as_str() {
            state = format!("{state}: {error}");
        }
        rows.push([
            text(&batch["id"]),
            state,
            text(&batch["instances"]),
            text(&batch["succeeded"]),
            text(&batch["failed"]),
            batch["submitted_at"].as_i64().map_or_else(|| "-".into(), age),
        ]);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// The time since a moment in seconds since 1970, in hours and minutes.
fn age(since: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let minutes = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_sub(since).max(0) / 60;
    format!("{}h{:02}m", minutes / 60, minutes % 60)
}

fn describe(step: BatchStep, summary: &Value) -> String {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let batch = &summary["batch"];
    let of_batch = |key: &str| batch[key].as_u64().unwrap_or(0);
    let waiting = of_batch("waiting");
    let money = |value: &Value| match value.as_f64() {
        Some(dollars) => format!("${dollars:.4}"),
        None => "a price that is not known".into(),
    };
    match step {
        BatchStep::Submit => format!(
            "{} instances sent for at most {}, {waiting} wait in batches, {} done before, {} failed, {} not sent for their cost",
            of_batch("submitted"),
            money(&batch["reserved"]),
            count("already_done"),
            count("failed"),
            count("unaffordable"),
        ),
        BatchStep::Status => format!("{waiting} instances wait in batches"),
        BatchStep::Write => format!("{} requests written, {} failed", of_batch("submitted"), count("failed")),
        BatchStep::Fetch | BatchStep::Read => format!(
            "{} finished, {} failed, {waiting} wait for their answers; {} prompt and {} new tokens for {}",
            count("finished"),
            count("failed"),
            count("prompt_tokens"),
            count("completion_tokens"),
            money(&summary["spent"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_a_row_a_batch_in_columns() {
        let batches = json!([
            {"id": "batch_1", "state": "in_progress", "instances": 300, "succeeded": 12, "failed": 0, "submitted_at": null},
            {"id": null, "state": "unknown", "instances": 2, "succeeded": 0, "failed": 0, "submitted_at": null},
        ]);
        let expected = "\
BATCH    STATE        INSTANCES  ANSWERED  FAILED  AGE
batch_1  in_progress  300        12        0       -
-        unknown      2          0         0       -
";
        assert_eq!(table(&batches), expected);
        assert!(age(0).ends_with('m'));
    }
}
