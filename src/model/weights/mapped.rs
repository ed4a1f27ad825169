//! A read-only memory map of one checkpoint file, with hints to the kernel about what is needed when.

use std::fs::{self, File};
#[cfg(target_os = "linux")]
use std::num::NonZero;
use std::ops::Range;
#[cfg(target_os = "linux")]
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::thread;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The start of the text that `git` without LFS leaves in place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Fewer bytes are not worth a thread.
#[cfg(target_os = "linux")]
const MIN_POPULATE_BYTES: usize = 4 << 20;

/// A mapped file that is not empty.
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular file.
    ///
    /// # Errors
    /// `NotFound` and `Io` from the operating system; `InvalidData` for what is not a regular file, an empty file or a
    /// Git LFS pointer.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Asked before opening, because opening a pipe would wait for its writer.
        let metadata = fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
        if !metadata.is_file() {
            return Err(Error::invalid_data("not a regular file").with_path(path));
        }
        if metadata.len() == 0 {
            return Err(Error::invalid_data("the file is empty").with_path(path));
        }
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        // SAFETY: the map is read-only and only ever seen as bytes, for which every bit pattern is valid. That nobody
        // shortens or rewrites the file meanwhile is the one thing that we must take from the user, as every program
        // that maps a file does.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io("map", path, error))?;
        if map.starts_with(LFS_POINTER) {
            return Err(Error::invalid_data("the file is a Git LFS pointer, not the weights themselves")
                .with_path(path)
                .with_hint("run `git lfs pull` in the model's directory, or download the model again"));
        }
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole content.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Asks the disk for `range`, and does not wait for it.
    pub(super) fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        if !range.is_empty()
            && let Err(error) = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len())
        {
            log::debug!("{}: cannot prefetch {range:?}: {error}", self.path.display());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Reads `range` in one go rather than one page fault at a time, on all processors: mapping pages that are in memory
    /// takes as long as packing them.
    ///
    /// # Errors
    /// `Io` when the kernel cannot read it, which a later access would turn into a signal: the file was truncated, or
    /// the disk fails.
    #[cfg(target_os = "linux")]
    pub(super) fn populate(&self, range: Range<usize>) -> Result<()> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = range.len().div_ceil(threads).max(MIN_POPULATE_BYTES);
        thread::scope(|scope| {
            let rest = (range.start + share..range.end).step_by(share);
            let helpers: Vec<_> = rest
                .map(|start| {
                    let part = start..range.end.min(start + share);
                    let helper = part.clone();
                    thread::Builder::new()
                        .spawn_scoped(scope, move || self.populate_part(helper))
                        // Without a thread to help, the part is read here.
                        .map_err(|_| part)
                })
                .collect();
            self.populate_part(range.start..range.end.min(range.start + share))?;
            helpers.into_iter().try_for_each(|helper| match helper {
                Ok(helper) => helper.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(part) => self.populate_part(part),
            })
        })
    }

    #[cfg(target_os = "linux")]
    fn populate_part(&self, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        match self.map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len()) {
            // Before Linux 5.14 the advice is unknown, and pages come one fault at a time.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                Err(Error::io("read", &self.path, error)
                    .with_hint("the file may have been truncated or replaced"))
            }
            _ => Ok(()),
        }
    }

    /// Reads nothing ahead: only Linux has a way to ask for it.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn populate(&self, _range: Range<usize>) -> Result<()> {
        Ok(())
    }

    /// Drops the pages that lie wholly within `range`; reading them again reads the file again.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            let page = page_size();
            let start = range.start.next_multiple_of(page);
            // The last page of the file belongs to its last tensor though the file ends in the middle of it.
            let end = if range.end == self.map.len() { range.end } else { range.end / page * page };
            if start >= end {
                return;
            }
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is shared and read-only, so that dropped pages are read from the file again with the same
            // content when a borrowed tensor still needs them; nothing written can be lost.
            if let Err(error) = unsafe { self.map.unchecked_advise_range(advice, start, end - start) } {
                log::debug!("{}: cannot release {start}..{end}: {error}", self.path.display());
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Bytes of a page of memory.
#[cfg(unix)]
fn page_size() -> usize {
    // SAFETY: `sysconf` takes no pointer and has no precondition.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, content: Option<&[u8]>, kind: ErrorKind, message: &str| {
            let path = dir.path().join(name);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let error = MappedFile::open(&path).err().unwrap();
            assert_eq!(error.kind(), kind, "{name}");
            assert!(error.to_line().contains(message), "{name}: {error}");
            assert_eq!(error.path(), Some(&*path), "{name}");
        };
        check("missing", None, ErrorKind::NotFound, "cannot read");
        check("empty", Some(b""), ErrorKind::InvalidData, "empty");
        check(
            "pointer",
            Some(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
            ErrorKind::InvalidData,
            "Git LFS pointer",
        );
        fs::create_dir(dir.path().join("directory")).unwrap();
        check("directory", None, ErrorKind::InvalidData, "not a regular file");
    }

    #[test]
    fn released_pages_read_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..5 * page_size() + 7).map(|i| (i / 7 % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let file = MappedFile::open(&path).unwrap();
        for range in [0..content.len(), 1..content.len() - 1, 3..5, 0..0] {
            file.populate(range.clone()).unwrap();
            file.release(range);
            assert!(file.bytes() == content);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_truncated_after_opening_is_an_error_and_no_signal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![1; 4 * page_size()]).unwrap();
        let file = MappedFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(1).unwrap();
        let error = file.populate(page_size()..4 * page_size()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
}
