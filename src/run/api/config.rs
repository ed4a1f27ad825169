//! What a run against a service is asked to do; the keys are the flags of `swebench-cli run-api`.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch::BatchAction;
use super::model_args::ModelArgs;
use crate::client::{
    ClientConfig, Concurrency, KeySource, LimiterConfig, Money, OpenaiApi, Provider, RetryPolicy, Service,
};
use crate::error::{Error, Result};
use crate::patch::Mode;
use crate::run::names::api_file_name;
use crate::run::shard::{Shard, ShardMode};

/// Most requests in flight where the server decides how many there may be.
const MOST_CONCURRENT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Most instances that wait for a place among those in flight.
const MOST_WAITING: usize = 64;

/// A run against a service over a dataset. Keys that are left out have the values of [`RunApiConfig::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunApiConfig {
    /// Path or hub name of a dataset with `text`. Required.
    pub dataset_name_or_path: String,
    /// The dataset's split; `test` by default.
    pub split: String,
    /// The model as the service names it. Required.
    pub model_name_or_path: String,
    /// Where the predictions file goes; `./outputs` by default.
    pub output_dir: PathBuf,

    /// Parameters of every request, as `key=value,…`: values are JSON, or else text. `temperature`, `top_p` and `max_tokens`
    /// have each provider's name; others are sent as they are.
    pub model_args: String,
    /// Most tokens of an answer; 4096 by default at Anthropic (6000 for `anthropic-text`), the service's own limit elsewhere.
    pub max_tokens: Option<u32>,
    /// Answers for an instance; 1 by default.
    pub n: NonZeroU32,
    /// Whether the first line of the prompts is marked for Anthropic's cache; false by default.
    pub prompt_cache: bool,
    /// The rules by which patches are found: `robust`, which also mends the counts of their hunks, or `legacy`, the
    /// reference's byte for byte; `robust` by default.
    pub patch_mode: Mode,

    /// Only instances whose id this regular expression matches; all by default.
    pub filter: Option<String>,
    /// Only instances that failed in an earlier run; all that are not finished by default.
    pub redo_failed: bool,
    /// Work on this part of the dataset, from 0; needs `num_shards`.
    pub shard_id: Option<usize>,
    /// The number of parts.
    pub num_shards: Option<usize>,
    /// `auto` finds the part in the environment of a cluster job instead of `shard_id`.
    pub shard: Option<ShardMode>,

    /// Most dollars to spend, earlier runs of the same file included; no limit by default.
    pub max_cost: Option<f64>,
    /// Prices in LiteLLM's format, looked up before the built-in ones.
    pub prices: Option<PathBuf>,
    /// Whether prompts are only counted and priced: nothing is asked for, spent or written; false by default.
    pub dry_run: bool,

    /// Whose protocol to speak: `openai`, `azure`, `anthropic` or `anthropic-text`; by default what the model's name tells.
    pub provider: Option<Provider>,
    /// The server; by default the provider's environment variable, then its own server.
    pub base_url: Option<String>,
    /// Azure's `api-version` or Anthropic's `anthropic-version`.
    pub api_version: Option<String>,
    /// Which of OpenAI's interfaces: `chat` or `responses`; `chat` by default.
    pub openai_api: OpenaiApi,
    /// The environment variable of the key; the provider's by default.
    pub key_env: Option<String>,
    /// A file that holds the key and nothing else.
    pub key_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether answers are streamed, which keeps long ones from looking like dead connections; false by default.
    pub stream: bool,
    /// Most tries of a request; 10 by default.
    pub max_attempts: u32,

    /// Requests in flight; by default as many as the service takes.
    pub concurrency: Option<NonZeroUsize>,
    /// Most requests in a minute; no limit by default.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Most tokens of prompts and answers in a minute; no limit by default.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,

    /// Ask through the provider's batches, at half price and within a day: `submit` sends what is not done, `status` tells
    /// how far the batches are, `fetch` writes the predictions of those that have ended; `write` and `read` do it by files
    /// for vLLM's `run-batch`. By default each request is sent and answered at once.
    pub batch: Option<BatchAction>,
    /// The file of requests that `write` writes, or of answers that `read` reads.
    pub batch_file: Option<PathBuf>,
}

