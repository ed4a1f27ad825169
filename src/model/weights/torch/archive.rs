//! The directory of a zip archive whose entries are stored, so that they can be used where they are mapped
//! (APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3).
//!
//! The `zip` crate reserves memory for all the entries that fit a file of the archive's length, so that a sparse file of a
//! few kilobytes aborts the process. Here memory grows with the entries that are there, every offset is checked against
//! the file, and nothing is ever decompressed.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR64_SIGNATURE: u32 = 0x0706_4b50;

const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const LOCATOR64_LEN: usize = 20;

/// The header id of the extra field that holds 64-bit sizes and offsets.
const ZIP64_EXTRA: u16 = 1;
/// The 32-bit value which says that the real one is in the 64-bit field.
const IN_ZIP64: u64 = u32::MAX as u64;
/// The flag bit of an encrypted entry.
const ENCRYPTED: u16 = 1;
const MAX_COMMENT_LEN: usize = u16::MAX as usize;

/// The entries of an archive by name.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    entries: HashMap<&'a str, Range<usize>>,
}

impl<'a> Archive<'a> {
    /// Reads the central directory and every entry's local header.
    ///
    /// # Errors
    /// `InvalidData` when the file is no zip archive, is truncated, points outside of itself, or has two entries of one name;
    /// `Unsupported` when an entry is compressed or encrypted.
    pub(super) fn read(file: &'a [u8]) -> Result<Self> {
        let (count, mut directory) = find_directory(file)?;
        if count > directory.len() / CENTRAL_LEN {
            return Err(Error::invalid_data("the zip directory is shorter than its entries")
                .with_expected(format_args!("at most {} entries", directory.len() / CENTRAL_LEN), count));
        }
        // Not reserved beforehand: the directory may be a hole of a sparse file.
        let mut entries = HashMap::new();
        for _ in 0..count {
            let (header, rest) = CentralHeader::read(directory)?;
            directory = rest;
            let data = header.locate(file)?;
            if entries.insert(header.name, data).is_some() {
                return Err(Error::invalid_data(format!("the zip entry `{}` appears twice", header.name)));
            }
        }
        Ok(Self { entries })
    }

    /// The byte range of an entry's data in the file.
    pub(super) fn range(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }

    /// All names, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }
}

/// The number of entries and the bytes of the central directory.
fn find_directory(file: &[u8]) -> Result<(usize, &[u8])> {
    let end_at = find_end(file).ok_or_else(|| {
        Error::invalid_data("not a zip archive, or a truncated one: it has no end of central directory")
    })?;
    let end = &file[end_at..];
    let mut count = usize::from(u16_at(end, 10)?);
    let mut size = u64::from(u32_at(end, 12)?);
    let mut start = u64::from(u32_at(end, 16)?);

    let locator = end_at.checked_sub(LOCATOR64_LEN).map(|at| &file[at..]);
    if let Some(locator) =
        locator.filter(|locator| u32_at(locator, 0).is_ok_and(|it| it == LOCATOR64_SIGNATURE))
    {
        let end64_at = u64_at(locator, 8)?;
        let end64 = slice(file, end64_at, END64_LEN as u64)?;
        if u32_at(end64, 0)? != END64_SIGNATURE {
            return Err(Error::invalid_data("the zip64 locator points at something else"));
        }
        count = to_usize(u64_at(end64, 32)?)?;
        size = u64_at(end64, 40)?;
        start = u64_at(end64, 48)?;
    }
    Ok((count, slice(file, start, size)?))
}

/// Where the end record is, which only a comment may follow.
fn find_end(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(END_LEN)?;
    (last.saturating_sub(MAX_COMMENT_LEN)..=last).rev().find(|&at| {
        let comment_len = u16_at(file, at + 20).map(usize::from);
        u32_at(file, at).is_ok_and(|signature| signature == END_SIGNATURE)
            && comment_len.is_ok_and(|len| at + END_LEN + len == file.len())
    })
}

/// What the central directory says of an entry.
struct CentralHeader<'a> {
    name: &'a str,
    flags: u16,
    method: u16,
    compressed_size: u64,
    size: u64,
    local_at: u64,
}

