//! Appending whole lines to storage that may fail in the middle of one.

use std::fs::File;
use std::io::{self, Write};

/// What a line writer needs of a file that is open for appending.
pub(super) trait Storage: Write {
    /// Cuts the file at `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns once everything written is on the disk.
    fn sync(&self) -> io::Result<()>;
}

impl Storage for File {
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // Includes the new length: data that cannot be found again is not data.
        self.sync_data()
    }
}

/// Appends lines so that a failed append leaves none of its bytes behind.
#[derive(Debug)]
pub(super) struct LineWriter<S> {
    storage: S,
    /// Bytes of whole, synced lines.
    len: u64,
    /// Whether bytes of a failed append may still follow them.
    is_torn: bool,
}

impl<S: Storage> LineWriter<S> {
    /// A writer after the `len` bytes that `storage` has.
    pub(super) fn new(storage: S, len: u64) -> Self {
        Self { storage, len, is_torn: false }
    }

    /// The file below, for reading.
    pub(super) fn storage(&self) -> &S {
        &self.storage
    }

    /// Appends `lines`, each of which ends with its newline, and syncs them.
    ///
    /// On an error, the disk being full above all, the file is cut back to its last whole line; when that fails too, the
    /// next append tries it again first.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.storage.truncate(self.len)?;
            self.is_torn = false;
        }
        // A regular file takes them in one `write`, so a reader sees a line whole or not at all.
        match self.storage.write_all(lines).and_then(|()| self.storage.sync()) {
            Ok(()) => {
                self.len += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.is_torn = self.storage.truncate(self.len).is_err();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A disk of `capacity` bytes that takes what fits of a write, as a full file system does.
    struct Disk {
        bytes: RefCell<Vec<u8>>,
        capacity: Cell<usize>,
        can_truncate: Cell<bool>,
        can_sync: Cell<bool>,
    }

    impl Write for &Disk {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            let mut bytes = self.bytes.borrow_mut();
            let taken = buffer.len().min(self.capacity.get() - bytes.len());
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.extend_from_slice(&buffer[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Storage for &Disk {
        fn truncate(&self, len: u64) -> io::Result<()> {
            if !self.can_truncate.get() {
                return Err(io::Error::other("read-only now"));
            }
            self.bytes.borrow_mut().truncate(usize::try_from(len).unwrap());
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            if self.can_sync.get() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
    }

    fn disk(capacity: usize) -> Disk {
        Disk {
            bytes: RefCell::default(),
            capacity: Cell::new(capacity),
            can_truncate: Cell::new(true),
            can_sync: Cell::new(true),
        }
    }

    #[test]
    fn a_full_disk_leaves_whole_lines_and_recovers() {
        let disk = disk(10);
        let mut writer = LineWriter::new(&disk, 0);
        writer.append(b"first\n").unwrap();
        assert_eq!(writer.append(b"second\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(*disk.bytes.borrow(), b"first\n");
        disk.capacity.set(100);
        writer.append(b"second\n").unwrap();
        assert_eq!(*disk.bytes.borrow(), b"first\nsecond\n");
    }

    #[test]
    fn a_torn_line_that_could_not_be_cut_is_cut_before_the_next() {
        let disk = disk(10);
        let mut writer = LineWriter::new(&disk, 0);
        writer.append(b"first\n").unwrap();
        disk.can_truncate.set(false);
        writer.append(b"second\n").unwrap_err();
        assert_eq!(*disk.bytes.borrow(), b"first\nseco");
        disk.capacity.set(100);
        writer.append(b"third\n").unwrap_err();
        disk.can_truncate.set(true);
        writer.append(b"third\n").unwrap();
        assert_eq!(*disk.bytes.borrow(), b"first\nthird\n");
    }

    #[test]
    fn a_line_that_was_not_synced_is_not_there() {
        let disk = disk(100);
        let mut writer = LineWriter::new(&disk, 0);
        disk.can_sync.set(false);
        writer.append(b"first\n").unwrap_err();
        assert_eq!(*disk.bytes.borrow(), b"");
    }
}
