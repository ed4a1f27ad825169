//! Trees: what git prints of a whole one, and the objects that one directory is made of.

use super::id::ObjectId;
use crate::error::{Error, Result};

/// What a name in a tree stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A file.
    File,
    /// A file that may be executed.
    Executable,
    /// A symbolic link; its blob is the target.
    Link,
    /// Another repository's commit; there is no blob.
    Submodule,
    /// A directory; only in listings of one directory.
    Directory,
}

impl EntryKind {
    /// Whether it has content of its own: a file, executable or not.
    pub fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable)
    }

    /// The kind that git's mode stands for.
    fn from_mode(mode: &[u8]) -> Option<Self> {
        let mode = u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?;
        Some(match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Link,
            0o160_000 => Self::Submodule,
            // Trees of old tools have 0100664 and the like.
            0o100_000 if mode & 0o100 != 0 => Self::Executable,
            0o100_000 => Self::File,
            _ => return None,
        })
    }
}

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The path from the root with `/`, or the bare name in a listing of one directory; any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The object.
    pub id: ObjectId,
    /// Bytes of the blob; `None` for what has none, and in listings of one directory.
    pub len: Option<u64>,
}

/// Reads `ls-tree -r -z -l`: `MODE TYPE ID   LENGTH<TAB>PATH<NUL>`.
pub(super) fn parse_listing(listing: &[u8]) -> Result<Vec<TreeEntry>> {
    let entries = listing.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries.map(|entry| parse_line(entry).ok_or_else(|| malformed("the list of a tree's files"))).collect()
}

fn parse_line(entry: &[u8]) -> Option<TreeEntry> {
    let tab = entry.iter().position(|byte| *byte == b'\t')?;
    let mut words = entry[..tab].split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let kind = EntryKind::from_mode(words.next()?)?;
    words.next()?;
    let text = |word| std::str::from_utf8(word).ok();
    let id = text(words.next()?)?.parse().ok()?;
    let len = text(words.next()?)?.parse().ok();
    Some(TreeEntry { path: entry[tab + 1..].to_vec(), kind, id, len })
}

/// Reads a tree object: `MODE NAME<NUL>ID`, with ids of `id_len` bytes.
pub(super) fn parse_object(mut object: &[u8], id_len: usize) -> Result<Vec<TreeEntry>> {
    let mut entries = Vec::new();
    while !object.is_empty() {
        let (entry, rest) = parse_object_entry(object, id_len).ok_or_else(|| malformed("a tree object"))?;
        entries.push(entry);
        object = rest;
    }
    Ok(entries)
}

fn parse_object_entry(object: &[u8], id_len: usize) -> Option<(TreeEntry, &[u8])> {
    let blank = object.iter().position(|byte| *byte == b' ')?;
    let nul = blank + object[blank..].iter().position(|byte| *byte == 0)?;
    let (id, rest) = object[nul + 1..].split_at_checked(id_len)?;
    let entry = TreeEntry {
        path: object[blank + 1..nul].to_vec(),
        kind: EntryKind::from_mode(&object[..blank])?,
        id: ObjectId::from_bytes(id)?,
        len: None,
    };
    Some((entry, rest))
}

fn malformed(what: &str) -> Error {
    Error::invalid_data(format!("{what} is malformed")).with_hint("check the repository with git fsck")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn listings_keep_every_byte_of_a_name() {
        let listing = format!(
            "100644 blob {ID}      12\ta b\n\tc\0100755 blob {ID}       0\tx\0120000 blob {ID}       4\tl\0160000 commit {ID}       -\tsub\0"
        );
        let entries = parse_listing(listing.as_bytes()).unwrap();
        let found: Vec<_> = entries.iter().map(|entry| (&entry.path[..], entry.kind, entry.len)).collect();
        assert_eq!(
            found,
            [
                (&b"a b\n\tc"[..], EntryKind::File, Some(12)),
                (b"x", EntryKind::Executable, Some(0)),
                (b"l", EntryKind::Link, Some(4)),
                (b"sub", EntryKind::Submodule, None),
            ]
        );
        assert!(parse_listing(b"100644 blob").is_err());
        assert!(parse_listing(format!("777777 blob {ID} 1\ta\0").as_bytes()).is_err());
    }

    #[test]
    fn tree_objects_are_read_to_their_end() {
        let mut object = b"40000 dir\0".to_vec();
        object.extend([7; 20]);
        object.extend(b"100664 caf\xe9\0");
        object.extend([9; 20]);
        let entries = parse_object(&object, 20).unwrap();
        assert_eq!((&entries[0].path[..], entries[0].kind), (&b"dir"[..], EntryKind::Directory));
        assert_eq!((&entries[1].path[..], entries[1].kind), (&b"caf\xe9"[..], EntryKind::File));
        assert_eq!(entries[1].id.as_bytes(), [9; 20]);
        for end in 1..object.len() {
            assert!(end == 30 || parse_object(&object[..end], 20).is_err(), "{end}");
        }
    }
}
