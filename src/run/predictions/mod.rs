//! Predictions as JSON Lines: the record, and the file that survives kills, full disks and second writers.

mod ascii_json;
mod file;
mod line_writer;
mod lock;
mod scan;

pub use file::PredictionsFile;
pub use scan::finished_ids;

use serde::{Deserialize, Serialize};

/// One instance's line; the harness reads the first four fields and ignores the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The instance.
    pub instance_id: String,
    /// The model as the reference records it, with its adapter.
    pub model_name_or_path: String,
    /// What the model wrote; `None` when it wrote nothing because the instance failed.
    pub full_output: Option<String>,
    /// The patch found in it; empty when there is none, which the harness counts as an empty patch.
    pub model_patch: String,
    /// Why the generation ended: `stop`, `length` or `repetition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenUsage>,
    /// Milliseconds from the first prefill step to the last token, without the wait for a place in the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Why the instance failed. A record with an error is not a finished prediction: the next run tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Prediction {
    /// The record of an instance that failed.
    pub fn failed(instance_id: String, model_name_or_path: String, error: String) -> Self {
        Self { instance_id, model_name_or_path, error: Some(error), ..Self::default() }
    }
}

/// Token counts of one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens that were not computed again because an earlier prompt began with them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: usize,
    /// Tokens generated, EOS included.
    pub completion_tokens: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}
