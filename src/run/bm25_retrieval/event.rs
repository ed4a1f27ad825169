//! What a search over a dataset reports while it works and when it ends.

use std::path::PathBuf;

use serde::Serialize;

/// A report of a running search, in the order in which things happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// Something that the user should know and that does not stop the run.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The instances are chosen; repositories are opened next.
    Started {
        /// Where results go.
        output_file: PathBuf,
        /// Instances of this run's part of the dataset, finished ones included.
        total: usize,
        /// Those with a result from an earlier run.
        already_done: usize,
        /// Always 0: no instance is left out.
        skipped: usize,
    },
    /// An instance has its line in the file.
    InstanceFinished {
        /// The instance.
        instance_id: String,
        /// How many files were found.
        hits: usize,
        /// Why the instance failed.
        error: Option<String>,
    },
}

/// How a search over a dataset ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Where the results are.
    pub output_file: PathBuf,
    /// Instances of this run's part of the dataset.
    pub total: usize,
    /// Those that had a result before.
    pub already_done: usize,
    /// Results written.
    pub finished: usize,
    /// Failure records written.
    pub failed: usize,
    /// Wall time.
    pub seconds: f64,
    /// Whether the run was cancelled before its last instance.
    pub interrupted: bool,
}
