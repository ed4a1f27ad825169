//! The progress of one split: prompts as they come, so that a run continues where it stopped.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};

/// A file of prompts that this process alone writes: JSON Lines, the settings first.
///
/// Lines are not synced one by one: what a power cut takes is made again.
#[derive(Debug)]
pub(super) struct Progress {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
    /// Where the lines of finished instances are.
    finished: HashMap<String, Span>,
    set_aside: usize,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    len: usize,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    settings: Option<Value>,
    #[serde(default)]
    instance_id: Option<String>,
    #[serde(default)]
    text: Option<String>,
}

impl Progress {
    /// Opens the file, creating it when it is missing; lines that are torn go to `<file>.torn`.
    ///
    /// # Errors
    /// `Busy` when another run has the file, `InvalidArgument` when it was made with other settings, `Io`.
    pub(super) fn open(path: &Path, settings: &Value) -> Result<Self> {
        let unreadable = |error| Error::io("open the progress file", path, error);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(unreadable)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(ErrorKind::Busy, "another run is writing this progress file")
                    .with_path(path)
                    .with_hint("wait for it to end, or choose another output directory"));
            }
            Err(TryLockError::Error(error)) if error.kind() != std::io::ErrorKind::Unsupported => {
                return Err(Error::io("lock the progress file", path, error));
            }
            _ => {}
        }
        let mut progress =
            Self { path: path.to_path_buf(), file, len: 0, finished: HashMap::new(), set_aside: 0 };
        progress.read(settings)?;
        if progress.len == 0 {
            progress.append(&json!({"settings": settings}))?;
        }
        Ok(progress)
    }

    fn read(&mut self, settings: &Value) -> Result<()> {
        let unreadable = |error| Error::io("read the progress file", &self.path, error);
        let mut reader = BufReader::new(self.file.try_clone().map_err(unreadable)?);
        let mut line = Vec::new();
        let mut torn = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            let record = serde_json::from_slice::<Record>(&line).ok();
            let is_first = self.len == 0;
            match record {
                Some(Record { settings: Some(found), .. }) if is_first => {
                    if found != *settings {
                        return Err(other_settings(&self.path, settings, &found));
                    }
                }
                Some(Record { instance_id: Some(id), text: Some(_), .. })
                    if line.ends_with(b"\n") && !is_first =>
                {
                    self.finished.insert(id, Span { start: self.len, len: line.len() });
                }
                Some(Record { instance_id: Some(_), text: None, .. })
                    if line.ends_with(b"\n") && !is_first => {}
                _ if is_first && line.ends_with(b"\n") => {
                    return Err(Error::invalid_data("not a progress file")
                        .with_path(&self.path)
                        .with_hint("move it away"));
                }
                _ => {
                    self.set_aside += 1;
                    torn.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
                    torn.push(b'\n');
                }
            }
            // What is torn in the middle stays there; it is nobody's record.
            if line.ends_with(b"\n") {
                self.len += line.len() as u64;
            }
        }
        self.file
            .set_len(self.len)
            .map_err(|error| Error::io("mend the progress file", &self.path, error))?;
        if torn.is_empty() { Ok(()) } else { self.save_torn(&torn) }
    }

    fn torn_path(&self) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(".torn");
        PathBuf::from(name)
    }

    fn save_torn(&self, torn: &[u8]) -> Result<()> {
        let path = self.torn_path();
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(torn))
            .map_err(|error| Error::io("set aside torn lines", &path, error))
    }

    /// What to tell the user when lines were torn.
    pub(super) fn warning(&self) -> Option<String> {
        (self.set_aside > 0).then(|| {
            format!(
                "{} lines of {} were torn; they are now in {}",
                self.set_aside,
                self.path.display(),
                self.torn_path().display()
            )
        })
    }

    /// Whether the instance has its prompt.
    pub(super) fn is_finished(&self, instance_id: &str) -> bool {
        self.finished.contains_key(instance_id)
    }

    /// The instances that have their prompt.
    pub(super) fn finished_ids(&self) -> HashSet<String> {
        self.finished.keys().cloned().collect()
    }

    /// Records a prompt, or why there is none.
    ///
    /// # Errors
    /// `Io` when it cannot be written; the file is then as it was.
    pub(super) fn record(&mut self, instance_id: &str, prompt: &Result<String>) -> Result<()> {
        let span = match prompt {
            Ok(text) => self.append(&json!({"instance_id": instance_id, "text": text}))?,
            Err(error) => self.append(&json!({"instance_id": instance_id, "error": error.to_line()}))?,
        };
        if prompt.is_ok() {
            self.finished.insert(instance_id.to_owned(), span);
        }
        Ok(())
    }

    fn append(&mut self, record: &Value) -> Result<Span> {
        let line = format!("{record}\n");
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            let _ = self.file.set_len(self.len);
            return Err(Error::io("write the progress file", &self.path, error).with_hint(
                "what is done so far is kept; the same command continues once the file can be written",
            ));
        }
        let span = Span { start: self.len, len: line.len() };
        self.len += line.len() as u64;
        Ok(span)
    }

    /// The prompt of an instance; `None` when it has none.
    pub(super) fn text(&mut self, instance_id: &str) -> Result<Option<String>> {
        let Some(span) = self.finished.get(instance_id).copied() else { return Ok(None) };
        let mut line = vec![0; span.len];
        let read = self.file.seek(SeekFrom::Start(span.start)).and_then(|_| self.file.read_exact(&mut line));
        read.map_err(|error| Error::io("read the progress file", &self.path, error))?;
        let record: Record = serde_json::from_slice(&line).map_err(|error| {
            Error::invalid_data("the progress file has changed").with_path(&self.path).with_source(error)
        })?;
        Ok(record.text)
    }

    /// Deletes the file: its prompts are in the dataset.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|error| Error::io("remove the progress file", &self.path, error))
    }
}

