//! The repositories of a run: each is looked for once, however many instances and workers want it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::repo::{Mirrors, ObjectId, Reader, Repository, RepositoryName, Snapshot};

type Slot = Arc<OnceLock<Result<Repository>>>;

/// Opens repositories for all workers of a run.
#[derive(Debug)]
pub(super) struct Clones {
    mirrors: Mirrors,
    opened: Mutex<HashMap<RepositoryName, Slot>>,
}

impl Clones {
    pub(super) fn new(mirrors: Mirrors) -> Self {
        Self { mirrors, opened: Mutex::default() }
    }

    /// The repository; one that cannot be had is asked for once, not once for each of its instances.
    fn open(&self, name: &RepositoryName, cancel: &CancelToken) -> Result<Repository> {
        let slot = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(opened.entry(name.clone()).or_default())
        };
        match slot.get_or_init(|| self.mirrors.open(name, cancel)) {
            Ok(repository) => Ok(repository.clone()),
            Err(error) => Err(shared(error)),
        }
    }
}

/// An error that several instances have, for one of them.
fn shared(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_line());
    match error.hint() {
        Some(hint) => copy.with_hint(hint),
        None => copy,
    }
}

/// One worker's view: the repository that it reads now.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    clones: &'a Clones,
    cancel: &'a CancelToken,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    name: RepositoryName,
    repository: Repository,
    reader: Reader,
}

impl<'a> Worker<'a> {
    pub(super) fn new(clones: &'a Clones, cancel: &'a CancelToken) -> Self {
        Self { clones, cancel, current: None }
    }

    /// Calls `read` with the files of a commit.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository or commit, and as `read`.
    pub(super) fn with_commit<T>(
        &mut self,
        name: &RepositoryName,
        commit: &str,
        read: impl FnOnce(&Repository, ObjectId, Snapshot<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut current = match self.current.take().filter(|current| current.name == *name) {
            Some(current) => current,
            None => {
                let repository = self.clones.open(name, self.cancel)?;
                let reader = repository.reader()?;
                Current { name: name.clone(), repository, reader }
            }
        };
        // The usual case needs no process of its own.
        let known = commit.parse().ok().filter(|id: &ObjectId| current.reader.root(*id).is_ok());
        let id = match known {
            Some(id) => id,
            None => {
                let (repository, id) = self.clones.mirrors.open_at(name, commit, self.cancel)?;
                let reader = repository.reader()?;
                current = Current { name: name.clone(), repository, reader };
                id
            }
        };
        let snapshot = Snapshot::new(&mut current.reader, id)?;
        let result = read(&current.repository, id, snapshot);
        // A reader is kept as long as it can be trusted: the next instance of the repository needs it again.
        if current.reader.is_usable() {
            self.current = Some(current);
        }
        result
    }
}
