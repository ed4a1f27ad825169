//! Reading predictions files line by line, whatever state they are in.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};

/// No model writes so much; a file with a longer line is something else.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A finished prediction of this instance.
    Finished(String),
    /// The record of this instance's failure.
    Failed(String),
    /// White space.
    Blank,
    /// Torn, or not a prediction.
    Unreadable,
}

impl Line {
    /// Reads a line, with or without its newline: a record whose newline alone was lost is a whole record.
    pub(super) fn parse(line: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Record {
            instance_id: String,
            #[serde(default)]
            error: Option<IgnoredAny>,
        }
        if line.trim_ascii().is_empty() {
            return Self::Blank;
        }
        let record =
            std::str::from_utf8(line).ok().and_then(|text| serde_json::from_str::<Record>(text).ok());
        match record {
            Some(Record { instance_id, error: None }) => Self::Finished(instance_id),
            Some(Record { instance_id, error: Some(_) }) => Self::Failed(instance_id),
            None => Self::Unreadable,
        }
    }
}

/// Calls `visit` with every line from the start of `file`, newline included where there is one.
pub(super) fn for_each_line(
    mut file: &File,
    path: &Path,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let read_error = |error| Error::io("read the predictions file", path, error);
    file.rewind().map_err(read_error)?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).map_err(read_error)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(Error::invalid_data("not a predictions file")
                .with_path(path)
                .with_expected(format!("lines of at most {MAX_LINE_BYTES} bytes"), "a longer one"));
        }
        visit(&line)?;
    }
}

/// The instances in a file that another process may be writing.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Those with a finished prediction.
    pub finished: HashSet<String>,
    /// Those with a failure record and no finished prediction.
    pub failed: HashSet<String>,
}

impl Recorded {
    /// Reads the file and leaves it as it is. Unreadable lines are passed over: they are no predictions, and not ours to mend.
    ///
    /// # Errors
    /// `NotFound` and `Io` when it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open the predictions file", path, error))?;
        let mut recorded = Self::default();
        for_each_line(&file, path, |line| {
            match Line::parse(line) {
                Line::Finished(instance_id) => recorded.finished.insert(instance_id),
                Line::Failed(instance_id) => recorded.failed.insert(instance_id),
                Line::Blank | Line::Unreadable => false,
            };
            Ok(())
        })?;
        recorded.failed.retain(|instance_id| !recorded.finished.contains(instance_id));
        Ok(recorded)
    }
}

/// The instances that have a finished prediction in a file that another process may be writing.
///
/// # Errors
/// As [`Recorded::read`].
pub fn finished_ids(path: &Path) -> Result<HashSet<String>> {
    Ok(Recorded::read(path)?.finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        #[track_caller]
        fn check(line: &[u8], expected: Line) {
            assert_eq!(Line::parse(line), expected, "{}", String::from_utf8_lossy(line));
        }
        check(b" \r\n", Line::Blank);
        check(br#"{"instance_id": "a", "model_patch": null}"#, Line::Finished("a".into()));
        check(b"{\"instance_id\": \"a\", \"error\": null}\n", Line::Finished("a".into()));
        check(b"{\"error\": \"x\", \"instance_id\": \"a\"}\r\n", Line::Failed("a".into()));
        check(br#"{"error": {"code": 1}, "instance_id": "a"}"#, Line::Failed("a".into()));
        check(br#"{"instance_id": "a", "full_out"#, Line::Unreadable);
        check(br#"{"instance_id": "a", "full_{"instance_id": "b"}"#, Line::Unreadable);
        check(br#"{"id": "a"}"#, Line::Unreadable);
        check(br#"{"instance_id": 7}"#, Line::Unreadable);
        check(b"{\"instance_id\": \"a\", \"x\": \"\xff\"}", Line::Unreadable);
        check(&[0; 4], Line::Unreadable);
        check("[".repeat(100_000).as_bytes(), Line::Unreadable);
    }
}
