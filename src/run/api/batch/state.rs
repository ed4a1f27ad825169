//! The state of a run's batches: a file beside the predictions, by which a killed process finds its batches again.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use chrono::Utc;
use serde::{Deserialize, Serialize};

use crate::client::Money;
use crate::error::{Error, ErrorKind, Result};

/// `<predictions file>.batches`: every batch whose answers are not in the predictions file yet.
///
/// It is written before a batch is made and after, each time as a whole. The lock on the predictions file guards it.
#[derive(Debug)]
pub(in crate::run::api) struct BatchFile {
    path: PathBuf,
    batches: Vec<Batch>,
    held: HashSet<String>,
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Batch {
    /// Ours alone: it begins the names of the requests, and is in the metadata where the provider keeps some.
    pub(super) marker: String,
    /// Where it was sent.
    pub(super) service: String,
    pub(super) phase: Phase,
    /// Lines of the batch for each instance, in the order of `requests`.
    pub(super) lines_each: u32,
    pub(super) requests: Vec<Request>,
}

/// How far its submission came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The provider was not asked to make it.
    Planned,
    /// The provider was asked at this time, in seconds since 1970, and has not answered: it may exist or not.
    Creating {
        /// Seconds since 1970.
        at: i64,
    },
    /// It exists.
    Created {
        /// The provider's name for it.
        id: String,
        /// Seconds since 1970.
        at: i64,
    },
}

/// What is asked for an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) instance_id: String,
    /// The most that its lines cost; `None` where the price is not known.
    pub(super) at_most: Option<Money>,
}

impl Batch {
    pub(super) fn planned(service: String, lines_each: u32) -> Self {
        // Every `RandomState` has keys of its own, from the system's randomness.
        let half = || RandomState::new().hash_one(0);
        let marker = format!("{:016x}{:016x}", half(), half());
        Self { marker, service, phase: Phase::Planned, lines_each, requests: Vec::new() }
    }

    /// The provider's name for it, where there is one.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Created { id, .. } => Some(id),
            Phase::Planned | Phase::Creating { .. } => None,
        }
    }

    /// When its submission began, in seconds since 1970.
    pub(super) fn at(&self) -> Option<i64> {
        match self.phase {
            Phase::Planned => None,
            Phase::Creating { at } | Phase::Created { at, .. } => Some(at),
        }
    }

    /// The name of a line: letters, digits and `-`, at most 64 of them, as Anthropic demands.
    pub(super) fn custom_id(&self, request: usize, line: u32) -> String {
        format!("{}-{request}-{line}", self.marker)
    }

    /// The request's and the line's number in a name; `None` for another batch's.
    pub(super) fn parse_custom_id(&self, custom_id: &str) -> Option<(usize, u32)> {
        let (request, line) = custom_id.strip_prefix(&self.marker)?.strip_prefix('-')?.split_once('-')?;
        let (request, line) = (request.parse().ok()?, line.parse().ok()?);
        (request < self.requests.len() && line < self.lines_each).then_some((request, line))
    }
}

impl BatchFile {
    /// The file of this predictions file; without one there are no batches.
    ///
    /// # Errors
    /// `InvalidData` for a file that is none, `Io` when it cannot be read.
    pub(in crate::run::api) fn open(predictions: &Path) -> Result<Self> {
        let path = beside(predictions, ".batches");
        let batches: Vec<Batch> = match File::open(&path) {
            Ok(file) => serde_json::from_reader(BufReader::new(file)).map_err(|source| {
                Error::invalid_data("the file does not tell the run's batches")
                    .with_path(&path)
                    .with_hint(
                        "what it should say is with the provider; without the file the run begins anew",
                    )
                    .with_source(source)
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io("read the run's batches", &path, error)),
        };
        let mut file = Self { path, batches, held: HashSet::new() };
        file.index();
        Ok(file)
    }

    pub(super) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a batch has this instance.
    pub(in crate::run::api) fn holds(&self, instance_id: &str) -> bool {
        self.held.contains(instance_id)
    }

    /// Adds a batch; when this returns the file says so.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub(super) fn push(&mut self, batch: Batch) -> Result<()> {
        self.batches.push(batch);
        self.save()
    }

