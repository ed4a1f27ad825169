//! A dataset for a run: local files, or else the hub's, whose download ends when the run is cancelled.

use std::path::Path;

use crate::cancel::CancelToken;
use crate::dataset::{self, Dataset, DatasetSpec};
use crate::error::Result;
use crate::hub::Hub;

/// Loads a split. Local files need no hub, and so no place for its cache.
pub(super) fn load(spec: &DatasetSpec, cancel: &CancelToken) -> Result<Dataset> {
    if Path::new(&spec.name_or_path).exists() {
        return dataset::load(spec);
    }
    let hub = Hub::from_env(spec.cache_dir.as_deref())?.with_cancel(cancel.clone());
    dataset::load_with(spec, &hub)
}
