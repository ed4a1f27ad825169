//! How a service is reached: the settings of a client, as configuration files write them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Provider, RetryPolicy, Secret};
use crate::error::{Error, Result};

/// A client's settings. Keys that are left out have the values of [`ClientConfig::default`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Whose protocol to speak; by default what the model's name tells, else OpenAI's when a base URL is given.
    pub provider: Option<Provider>,
    /// The model of requests that name none.
    pub model: String,
    /// The server, as `http://localhost:8000/v1`; by default the provider's environment variable, then its own server.
    pub base_url: Option<String>,
    /// Azure's `api-version` (`OPENAI_API_VERSION` by default, which selects the URLs that name deployments) or Anthropic's
    /// `anthropic-version` (2023-06-01 by default).
    pub api_version: Option<String>,
    /// Which of OpenAI's interfaces; `chat` by default.
    pub openai_api: OpenaiApi,
    /// Where the key is; the provider's environment variable by default.
    pub key: KeySource,
    /// Whether the key is a token that goes into an `Authorization` header: for Azure's AD tokens and gateways; false by
    /// default. OpenAI's keys go there in any case.
    pub bearer: bool,
    /// Further headers of every request.
    pub headers: Headers,
    /// PEM file of certificate authorities to trust besides the system's, for gateways with certificates of their own.
    pub ca_file: Option<PathBuf>,
    /// Whether answers are streamed, which keeps long ones from looking like dead connections; false by default.
    pub stream: bool,
    /// Prices in LiteLLM's format, looked up before the built-in ones.
    pub prices: Option<PathBuf>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a failed try is repeated.
    pub retry: RetryPolicy,
    /// When a service that fails for everybody is left alone for a while.
    pub breaker: BreakerPolicy,
}

impl ClientConfig {
    /// Checks everything that needs no file, network or environment.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key, what it may be, and what it is.
    pub fn validate(&self) -> Result<()> {
        let retry = &self.retry;
        for (key, seconds, zero) in [
            ("timeouts.connect", self.timeouts.connect, false),
            ("timeouts.idle", self.timeouts.idle, false),
            ("timeouts.total", self.timeouts.total, false),
            ("retry.first_wait", retry.first_wait, true),
            ("retry.longest_wait", retry.longest_wait, true),
            ("retry.deadline", retry.deadline, false),
            ("breaker.pause", self.breaker.pause, true),
        ] {
            // A year is longer than anyone waits, and shorter than what clocks can add.
            if !(0.0..=365.0 * 86_400.0).contains(&seconds) || (seconds == 0.0 && !zero) {
                return Err(Error::invalid_argument(format!("`{key}` is out of range"))
                    .with_expected("seconds, at most a year", seconds));
            }
        }
        if retry.max_attempts == 0 {
            return Err(Error::invalid_argument("`retry.max_attempts` is out of range")
                .with_expected("at least 1", 0));
        }
        Ok(())
    }
}

/// Which of OpenAI's interfaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenaiApi {
    /// Chat completions, which every compatible server has.
    #[default]
    Chat,
    /// The Responses API.
    Responses,
}

/// Where the key is; the key itself is never part of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The provider's environment variable.
    #[default]
    Auto,
    /// The provider's environment variable when it is set, else none: for what works without a key.
    Optional,
    /// Another environment variable.
    Environment(String),
    /// A file that holds nothing else.
    File(PathBuf),
    /// The server wants none.
    None,
    /// The key as the caller of the library gave it.
    #[serde(skip)]
    Given(Secret),
}

/// Headers by name; their values may be secrets, so that `Debug` prints names alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How long one try may take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until the connection stands; 15 by default.
    pub connect: f64,
    /// Until the next byte of the answer; 600 by default, as models may think that long before the first.
    pub idle: f64,
    /// Until the end of the answer; 1800 by default.
    pub total: f64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: 15.0, idle: 600.0, total: 1800.0 }
    }
}

/// When a service that fails for everybody is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Tries that fail one after another in the same way before everybody waits; 20 by default, 0 never waits.
    pub failures: u32,
    /// Seconds until one request tries again, while the others go on waiting; 30 by default.
    pub pause: f64,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 20, pause: 30.0 }
    }
}

/// Seconds that [`ClientConfig::validate`] has checked.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives_the_way_through_json_without_its_secrets() {
        let config: ClientConfig = serde_json::from_str(
            r#"{"provider": "anthropic-text", "key": {"environment": "MY_KEY"}, "headers": {"x-tenant": "s3cret"},
                "retry": {"max_attempts": 3}, "openai_api": "responses"}"#,
        )
        .unwrap();
        config.validate().unwrap();
        assert_eq!(config.retry, RetryPolicy { max_attempts: 3, ..Default::default() });
        assert_eq!(
            serde_json::from_str::<ClientConfig>(&serde_json::to_string(&config).unwrap()).unwrap(),
            config
        );
        let printed = format!("{config:?}");
        assert!(printed.contains("x-tenant") && !printed.contains("s3cret"), "{printed}");

        let given = ClientConfig { key: KeySource::Given(Secret::new("sk-1234567")), ..Default::default() };
        assert!(serde_json::to_string(&given).is_err());
        assert!(!format!("{given:?}").contains("1234567"));
        assert!(serde_json::from_str::<ClientConfig>(r#"{"key": {"given": "sk-1"}}"#).is_err());
        assert!(serde_json::from_str::<ClientConfig>(r#"{"api_key": "sk-1"}"#).is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            let config: ClientConfig = serde_json::from_str(json).unwrap();
            assert_eq!(config.validate().unwrap_err().to_string(), expected);
        }
        check(
            r#"{"timeouts": {"idle": 0}}"#,
            "`timeouts.idle` is out of range: expected seconds, at most a year, got 0",
        );
        check(
            r#"{"retry": {"deadline": -1}}"#,
            "`retry.deadline` is out of range: expected seconds, at most a year, got -1",
        );
        check(
            r#"{"retry": {"max_attempts": 0}}"#,
            "`retry.max_attempts` is out of range: expected at least 1, got 0",
        );
    }
}