impl<'a> CentralHeader<'a> {
    /// Reads the first header of `directory` and returns what follows it.
    fn read(directory: &'a [u8]) -> Result<(Self, &'a [u8])> {
        if u32_at(directory, 0)? != CENTRAL_SIGNATURE {
            return Err(Error::invalid_data("the zip directory holds something else than an entry"));
        }
        let name_len = u64::from(u16_at(directory, 28)?);
        let extra_len = u64::from(u16_at(directory, 30)?);
        let comment_len = u64::from(u16_at(directory, 32)?);
        let name_at = CENTRAL_LEN as u64;
        let name = std::str::from_utf8(slice(directory, name_at, name_len)?)
            .map_err(|error| Error::invalid_data("a zip entry's name is not UTF-8").with_source(error))?;
        let mut header = Self {
            name,
            flags: u16_at(directory, 8)?,
            method: u16_at(directory, 10)?,
            compressed_size: u64::from(u32_at(directory, 20)?),
            size: u64::from(u32_at(directory, 24)?),
            local_at: u64::from(u32_at(directory, 42)?),
        };
        header.read_zip64(slice(directory, name_at + name_len, extra_len)?)?;
        let next = to_usize(name_at + name_len + extra_len + comment_len)?;
        match directory.get(next..) {
            Some(rest) => Ok((header, rest)),
            None => Err(truncated()),
        }
    }

    /// Takes from the 64-bit extra field, in this order, the values that do not fit their 32-bit fields.
    fn read_zip64(&mut self, mut extra: &[u8]) -> Result<()> {
        while !extra.is_empty() {
            let (id, len) = (u16_at(extra, 0)?, u16_at(extra, 2)?);
            let field = slice(extra, 4, u64::from(len))?;
            if id == ZIP64_EXTRA {
                let mut at = 0;
                for value in [&mut self.size, &mut self.compressed_size, &mut self.local_at] {
                    if *value == IN_ZIP64 {
                        *value = u64_at(field, at)?;
                        at += 8;
                    }
                }
                return Ok(());
            }
            extra = &extra[4 + usize::from(len)..];
        }
        Ok(())
    }

    /// Finds the entry's data, which begins after a local header of its own length.
    fn locate(&self, file: &[u8]) -> Result<Range<usize>> {
        if self.flags & ENCRYPTED != 0 || self.method != 0 || self.compressed_size != self.size {
            return Err(Error::unsupported(format!(
                "the zip entry `{}` is compressed or encrypted",
                self.name
            ))
            .with_expected("a stored entry, as torch.save writes it", format_args!("method {}", self.method))
            .with_hint("save the checkpoint again with torch.save, or convert it to safetensors"));
        }
        let local = slice(file, self.local_at, LOCAL_LEN as u64)?;
        if u32_at(local, 0)? != LOCAL_SIGNATURE {
            return Err(Error::invalid_data(format!("the zip entry `{}` has no local header", self.name)));
        }
        let skip = LOCAL_LEN as u64 + u64::from(u16_at(local, 26)?) + u64::from(u16_at(local, 28)?);
        let start = self.local_at.checked_add(skip).ok_or_else(truncated)?;
        slice(file, start, self.size)?;
        let start = to_usize(start)?;
        Ok(start..start + to_usize(self.size)?)
    }
}

fn slice(bytes: &[u8], start: u64, len: u64) -> Result<&[u8]> {
    let end = start.checked_add(len).ok_or_else(truncated)?;
    bytes.get(to_usize(start)?..to_usize(end)?).ok_or_else(truncated)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or_else(truncated)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn to_usize(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| truncated())
}

