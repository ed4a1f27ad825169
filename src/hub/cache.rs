//! One repository in the cache directory, in the layout that Python's `huggingface_hub` shares.
//!
//! ```text
//! datasets--owner--name/refs/main                     the commit that `main` was last seen at
//! datasets--owner--name/snapshots/COMMIT/data/x       links into blobs/
//! datasets--owner--name/blobs/HASH                    file contents, `HASH.incomplete` while they come
//! .locks/datasets--owner--name/HASH.lock              held by whoever downloads HASH
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::repo::RepoId;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

const LOCK_POLL: Duration = Duration::from_millis(200);

pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &RepoId) -> Self {
        let folder = repo.folder();
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, id: &str) -> PathBuf {
        self.root.join("blobs").join(id)
    }

    pub(super) fn partial(&self, id: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{id}.incomplete"))
    }

    /// The commit whose snapshot the cache has for `revision`, a branch, tag or commit.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let commit = match std::fs::read_to_string(self.root.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        (is_commit(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Remembers what `revision` stands for.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.root.join("refs").join(revision);
        create_parent(&path)?;
        std::fs::write(&path, commit).map_err(|error| Error::io("write to the hub's cache", &path, error))
    }

    /// The files of a cached snapshot: relative names with `/`.
    pub(super) fn files(&self, commit: &str) -> Result<Vec<String>> {
        const MAX_DEPTH: usize = 8;
        let mut names = Vec::new();
        let mut pending = vec![(self.snapshot(commit), String::new(), 0)];
        while let Some((directory, prefix, depth)) = pending.pop() {
            let unreadable = |error| Error::io("list the hub's cache", &directory, error);
            for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
                    continue;
                };
                if !entry.path().is_dir() {
                    names.push(name);
                } else if depth < MAX_DEPTH {
                    pending.push((entry.path(), format!("{name}/"), depth + 1));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// Puts the blob `id` at `name` of the snapshot.
    pub(super) fn link(&self, id: &str, commit: &str, name: &str) -> Result<()> {
        let pointer = self.snapshot(commit).join(name);
        create_parent(&pointer)?;
        if pointer.symlink_metadata().is_ok() {
            std::fs::remove_file(&pointer)
                .map_err(|error| Error::io("write to the hub's cache", &pointer, error))?;
        }
        let up = "../".repeat(2 + name.matches('/').count());
        link_or_move(&self.blob(id), Path::new(&format!("{up}blobs/{id}")), &pointer)
            .map_err(|error| Error::io("write to the hub's cache", &pointer, error))
    }

    /// Waits until no other process downloads `id`; held until the file is dropped.
    pub(super) fn lock(&self, id: &str, cancel: &CancelToken) -> Result<File> {
        let path = self.locks.join(format!("{id}.lock"));
        create_parent(&path)?;
        let file =
            File::create(&path).map_err(|error| Error::io("write to the hub's cache", &path, error))?;
        let mut waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                    // Some network file systems have no locks; downloads end in a rename, so that is only wasteful.
                    return Ok(file);
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io("lock the hub's cache", &path, error));
                }
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut waiting, true) {
                        log::info!("waiting for another process that downloads to {}", path.display());
                    }
                    cancel.check()?;
                    std::thread::sleep(LOCK_POLL);
                }
            }
        }
    }
}

/// A git commit: what the hub calls `sha` becomes a directory's name and has to be one.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Err(Error::new(ErrorKind::Internal, "a cache file has no directory").with_path(path));
    };
    std::fs::create_dir_all(parent)
        .map_err(|error| Error::io("create the hub's cache directory", parent, error))
        .map_err(|error| error.with_hint("choose another directory with HF_HUB_CACHE or HF_HOME"))
}

#[cfg(unix)]
fn link_or_move(_blob: &Path, relative: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, pointer)
}

/// Where links need privileges the snapshot holds the file itself, as in Python.
#[cfg(not(unix))]
fn link_or_move(blob: &Path, _relative: &Path, pointer: &Path) -> std::io::Result<()> {
    std::fs::rename(blob, pointer)
}
