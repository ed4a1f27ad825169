//! What a dataset of prompts is made of; the keys are the flags of `swebench-cli make-datasets create-text-dataset`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::OutputFormat;
use crate::error::{Error, Result};
use crate::prompt::{Fidelity, PromptStyle};
use crate::repo::MirrorConfig;
use crate::run::text_tokenizer::nickname;

/// Which files of its repository an instance's prompt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileSource {
    /// Those that the gold patch changes.
    #[default]
    Oracle,
    /// Those that retrieval found.
    Bm25,
    /// Every Python file but tests.
    All,
    /// None.
    None,
}

impl FileSource {
    /// The name as flags and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oracle => "oracle",
            Self::Bm25 => "bm25",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// A dataset of prompts. Keys that are left out have the values of [`TextDatasetConfig::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextDatasetConfig {
    /// Path or hub name of a dataset of instances; `SWE-bench/SWE-bench` by default.
    pub dataset_name_or_path: String,
    /// The splits to make prompts of; `train` and `test` by default.
    pub splits: Vec<String>,
    /// The share of `train` that becomes `validation`; 0.01 by default.
    pub validation_ratio: f64,
    /// Where the dataset goes, in a directory named after what it is made of. Required.
    pub output_dir: PathBuf,
    /// `save-to-disk`, `parquet` or `jsonl`; `save-to-disk` by default.
    pub output_format: OutputFormat,

    /// `style-2`, `style-3`, `full_file_gen` or `style-2-edits-only`; `style-3` by default.
    pub prompt_style: PromptStyle,
    /// `oracle`, `bm25`, `all` or `none`; `oracle` by default.
    pub file_source: FileSource,
    /// What `bm25-retrieval` wrote; needed by `bm25`.
    pub retrieval_file: Option<PathBuf>,
    /// The most files to show of those that retrieval found; all by default.
    pub k: Option<NonZeroUsize>,
    /// The most tokens of a prompt: files that do not fit are left out. For `bm25` alone.
    pub max_context_len: Option<NonZeroUsize>,
    /// The tokenizer that counts them: `cl100k`, `o200k`, `llama`, a path, or a model's name on the hub.
    pub tokenizer_name: Option<String>,
    /// Whether the reference's faults are kept: windows of edits that are cut, new files as `/dev/null`; false by default.
    pub compat: bool,

    /// A directory of clones named `owner__name` or `owner__name.git`, which are then used and nothing is cloned.
    pub mirror_dir: Option<PathBuf>,
    /// Where clones are kept; `swebench-infer/repositories` in the user's cache by default.
    pub clone_dir: Option<PathBuf>,
    /// What repositories' names are added to for cloning; `https://github.com` by default.
    pub clone_url: Option<String>,
    /// Instances that are worked on at once; by default as many as there are processors.
    pub workers: Option<NonZeroUsize>,
    /// Uploads the dataset as this user's or organization's, as parquet files; the token is the hub's usual one.
    pub push_to_hub_user: Option<String>,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl Default for TextDatasetConfig {
    fn default() -> Self {
        Self {
            dataset_name_or_path: "SWE-bench/SWE-bench".into(),
            splits: vec!["train".into(), "test".into()],
            validation_ratio: 0.01,
            output_dir: PathBuf::new(),
            output_format: OutputFormat::SaveToDisk,
            prompt_style: PromptStyle::Style3,
            file_source: FileSource::Oracle,
            retrieval_file: None,
            k: None,
            max_context_len: None,
            tokenizer_name: None,
            compat: false,
            mirror_dir: None,
            clone_dir: None,
            clone_url: None,
            workers: None,
            push_to_hub_user: None,
            cache_dir: None,
        }
    }
}

impl TextDatasetConfig {
    /// Checks everything that needs no file or network.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key, what it may be, and what it is.
    pub fn validate(&self) -> Result<()> {
        let wrong = |key: &str, expected: &str, got: String| {
            Err(Error::invalid_argument(format!("`{key}` is out of range")).with_expected(expected, got))
        };
        if self.dataset_name_or_path.is_empty() {
            return wrong("dataset_name_or_path", "a name or a path", "nothing".into());
        }
        if self.output_dir.as_os_str().is_empty() {
            return wrong("output_dir", "a directory", "nothing".into());
        }
        if self.splits.is_empty() {
            return wrong("splits", "one or more", "none".into());
        }
        for (index, split) in self.splits.iter().enumerate() {
            if split.is_empty() || split.contains(['/', '\0']) || self.splits[..index].contains(split) {
                return wrong(
                    "splits",
                    "different names such as `test`",
                    format!("`{}`", split.escape_debug()),
                );
            }
        }
        if !(0.0..1.0).contains(&self.validation_ratio) {
            return wrong("validation_ratio", "0 or more and less than 1", self.validation_ratio.to_string());
        }
        if self.push_to_hub_user.is_some() && self.output_format == OutputFormat::Jsonl {
            return wrong("output_format", "parquet where the dataset is uploaded", "jsonl".into());
        }
        self.validate_sources()
    }

