//! What a run reports while it works and when it ends.

use std::path::PathBuf;

use serde::Serialize;

use super::batch::BatchReport;
use crate::client::{Method, Money};

/// A report of a running run, in the order in which things happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// Something that the user should know and that does not stop the run.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The instances are chosen; requests are sent next.
    Started {
        /// Where predictions go.
        output_file: PathBuf,
        /// Instances of this run's part of the dataset, finished ones included.
        total: usize,
        /// Those with a finished prediction from an earlier run.
        already_done: usize,
        /// Instances left out by the filter.
        skipped: usize,
    },
    /// Tokens and dollars so far; several times a second at most.
    Progress {
        /// Prompt tokens billed.
        prompt_tokens: u64,
        /// Tokens generated.
        completion_tokens: u64,
        /// Instances that wait for their turn or their answer.
        running: usize,
        /// Dollars of this file, earlier runs included; `None` where the price is not known.
        spent: Option<Money>,
    },
    /// An instance of a dry run is counted.
    Planned {
        /// The instance.
        instance_id: String,
        /// Tokens of its prompt; `None` when it has none.
        prompt_tokens: Option<u64>,
        /// How they were counted.
        method: Option<Method>,
        /// Dollars of the prompt alone; `None` where the price is not known.
        cost_least: Option<Money>,
        /// Dollars with the longest answer; `None` where that or the price is not known.
        cost_most: Option<Money>,
        /// What is reserved below `max_cost` while it is in flight.
        cost_reserved: Option<Money>,
        /// Why it would not be sent.
        error: Option<String>,
        /// Why it may be refused.
        doubt: Option<String>,
    },
    /// An instance has its line in the predictions file.
    InstanceFinished {
        /// The instance.
        instance_id: String,
        /// Why the answer ended; `None` when the instance failed or the service does not say.
        finish_reason: Option<String>,
        /// Tokens generated.
        completion_tokens: u64,
        /// Dollars of this instance; `None` where the price is not known.
        cost: Option<Money>,
        /// Why the instance failed.
        error: Option<String>,
    },
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
    /// Instances left out by the filter; not in `total`.
    pub skipped: usize,
    /// Predictions written.
    pub finished: usize,
    /// Failure records written.
    pub failed: usize,
    /// Instances that were not sent because their worst case did not fit below `max_cost`.
    pub unaffordable: usize,
    /// Prompt tokens billed.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Dollars of this file, earlier runs included; `None` where the price is not known.
    pub spent: Option<Money>,
    /// Wall time.
    pub seconds: f64,
    /// Whether the run was cancelled before its last instance.
    pub interrupted: bool,
    /// The batches, where the run goes through them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchReport>,
}
