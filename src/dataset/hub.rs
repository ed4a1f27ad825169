//! Datasets on the Hugging Face hub: which files to fetch, and where they lie then.

use super::DatasetSpec;
use super::source::{self, DataFile};
use crate::error::{Error, Result};
use crate::hub::{Hub, RepoId, RepoKind};

/// Fetches the files of the split that are not in the cache yet.
pub(super) fn fetch(spec: &DatasetSpec, hub: &Hub) -> Result<Vec<DataFile>> {
    let repo = RepoId::parse(RepoKind::Dataset, &spec.name_or_path)?;
    let snapshot = hub.snapshot(&repo, None)?;
    let chosen = source::choose(&snapshot.file_names(), &spec.split)
        .map_err(|error| error.context(format!("cannot use {repo}")))?;
    let directory = hub.fetch(&snapshot, &chosen)?;
    source::in_directory(&directory, &chosen)
}

/// The error for a name that is neither here nor on the hub.
pub(super) fn not_here(spec: &DatasetSpec) -> Error {
    Error::not_found("no such file or directory")
        .with_path(&spec.name_or_path)
        .with_hint("give a path, or a dataset's name on the hub, such as princeton-nlp/SWE-bench_Lite_oracle")
}