    /// Changes what is known of a batch.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub(super) fn set_phase(&mut self, marker: &str, phase: Phase) -> Result<()> {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.marker == marker) {
            batch.phase = phase;
        }
        self.save()
    }

    /// Forgets a batch.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub(super) fn remove(&mut self, marker: &str) -> Result<()> {
        self.batches.retain(|batch| batch.marker != marker);
        self.save()
    }

    fn index(&mut self) {
        let requests = self.batches.iter().flat_map(|batch| &batch.requests);
        self.held = requests.map(|request| request.instance_id.clone()).collect();
    }

    fn save(&mut self) -> Result<()> {
        self.index();
        if self.batches.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &self.path, error))
                }
                _ => Ok(()),
            };
        }
        let mut file = AtomicFile::create(&self.path)?;
        file.write(|writer| {
            serde_json::to_writer_pretty(writer, &self.batches).map_err(std::io::Error::from)
        })?;
        file.finish()
    }
}

/// Refuses to work on a predictions file while batches hold instances of it: they would be asked for twice.
///
/// # Errors
/// `Busy` when there are batches; as [`BatchFile::open`].
pub(in crate::run::api) fn require_none(predictions: &Path) -> Result<()> {
    let file = BatchFile::open(predictions)?;
    match file.held.len() {
        0 => Ok(()),
        held => Err(Error::new(
            ErrorKind::Busy,
            format!("{held} instances of this run are in batches whose answers are not fetched"),
        )
        .with_path(file.path())
        .with_hint("fetch the batches first; the file tells their ids")),
    }
}

/// Replaces a file in one step that a kill cannot divide, by what was written until then.
pub(super) struct AtomicFile {
    path: PathBuf,
    aside: PathBuf,
    writer: BufWriter<File>,
}

impl AtomicFile {
    /// Begins the file that will be at `path`, beside it.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let aside = beside(path, ".new");
        let file = File::create(&aside).map_err(|error| Error::io("write", &aside, error))?;
        Ok(Self { path: path.to_owned(), aside, writer: BufWriter::new(file) })
    }

    /// Adds to it.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        write(&mut self.writer).map_err(|error| Error::io("write", &self.aside, error))
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        let finished = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        finished
            .and_then(|()| fs::rename(&self.aside, &self.path))
            .map_err(|error| Error::io("write", &self.path, error))
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    Utc::now().timestamp()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let at_most = Money::from_dollars(0.25);
        let requests = ["a", "b"].map(|id| Request { instance_id: id.into(), at_most }).to_vec();
        Batch { requests, ..Batch::planned("openai at http://localhost".into(), 2) }
    }

    #[test]
    fn lines_are_told_by_their_names() {
        let batch = batch();
        let name = batch.custom_id(1, 1);
        assert!(name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        assert_eq!(batch.parse_custom_id(&name), Some((1, 1)));
        let marker = &batch.marker;
        for wrong in ["", "1-1", &format!("{marker}-2-0"), &format!("{marker}-0-2"), &format!("{marker}-0")] {
            assert_eq!(batch.parse_custom_id(wrong), None, "{wrong}");
        }
        assert_ne!(Batch::planned(String::new(), 1).marker, batch.marker);
    }

    #[test]
    fn the_file_says_what_happened_last_and_goes_with_the_last_batch() {
        let dir = tempfile::tempdir().unwrap();
        let predictions = dir.path().join("p.jsonl");
        require_none(&predictions).unwrap();
        let mut file = BatchFile::open(&predictions).unwrap();
        let batch = batch();
        file.push(batch.clone()).unwrap();
        file.set_phase(&batch.marker, Phase::Created { id: "b1".into(), at: 5 }).unwrap();
        // What a killed process left of another state.
        fs::write(beside(file.path(), ".new"), "{").unwrap();
        let mut file = BatchFile::open(&predictions).unwrap();
        let [found] = file.batches() else { panic!("{file:?}") };
        assert_eq!((found.id(), &found.requests), (Some("b1"), &batch.requests));
        assert!(file.holds("a") && !file.holds("c"));
        let error = require_none(&predictions).unwrap_err();
        assert!(error.to_string().contains("2 instances"), "{error}");
        file.remove(&batch.marker).unwrap();
        require_none(&predictions).unwrap();
        assert!(!file.path().exists());
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let predictions = dir.path().join("p.jsonl");
        fs::write(beside(&predictions, ".batches"), "[{").unwrap();
        assert_eq!(BatchFile::open(&predictions).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
