//! Repositories of the Hugging Face hub, in the cache that Python shares: datasets and models by name; uploads of datasets.
//!
//! A snapshot is listed once, with the sizes and hashes of its files, and every file is then fetched from that commit:
//! resumed where it broke off, verified, and never fetched twice. Offline, the cache alone answers.

mod cache;
mod client;
mod config;
mod download;
mod model_files;
mod repo;
mod resolve;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod upload;

pub use config::{HubConfig, Token};
pub use repo::{RepoId, RepoKind};
pub use resolve::model_dir;
pub use upload::Upload;

use std::fmt;
use std::path::{Component, Path, PathBuf};

use cache::RepoCache;
use client::{Client, Sibling};
use download::{Download, is_sha256};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

const MAIN: &str = "main";

/// A connection to the hub and its cache; may be used from several threads.
pub struct Hub {
    config: HubConfig,
    client: Client,
}

/// The files of a repository at one commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    repo: RepoId,
    revision: String,
    commit: String,
    files: Vec<RemoteFile>,
    /// Whether the hub listed the files, or the cache did, which has them already.
    is_remote: bool,
}

#[derive(Debug, Clone)]
struct RemoteFile {
    /// Relative to the repository, with `/`.
    name: String,
    /// Bytes, when the hub said.
    size: Option<u64>,
    /// SHA-256 of a large file, git's hash of another; the name of its blob.
    hash: Option<String>,
}

impl Snapshot {
    /// The names of the files, relative to the repository, with `/`.
    pub fn file_names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.name.clone()).collect()
    }
}

impl Hub {
    /// The hub of this configuration; nothing is sent yet.
    pub fn new(config: HubConfig) -> Self {
        let client = Client::new(&config);
        Self { config, client }
    }

    /// The hub that the environment names, see [`HubConfig::from_env`], with another cache directory when one is given.
    pub fn from_env(cache: Option<&Path>) -> Result<Self> {
        let mut config = HubConfig::from_env()?;
        if let Some(cache) = cache {
            config.cache = cache.to_path_buf();
        }
        Ok(Self::new(config))
    }

    /// Lets `cancel` stop downloads; what has arrived is kept for the next one.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.client.cancel = cancel;
        self
    }

    /// Lists a revision, `main` unless told: from the hub, or from the cache when offline or when the hub cannot be reached.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository or revision, or it may not be read, and when it is not in the cache of an
    /// offline hub; `Network` when the hub does not answer and the cache has no snapshot either.
    pub fn snapshot(&self, repo: &RepoId, revision: Option<&str>) -> Result<Snapshot> {
        let revision = revision.unwrap_or(MAIN);
        check_revision(revision)?;
        if self.config.offline {
            return self.cached_snapshot(repo, revision)?.ok_or_else(|| self.not_cached(repo, revision));
        }
        match self.client.list(repo, revision) {
            Ok(listing) => Ok(Snapshot {
                repo: repo.clone(),
                revision: revision.to_owned(),
                commit: listing.sha,
                files: listing.siblings.into_iter().map(remote_file).collect::<Result<_>>()?,
                is_remote: true,
            }),
            Err(error) if error.kind() == ErrorKind::Network => match self.cached_snapshot(repo, revision)? {
                Some(snapshot) => {
                    log::warn!("{}; using the cached {repo}", error.to_line());
                    Ok(snapshot)
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Fetches files of a snapshot, named as [`Snapshot::file_names`] names them, and returns the directory that holds
    /// them under these names.
    ///
    /// # Errors
    /// `Network` when a download fails again and again, `InvalidData` when one is not what the hub promised, `Cancelled`.
    pub fn fetch(&self, snapshot: &Snapshot, names: &[String]) -> Result<PathBuf> {
        let cache = RepoCache::new(&self.config.cache, &snapshot.repo);
        let directory = cache.snapshot(&snapshot.commit);
        if !snapshot.is_remote {
            return Ok(directory);
        }
        let download =
            Download { client: &self.client, cache: &cache, repo: &snapshot.repo, commit: &snapshot.commit };
        for name in names {
            let file = snapshot.files.iter().find(|file| &file.name == name).ok_or_else(|| {
                Error::not_found(format!("{} has no file `{}`", snapshot.repo, name.escape_debug()))
            })?;
            download.fetch(file)?;
        }
        if snapshot.revision != snapshot.commit {
            cache.set_commit(&snapshot.revision, &snapshot.commit)?;
        }
        Ok(directory)
    }

    /// The directory of a model or adapter by its name on the hub, with every file that running it needs.
    ///
    /// # Errors
    /// As [`Hub::snapshot`] and [`Hub::fetch`]; `NotFound` when the repository holds no model.
    pub fn model_dir(&self, name: &str, revision: Option<&str>) -> Result<PathBuf> {
        let repo = RepoId::parse(RepoKind::Model, name)?;
        let snapshot = self.snapshot(&repo, revision)?;
        let names = snapshot.file_names();
        let chosen = model_files::choose(&names);
        if !chosen.iter().any(|name| matches!(name.as_str(), "config.json" | "adapter_config.json")) {
            return Err(Error::not_found(format!("{repo} holds no model"))
                .with_expected("config.json or adapter_config.json", names.join(", ")));
        }
        self.fetch(&snapshot, &chosen)
    }

    fn cached_snapshot(&self, repo: &RepoId, revision: &str) -> Result<Option<Snapshot>> {
        let cache = RepoCache::new(&self.config.cache, repo);
        let Some(commit) = cache.commit(revision) else {
            return Ok(None);
        };
        let files = cache
            .files(&commit)?
            .into_iter()
            .map(|name| RemoteFile { name, size: None, hash: None })
            .collect();
        Ok(Some(Snapshot {
            repo: repo.clone(),
            revision: revision.to_owned(),
            commit,
            files,
            is_remote: false,
        }))
    }

    fn not_cached(&self, repo: &RepoId, revision: &str) -> Error {
        Error::not_found(format!(
            "{repo} is not in the cache at revision `{revision}`, and the hub is offline"
        ))
        .with_path(self.config.cache.join(repo.folder()))
        .with_hint(
            "unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE to download it, or point HF_HOME at another cache",
        )
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Names become paths, and hashes names: what the hub sends is checked here, once.
fn remote_file(sibling: Sibling) -> Result<RemoteFile> {
    let Sibling { rfilename: name, size, blob_id, lfs } = sibling;
    if !stays_inside(&name) {
        return Err(Error::invalid_data("the hub lists a file outside of its repository")
            .with_expected("a relative path without `..`", format_args!("`{}`", name.escape_debug())));
    }
    let is_hash = |hash: &String| is_sha256(hash) || cache::is_commit(hash);
    let (size, hash) = match lfs {
        Some(lfs) => (lfs.size.or(size), Some(lfs.sha256)),
        None => (size, blob_id),
    };
    Ok(RemoteFile { name, size, hash: hash.filter(is_hash) })
}

fn check_revision(revision: &str) -> Result<()> {
    if stays_inside(revision) {
        return Ok(());
    }
    Err(Error::invalid_argument("not a revision")
        .with_expected("a branch, tag or commit", format_args!("`{}`", revision.escape_debug())))
}

fn stays_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '\0'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}
