//! A dataset for a run: local files, or else the hub's, whose download ends when the run is cancelled.

use crate::cancel::CancelToken;
use crate::dataset::{Dataset, DatasetSpec, Split};
use crate::error::Result;
use crate::hub::Hub;

/// Finds a split, to be read row by row. Local files need no hub, and so no place for its cache.
pub(super) fn open(spec: DatasetSpec, cancel: &CancelToken) -> Result<Split> {
    let cache_dir = spec.cache_dir.clone();
    Split::open(spec, || Ok(Hub::from_env(cache_dir.as_deref())?.with_cancel(cancel.clone())))
}

/// Loads a split.
pub(super) fn load(spec: &DatasetSpec, cancel: &CancelToken) -> Result<Dataset> {
    open(spec.clone(), cancel)?.load()
}
