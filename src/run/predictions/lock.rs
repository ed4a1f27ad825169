//! One writer a file: an advisory lock on the predictions file itself, which the system drops when its holder dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// How often a file may be replaced between its opening and its locking before that is an error.
const MAX_REPLACEMENTS: usize = 16;

/// Opens `path` for reading and appending, creates it when it is missing, and locks it.
///
/// # Errors
/// `Busy` when another process, or another part of this one, has it open for writing.
pub(super) fn open_locked(path: &Path) -> Result<File> {
    for _ in 0..MAX_REPLACEMENTS {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| Error::io("open the output file for writing", path, error))?;
        lock(&file, path)?;
        // The holder of the lock may have replaced the file while this process waited at the old one.
        if is_at(&file, path).map_err(|error| Error::io("read", path, error))? {
            return Ok(file);
        }
    }
    Err(busy(path))
}

/// Creates `path` anew, for reading and appending, and locks it.
pub(super) fn create_locked(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Error::io("create", path, error))?;
    lock(&file, path)?;
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(busy(path)),
        // Some cluster file systems are mounted without locks; a run there is worth more than the guard.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            log::warn!("{}: the file system has no locks; start no second run on this file", path.display());
            Ok(())
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

fn busy(path: &Path) -> Error {
    Error::new(ErrorKind::Busy, "another run is writing this file")
        .with_path(path)
        .with_hint("wait for it to end, give each run its own shard, or choose another output directory")
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