fn truncated() -> Error {
    Error::invalid_data("the zip archive points beyond its end")
        .with_hint("the file is truncated; download it again")
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;
    use crate::error::ErrorKind;

    /// An archive written by an independent implementation.
    fn archive(entries: &[(&str, &[u8])], zip64: bool) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(zip64);
        for (name, data) in entries {
            writer.start_file(*name, options).unwrap();
            writer.write_all(data).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// Replaces the first occurrence of `old` after `from` by `new`, of the same length.
    fn replaced(mut file: Vec<u8>, from: usize, old: &[u8], new: &[u8]) -> Vec<u8> {
        let at = from + file[from..].windows(old.len()).position(|window| window == old).unwrap();
        file[at..at + new.len()].copy_from_slice(new);
        file
    }

    /// The bytes that turn an archive's end into that of a zip64 archive which claims `count` entries.
    fn with_zip64_end(file: &[u8], count: Option<u64>) -> Vec<u8> {
        let end = file.len() - END_LEN;
        let entries = count.unwrap_or(u64::from(u16_at(file, end + 10).unwrap()));
        let (size, start) = (u32_at(file, end + 12).unwrap(), u32_at(file, end + 16).unwrap());
        let mut out = file[..end].to_vec();
        out.extend(END64_SIGNATURE.to_le_bytes());
        out.extend(44_u64.to_le_bytes());
        out.extend([0; 12]);
        for value in [entries, entries, u64::from(size), u64::from(start)] {
            out.extend(value.to_le_bytes());
        }
        out.extend(LOCATOR64_SIGNATURE.to_le_bytes());
        out.extend([0; 4]);
        out.extend((end as u64).to_le_bytes());
        out.extend([0; 4]);
        out.extend(END_SIGNATURE.to_le_bytes());
        out.extend([0; 4]);
        out.extend([0xff; 12]);
        out.extend([0; 2]);
        out
    }

    const ENTRIES: [(&str, &[u8]); 3] = [("m/data.pkl", b"pickle"), ("m/data/0", b""), ("m/version", b"3\n")];

    #[test]
    fn entries_are_found_where_another_implementation_put_them() {
        let plain = archive(&ENTRIES, false);
        for file in [plain.clone(), archive(&ENTRIES, true), with_zip64_end(&plain, None)] {
            let archive = Archive::read(&file).unwrap();
            for (name, data) in ENTRIES {
                assert_eq!(&file[archive.range(name).unwrap()], data, "{name}");
            }
            assert_eq!(archive.range("absent"), None);
            assert_eq!(archive.names().count(), 3);
        }
    }

    #[test]
    fn invalid_archives_are_refused_with_the_reason() {
        let check = |file: &[u8], kind: ErrorKind, message: &str| {
            let error = Archive::read(file).unwrap_err();
            assert!(error.to_line().contains(message), "{message}: {}", error.to_line());
            assert_eq!(error.kind(), kind, "{message}");
        };
        let valid = archive(&ENTRIES, false);
        let directory = valid.windows(4).position(|it| it == CENTRAL_SIGNATURE.to_le_bytes()).unwrap();
        check(b"", ErrorKind::InvalidData, "not a zip archive");
        check(&valid[..valid.len() - 1], ErrorKind::InvalidData, "not a zip archive");
        check(&valid[1..], ErrorKind::InvalidData, "something else");
        let end = valid.len() - END_LEN;
        check(
            &with_zip64_end(&valid, Some(1 << 60)),
            ErrorKind::InvalidData,
            "shorter than its entries: expected at most",
        );
        let mut beyond = valid.clone();
        beyond[end + 12..end + 16].copy_from_slice(&u32::MAX.to_le_bytes());
        check(&beyond, ErrorKind::InvalidData, "beyond its end");
        let mut compressed = valid.clone();
        compressed[directory + 10] = 8;
        check(&compressed, ErrorKind::Unsupported, "`m/data.pkl` is compressed");
        let mut encrypted = valid.clone();
        encrypted[directory + 8] |= 1;
        check(&encrypted, ErrorKind::Unsupported, "`m/data.pkl` is compressed or encrypted");
        let twice = archive(&[("m/data/0", b"a"), ("m/data/1", b"b")], false);
        let second = twice.windows(4).position(|it| it == CENTRAL_SIGNATURE.to_le_bytes()).unwrap();
        check(&replaced(twice, second, b"data/1", b"data/0"), ErrorKind::InvalidData, "appears twice");
        let mut far = valid.clone();
        far[directory + 42..directory + 46].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        check(&far, ErrorKind::InvalidData, "beyond its end");
        let mut inside = valid;
        inside[directory + 42] = 1;
        check(&inside, ErrorKind::InvalidData, "no local header");
    }

    proptest! {
        #[test]
        fn mutated_archives_never_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            zip64 in any::<bool>(),
        ) {
            let mut file = archive(&ENTRIES, zip64);
            if zip64 {
                file = with_zip64_end(&file, None);
            }
            for (at, byte) in edits {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if let Ok(archive) = Archive::read(&file) {
                for name in archive.names() {
                    prop_assert!(file.get(archive.range(name).unwrap()).is_some());
                }
            }
        }
    }
}
