//! Where a run's model, adapter and dataset come from: local paths, or else the hub.

use std::path::{Path, PathBuf};

use super::config::RunLlamaConfig;
use crate::cancel::CancelToken;
use crate::dataset::{self, Dataset, DatasetSpec};
use crate::error::{Error, Result};
use crate::hub::{Hub, HubConfig, RepoId, RepoKind};

/// Finds what a run reads.
pub(super) struct Sources<'a> {
    config: &'a RunLlamaConfig,
    cancel: &'a CancelToken,
}

impl<'a> Sources<'a> {
    /// Downloads stop when `cancel` says so.
    pub(super) fn new(config: &'a RunLlamaConfig, cancel: &'a CancelToken) -> Self {
        Self { config, cancel }
    }

    /// The directory of a model or adapter that is given by path or by its name on the hub.
    pub(super) fn model_dir(&self, name_or_path: &str) -> Result<PathBuf> {
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
        self.hub()?.model_dir(name_or_path, None)
    }

    /// The split with its prompts.
    pub(super) fn dataset(&self) -> Result<Dataset> {
        let spec = DatasetSpec {
            name_or_path: self.config.dataset_path.clone(),
            split: self.config.split.clone(),
            columns: vec!["text".into(), "input_ids".into()],
            cache_dir: self.config.cache_dir.clone(),
        };
        // Local files need no hub, and so no place for its cache.
        if Path::new(&spec.name_or_path).exists() {
            dataset::load(&spec)
        } else {
            dataset::load_with(&spec, &self.hub()?)
        }
    }

    fn hub(&self) -> Result<Hub> {
        let mut config = HubConfig::from_env()?;
        if let Some(cache) = &self.config.cache_dir {
            config.cache.clone_from(cache);
        }
        Ok(Hub::new(config).with_cancel(self.cancel.clone()))
    }
}
