//! What a run over live issues is asked to do; the keys are the flags of `swebench-cli run-live`.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{Github, IssueAddress, OpenaiApi, Provider};
use crate::error::{Error, Result};
use crate::prompt::PromptStyle;
use crate::repo::{CloneFilter, MirrorConfig, Mirrors};
use crate::retrieval::DocumentEncoding;
use crate::run::api::RunApiConfig;
use crate::run::llama::RunLlamaConfig;
use crate::run::names::dataset_nickname;

/// The reference's limit of a prompt, in tokens.
const MAX_CONTEXT_LENGTH: NonZeroUsize = NonZeroUsize::new(16_000).unwrap();
/// What the keys of runs over datasets that have no meaning here are filled with.
const NO_DATASET: &str = "issues";

/// A run over issues as they are on GitHub now. Keys that are left out have the values of [`RunLiveConfig::default`], which are
/// the reference's where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunLiveConfig {
    /// The model as its service names it; or the directory, or with `device` also the hub name, of a local model. Required.
    pub model_name: String,
    /// URLs of issues, `https://github.com/OWNER/NAME/issues/NUMBER`. Required.
    pub issue_url: Vec<String>,
    /// The commit that each issue is to be solved at; by default the newest of the default branch, or what is checked out in
    /// `local_repo`.
    pub base_commit: Vec<String>,
    /// Where records go; `./live_outputs` by default.
    pub output_dir: PathBuf,

    /// What the prompt asks for: `style-2`, `style-3` or `full_file_gen`; `style-3` by default.
    pub prompt_style: PromptStyle,
    /// Tokens of `cl100k` that the prompt stays below; 16000 by default.
    pub max_context_length: NonZeroUsize,
    /// What of a file is searched besides its path: `file_name_and_contents` (the default), `file_name_and_documentation` or
    /// `file_name_and_docs_jedi`.
    pub document_encoding_func: DocumentEncoding,
    /// Which files are searched, by the ends of their names, tests apart; `.py` by default.
    pub extensions: Vec<String>,
    /// Whether prompts show the READMEs; false by default.
    pub include_readmes: bool,
    /// Whether prompts have the comments below the issue; false by default.
    pub include_comments: bool,

    /// The REST interface that issues are read from; github.com's by default. A token in the environment's `GITHUB_TOKEN` is sent
    /// to it.
    pub github_api_url: Option<String>,
    /// Where clones are kept; `./run_live_data` by default.
    pub root_dir: PathBuf,
    /// A clone of the issues' repository that is used instead, bare or checked out.
    pub local_repo: Option<PathBuf>,
    /// A directory of clones named `owner__name` or `owner__name.git`, which are then used and nothing is cloned.
    pub mirror_dir: Option<PathBuf>,
    /// What repositories' names are added to for cloning; the issue's host by default.
    pub clone_url: Option<String>,
    /// Whether a patch that applies is put into the files of `local_repo`, where nothing is committed; for one issue; false by
    /// default.
    pub apply: bool,

    /// Parameters of every request to a service, as `key=value,…`: values are JSON, or else text.
    pub model_args: String,
    /// Most tokens of an answer; by default what `run-api` and `run-llama` have.
    pub max_tokens: Option<u32>,
    /// Most dollars to spend, earlier runs of the same file included; no limit by default.
    pub max_cost: Option<f64>,
    /// Prices in LiteLLM's format, looked up before the built-in ones.
    pub prices: Option<PathBuf>,
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
    /// PEM file of certificate authorities to trust besides the system's, for the service.
    pub ca_file: Option<PathBuf>,
    /// Whether answers are streamed, which keeps long ones from looking like dead connections; false by default.
    pub stream: bool,
    /// Most tries of a request to a service; 10 by default.
    pub max_attempts: u32,

    /// Where a local model runs: `auto`, `cpu`, `reference`, `cuda` or `cuda:N`. With it `model_name` is a local model in any case.
    pub device: Option<String>,
    /// Type of a local model's weights and KV cache: `auto` (the checkpoint's), `f32`, `bf16` or `f16`; `auto` by default.
    pub dtype: String,
    /// Directory or hub name of a PEFT LoRA adapter of a local model; none by default.
    pub peft_path: Option<String>,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl Default for RunLiveConfig {
    fn default() -> Self {
        let api = RunApiConfig::default();
        Self {
            model_name: String::new(),
            issue_url: Vec::new(),
            base_commit: Vec::new(),
            output_dir: "./live_outputs".into(),
            prompt_style: PromptStyle::default(),
            max_context_length: MAX_CONTEXT_LENGTH,
            document_encoding_func: DocumentEncoding::default(),
            extensions: vec![".py".into()],
            include_readmes: false,
            include_comments: false,
            github_api_url: None,
            root_dir: "./run_live_data".into(),
            local_repo: None,
            mirror_dir: None,
            clone_url: None,
            apply: false,
            model_args: api.model_args,
            max_tokens: None,
            max_cost: None,
            prices: None,
            provider: None,
            base_url: None,
            api_version: None,
            openai_api: api.openai_api,
            key_env: None,
            key_file: None,
            ca_file: None,
            stream: false,
            max_attempts: api.max_attempts,
            device: None,
            dtype: "auto".into(),
            peft_path: None,
            cache_dir: None,
        }
    }
}

