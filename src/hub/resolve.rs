//! A model or adapter as people name it: a directory, or else a name on the hub.

use std::path::{Path, PathBuf};

use super::{Hub, RepoId, RepoKind};
use crate::error::{Error, Result};

/// The directory of a model or adapter that is given by path or by its name on the hub; `hub` is only called for the latter.
///
/// # Errors
/// `InvalidArgument` for a file, `NotFound` when there is no such directory and the text is no name; as [`Hub::model_dir`].
pub fn model_dir(name_or_path: &str, hub: impl FnOnce() -> Result<Hub>) -> Result<PathBuf> {
    let path = Path::new(name_or_path);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.exists() {
        return Err(Error::invalid_argument("not a model")
            .with_path(path)
            .with_expected("a directory", "a file"));
    }
    if !(name_or_path.contains('/') && RepoId::parse(RepoKind::Model, name_or_path).is_ok()) {
        return Err(Error::not_found("no such directory").with_path(path).with_hint(
            "give a model's directory, or its name on the hub, such as princeton-nlp/SWE-Llama-7b",
        ));
    }
    hub()?.model_dir(name_or_path, None)
}
