//! The configuration of a client, which is the client's own, and the request of a completion.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Config;
use crate::client::{ClientConfig, Request, Sampling};
use crate::error::{Error, Result};

/// Most answers of one request.
const MAX_SAMPLES: u32 = 64;

impl Config for ClientConfig {
    const KIND: &'static str = "client";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

/// What to ask a service's model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(in crate::capi) struct CompletionConfig {
    /// The user's message.
    pub user: String,
    /// Instructions that come before it; none by default.
    #[serde(default)]
    pub system: String,
    /// The model as the service names it; the client's by default.
    pub model: Option<String>,
    /// 0 is greedy; by default it is not sent, as some models refuse to be given any.
    pub temperature: Option<f64>,
    /// Nucleus threshold, more than 0, at most 1; by default it is not sent.
    pub top_p: Option<f64>,
    /// Most tokens of an answer; by default 4096 at Anthropic (6000 for `anthropic-text`), the service's own limit elsewhere.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Answers, 1 to 64; providers that give one a request are asked as often.
    #[serde(default = "one")]
    pub n: u32,
    /// Whether the first answer's text comes in TEXT events as it is made.
    #[serde(default)]
    pub stream: bool,
    /// Whether the shared beginning of the prompt is marked for Anthropic's cache.
    #[serde(default)]
    pub prompt_cache: bool,
    /// Further members of the request's JSON object, which win over the others; `null` takes a member out.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

fn one() -> u32 {
    1
}

impl CompletionConfig {
    /// The client's request.
    pub(in crate::capi) fn request(self) -> Request {
        Request {
            model: self.model.unwrap_or_default(),
            system: self.system,
            user: self.user,
            sampling: Sampling { temperature: self.temperature, top_p: self.top_p },
            max_tokens: self.max_tokens,
            stop: self.stop,
            n: self.n,
            prompt_cache: self.prompt_cache,
            extra: self.extra,
        }
    }
}

impl Config for CompletionConfig {
    const KIND: &'static str = "completion";

    fn check(&self) -> Result<()> {
        let range = |key: &str, expected: &str, got: String| {
            Err(Error::invalid_argument(format!("`{key}` is out of range")).with_expected(expected, got))
        };
        if self.user.is_empty() {
            return range("user", "a message", "nothing".into());
        }
        if !(1..=MAX_SAMPLES).contains(&self.n) {
            return range("n", "1 to 64", self.n.to_string());
        }
        if self.max_tokens == Some(0) {
            return range("max_tokens", "at least 1", "0".into());
        }
        if let Some(temperature) = self.temperature.filter(|temperature| !(0.0..=100.0).contains(temperature))
        {
            return range("temperature", "0 to 100", temperature.to_string());
        }
        if let Some(top_p) = self.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            return range("top_p", "more than 0, at most 1", top_p.to_string());
        }
        if self.stop.iter().any(String::is_empty) {
            return range("stop", "strings that are not empty", "\"\"".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn mistakes_are_named() {
        #[track_caller]
        fn check<T: Config>(json: &str, message: &str, hint: &str) {
            let error = parse::<T>(json).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(message), "{json}: {error}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{json}: {:?}", error.hint());
        }
        for (json, message) in [
            ("{}", "incomplete"),
            (r#"{"user": ""}"#, "`user`"),
            (r#"{"user": "a", "n": 65}"#, "`n`"),
            (r#"{"user": "a", "max_tokens": 0}"#, "`max_tokens`"),
            (r#"{"user": "a", "temperature": -1}"#, "`temperature`"),
            (r#"{"user": "a", "top_p": 0}"#, "`top_p`"),
            (r#"{"user": "a", "stop": [""]}"#, "`stop`"),
        ] {
            check::<CompletionConfig>(json, message, "");
        }
        check::<CompletionConfig>(r#"{"usr": "a"}"#, "unknown key `usr`", "did you mean `user`?");
        check::<ClientConfig>(r#"{"base-url": "x"}"#, "unknown key `base-url`", "did you mean `base_url`?");
        check::<ClientConfig>(r#"{"retry": {"max_attempts": 0}}"#, "`retry.max_attempts`", "");
        check::<ClientConfig>(r#"{"timeouts": {"idel": 1}}"#, "the value of `timeouts.idel`", "");
        check::<ClientConfig>(r#"{"key": {"given": "sk-1"}}"#, "the value of `key", "");
    }
}