impl Default for RunApiConfig {
    fn default() -> Self {
        Self {
            dataset_name_or_path: String::new(),
            split: "test".into(),
            model_name_or_path: String::new(),
            output_dir: "./outputs".into(),
            model_args: String::new(),
            max_tokens: None,
            n: NonZeroU32::MIN,
            prompt_cache: false,
            patch_mode: Mode::Robust,
            filter: None,
            redo_failed: false,
            shard_id: None,
            num_shards: None,
            shard: None,
            max_cost: None,
            prices: None,
            dry_run: false,
            provider: None,
            base_url: None,
            api_version: None,
            openai_api: OpenaiApi::Chat,
            key_env: None,
            key_file: None,
            ca_file: None,
            stream: false,
            max_attempts: RetryPolicy::default().max_attempts,
            concurrency: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            cache_dir: None,
            batch: None,
            batch_file: None,
        }
    }
}

impl RunApiConfig {
    /// Checks everything that needs no file, network or environment.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key, what it may be, and what it is.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [
            ("model_name_or_path", &self.model_name_or_path),
            ("dataset_name_or_path", &self.dataset_name_or_path),
        ] {
            if value.is_empty() {
                return Err(out_of_range(key, "a name or a path", "nothing"));
            }
        }
        // The split becomes part of a file name.
        if self.split.is_empty() || self.split.contains(['/', '\0']) {
            let got = format!("`{}`", self.split.escape_debug());
            return Err(out_of_range("split", "a name such as `test`", got));
        }
        if self.max_tokens == Some(0) {
            return Err(out_of_range("max_tokens", "at least 1", 0));
        }
        if self.key_env.is_some() && self.key_file.is_some() {
            return Err(Error::invalid_argument("`key_env` and `key_file` exclude each other"));
        }
        match (self.batch.is_some_and(BatchAction::has_file), &self.batch_file) {
            (true, None) => return Err(out_of_range("batch_file", "a file to write or to read", "nothing")),
            (false, Some(_)) => {
                return Err(Error::invalid_argument("`batch_file` needs `batch` to be `write` or `read`"));
            }
            _ => {}
        }
        if self.dry_run && self.batch.is_some_and(|action| action != BatchAction::Submit) {
            return Err(Error::invalid_argument("`dry_run` and this `batch` exclude each other")
                .with_hint("only `submit` sends anything"));
        }
        if self.batch == Some(BatchAction::Write) && self.max_cost.is_some() {
            return Err(Error::invalid_argument("`max_cost` and `batch` `write` exclude each other")
                .with_hint("what requests in a file cost is up to the program that sends them"));
        }
        self.cap()?;
        self.filter()?;
        ModelArgs::parse(&self.model_args)?;
        self.client().validate()?;
        Shard::choose(self.shard, self.shard_id, self.num_shards).map(drop)
    }

    /// The part of the dataset, with a cluster's environment behind `lookup` where `shard` is `auto`; `None` is all of it.
    ///
    /// # Errors
    /// `InvalidArgument` for keys that contradict each other, and as [`Shard::from_environment`].
    pub fn resolve_shard(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Shard>> {
        Shard::choose(self.shard, self.shard_id, self.num_shards)?.resolve(lookup, self.num_shards)
    }

    /// Where the predictions go.
    pub(super) fn output_file(&self, shard: Option<Shard>) -> PathBuf {
        self.output_dir.join(api_file_name(
            &self.model_name_or_path,
            &self.dataset_name_or_path,
            &self.split,
            shard,
        ))
    }

    /// The most to spend.
    pub(super) fn cap(&self) -> Result<Option<Money>> {
        let money = |dollars: f64| {
            Money::from_dollars(dollars)
                .ok_or_else(|| out_of_range("max_cost", "dollars, 0 or more", dollars))
        };
        self.max_cost.map(money).transpose()
    }

    /// Which ids are wanted.
    pub(super) fn filter(&self) -> Result<Option<Regex>> {
        let compile = |text: &String| {
            Regex::new(text).map_err(|error| {
                Error::invalid_argument("`filter` is no regular expression").with_source(error)
            })
        };
        self.filter.as_ref().map(compile).transpose()
    }

    /// Whose prices hold.
    pub(super) fn service(&self) -> Service {
        match self.batch {
            Some(BatchAction::Submit | BatchAction::Status | BatchAction::Fetch) => Service::Batch,
            None | Some(BatchAction::Write | BatchAction::Read) => Service::Direct,
        }
    }

    /// How the service is reached.
    pub(super) fn client(&self) -> ClientConfig {
        ClientConfig {
            provider: self.provider,
            model: self.model_name_or_path.clone(),
            base_url: self.base_url.clone(),
            api_version: self.api_version.clone(),
            openai_api: self.openai_api,
            key: match (&self.key_env, &self.key_file) {
                _ if self.batch.is_some_and(BatchAction::has_file) => KeySource::None,
                (Some(variable), _) => KeySource::Environment(variable.clone()),
                (None, Some(path)) => KeySource::File(path.clone()),
                (None, None) if self.dry_run => KeySource::Optional,
                (None, None) => KeySource::Auto,
            },
            ca_file: self.ca_file.clone(),
            stream: self.stream,
            prices: self.prices.clone(),
            retry: RetryPolicy {
                max_attempts: self.max_attempts,
                // What a repetition may cost has to fit below the cap first, which the run looks after.
                repeat_billed: self.max_cost.is_none(),
                ..RetryPolicy::default()
            },
            ..ClientConfig::default()
        }
    }

    /// How fast requests are sent.
    pub(super) fn limiter(&self) -> LimiterConfig {
        LimiterConfig {
            concurrency: self
                .concurrency
                .map_or(Concurrency::Adaptive { most: MOST_CONCURRENT }, Concurrency::Fixed),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
        }
    }

    /// Most instances that are held for requests at once: more than are in flight, so that none waits for the disk.
    pub(super) fn max_submitted(&self) -> usize {
        let in_flight = self.concurrency.unwrap_or(MOST_CONCURRENT).get();
        in_flight.saturating_add(in_flight.min(MOST_WAITING))
    }
}

