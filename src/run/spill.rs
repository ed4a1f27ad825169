//! What a run has yet to work on, on the disk instead of in memory: a file without a name, which ends with the process.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file that is being written.
#[derive(Debug)]
pub(super) struct SpillWriter {
    dir: PathBuf,
    file: BufWriter<File>,
    len: u64,
}

/// A file whose texts are read one by one.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    file: File,
}

/// Where a text is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    offset: u64,
    len: usize,
}

impl SpillWriter {
    /// An empty file on the file system of `dir`.
    ///
    /// # Errors
    /// `Io` when the directory cannot be written.
    pub(super) fn create_in(dir: &Path) -> Result<Self> {
        let path = dir.join(format!(".swebench-prompts-{}", std::process::id()));
        let error = |error| Error::io("keep prompts on the disk", dir, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(error)?;
        // Without a name it is gone when the process is, however that ends.
        std::fs::remove_file(&path).map_err(error)?;
        Ok(Self { dir: dir.to_owned(), file: BufWriter::with_capacity(1 << 20, file), len: 0 })
    }

    /// Adds a text.
    ///
    /// # Errors
    /// `Io`, a full disk above all.
    pub(super) fn append(&mut self, text: &str) -> Result<Place> {
        let place = Place { offset: self.len, len: text.len() };
        self.file.write_all(text.as_bytes()).map_err(|error| self.full(error))?;
        self.len += text.len() as u64;
        Ok(place)
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// As [`SpillWriter::append`].
    pub(super) fn finish(mut self) -> Result<Spill> {
        self.file.flush().map_err(|error| self.full(error))?;
        let Self { dir, file, .. } = self;
        let file = file
            .into_inner()
            .map_err(|error| Error::io("keep prompts on the disk", &dir, error.into_error()))?;
        Ok(Spill { dir, file })
    }

    fn full(&self, error: std::io::Error) -> Error {
        Error::io("keep prompts on the disk", &self.dir, error)
            .with_hint("the output directory needs room for the prompts that are left to do")
    }
}

impl Spill {
    /// The text at a place.
    ///
    /// # Errors
    /// `Io` when it cannot be read any more.
    pub(super) fn read(&self, place: Place) -> Result<String> {
        let unreadable = |error| Error::io("read a prompt back", &self.dir, error);
        let mut bytes = vec![0; place.len];
        self.file.read_exact_at(&mut bytes, place.offset).map_err(unreadable)?;
        String::from_utf8(bytes).map_err(|error| unreadable(std::io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_any_order_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpillWriter::create_in(dir.path()).unwrap();
        let long = "x".repeat(3 << 20);
        let places: Vec<Place> =
            ["grüße", "", &long, "end"].iter().map(|text| writer.append(text).unwrap()).collect();
        let spill = writer.finish().unwrap();
        for (index, text) in [(3, "end"), (0, "grüße"), (2, &long), (1, "")] {
            assert_eq!(spill.read(places[index]).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = SpillWriter::create_in(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.path(), Some(Path::new("/nowhere/at/all")));
    }
}