impl RunLiveConfig {
    /// Checks everything that needs no network or environment.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key, what it may be, and what it is.
    pub fn validate(&self) -> Result<()> {
        if self.model_name.is_empty() {
            return Err(out_of_range("model_name", "a name or a path", "nothing"));
        }
        let addresses = self.addresses()?;
        if self.github_api_url.is_none() {
            addresses.iter().try_for_each(|address| Github::api_url_of(address).map(drop))?;
        }
        if !self.base_commit.is_empty() && self.base_commit.len() != addresses.len() {
            let expected = format!("one for each issue ({}), or none", addresses.len());
            return Err(out_of_range("base_commit", expected, self.base_commit.len()));
        }
        if self.prompt_style == PromptStyle::Style2EditsOnly {
            let expected = "style-2, style-3 or full_file_gen";
            return Err(out_of_range(
                "prompt_style",
                expected,
                "style-2-edits-only, which needs the solution",
            ));
        }
        if self.extensions.is_empty() || self.extensions.iter().any(String::is_empty) {
            return Err(out_of_range("extensions", "ends of names such as `.py`", "nothing"));
        }
        for (key, is_set) in
            [("mirror_dir", self.mirror_dir.is_some()), ("clone_url", self.clone_url.is_some())]
        {
            if self.local_repo.is_some() && is_set {
                let message = format!("`local_repo` and `{key}` exclude each other");
                return Err(Error::invalid_argument(message));
            }
        }
        if self.mirror_dir.is_some() && self.clone_url.is_some() {
            return Err(Error::invalid_argument(
                "`mirror_dir` excludes `clone_url`: nothing is cloned with it",
            ));
        }
        if self.apply && (self.local_repo.is_none() || addresses.len() != 1) {
            return Err(Error::invalid_argument("`apply` needs `local_repo` and a single issue")
                .with_hint("`git apply` takes the `model_patch` of any record"));
        }
        match self.is_local() {
            true => self.check_local(),
            false if self.peft_path.is_some() => {
                Err(Error::invalid_argument("`peft_path` needs a local model")
                    .with_hint("with `device`, `model_name` is one in any case"))
            }
            false => self.api().validate(),
        }
    }

    fn check_local(&self) -> Result<()> {
        for (key, is_set) in [
            ("model_args", !self.model_args.is_empty()),
            ("max_cost", self.max_cost.is_some()),
            ("provider", self.provider.is_some()),
            ("base_url", self.base_url.is_some()),
            ("key_env", self.key_env.is_some()),
            ("key_file", self.key_file.is_some()),
        ] {
            if is_set {
                return Err(Error::invalid_argument(format!("`{key}` is for services"))
                    .with_expected("a model of a service", "a local one"));
            }
        }
        self.llama().validate()
    }

    /// The issues, of which no two have the same id.
    pub(super) fn addresses(&self) -> Result<Vec<IssueAddress>> {
        if self.issue_url.is_empty() {
            return Err(out_of_range("issue_url", "URLs of issues", "nothing"));
        }
        let addresses: Vec<IssueAddress> =
            self.issue_url.iter().map(|url| url.parse()).collect::<Result<_>>()?;
        let mut seen = HashSet::new();
        match addresses.iter().find(|address| !seen.insert(address.instance_id())) {
            Some(twice) => {
                Err(Error::invalid_argument(format!("two issues are called {}", twice.instance_id())))
            }
            None => Ok(addresses),
        }
    }

    /// Whether the model runs here.
    pub(super) fn is_local(&self) -> bool {
        let is_service = self.provider.is_some() || self.base_url.is_some();
        self.device.is_some() || (!is_service && Path::new(&self.model_name).is_dir())
    }

    /// `{output_dir}/{model}__{style}__{encoding}__mcc-{N}.jsonl`; the reference has the time there, with which nothing could be
    /// continued.
    pub(super) fn output_file(&self) -> PathBuf {
        let model = dataset_nickname(&self.model_name);
        let adapter = self.peft_path.as_deref();
        let adapter = adapter.map_or_else(String::new, |path| format!("__{}", dataset_nickname(path)));
        let (style, encoding) = (self.prompt_style.name(), self.document_encoding_func);
        let length = self.max_context_length;
        self.output_dir.join(format!("{model}{adapter}__{style}__{encoding}__mcc-{length}.jsonl"))
    }

