//! Searching: threads that take instances, one repository's after the other's, and share what they know of it.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::repo::{Mirrors, ObjectId, Reader, Repository, RepositoryName};
use crate::retrieval::{Corpus, FileFilter, HITS, Hit, Index, Query, TermCache};

use super::config::Bm25RetrievalConfig;
use crate::run::spill::{Place, Spill};

/// An instance to search for.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) instance_id: String,
    pub(super) base_commit: String,
    /// Where its issue is.
    pub(super) issue: Place,
    pub(super) shelf: Arc<Shelf>,
}

/// One repository; what is known of it goes with its last instance.
#[derive(Debug)]
pub(super) struct Shelf {
    name: String,
    /// `None` until the first instance needs it. That it cannot be opened is found out once.
    opened: Mutex<Option<Result<Opened, String>>>,
}

/// A repository and its documents.
#[derive(Debug, Clone)]
struct Opened {
    name: RepositoryName,
    repository: Repository,
    corpus: Arc<Corpus>,
}

impl Shelf {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), opened: Mutex::new(None) }
    }

    /// Opens or clones the repository; others that need it wait.
    fn open(&self, searcher: &Searcher<'_>) -> Result<Opened> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match &*opened {
            Some(known) => known.clone(),
            None => {
                let found = searcher.open(&self.name);
                if found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled) {
                    return found;
                }
                opened.insert(found.map_err(|error| explain(&error))).clone()
            }
        };
        opened.map_err(|reason| Error::new(ErrorKind::NotFound, reason))
    }
}

/// What every thread needs.
pub(super) struct Searcher<'a> {
    pub(super) config: &'a Bm25RetrievalConfig,
    pub(super) mirrors: &'a Mirrors,
    pub(super) issues: &'a Spill,
    pub(super) cancel: &'a CancelToken,
}

/// What became of an instance.
pub(super) struct Outcome {
    pub(super) instance_id: String,
    pub(super) hits: Result<Vec<Hit>>,
}

impl Searcher<'_> {
    /// Takes tasks until there are none, nobody wants outcomes any more, or the run is cancelled.
    pub(super) fn work(&self, tasks: &Mutex<std::vec::IntoIter<Task>>, outcomes: &Sender<Outcome>) {
        let mut reading: Option<(Arc<Shelf>, Reader)> = None;
        loop {
            let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(task) = task.filter(|_| !self.cancel.is_cancelled()) else { return };
            // Before the next repository the last one's documents may go.
            reading = reading.filter(|(shelf, _)| Arc::ptr_eq(shelf, &task.shelf));
            let hits = self.search(&task, &mut reading);
            if outcomes.send(Outcome { instance_id: task.instance_id, hits }).is_err() {
                return;
            }
        }
    }

    fn search(&self, task: &Task, reading: &mut Option<(Arc<Shelf>, Reader)>) -> Result<Vec<Hit>> {
        let query = Query::new(&self.issues.read(task.issue)?);
        let opened = task.shelf.open(self)?;
        let index = match self.index(task, &opened, reading) {
            // A clone in the cache may be older than the commit.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                *reading = None;
                self.mirrors.open_at(&opened.name, &task.base_commit, self.cancel)?;
                self.index(task, &opened, reading)
            }
            index => index,
        };
        if index.is_err() {
            *reading = None;
        }
        Ok(index?.search(&query, HITS))
    }

    fn index(
        &self,
        task: &Task,
        opened: &Opened,
        reading: &mut Option<(Arc<Shelf>, Reader)>,
    ) -> Result<Index> {
        let commit = match task.base_commit.parse::<ObjectId>() {
            Ok(commit) => commit,
            Err(_) => opened.repository.resolve(&task.base_commit, self.cancel)?,
        };
        let reader = match reading {
            Some((_, reader)) => reader,
            None => &mut reading.insert((Arc::clone(&task.shelf), opened.repository.reader()?)).1,
        };
        opened.corpus.index(reader, commit, self.cancel)
    }

    fn open(&self, name: &str) -> Result<Opened> {
        let name: RepositoryName = name.parse()?;
        let repository = self.mirrors.open(&name, self.cancel)?;
        let encoding = self.config.document_encoding_style;
        let cache = TermCache::open(&self.config.index_dir(), &name.directory(), encoding);
        // Without a cache the run is only slower.
        let cache = cache.map_err(|error| log::warn!("{}", error.to_line())).ok();
        let filter = FileFilter::new(&self.config.extensions);
        let corpus = Corpus::new(encoding, filter, self.config.workers(), cache);
        Ok(Opened { name, repository, corpus: Arc::new(corpus) })
    }
}

/// The error with its causes and its advice, for a record.
pub(in crate::run) fn explain(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{} ({hint})", error.to_line()),
        None => error.to_line(),
    }
}
