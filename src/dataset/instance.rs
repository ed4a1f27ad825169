//! One row of a dataset, with the columns that were asked for.

use serde_json::{Map, Value};

/// One SWE-bench instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instance {
    /// The unique id, `owner__repo-number`.
    pub instance_id: String,
    /// The prompt, when the column was asked for and is there.
    pub text: Option<String>,
    /// The tokenized prompt, likewise.
    pub input_ids: Option<Vec<u32>>,
    /// The other columns that were asked for.
    pub fields: Map<String, Value>,
}
