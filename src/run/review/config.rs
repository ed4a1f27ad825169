//! What to do with predictions files.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::patch::Judge;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Look for records that are malformed, double, empty, or do not apply.
    #[default]
    Validate,
    /// Write the records of all files into one.
    Merge,
    /// Write a file in another layout.
    Convert,
    /// Summarise every instance, as a web page when `output` is given.
    Show,
}

/// Which of several different finished predictions of one instance counts in a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// None: it is an error.
    #[default]
    Error,
    /// That of the file named first.
    First,
    /// That of the file named last.
    Last,
}

/// How records lie in a file; the harness reads all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One a line.
    Jsonl,
    /// A JSON array.
    List,
    /// A JSON object by instance.
    Dict,
}

/// Something to be done with predictions files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictionsConfig {
    /// `validate`, `merge`, `convert` or `show`; `validate` by default.
    pub action: Action,
    /// The files: JSON Lines, or `.json` with a list or an object. Required.
    pub files: Vec<PathBuf>,
    /// Where `merge` and `convert` write, and `show` its web page.
    pub output: Option<PathBuf>,
    /// `jsonl`, `list` or `dict`; by default `list` for an output that ends in `.json`, `jsonl` else.
    pub layout: Option<Layout>,
    /// Different finished predictions of one instance in a merge: `error`, `first` or `last`; `error` by default.
    pub on_conflict: Conflict,
    /// Leave out what is no prediction when writing; false by default, which makes that an error.
    pub skip_unreadable: bool,
    /// Only these instances are shown; all by default.
    pub instance_ids: Option<Vec<String>>,
    /// Path or hub name of the dataset, whose `repo` and `base_commit` tell where patches have to apply; none by default.
    pub dataset: Option<String>,
    /// The dataset's split; `test` by default.
    pub split: String,
    /// Directory of clones named `owner__name` or `owner__name.git`; with it and `dataset` patches are checked.
    pub mirror_dir: Option<PathBuf>,
    /// What has to take a patch: `git`, or what the `harness` tries in turn; `git` by default.
    pub check: Judge,
    /// Hub cache directory; the usual Hugging Face cache by default.
    pub cache_dir: Option<PathBuf>,
}

impl Default for PredictionsConfig {
    fn default() -> Self {
        Self {
            action: Action::Validate,
            files: Vec::new(),
            output: None,
            layout: None,
            on_conflict: Conflict::Error,
            skip_unreadable: false,
            instance_ids: None,
            dataset: None,
            split: "test".into(),
            mirror_dir: None,
            check: Judge::Git,
            cache_dir: None,
        }
    }
}

impl PredictionsConfig {
    /// Checks everything that needs no file.
    ///
    /// # Errors
    /// `InvalidArgument` that names the key.
    pub fn validate(&self) -> Result<()> {
        if self.files.is_empty() {
            return Err(Error::invalid_argument("`files` is empty"));
        }
        if self.action == Action::Convert && self.files.len() > 1 {
            return Err(
                Error::invalid_argument("`convert` takes one file").with_hint("`merge` takes several")
            );
        }
        if matches!(self.action, Action::Merge | Action::Convert) {
            self.required_output()?;
        }
        if self.mirror_dir.is_some() && self.dataset.is_none() {
            return Err(Error::invalid_argument("`mirror_dir` needs a `dataset`")
                .with_hint("the dataset tells at which commit of which repository a patch has to apply"));
        }
        Ok(())
    }

    pub(super) fn required_output(&self) -> Result<&Path> {
        self.output.as_deref().ok_or_else(|| Error::invalid_argument("`output` is missing"))
    }

    /// The layout that was asked for, or that the output's name tells.
    pub(super) fn layout(&self) -> Layout {
        let is_json = self.output.as_ref().is_some_and(|output| output.extension() == Some("json".as_ref()));
        self.layout.unwrap_or(if is_json { Layout::List } else { Layout::Jsonl })
    }
}
