//! An issue's line: the harness's prediction, and what it was made of.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::event::{IssueReport, Retrieved};
use crate::error::{Error, Result};
use crate::patch::Verdict;
use crate::run::predictions::{Prediction, Record};

/// One issue's line; the harness reads the prediction and ignores the rest.
#[derive(Debug, Serialize)]
pub(super) struct LiveRecord {
    #[serde(flatten)]
    pub(super) prediction: Prediction,
    pub(super) issue_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_commit: Option<String>,
    pub(super) retrieved: Vec<Retrieved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<Verdict>,
}

impl Record for LiveRecord {
    fn instance_id(&self) -> &str {
        &self.prediction.instance_id
    }

    fn is_failure(&self) -> bool {
        self.prediction.error.is_some()
    }
}

impl LiveRecord {
    /// What the user is told of it.
    pub(super) fn report(self, title: String) -> IssueReport {
        let Self { prediction, issue_url, base_commit, retrieved, check } = self;
        let usage = prediction.usage.unwrap_or_default();
        IssueReport {
            instance_id: prediction.instance_id,
            issue_url,
            title,
            base_commit,
            retrieved,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            finish_reason: prediction.finish_reason,
            cost: prediction.cost.flatten(),
            model_patch: prediction.model_patch,
            check,
            applied: None,
            apply_error: None,
            error: prediction.error,
        }
    }
}

/// What is needed of a record to put its patch into a checkout.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Recorded {
    instance_id: String,
    pub(super) model_patch: String,
    pub(super) base_commit: Option<String>,
}

/// The finished record of an instance.
///
/// # Errors
/// `NotFound` when the file has none, `Io` when it cannot be read.
pub(super) fn find(path: &Path, instance_id: &str) -> Result<Recorded> {
    let unreadable = |error| Error::io("read", path, error);
    for line in BufReader::new(File::open(path).map_err(unreadable)?).lines() {
        let recorded = serde_json::from_str::<Recorded>(&line.map_err(unreadable)?);
        if let Some(recorded) = recorded.ok().filter(|recorded| recorded.instance_id == instance_id) {
            return Ok(recorded);
        }
    }
    Err(Error::not_found(format!("there is no record of {instance_id}")).with_path(path))
}
