//! Where a run's model, adapter and dataset come from: local paths, or else the hub.

use std::path::PathBuf;

use super::config::RunLlamaConfig;
use crate::cancel::CancelToken;
use crate::dataset::{DatasetSpec, Split};
use crate::error::Result;
use crate::hub::{self, Hub};
use crate::run::split::open_split;

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
        hub::model_dir(name_or_path, || {
            let hub = Hub::from_env(self.config.cache_dir.as_deref())?;
            Ok(hub.with_cancel(self.cancel.clone()))
        })
    }

    /// The split with its prompts.
    pub(super) fn dataset(&self) -> Result<Split> {
        let spec = DatasetSpec {
            name_or_path: self.config.dataset_path.clone(),
            split: self.config.split.clone(),
            columns: vec!["text".into(), "input_ids".into()],
            cache_dir: self.config.cache_dir.clone(),
        };
        open_split(spec, self.cancel)
    }
}
