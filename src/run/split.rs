//! The dataset of a run: local files, or else the hub's, whose download ends when the run is cancelled.

use crate::cancel::CancelToken;
use crate::dataset::{DatasetSpec, Split};
use crate::error::Result;
use crate::hub::Hub;

/// Finds a split. Local files need no hub, and so no place for its cache.
///
/// # Errors
/// As [`Split::open`].
pub(super) fn open_split(spec: DatasetSpec, cancel: &CancelToken) -> Result<Split> {
    let cache_dir = spec.cache_dir.clone();
    Split::open(spec, || Ok(Hub::from_env(cache_dir.as_deref())?.with_cancel(cancel.clone())))
}
