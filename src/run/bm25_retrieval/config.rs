//! What retrieval is asked to do; the keys are the flags of `swebench-cli make-datasets bm25-retrieval`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::repo::{MirrorConfig, Mirrors};
use crate::retrieval::DocumentEncoding;
use crate::run::names::dataset_nickname;
use crate::run::shard::{Shard, ShardMode};

/// A search for the files that issues are about. Keys that are left out have the values of [`Bm25RetrievalConfig::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bm25RetrievalConfig {
    /// Path or hub name of a dataset of instances; `SWE-bench/SWE-bench` by default.
    pub dataset_name_or_path: String,
    /// The dataset's splits; `train` and `test` by default.
    pub splits: Vec<String>,
    /// What of a file is searched besides its path: `file_name_and_contents` (the default), `file_name_and_documentation` or
    /// `file_name_and_docs_jedi`.
    pub document_encoding_style: DocumentEncoding,
    /// Which files are searched, by the ends of their names, tests apart; `.py` by default.
    pub extensions: Vec<String>,
    /// Where results go; `./retreival_results` by default, spelled as the reference spells it.
    pub output_dir: PathBuf,
    /// Whether the terms of files stay in the output directory for the next run; true by default.
    pub leave_indexes: bool,

    /// Work on this part of each split, from 0; needs `num_shards`. Each part has a file of its own.
    pub shard_id: Option<usize>,
    /// The number of parts.
    pub num_shards: Option<usize>,
    /// `auto` finds the part in the environment of a cluster job instead of `shard_id`.
    pub shard: Option<ShardMode>,

    /// A directory of clones named `owner__name` or `owner__name.git`, which are then used and nothing is cloned.
    pub mirror_dir: Option<PathBuf>,
    /// Where clones are kept; `swebench-infer/repositories` in the user's cache by default.
    pub clone_dir: Option<PathBuf>,
    /// What repositories' names are added to for cloning; `https://github.com` by default.
    pub clone_url: Option<String>,
    /// Instances that are worked on at once; by default as many as there are processors.
    pub workers: Option<NonZeroUsize>,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl Default for Bm25RetrievalConfig {
    fn default() -> Self {
        Self {
            dataset_name_or_path: "SWE-bench/SWE-bench".into(),
            splits: vec!["train".into(), "test".into()],
            document_encoding_style: DocumentEncoding::default(),
            extensions: vec![".py".into()],
            output_dir: "./retreival_results".into(),
            leave_indexes: true,
            shard_id: None,
            num_shards: None,
            shard: None,
            mirror_dir: None,
            clone_dir: None,
            clone_url: None,
            workers: None,
            cache_dir: None,
        }
    }
}

impl Bm25RetrievalConfig {
    /// Checks everything that needs no file, network or environment.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key, what it may be, and what it is.
    pub fn validate(&self) -> Result<()> {
        let wrong = |key: &str, expected: &str, got: &str| {
            Err(Error::invalid_argument(format!("`{key}` is out of range")).with_expected(expected, got))
        };
        if self.dataset_name_or_path.is_empty() {
            return wrong("dataset_name_or_path", "a name or a path", "nothing");
        }
        if self.splits.is_empty() || self.splits.iter().any(String::is_empty) {
            return wrong("splits", "names such as `test`", "nothing");
        }
        if self.extensions.is_empty() || self.extensions.iter().any(String::is_empty) {
            return wrong("extensions", "ends of names such as `.py`", "nothing");
        }
        if self.mirror_dir.is_some() && (self.clone_dir.is_some() || self.clone_url.is_some()) {
            return Err(Error::invalid_argument(
                "`mirror_dir` excludes `clone_dir` and `clone_url`: nothing is cloned with it",
            ));
        }
        Shard::choose(self.shard, self.shard_id, self.num_shards).map(drop)
    }

    /// The part of each split, with a cluster's environment behind `lookup` where `shard` is `auto`; `None` is all of it.
    ///
    /// # Errors
    /// `InvalidArgument` for keys that contradict each other, and as [`Shard::from_environment`].
    pub fn resolve_shard(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Shard>> {
        Shard::choose(self.shard, self.shard_id, self.num_shards)?.resolve(lookup, self.num_shards)
    }

    /// `{output_dir}/{dataset}/{style}.retrieval[__shard-I__num_shards-N].jsonl`. Parts are apart because each file has one
    /// writer; one after the other they are the whole.
    pub(super) fn output_file(&self, shard: Option<Shard>) -> PathBuf {
        let style = self.document_encoding_style;
        let shard = shard.map_or_else(String::new, |shard| {
            format!("__shard-{}__num_shards-{}", shard.index(), shard.count())
        });
        self.dataset_dir().join(format!("{style}.retrieval{shard}.jsonl"))
    }

    /// Where the terms of files are kept.
    pub(super) fn index_dir(&self) -> PathBuf {
        self.dataset_dir().join(format!("{}_indexes", self.document_encoding_style))
    }

    fn dataset_dir(&self) -> PathBuf {
        self.output_dir.join(dataset_nickname(&self.dataset_name_or_path))
    }

    /// Where repositories come from.
    pub(super) fn mirrors(&self) -> Result<Mirrors> {
        let default = MirrorConfig::default();
        Mirrors::new(MirrorConfig {
            mirror_dir: self.mirror_dir.clone(),
            cache_dir: self.clone_dir.clone(),
            base_url: self.clone_url.clone().unwrap_or(default.base_url),
            ..MirrorConfig::default()
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.or_else(|| available_parallelism().ok()).map_or(1, usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_reference_names_them() {
        let config = Bm25RetrievalConfig::default();
        assert_eq!(
            config.output_file(None),
            PathBuf::from("./retreival_results/SWE-bench__SWE-bench/file_name_and_contents.retrieval.jsonl")
        );
        let shard = Shard::new(1, 4).unwrap();
        assert!(
            config
                .output_file(Some(shard))
                .ends_with("file_name_and_contents.retrieval__shard-1__num_shards-4.jsonl")
        );
        assert!(config.index_dir().ends_with("file_name_and_contents_indexes"));
    }

    #[test]
    fn values_out_of_range_are_named() {
        #[track_caller]
        fn check(json: &str, says: &str) {
            let config: Bm25RetrievalConfig = serde_json::from_str(json).unwrap();
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains(says), "{json}: {error}");
        }
        check(r#"{"dataset_name_or_path": ""}"#, "`dataset_name_or_path`");
        check(r#"{"splits": []}"#, "`splits`");
        check(r#"{"extensions": [""]}"#, "`extensions`");
        check(r#"{"mirror_dir": "a", "clone_url": "b"}"#, "`mirror_dir` excludes");
        check(r#"{"shard_id": 1}"#, "`shard_id` needs `num_shards`");
        assert!(Bm25RetrievalConfig::default().validate().is_ok());
    }
}