    fn validate_sources(&self) -> Result<()> {
        let is_bm25 = self.file_source == FileSource::Bm25;
        let refuse = |message: &str| Err(Error::invalid_argument(message));
        if is_bm25 && self.retrieval_file.is_none() {
            return Err(Error::invalid_argument("the files of `bm25` are in a `retrieval_file`")
                .with_hint("make one with swebench-cli make-datasets bm25-retrieval"));
        }
        if !is_bm25 && self.retrieval_file.is_some() {
            return refuse("`retrieval_file` is for the file source `bm25` alone");
        }
        if !is_bm25 && (self.k.is_some() || self.max_context_len.is_some()) {
            return refuse(
                "`k` and `max_context_len` are for the file source `bm25` alone: others show all their files",
            );
        }
        if self.max_context_len.is_some() != self.tokenizer_name.is_some() {
            return refuse("`max_context_len` and `tokenizer_name` need each other");
        }
        if self.prompt_style == PromptStyle::Style2EditsOnly
            && !matches!(self.file_source, FileSource::Oracle | FileSource::None)
        {
            return refuse(
                "`style-2-edits-only` shows what the gold patch changes: its file source is `oracle`",
            );
        }
        Ok(())
    }

    /// The name that the reference gives the dataset: `{dataset}__{style}__fs-{source}[__k-K][__mcc-N-tokenizer]`.
    pub fn output_name(&self) -> String {
        let dataset = &self.dataset_name_or_path;
        let dataset = if dataset.starts_with("princeton-nlp") { dataset.rsplit('/').next() } else { None }
            .unwrap_or(dataset)
            .replace('/', "__");
        let mut name = format!("{dataset}__{}__fs-{}", self.prompt_style.name(), self.file_source.name());
        if let Some(k) = self.k {
            name.push_str(&format!("__k-{k}"));
        }
        if let (Some(len), Some(tokenizer)) = (self.max_context_len, &self.tokenizer_name) {
            name.push_str(&format!("__mcc-{len}-{}", nickname(tokenizer)));
        }
        name
    }

    /// What is written: parquet where it is uploaded, as the hub's datasets are.
    pub(super) fn format(&self) -> OutputFormat {
        if self.push_to_hub_user.is_some() { OutputFormat::Parquet } else { self.output_format }
    }

    pub(super) fn fidelity(&self) -> Fidelity {
        if self.compat { Fidelity::Reference } else { Fidelity::Mended }
    }

    pub(super) fn mirrors(&self) -> MirrorConfig {
        let default = MirrorConfig::default();
        MirrorConfig {
            mirror_dir: self.mirror_dir.clone(),
            cache_dir: self.clone_dir.clone(),
            base_url: self.clone_url.clone().unwrap_or(default.base_url),
            ..default
        }
    }

    pub(super) fn workers(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.workers.map_or_else(processors, NonZeroUsize::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> TextDatasetConfig {
        let mut value = serde_json::json!({"output_dir": "out"});
        let more: serde_json::Map<_, _> = serde_json::from_str(json).unwrap();
        value.as_object_mut().unwrap().extend(more);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn values_out_of_range_are_named() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            let message = config(json).validate().map_or_else(|error| error.to_string(), |()| "valid".into());
            assert!(message.contains(expected), "{json}: {message}");
        }
        check("{}", "valid");
        check(r#"{"output_dir": ""}"#, "`output_dir`");
        check(r#"{"dataset_name_or_path": ""}"#, "`dataset_name_or_path`");
        check(r#"{"splits": []}"#, "`splits`");
        check(r#"{"splits": ["a/b"]}"#, "`splits`");
        check(r#"{"splits": ["test", "test"]}"#, "different names");
        check(r#"{"validation_ratio": 1.0}"#, "`validation_ratio`");
        check(r#"{"push_to_hub_user": "me", "output_format": "jsonl"}"#, "`output_format`");
        check(r#"{"file_source": "bm25"}"#, "`retrieval_file`");
        check(r#"{"retrieval_file": "x"}"#, "`bm25` alone");
        check(r#"{"k": 3}"#, "`bm25` alone");
        check(r#"{"file_source": "bm25", "retrieval_file": "x", "max_context_len": 9}"#, "need each other");
        check(r#"{"file_source": "all", "prompt_style": "style-2-edits-only"}"#, "`oracle`");
    }

    #[test]
    fn names_are_those_of_the_reference() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            assert_eq!(config(json).output_name(), expected);
        }
        check("{}", "SWE-bench__SWE-bench__style-3__fs-oracle");
        check(
            r#"{"dataset_name_or_path": "princeton-nlp/SWE-bench_Lite", "prompt_style": "full_file_gen", "file_source": "all"}"#,
            "SWE-bench_Lite__full_file_gen__fs-all",
        );
        check(
            r#"{"file_source": "bm25", "k": 20, "max_context_len": 13000, "tokenizer_name": "cl100k"}"#,
            "SWE-bench__SWE-bench__style-3__fs-bm25__k-20__mcc-13000-cl100k",
        );
    }
}
