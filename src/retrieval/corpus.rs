//! A repository's files as documents: each blob is read and analysed once, however many commits have it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};

use super::documents::{DocumentEncoding, FileFilter};
use super::index::Index;
use super::python_depth::PARSER_STACK;
use super::term_cache::{Key, TermCache};
use super::terms::Terms;
use super::tree::{File, Trees};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::repo::{MAX_FILE_LEN, ObjectId, Reader, decode};

/// Bytes of terms that are kept beyond those of the commits in use.
const MAX_KNOWN_BYTES: usize = 256 << 20;
/// Files that are read ahead of their analysis.
const READ_AHEAD: usize = 16;

/// The documents of one repository; shared by the threads that index its commits.
#[derive(Debug)]
pub struct Corpus {
    encoding: DocumentEncoding,
    filter: FileFilter,
    threads: usize,
    trees: Trees,
    known: Mutex<Known>,
}

/// The terms of the blobs that were seen.
#[derive(Debug)]
struct Known {
    terms: HashMap<Key, Arc<Terms>>,
    bytes: usize,
    cache: Option<TermCache>,
}

impl Corpus {
    /// Documents made by `encoding` of the files that `filter` takes, analysed on this many threads; terms that `cache` has are
    /// taken from there, and others added.
    pub fn new(
        encoding: DocumentEncoding,
        filter: FileFilter,
        threads: usize,
        cache: Option<TermCache>,
    ) -> Self {
        let known = Known { terms: HashMap::new(), bytes: 0, cache };
        Self { encoding, filter, threads: threads.max(1), trees: Trees::default(), known: Mutex::new(known) }
    }

    /// The documents of a commit of the repository that `reader` reads.
    ///
    /// Files that are no text, that are longer than [`MAX_FILE_LEN`], and links that lead out of the commit are found by their
    /// paths at most.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks the commit or an object of it, `InvalidData` for a corrupt or hostile one, `Cancelled`.
    pub fn index(&self, reader: &mut Reader, commit: ObjectId, cancel: &CancelToken) -> Result<Index> {
        let files = self.trees.files(reader, commit, &self.filter, cancel)?;
        let terms = self.terms_of(reader, &files, cancel)?;
        let mut index = Index::new();
        for (file, terms) in files.into_iter().zip(terms) {
            index.add(file.path, terms);
        }
        Ok(index)
    }

    /// The terms of each file's content. Threads take turns here: the second finds what the first has analysed.
    fn terms_of(&self, reader: &mut Reader, files: &[File], cancel: &CancelToken) -> Result<Vec<Arc<Terms>>> {
        let mut known = self.known();
        let keys: Vec<Key> = files.iter().map(|file| self.key(file)).collect();
        let mut missing: HashMap<Key, &File> = HashMap::new();
        for (key, file) in keys.iter().zip(files) {
            if known.find(key).is_none() {
                missing.insert(*key, file);
            }
        }
        if !missing.is_empty() {
            let found = self.analyze(reader, missing, cancel)?;
            if let Some(cache) = &mut known.cache {
                cache.add(found.iter().map(|(key, terms)| (*key, terms)));
            }
            for (key, terms) in found {
                known.insert(key, Arc::new(terms));
            }
        }
        let terms = keys.iter().map(|key| known.find(key).unwrap_or_default()).collect();
        known.forget_unused();
        Ok(terms)
    }

    /// What a file's terms are filed under.
    fn key(&self, file: &File) -> Key {
        let mut key = [0; 32];
        if self.encoding.depends_on_path() {
            key = Sha256::new().chain_update(file.id.as_bytes()).chain_update(&file.path).finalize().into();
        } else {
            key[..file.id.as_bytes().len()].copy_from_slice(file.id.as_bytes());
        }
        // Where only Python is parsed, the name decides what a document is.
        key[31] ^= u8::from(self.encoding.parses() && file.path.ends_with(".py"));
        key
    }

    /// Reads files on this thread while others analyse them.
    fn analyze(
        &self,
        reader: &mut Reader,
        missing: HashMap<Key, &File>,
        cancel: &CancelToken,
    ) -> Result<Vec<(Key, Terms)>> {
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let receiver = Mutex::new(receiver);
        let stack = if self.encoding.parses() { PARSER_STACK } else { 1 << 20 };
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for _ in 0..self.threads.min(missing.len()) {
                let worker = thread::Builder::new().name("analyze".into()).stack_size(stack);
                let worker = worker.spawn_scoped(scope, || work(self.encoding, &receiver));
                workers.push(worker.map_err(|error| {
                    Error::new(ErrorKind::Io, "cannot start a thread to analyse files").with_source(error)
                })?);
            }
            let read = read_all(reader, missing, &sender, cancel);
            drop(sender);
            let mut found = Vec::new();
            for worker in workers {
                found.extend(worker.join().map_err(|_| Error::internal("the analysis of a file panicked"))?);
            }
            read.map(|()| found)
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file to analyse.
struct Task<'a> {
    key: Key,
    path: &'a str,
    bytes: Vec<u8>,
}

fn read_all<'a>(
    reader: &mut Reader,
    missing: HashMap<Key, &'a File>,
    sender: &SyncSender<Task<'a>>,
    cancel: &CancelToken,
) -> Result<()> {
    let mut missing: Vec<(Key, &File)> = missing.into_iter().collect();
    // As the tree has them, which is about how a pack has them.
    missing.sort_unstable_by(|(_, a), (_, b)| a.path.cmp(&b.path));
    for (key, file) in missing {
        cancel.check()?;
        let bytes = match reader.blob(file.id, MAX_FILE_LEN) {
            Err(error) if error.kind() == ErrorKind::InvalidData && error.expected().is_some() => {
                log::warn!("{}: left out of the search: {error}", file.path);
                Vec::new()
            }
            bytes => bytes?,
        };
        if sender.send(Task { key, path: &file.path, bytes }).is_err() {
            // Nobody analyses any more; joining the threads tells why.
            break;
        }
    }
    Ok(())
}

/// Analyses files until no more come.
fn work(encoding: DocumentEncoding, tasks: &Mutex<Receiver<Task<'_>>>) -> Vec<(Key, Terms)> {
    let mut found = Vec::new();
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { key, path, bytes }) = task else { return found };
        let analyze = || {
            let text = decode(&bytes).into_string();
            text.map_or_else(Terms::default, |text| Terms::of(&encoding.body(path, &text)))
        };
        // A parser's fault with one file costs that file's content, not the run.
        let terms = catch_unwind(AssertUnwindSafe(analyze)).unwrap_or_else(|_| {
            log::error!("{path}: the analysis panicked; the file is found by its path alone");
            Terms::default()
        });
        found.push((key, terms));
    }
}

impl Known {
    fn find(&mut self, key: &Key) -> Option<Arc<Terms>> {
        if let Some(terms) = self.terms.get(key) {
            return Some(Arc::clone(terms));
        }
        let terms = Arc::new(self.cache.as_ref()?.get(key)?);
        self.insert(*key, Arc::clone(&terms));
        Some(terms)
    }

    fn insert(&mut self, key: Key, terms: Arc<Terms>) {
        self.bytes += terms.size();
        if let Some(old) = self.terms.insert(key, terms) {
            self.bytes -= old.size();
        }
    }

    /// Drops what no index uses once it is too much.
    fn forget_unused(&mut self) {
        if self.bytes > MAX_KNOWN_BYTES {
            self.terms.retain(|_, terms| Arc::strong_count(terms) > 1);
            self.bytes = self.terms.values().map(|terms| terms.size()).sum();
        }
    }
}
