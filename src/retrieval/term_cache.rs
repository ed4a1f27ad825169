//! The terms of files on the disk, so that a later run need not read and analyse them again.
//!
//! One file holds the terms of one repository's blobs. Records are only ever added, each with a checksum: what a killed
//! process leaves at the end is cut off when the file is opened, and a record that went bad is a file to analyse again.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::documents::DocumentEncoding;
use super::terms::{FNV_START, TermHash, Terms, fnv};
use crate::error::{Error, Result};

/// What opens every file; the digit changes with the analyzer and with the format.
const MAGIC: &str = "swebench-infer terms 1 ";
/// Key, count of terms, checksum.
const HEADER_LEN: usize = 32 + 4 + 8;
/// Hash and count of a term.
const TERM_LEN: usize = 8 + 4;
/// More distinct terms than the largest file that is read can have.
const MAX_TERMS: u32 = 1 << 25;

/// How long another process's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// What a file is filed under: a hash of its content, and of its path where that matters.
pub(super) type Key = [u8; 32];

/// The terms of one repository's files on the disk.
#[derive(Debug)]
pub struct TermCache {
    path: PathBuf,
    file: File,
    /// Where each record's terms are, how many, and their checksum.
    records: HashMap<Key, (u64, u32, u64)>,
    end: u64,
    /// Whether this process holds the lock; another one that does not only reads.
    writes: bool,
}

impl TermCache {
    /// Opens the cache `name` in `directory`, creating both; a file of another version is begun anew.
    ///
    /// # Errors
    /// `Io` when the file cannot be opened, read or written.
    pub fn open(directory: &Path, name: &str, encoding: DocumentEncoding) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::io("create the cache", directory, error))?;
        let path = directory.join(format!("{name}.terms"));
        let failed = |error| Error::io("open the cache of terms", &path, error);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let writes = lock(&file);
        let mut cache = Self { path: path.clone(), file, records: HashMap::new(), end: 0, writes };
        cache.scan(&format!("{MAGIC}{encoding}\n")).map_err(failed)?;
        Ok(cache)
    }

    /// Finds the records; what does not belong to a whole one is cut off.
    fn scan(&mut self, title: &str) -> std::io::Result<()> {
        let len = self.file.metadata()?.len();
        let mut reader = BufReader::new(&self.file);
        let mut found = vec![0; title.len()];
        if len < title.len() as u64 || reader.read_exact(&mut found).is_err() || found != title.as_bytes() {
            if self.writes {
                self.file.set_len(0)?;
                self.file.write_all_at(title.as_bytes(), 0)?;
            }
            self.end = title.len() as u64;
            return Ok(());
        }
        self.end = title.len() as u64;
        let mut header = [0; HEADER_LEN];
        while len - self.end >= HEADER_LEN as u64 {
            reader.read_exact(&mut header)?;
            let (key, count, checksum) = parse_header(&header);
            let terms_len = u64::from(count) * TERM_LEN as u64;
            let start = self.end + HEADER_LEN as u64;
            if count > MAX_TERMS || terms_len > len - start {
                break;
            }
            self.records.insert(key, (start, count, checksum));
            self.end = start + terms_len;
            reader.seek_relative(i64::try_from(terms_len).unwrap_or(i64::MAX))?;
        }
        if self.writes && self.end < len {
            self.file.set_len(self.end)?;
        }
        Ok(())
    }

    /// The terms that are filed under `key`; `None` also when the record is damaged.
    pub(super) fn get(&self, key: &Key) -> Option<Terms> {
        let &(start, count, checksum) = self.records.get(key)?;
        let mut bytes = vec![0; count as usize * TERM_LEN];
        self.file.read_exact_at(&mut bytes, start).ok()?;
        (record_checksum(key, &bytes) == checksum).then(|| parse_terms(&bytes)).flatten()
    }

    /// Files terms under their keys. That a disk is full is no reason to stop a run: the cache then stays as it is.
    pub(super) fn add<'a>(&mut self, entries: impl IntoIterator<Item = (Key, &'a Terms)>) {
        if !self.writes {
            return;
        }
        let mut bytes = Vec::new();
        let mut records = Vec::new();
        for (key, terms) in entries {
            let Ok(count) = u32::try_from(terms.counts.len()) else { continue };
            let header = bytes.len();
            bytes.resize(header + HEADER_LEN, 0);
            let start = bytes.len();
            for (hash, count) in &terms.counts {
                bytes.extend(hash.to_le_bytes());
                bytes.extend(count.to_le_bytes());
            }
            let checksum = record_checksum(&key, &bytes[start..]);
            bytes[header..header + 32].copy_from_slice(&key);
            bytes[header + 32..header + 36].copy_from_slice(&count.to_le_bytes());
            bytes[header + 36..start].copy_from_slice(&checksum.to_le_bytes());
            records.push((key, (self.end + start as u64, count, checksum)));
        }
        let written =
            (&self.file).seek(SeekFrom::Start(self.end)).and_then(|_| (&self.file).write_all(&bytes));
        match written {
            Ok(()) => {
                self.end += bytes.len() as u64;
                self.records.extend(records);
            }
            Err(error) => {
                log::warn!("{}: cannot add to the cache of terms: {error}", self.path.display());
                self.writes = self.file.set_len(self.end).is_ok();
            }
        }
    }

    /// Number of files whose terms are here.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// Whether this process is the one that writes; where the file system has no locks, nobody does.
