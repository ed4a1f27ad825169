//! What a run over live issues reports while it works and when it ends.

use std::path::PathBuf;

use serde::Serialize;

use crate::client::Money;
use crate::patch::Verdict;

/// A file that was found for an issue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retrieved {
    /// The file's path.
    pub path: String,
    /// Its BM25 score.
    pub score: f32,
    /// Whether the prompt had room for it.
    pub shown: bool,
}

/// What became of an issue.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IssueReport {
    /// The instance, `owner__name-number`.
    pub instance_id: String,
    /// The issue's page.
    pub issue_url: String,
    /// Its title, as its author wrote it.
    pub title: String,
    /// The commit that it was to be solved at.
    pub base_commit: Option<String>,
    /// Files that were found, best first.
    pub retrieved: Vec<Retrieved>,
    /// Tokens of the prompt as the model counts them; 0 where they are not known.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
    /// Dollars of this issue; `None` where the price is not known.
    pub cost: Option<Money>,
    /// The patch; empty when there is none.
    pub model_patch: String,
    /// What git says of it at the commit.
    pub check: Option<Verdict>,
    /// Whether it was put into the checkout; `None` when that was not asked for.
    pub applied: Option<bool>,
    /// Why it was not.
    pub apply_error: Option<String>,
    /// Why the issue failed.
    pub error: Option<String>,
}

/// A report of a running run, in the order in which things happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// Something that the user should know and that does not stop the run.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The output file is open; issues are fetched next.
    Started {
        /// Where records go.
        output_file: PathBuf,
        /// Issues of this run, finished ones included.
        total: usize,
        /// Those with a finished record from an earlier run.
        already_done: usize,
        /// Always 0: no issue is left out.
        skipped: usize,
    },
    /// An issue has its line in the file.
    InstanceFinished(Box<IssueReport>),
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Where the records are.
    pub output_file: PathBuf,
    /// Issues of this run.
    pub total: usize,
    /// Those that had a finished record before.
    pub already_done: usize,
    /// Records written.
    pub finished: usize,
    /// Failure records written.
    pub failed: usize,
    /// Of the finished, those whose patch applies.
    pub applying: usize,
    /// Patches that were put into the checkout.
    pub applied: usize,
    /// Prompt tokens billed or computed.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Dollars of this file, earlier runs included; `None` where the price is not known.
    pub spent: Option<Money>,
    /// Wall time.
    pub seconds: f64,
    /// Whether the run was cancelled before its last issue.
    pub interrupted: bool,
}
