//! Predictions as JSON Lines: the record, and the file that survives kills, full disks and second writers.

mod ascii_json;
mod file;
mod line_writer;
mod lock;
mod scan;

pub(super) use ascii_json::to_line;
pub use file::PredictionsFile;
pub use scan::{Recorded, finished_ids};

use serde::{Deserialize, Serialize};

use crate::client::Money;

/// One instance's line in a file that [`PredictionsFile`] keeps: an object with `instance_id`, and with `error` when it failed.
pub trait Record: Serialize {
    /// The instance.
    fn instance_id(&self) -> &str;

    /// Whether the next run tries the instance again.
    fn is_failure(&self) -> bool;
}

impl Record for Prediction {
    fn instance_id(&self) -> &str {
        &self.instance_id
    }

    fn is_failure(&self) -> bool {
        self.error.is_some()
    }
}

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
    /// The prompt as it was sent, where a service of OpenAI's protocol was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The prompt as it was sent, where a service of Anthropic's protocol was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_inputs: Option<String>,
    /// Every answer, the first one included, where more than one was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Why the generation ended: `stop`, `length` or `repetition`; of a service also `context_window`, `refusal`,
    /// `tool_use`, or its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Token counts, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenUsage>,
    /// Dollars that a service has billed for the instance; `null` where its price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Option<Money>>,
    /// Milliseconds from the first prefill step to the last token, without the wait for a place in the batch; of a service,
    /// from the first try to the end of the answer.
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

/// One of several answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What the model wrote.
    pub full_output: String,
    /// The patch found in it.
    pub model_patch: String,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// Token counts of one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens that were not computed again because an earlier prompt began with them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: usize,
    /// Of the prompt's, tokens that were written to a service's cache at its surcharge.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: usize,
    /// Tokens generated, EOS included.
    pub completion_tokens: usize,
    /// Of these, tokens of reasoning that a service does not show.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning_tokens: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}
