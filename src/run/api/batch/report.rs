//! What a run through batches tells of them.

use std::path::PathBuf;

use serde::Serialize;

use super::Service;
use super::state::{Batch, BatchFile};
use crate::client::{BatchStatus, Money};
use crate::error::Result;

/// What became of instances by batches.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BatchReport {
    /// Instances that were sent.
    pub submitted: usize,
    /// Instances that wait for their answers.
    pub waiting: usize,
    /// The most that the waiting ones may be billed; `None` where the price is not known.
    pub reserved: Option<Money>,
    /// The batches whose answers are not fetched.
    pub batches: Vec<BatchRow>,
    /// The file that was written or read.
    pub file: Option<PathBuf>,
}

/// How far one batch is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchRow {
    /// The provider's name; `None` when a kill has hidden it, until the next step finds it.
    pub id: Option<String>,
    /// The state in the provider's words, or `unknown`.
    pub state: String,
    /// Whether its answers can be fetched.
    pub is_ended: bool,
    /// Instances in it.
    pub instances: usize,
    /// Requests that have an answer.
    pub succeeded: u64,
    /// Requests that will have none.
    pub failed: u64,
    /// When it was sent, in seconds since 1970.
    pub submitted_at: Option<i64>,
    /// Why the provider refused it as a whole.
    pub error: Option<String>,
}

impl BatchRow {
    /// A batch with what the provider says of it, where that is known.
    pub(super) fn new(batch: &Batch, status: Option<&BatchStatus>) -> Self {
        Self {
            id: batch.id().map(str::to_owned),
            state: status.map_or_else(|| "unknown".into(), |status| status.state.clone()),
            is_ended: status.is_some_and(|status| status.is_ended),
            instances: batch.requests.len(),
            succeeded: status.map_or(0, |status| status.succeeded),
            failed: status.map_or(0, |status| status.failed),
            submitted_at: batch.at(),
            error: status.and_then(|status| status.error.clone()),
        }
    }
}

/// Asks how far the batches are; changes nothing.
pub(super) fn status(service: &Service<'_>, file: &BatchFile) -> Result<BatchReport> {
    let mut report = BatchReport::default();
    let mut reserved = Some(Money::ZERO);
    for batch in file.batches() {
        let status = match batch.id() {
            Some(id) => {
                service.require_home(batch)?;
                Some(service.ask(service.client.batch_status(id))?)
            }
            None => None,
        };
        report.waiting += batch.requests.len();
        for request in &batch.requests {
            reserved = reserved.zip(request.at_most).map(|(sum, most)| sum + most);
        }
        report.batches.push(BatchRow::new(batch, status.as_ref()));
    }
    Ok(BatchReport { reserved, ..report })
}
