//! What a run reports while it works and when it ends.

use std::path::PathBuf;

use serde::Serialize;

/// A report of a running run, in the order in which things happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// Something that the user should know and that does not stop the run.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The instances are chosen; the model is loaded next.
    Started {
        /// Where predictions go.
        output_file: PathBuf,
        /// Instances of this run's part of the dataset, finished ones included.
        total: usize,
        /// Those with a finished prediction from an earlier run.
        already_done: usize,
        /// Instances left out by their length.
        skipped: usize,
    },
    /// Tokens so far; several times a second at most.
    Progress {
        /// Prompt tokens computed.
        prompt_tokens: usize,
        /// Tokens generated.
        completion_tokens: usize,
        /// Instances being generated.
        running: usize,
    },
    /// An instance has its line in the predictions file.
    InstanceFinished {
        /// The instance.
        instance_id: String,
        /// Why the generation ended: `stop`, `length` or `repetition`; `None` when the instance failed.
        finish_reason: Option<&'static str>,
        /// Tokens generated.
        completion_tokens: usize,
        /// Why the instance failed.
        error: Option<String>,
    },
    /// The last event of a run that was not ended by an error.
    Finished(RunSummary),
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Where the predictions are.
    pub output_file: PathBuf,
    /// Instances of this run's part of the dataset.
    pub total: usize,
    /// Those that had a finished prediction before.
    pub already_done: usize,
    /// Instances left out by their length; not in `total`.
    pub skipped: usize,
    /// Predictions written.
    pub finished: usize,
    /// Failure records written.
    pub failed: usize,
    /// Prompt tokens of the predictions written.
    pub prompt_tokens: usize,
    /// Tokens generated for them.
    pub completion_tokens: usize,
    /// Wall time, loading included.
    pub seconds: f64,
    /// Whether the run was cancelled before its last instance.
    pub interrupted: bool,
}
