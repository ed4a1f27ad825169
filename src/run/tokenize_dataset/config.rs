//! What a dataset of tokens is made of; the keys are the flags of `swebench-cli make-datasets tokenize-dataset`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::OutputFormat;
use crate::error::{Error, Result};
use crate::run::text_tokenizer::nickname;

/// A dataset of tokens. Keys that are left out have the values of [`TokenizeDatasetConfig::default`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizeDatasetConfig {
    /// Path or hub name of a dataset with `text` and `patch`. Required.
    pub dataset_name_or_path: String,
    /// The splits to tokenize; all by default.
    pub splits: Vec<String>,
    /// Where the dataset goes, in a directory named after dataset and tokenizer. Required.
    pub output_dir: PathBuf,
    /// `save-to-disk`, `parquet` or `jsonl`; `save-to-disk` by default.
    pub output_format: OutputFormat,
    /// `cl100k`, `o200k`, `llama`, a path, or a model's name on the hub. Required.
    pub tokenizer_name: String,
    /// Threads; 0, the default, is as many as there are processors.
    pub num_proc: usize,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl TokenizeDatasetConfig {
    /// Checks everything that needs no file or network.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key.
    pub fn validate(&self) -> Result<()> {
        for (key, is_empty) in [
            ("dataset_name_or_path", self.dataset_name_or_path.is_empty()),
            ("output_dir", self.output_dir.as_os_str().is_empty()),
            ("tokenizer_name", self.tokenizer_name.is_empty()),
        ] {
            if is_empty {
                return Err(Error::invalid_argument(format!("`{key}` is out of range"))
                    .with_expected("a name or a path", "nothing"));
            }
        }
        Ok(())
    }

    /// The name that the reference gives the dataset: `{dataset}__tok-{tokenizer}`.
    pub fn output_name(&self) -> String {
        let dataset = Path::new(&self.dataset_name_or_path).file_name().unwrap_or_default().to_string_lossy();
        format!("{dataset}__tok-{}", nickname(&self.tokenizer_name))
    }

    pub(super) fn threads(&self) -> usize {
        match self.num_proc {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            threads => threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_named() {
        for (json, expected) in [
            (r#"{"output_dir": "o", "tokenizer_name": "t"}"#, "`dataset_name_or_path`"),
            (r#"{"dataset_name_or_path": "d", "tokenizer_name": "t"}"#, "`output_dir`"),
            (r#"{"dataset_name_or_path": "d", "output_dir": "o"}"#, "`tokenizer_name`"),
        ] {
            let config: TokenizeDatasetConfig = serde_json::from_str(json).unwrap();
            assert!(config.validate().unwrap_err().to_string().contains(expected), "{json}");
        }
    }
}
