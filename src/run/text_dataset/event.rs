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
    /// The instances of the next split are known.
    Started {
        /// Where the dataset goes.
        output_dir: PathBuf,
        /// The split.
        split: String,
        /// Its instances.
        total: usize,
        /// Those with a prompt from an earlier run.
        already_done: usize,
        /// Instances left out; always 0.
        skipped: usize,
    },
    /// An instance has its prompt in the progress file.
    InstanceFinished {
        /// The instance.
        instance_id: String,
        /// Why it has none.
        error: Option<String>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Where the dataset is.
    pub output_dir: PathBuf,
    /// Where it was uploaded to.
    pub hub_url: Option<String>,
    /// Instances of the splits.
    pub total: usize,
    /// Those that had a prompt before.
    pub already_done: usize,
    /// Prompts made.
    pub finished: usize,
    /// Instances without a prompt, which the dataset lacks.
    pub failed: usize,
    /// Splits that the dataset had already.
    pub splits_there: Vec<String>,
    /// Wall time.
    pub seconds: f64,
    /// Whether the run was cancelled before its end; nothing is written then but progress.
    pub interrupted: bool,
}