fn out_of_range(key: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("`{key}` is out of range")).with_expected(expected, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            let mut value = serde_json::json!({"model_name_or_path": "gpt-4o", "dataset_name_or_path": "d"});
            let more: serde_json::Map<_, _> = serde_json::from_str(json).unwrap();
            value.as_object_mut().unwrap().extend(more);
            let config: RunApiConfig = serde_json::from_value(value).unwrap();
            let message = config.validate().map_or_else(|error| error.to_string(), |()| "valid".into());
            assert!(message.contains(expected), "{json}: {message}");
        }
        check("{}", "valid");
        check(r#"{"model_name_or_path": ""}"#, "`model_name_or_path` is out of range");
        check(r#"{"split": "a/b"}"#, "`split` is out of range");
        check(r#"{"max_cost": -1}"#, "`max_cost` is out of range: expected dollars, 0 or more, got -1");
        check(r#"{"filter": "("}"#, "`filter` is no regular expression");
        check(r#"{"max_tokens": 0}"#, "`max_tokens` is out of range");
        check(r#"{"max_attempts": 0}"#, "`retry.max_attempts` is out of range");
        check(r#"{"model_args": "warm"}"#, "`model_args`");
        check(r#"{"shard_id": 1}"#, "`shard_id` needs `num_shards`");
        check(r#"{"key_env": "K", "key_file": "k"}"#, "exclude each other");
        check(r#"{"batch": "write"}"#, "`batch_file` is out of range");
        check(r#"{"batch": "submit", "dry_run": true}"#, "valid");
        check(r#"{"batch": "fetch", "dry_run": true}"#, "`dry_run` and this `batch` exclude each other");
        check(r#"{"batch": "fetch", "batch_file": "f"}"#, "`batch_file` needs `batch`");
        check(r#"{"batch": "write", "batch_file": "f", "max_cost": 1}"#, "exclude each other");
        assert!(serde_json::from_str::<RunApiConfig>(r#"{"n": 0}"#).is_err());
    }
}
