//! How far a batch is, and which batches a provider knows.

use chrono::DateTime;
use reqwest::Url;
use serde_json::{Map, Value};

use super::super::refusal::one_line;
use super::super::service::Client;
use super::super::{Failure, protocol::Protocol};
use super::{MARKER, MAX_STATUS, get};

/// Batches in one page of a list.
const PAGE: &str = "100";
/// Pages of a list that are read before that is enough: years of batches.
const MAX_PAGES: usize = 100;

/// How far a batch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchStatus {
    /// The provider's name for it.
    pub id: String,
    /// The state in the provider's words.
    pub state: String,
    /// Whether nothing more will happen: the results, perhaps of a part, can be fetched.
    pub is_ended: bool,
    /// Requests that have an answer.
    pub succeeded: u64,
    /// Requests that will have none.
    pub failed: u64,
    /// All requests, where the provider says.
    pub total: Option<u64>,
    /// Why the whole batch was refused.
    pub error: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created_at: Option<i64>,
    /// What [`Client::create_batch`] was given, where the provider keeps it; Anthropic does not.
    pub marker: Option<String>,
    /// OpenAI's files of answers and of errors.
    pub(super) files: Vec<String>,
}

impl Client {
    /// The batches that were made at `since`, in seconds since 1970, or later, newest first.
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn batches_since(&self, since: i64) -> Result<Vec<BatchStatus>, Failure> {
        let (path, cursor): (&[&str], _) = match self.endpoint.protocol {
            Protocol::Messages => (&["messages", "batches"], "after_id"),
            _ => (&["batches"], "after"),
        };
        let mut batches = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut url: Url = self.endpoint.at(path);
            url.query_pairs_mut().append_pair("limit", PAGE);
            if let Some(after) = &after {
                url.query_pairs_mut().append_pair(cursor, after);
            }
            let page = self.fetch_json(get(url), "data", MAX_STATUS, false).await?;
            let found: Vec<BatchStatus> = page["data"].as_array().into_iter().flatten().map(read).collect();
            let is_older = |batch: &BatchStatus| batch.created_at.is_some_and(|made| made < since);
            let is_last = found.iter().any(is_older) || page["has_more"] != true;
            after = found.last().map(|batch| batch.id.clone());
            batches.extend(found.into_iter().filter(|batch| !is_older(batch)));
            if is_last || after.is_none() {
                break;
            }
        }
        Ok(batches)
    }
}

/// What the provider's JSON says of a batch.
pub(super) fn read(value: &Value) -> BatchStatus {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let counts = value["request_counts"].as_object().cloned().unwrap_or_else(Map::new);
    let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
    let sum = |names: &[&str]| names.iter().fold(0_u64, |sum, name| sum.saturating_add(count(name)));
    let state = text("processing_status").or_else(|| text("status")).unwrap_or_default();
    let errors = value["errors"]["data"].as_array().into_iter().flatten();
    let error = errors.filter_map(|error| error["message"].as_str()).next().map(one_line);
    let is_anthropic = value["processing_status"].is_string();
    BatchStatus {
        id: text("id").unwrap_or_default(),
        is_ended: matches!(state.as_str(), "ended" | "completed" | "failed" | "expired" | "cancelled"),
        state,
        succeeded: sum(&["succeeded", "completed"]),
        failed: sum(&["failed", "errored", "canceled", "expired"]),
        total: if is_anthropic {
            Some(sum(&["processing", "succeeded", "errored", "canceled", "expired"]))
        } else {
            counts.get("total").and_then(Value::as_u64)
        },
        error,
        created_at: value["created_at"].as_i64().or_else(|| {
            DateTime::parse_from_rfc3339(value["created_at"].as_str()?).ok().map(|time| time.timestamp())
        }),
        marker: value["metadata"][MARKER].as_str().map(str::to_owned),
        files: ["output_file_id", "error_file_id"].into_iter().filter_map(text).collect(),
    }
}
