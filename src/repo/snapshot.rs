//! The files of one commit by their paths, links followed inside of it.

use std::collections::VecDeque;

use super::MAX_FILE_LEN;
use super::id::ObjectId;
use super::reader::Reader;
use super::tree::{EntryKind, TreeEntry};
use crate::error::{Error, ErrorKind, Result};

/// How many links one path may lead through, as Linux counts them.
const MAX_LINKS: usize = 40;
/// The longest target of a link.
const MAX_TARGET_LEN: u64 = 1 << 12;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 256;

/// A commit's files, read one by one as they are asked for.
#[derive(Debug)]
pub struct Snapshot<'r> {
    reader: &'r mut Reader,
    root: Vec<TreeEntry>,
}

impl<'r> Snapshot<'r> {
    /// The files of this commit.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks the commit.
    pub fn new(reader: &'r mut Reader, commit: ObjectId) -> Result<Self> {
        let root = reader.root(commit)?;
        Ok(Self { reader, root })
    }

    /// The names in the root directory, in git's order.
    pub fn root(&self) -> &[TreeEntry] {
        &self.root
    }

    /// The bytes of a blob of the commit.
    ///
    /// # Errors
    /// `InvalidData` when it is longer than [`MAX_FILE_LEN`].
    pub fn blob(&mut self, id: ObjectId) -> Result<Vec<u8>> {
        self.reader.blob(id, MAX_FILE_LEN)
    }

    /// The bytes of the file at `path`, which is relative to the root.
    ///
    /// # Errors
    /// `NotFound` when no file is there; `InvalidData` when the path or a link leaves the commit, goes round in circles,
    /// or the file is longer than [`MAX_FILE_LEN`].
    pub fn file(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let about = |error: Error| {
            error.context(format!("cannot read `{}`", String::from_utf8_lossy(path).escape_debug()))
        };
        let entry = self.find(path).map_err(about)?;
        self.blob(entry.id).map_err(about)
    }

    /// The file at `path`, with every link on the way followed.
    ///
    /// # Errors
    /// As [`Snapshot::file`].
    pub fn find(&mut self, path: &[u8]) -> Result<TreeEntry> {
        let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        if !path.split(|byte| *byte == b'/').all(is_plain) {
            return Err(Error::invalid_data("not a path below the repository's root"));
        }
        let mut pending: VecDeque<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let mut directories: Vec<Vec<TreeEntry>> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop_front() {
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    directories.pop().ok_or_else(leaves)?;
                    continue;
                }
                _ => {}
            }
            let directory = directories.last().unwrap_or(&self.root);
            let entry = directory.iter().find(|entry| entry.path == part).ok_or_else(missing)?.clone();
            match entry.kind {
                EntryKind::Directory if pending.is_empty() => return Err(no_file("a directory")),
                EntryKind::Directory if directories.len() < MAX_DEPTH => {
                    directories.push(self.reader.tree(entry.id)?);
                }
                EntryKind::Directory => return Err(Error::invalid_data("directories are nested too deep")),
                EntryKind::Submodule => return Err(no_file("in a submodule, whose files are elsewhere")),
                EntryKind::Link if links == MAX_LINKS => {
                    return Err(Error::invalid_data("too many symbolic links"));
                }
                EntryKind::Link => {
                    links += 1;
                    let target = self.reader.blob(entry.id, MAX_TARGET_LEN)?;
                    if target.starts_with(b"/") {
                        return Err(leaves());
                    }
                    for part in target.rsplit(|byte| *byte == b'/') {
                        pending.push_front(part.to_vec());
                    }
                }
                EntryKind::File | EntryKind::Executable if pending.is_empty() => return Ok(entry),
                EntryKind::File | EntryKind::Executable => return Err(missing()),
            }
        }
        Err(no_file("a directory"))
    }
}

fn missing() -> Error {
    Error::not_found("the commit has no such file")
}

fn no_file(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the path is {what}"))
}

fn leaves() -> Error {
    Error::invalid_data("a symbolic link leads out of the repository")
}

#[cfg(test)]
mod tests {
    use super::super::repository::Repository;
    use super::super::test_repository::TestRepository;
    use super::*;

    #[test]
    fn paths_stay_inside_of_the_commit() {
        let repository = TestRepository::new();
        let submodule = "1".repeat(40);
        let commit = repository.commit_entries(&[
            ("100644", b"a.py", b"a"),
            ("100644", b"src/deep/b.py", b"b"),
            ("100644", b"caf\xe9.py", b"c"),
            ("120000", b"link.py", b"src/deep/b.py"),
            ("120000", b"src/up.py", b"../a.py"),
            ("120000", b"src/here", b"./deep"),
            ("120000", b"out", b"/etc/passwd"),
            ("120000", b"above", b"../../etc/passwd"),
            ("120000", b"src/above", b"../../a.py"),
            ("120000", b"loop", b"loop"),
            ("120000", b"ping", b"pong"),
            ("120000", b"pong", b"ping"),
            ("120000", b"empty", b"."),
            ("160000", b"vendor", submodule.as_bytes()),
        ]);
        let opened = Repository::open(repository.path()).unwrap();
        let mut reader = opened.reader().unwrap();
        let mut snapshot = Snapshot::new(&mut reader, commit.parse().unwrap()).unwrap();
        for (path, expected) in [
            (&b"a.py"[..], &b"a"[..]),
            (b"src/deep/b.py", b"b"),
            (b"caf\xe9.py", b"c"),
            (b"link.py", b"b"),
            (b"src/up.py", b"a"),
            (b"src/here/b.py", b"b"),
        ] {
            assert_eq!(snapshot.file(path).unwrap(), expected, "{}", String::from_utf8_lossy(path));
        }
        for (path, expected) in [
            (&b"/etc/passwd"[..], "not a path below"),
            (b"../a.py", "not a path below"),
            (b"src/../a.py", "not a path below"),
            (b"src//b.py", "not a path below"),
            (b"", "not a path below"),
            (b"nowhere.py", "no such file"),
            (b"a.py/x", "no such file"),
            (b"src", "a directory"),
            (b"empty", "a directory"),
            (b"out", "leads out"),
            (b"above", "leads out"),
            (b"src/above", "leads out"),
            (b"loop", "too many symbolic links"),
            (b"ping", "too many symbolic links"),
            (b"vendor", "submodule"),
            (b"vendor/x.py", "submodule"),
        ] {
            let error = snapshot.file(path).unwrap_err();
            assert!(
                error.to_line().contains(expected),
                "{}: {}",
                String::from_utf8_lossy(path),
                error.to_line()
            );
        }
    }

    /// Names that no checkout would survive are only names here.
    #[test]
    fn hostile_names_in_a_tree_are_only_names() {
        let repository = TestRepository::new();
        let blob = repository.blob(b"hostile");
        let inner = repository.raw_tree(&[("100644", b"config", &blob)]);
        let commit = repository.commit_tree(&repository.raw_tree(&[
            ("100644", b"..", &blob),
            ("40000", b".git", &inner),
            ("100644", b"a/b", &blob),
        ]));
        let opened = Repository::open(repository.path()).unwrap();
        let mut reader = opened.reader().unwrap();
        let mut snapshot = Snapshot::new(&mut reader, commit.parse().unwrap()).unwrap();
        assert_eq!(snapshot.root().len(), 3);
        assert_eq!(snapshot.file(b".git/config").unwrap(), b"hostile");
        assert!(snapshot.file(b"..").is_err());
        assert!(snapshot.file(b"a/b").is_err());
    }
}
