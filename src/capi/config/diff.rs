//! What to do with an answer or a patch.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::error::{Error, Result};
use crate::patch::{Judge, Mode};

/// Steps from an answer to a patch. A patch is an answer, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::capi) struct DiffConfig {
    /// `robust`, or `legacy` for the reference's rules; `robust` by default.
    pub(in crate::capi) mode: Mode,
    /// Make the hunks fit: their counts and, with `repository`, their places, context and white space; false by default.
    pub(in crate::capi) repair: bool,
    /// Keep no context but one line after each change; false by default.
    pub(in crate::capi) minimal: bool,
    /// A repository, bare or not. Only with it do whole files and search/replace blocks make a patch; none by default.
    pub(in crate::capi) repository: Option<PathBuf>,
    /// The commit that the answer is about; `HEAD` by default.
    pub(in crate::capi) commit: String,
    /// Report whether `git` takes the patch, or what the `harness` tries in turn; needs `repository`, none by default.
    pub(in crate::capi) check: Option<Judge>,
}

impl Default for DiffConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Robust,
            repair: false,
            minimal: false,
            repository: None,
            commit: "HEAD".into(),
            check: None,
        }
    }
}

impl Config for DiffConfig {
    const KIND: &'static str = "diff";

    fn check(&self) -> Result<()> {
        if self.check.is_some() && self.repository.is_none() {
            return Err(Error::invalid_argument("`check` needs a `repository`"));
        }
        Ok(())
    }
}