    /// The run of the service's model, as far as it has to do with the model.
    pub(super) fn api(&self) -> RunApiConfig {
        RunApiConfig {
            dataset_name_or_path: NO_DATASET.into(),
            model_name_or_path: self.model_name.clone(),
            output_dir: self.output_dir.clone(),
            model_args: self.model_args.clone(),
            max_tokens: self.max_tokens,
            max_cost: self.max_cost,
            prices: self.prices.clone(),
            provider: self.provider,
            base_url: self.base_url.clone(),
            api_version: self.api_version.clone(),
            openai_api: self.openai_api,
            key_env: self.key_env.clone(),
            key_file: self.key_file.clone(),
            ca_file: self.ca_file.clone(),
            stream: self.stream,
            max_attempts: self.max_attempts,
            ..RunApiConfig::default()
        }
    }

    /// The run of the local model, as far as it has to do with the model.
    pub(super) fn llama(&self) -> RunLlamaConfig {
        let default = RunLlamaConfig::default();
        RunLlamaConfig {
            model_name_or_path: self.model_name.clone(),
            peft_path: self.peft_path.clone(),
            dataset_path: NO_DATASET.into(),
            max_new_tokens: self.max_tokens.map_or(default.max_new_tokens, |tokens| tokens as usize),
            device: self.device.clone().unwrap_or(default.device),
            dtype: self.dtype.clone(),
            cache_dir: self.cache_dir.clone(),
            ..default
        }
    }

    /// Where the repository of an issue comes from.
    pub(super) fn mirrors(&self, address: &IssueAddress) -> Result<Mirrors> {
        Mirrors::new(MirrorConfig {
            mirror_dir: self.mirror_dir.clone(),
            cache_dir: Some(self.root_dir.clone()),
            base_url: self.clone_url.clone().unwrap_or_else(|| address.host().to_owned()),
            filter: CloneFilter::FilesOnDemand,
            ..MirrorConfig::default()
        })
    }

    pub(super) fn threads(&self) -> usize {
        available_parallelism().map_or(1, usize::from)
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
            let mut value = serde_json::json!({
                "model_name": "gpt-4o", "issue_url": ["https://github.com/o/n/issues/1"],
            });
            let more: serde_json::Map<_, _> = serde_json::from_str(json).unwrap();
            value.as_object_mut().unwrap().extend(more);
            let config: RunLiveConfig = serde_json::from_value(value).unwrap();
            let message = config.validate().map_or_else(|error| error.to_string(), |()| "valid".into());
            assert!(message.contains(expected), "{json}: {message}");
        }
        check("{}", "valid");
        check(r#"{"model_name": ""}"#, "`model_name` is out of range");
        check(r#"{"issue_url": []}"#, "`issue_url` is out of range");
        check(r#"{"issue_url": ["https://github.com/o/n/pull/1"]}"#, "that of a pull request");
        check(r#"{"issue_url": ["https://example.org/o/n/issues/1"]}"#, "is not known");
        check(
            r#"{"issue_url": ["https://example.org/o/n/issues/1"], "github_api_url": "https://example.org/api"}"#,
            "valid",
        );
        check(
            r#"{"issue_url": ["https://github.com/o/n/issues/1", "https://github.com/o/n/issues/1/"]}"#,
            "two issues are called o__n-1",
        );
        check(r#"{"base_commit": ["a", "b"]}"#, "`base_commit` is out of range");
        check(r#"{"prompt_style": "style-2-edits-only"}"#, "`prompt_style` is out of range");
        check(r#"{"extensions": [""]}"#, "`extensions` is out of range");
        check(r#"{"apply": true}"#, "`apply` needs `local_repo`");
        check(r#"{"local_repo": "a", "mirror_dir": "b"}"#, "exclude each other");
        check(r#"{"device": "cpu", "base_url": "http://h"}"#, "`base_url` is for services");
        check(r#"{"device": "gpu"}"#, "unknown device");
        check(r#"{"peft_path": "a"}"#, "needs a local model");
        check(r#"{"max_cost": -1}"#, "`max_cost` is out of range");
    }

    #[test]
    fn files_are_named_by_what_prompts_are_made_of() {
        let config = RunLiveConfig { model_name: "org/model".into(), ..RunLiveConfig::default() };
        let expected = "./live_outputs/org__model__style-3__file_name_and_contents__mcc-16000.jsonl";
        assert_eq!(config.output_file(), PathBuf::from(expected));
    }
}
