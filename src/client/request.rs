//! What a model is asked, in no provider's words.

use serde_json::{Map, Value};

/// Sampling parameters; one that is `None` is not sent, because some models refuse to be given any.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// Temperature, 0 is greedy.
    pub temperature: Option<f64>,
    /// Nucleus threshold in (0, 1].
    pub top_p: Option<f64>,
}

/// One completion of one conversation turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The model's name, or the deployment's on Azure; empty means the client's.
    pub model: String,
    /// Instructions that come before the user's message; empty sends none.
    pub system: String,
    /// The user's message.
    pub user: String,
    /// Sampling.
    pub sampling: Sampling,
    /// Most tokens of the answer; `None` leaves it to the provider where it may be left out.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// How many answers; providers that give one a request are asked as often.
    pub n: u32,
    /// Whether the shared beginning of the prompt is marked for the provider's cache.
    pub prompt_cache: bool,
    /// Further members of the request's JSON object, as the user gave them. They win over ours, and `null` takes a member
    /// out; only `stream` is the client's to set.
    pub extra: Map<String, Value>,
}
