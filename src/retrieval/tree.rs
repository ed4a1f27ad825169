//! The documents among the files of a commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::documents::FileFilter;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::repo::{EntryKind, ObjectId, Reader, Snapshot, TreeEntry};

/// Names that are looked at in one commit; a tree that refers to itself a thousand times on ten levels has more.
const MAX_NAMES: usize = 1_000_000;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 256;
/// Names that are kept in memory.
const MAX_KNOWN_NAMES: usize = 1_000_000;

/// A file of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// From the root, with `/`.
    pub(super) path: String,
    pub(super) id: ObjectId,
}

/// The directories that were seen; most of them are in the next commit, too.
#[derive(Debug, Default)]
pub(super) struct Trees(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    directories: HashMap<ObjectId, Arc<[TreeEntry]>>,
    names: usize,
}

impl Trees {
    /// The files of a commit that `filter` takes, links followed inside of the commit.
    pub(super) fn files(
        &self,
        reader: &mut Reader,
        commit: ObjectId,
        filter: &FileFilter,
        cancel: &CancelToken,
    ) -> Result<Vec<File>> {
        let mut files = Vec::new();
        let mut links = Vec::new();
        let mut names = 0;
        let root: Arc<[TreeEntry]> = reader.root(commit)?.into();
        let mut pending = vec![(String::new(), root, 0)];
        while let Some((prefix, directory, depth)) = pending.pop() {
            cancel.check()?;
            names += directory.len();
            if names > MAX_NAMES || depth > MAX_DEPTH {
                return Err(Error::invalid_data(format!("the tree of commit {commit} is too large"))
                    .with_expected(format_args!("{MAX_NAMES} names, {MAX_DEPTH} levels at most"), "more"));
            }
            for entry in directory.iter() {
                let Some(name) = std::str::from_utf8(&entry.path).ok().filter(|name| is_plain(name)) else {
                    log::debug!(
                        "left out of the search: {}",
                        String::from_utf8_lossy(&entry.path).escape_debug()
                    );
                    continue;
                };
                let path = format!("{prefix}{name}");
                match entry.kind {
                    EntryKind::Directory if FileFilter::enters(&path) => {
                        let directory = self.directory(reader, entry.id)?;
                        pending.push((path + "/", directory, depth + 1));
                    }
                    EntryKind::File | EntryKind::Executable if filter.takes(&path) => {
                        files.push(File { path, id: entry.id });
                    }
                    EntryKind::Link if filter.takes(&path) => links.push(path),
                    _ => {}
                }
            }
        }
        if !links.is_empty() {
            let mut snapshot = Snapshot::new(reader, commit)?;
            for path in links {
                match snapshot.find(path.as_bytes()) {
                    Ok(entry) => files.push(File { path, id: entry.id }),
                    Err(error) => log::debug!("{path}: left out of the search: {error}"),
                }
            }
        }
        Ok(files)
    }

    fn directory(&self, reader: &mut Reader, id: ObjectId) -> Result<Arc<[TreeEntry]>> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = known().directories.get(&id) {
            return Ok(Arc::clone(directory));
        }
        let directory: Arc<[TreeEntry]> = reader.tree(id)?.into();
        let mut known = known();
        if known.names > MAX_KNOWN_NAMES {
            *known = Known::default();
        }
        known.names += directory.len();
        known.directories.insert(id, Arc::clone(&directory));
        Ok(directory)
    }
}

/// Whether a name in a tree is one that a file can have: what is found is read by its path later.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}