///
/// A program that another thread starts holds copies of all locks for a moment, until it runs.
fn lock(file: &File) -> bool {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_POLL),
            Err(_) => return false,
        }
    }
}

fn parse_header(header: &[u8; HEADER_LEN]) -> (Key, u32, u64) {
    let (mut key, mut count, mut checksum) = ([0; 32], [0; 4], [0; 8]);
    key.copy_from_slice(&header[..32]);
    count.copy_from_slice(&header[32..36]);
    checksum.copy_from_slice(&header[36..]);
    (key, u32::from_le_bytes(count), u64::from_le_bytes(checksum))
}

/// The key is part of it, so that terms cannot come to belong to another file.
fn record_checksum(key: &Key, terms: &[u8]) -> u64 {
    fnv(fnv(FNV_START, key), terms)
}

/// `None` unless the terms are in order and each occurs.
fn parse_terms(bytes: &[u8]) -> Option<Terms> {
    let mut counts: Vec<(TermHash, u32)> = Vec::with_capacity(bytes.len() / TERM_LEN);
    let mut len = 0_u32;
    for term in bytes.chunks_exact(TERM_LEN) {
        let (hash, count) = term.split_at(8);
        let hash = TermHash::from_le_bytes(hash.try_into().ok()?);
        let count = u32::from_le_bytes(count.try_into().ok()?);
        if count == 0 || counts.last().is_some_and(|(last, _)| *last >= hash) {
            return None;
        }
        len = len.saturating_add(count);
        counts.push((hash, count));
    }
    Some(Terms { counts, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCODING: DocumentEncoding = DocumentEncoding::FileNameAndContents;

    fn open(directory: &Path) -> TermCache {
        TermCache::open(directory, "o__r", ENCODING).unwrap()
    }

    fn filled(directory: &Path) -> Vec<(Key, Terms)> {
        let entries: Vec<_> = (0..4_u8)
            .map(|number| ([number; 32], Terms::of(&"parser lexer token ".repeat(usize::from(number)))))
            .collect();
        let mut cache = open(directory);
        cache.add(entries[..2].iter().map(|(key, terms)| (*key, terms)));
        cache.add(entries[2..].iter().map(|(key, terms)| (*key, terms)));
        entries
    }

    #[test]
    fn terms_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let entries = filled(&dir.path().join("deep/er"));
        let cache = open(&dir.path().join("deep/er"));
        for (key, terms) in &entries {
            assert_eq!(cache.get(key).as_ref(), Some(terms));
        }
        assert_eq!((cache.len(), cache.get(&[9; 32])), (4, None));
        // Another encoding has other terms.
        drop(cache);
        let other =
            TermCache::open(&dir.path().join("deep/er"), "o__r", DocumentEncoding::FileNameAndDocumentation);
        assert!(other.unwrap().is_empty());
    }

    #[test]
    fn a_cut_anywhere_leaves_whole_records_that_can_be_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let entries = filled(dir.path());
        let path = dir.path().join("o__r.terms");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut cache = open(dir.path());
            let before = cache.len();
            assert!(before < 4);
            for (key, terms) in &entries {
                assert!(cache.get(key).is_none_or(|found| found == *terms));
            }
            cache.add([(entries[3].0, &entries[3].1)]);
            drop(cache);
            let cache = open(dir.path());
            assert_eq!(
                (cache.len(), cache.get(&entries[3].0).as_ref()),
                (before + 1, Some(&entries[3].1)),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_changed_byte_is_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let entries = filled(dir.path());
        let path = dir.path().join("o__r.terms");
        let whole = std::fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 0x41;
            std::fs::write(&path, &bytes).unwrap();
            let cache = open(dir.path());
            for (key, terms) in &entries {
                assert!(cache.get(key).is_none_or(|found| found == *terms), "{position}");
            }
        }
    }

    #[test]
    fn a_second_process_only_reads() {
        let dir = tempfile::tempdir().unwrap();
        let entries = filled(dir.path());
        let first = open(dir.path());
        let mut second = open(dir.path());
        second.add([([7; 32], &entries[1].1)]);
        assert_eq!((second.get(&[1; 32]).as_ref(), second.get(&[7; 32])), (Some(&entries[1].1), None));
        drop((first, second));
        assert_eq!(open(dir.path()).len(), 4);
    }
}