fn other_settings(path: &Path, expected: &Value, got: &Value) -> Error {
    Error::invalid_argument("the progress file was made with other settings")
        .with_path(path)
        .with_expected(expected, got)
        .with_hint("use those settings to continue, or delete the file to begin again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Value {
        json!({"style": "style-3"})
    }

    #[test]
    fn what_was_recorded_is_there_again_and_failures_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/d.test.progress.jsonl");
        let mut progress = Progress::open(&path, &settings()).unwrap();
        progress.record("a", &Ok("text of ä\n".into())).unwrap();
        progress.record("b", &Err(Error::not_found("no luck"))).unwrap();
        progress.record("c", &Ok("c".into())).unwrap();
        assert_eq!(progress.text("a").unwrap().as_deref(), Some("text of ä\n"));
        progress.record("d", &Ok("d".into())).unwrap();
        assert_eq!(Progress::open(&path, &settings()).unwrap_err().kind(), ErrorKind::Busy);
        drop(progress);

        let mut progress = Progress::open(&path, &settings()).unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|id| progress.is_finished(id)), [true, false, true, true]);
        progress.record("b", &Ok("b".into())).unwrap();
        for (id, text) in [("a", "text of ä\n"), ("b", "b"), ("d", "d")] {
            assert_eq!(progress.text(id).unwrap().as_deref(), Some(text));
        }
        assert_eq!(progress.text("e").unwrap(), None);
        drop(progress);
        let error = Progress::open(&path, &json!({"style": "style-2"})).unwrap_err();
        assert!(error.to_string().contains("other settings"), "{error}");
    }

    #[test]
    fn torn_lines_are_set_aside_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let mut progress = Progress::open(&path, &settings()).unwrap();
        progress.record("a", &Ok("x".into())).unwrap();
        let first = progress.len;
        progress.record("b", &Ok("y".into())).unwrap();
        drop(progress);
        let bytes = fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            let mut progress = Progress::open(&path, &settings()).unwrap();
            assert_eq!(progress.is_finished("a"), len as u64 >= first, "{len}");
            assert!(!progress.is_finished("b"), "{len}");
            progress.record("b", &Ok("again".into())).unwrap();
            assert_eq!(progress.text("b").unwrap().as_deref(), Some("again"), "{len}");
        }
    }

    #[test]
    fn another_file_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        fs::write(&path, "{\"my\": \"diary\"}\n").unwrap();
        assert!(Progress::open(&path, &settings()).unwrap_err().to_string().contains("not a progress file"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"my\": \"diary\"}\n");
    }
}
