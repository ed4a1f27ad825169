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

/// The splits that the hub has of a dataset.
pub(super) fn splits(name: &str, hub: &Hub) -> Result<Vec<String>> {
    let repo = RepoId::parse(RepoKind::Dataset, name)?;
    source::splits_among(&hub.snapshot(&repo, None)?.file_names())
        .map_err(|error| error.context(format!("cannot use {repo}")))
}

/// The error for a name that is neither here nor on the hub.
pub(super) fn not_here(spec: &DatasetSpec) -> Error {
    Error::not_found("no such file or directory")
        .with_path(&spec.name_or_path)
        .with_hint("give a path, or a dataset's name on the hub, such as princeton-nlp/SWE-bench_Lite_oracle")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Split;
    use crate::dataset::test_files::{ids, prompts, write_parquet};
    use crate::error::ErrorKind;
    use crate::hub::test_server::{COMMIT, Reply, TestServer, listing};

    #[test]
    fn only_the_split_asked_for_is_fetched() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("x.parquet");
        write_parquet(&file, &[prompts(&["a", "b"])]);
        let bytes = std::fs::read(file).unwrap();
        let test = "data/test-00000-of-00001.parquet";
        let server = TestServer::start(move |request| match request.path.as_str() {
            "/api/datasets/o/n/revision/main?blobs=true" => Reply::ok(
                listing(&[("README.md", b""), ("data/dev.parquet", b""), (test, &bytes)]).to_string(),
            ),
            path if path == format!("/datasets/o/n/resolve/{COMMIT}/{test}") => Reply::file(request, &bytes),
            _ => Reply::refuse(404, "RepoNotFound"),
        });
        let mut spec =
            DatasetSpec { name_or_path: "o/n".into(), split: "test".into(), ..DatasetSpec::default() };
        let load = |spec: &DatasetSpec| Split::open(spec.clone(), || Ok(server.hub(root.path())))?.load();
        assert_eq!(ids(&load(&spec).unwrap()), ["a", "b"]);
        assert_eq!(server.requests().len(), 2);

        assert_eq!(splits("o/n", &server.hub(root.path())).unwrap(), ["dev", "test"]);

        spec.split = "train".into();
        let error = load(&spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let line = error.to_line();
        assert!(
            line.contains("dataset o/n") && line.contains("a split `train`, got `dev`, `test`"),
            "{line}"
        );

        spec.name_or_path = "o/other".into();
        let error = load(&spec).unwrap_err();
        assert!(error.to_line().contains("dataset o/other is not on"), "{}", error.to_line());
    }
}
