//! From an answer to a patch in one step, by either set of rules, with a report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diff::{FileDiff, to_text};
use super::extract::{Empty, Extraction, Found, Refusal, extract};
use super::minimal::minimize;
use super::repair::{Change, Tree, Unplaced, recount, repair};
use super::{edits, legacy};
use crate::error::{Error, Result};

/// The rules by which a patch is found and rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// This library's.
    #[default]
    Robust,
    /// The reference's, byte for byte.
    Legacy,
}

impl Mode {
    /// Reads a mode's name.
    ///
    /// # Errors
    /// `InvalidArgument` for another name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "robust" => Ok(Self::Robust),
            "legacy" => Ok(Self::Legacy),
            _ => Err(Error::invalid_argument("unknown mode").with_expected("robust or legacy", name)),
        }
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Default)]
pub struct Steps<'t> {
    /// The rules.
    pub mode: Mode,
    /// Make the hunks fit: their counts, and with `tree` their places and context.
    pub repair: bool,
    /// Cut the context.
    pub minimal: bool,
    /// The files that the answer is about. Only with these do whole files and search/replace blocks make a patch.
    pub tree: Option<&'t dyn Tree>,
}

/// A patch, and how it came about.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The patch; in robust mode it ends in exactly one newline or is empty.
    pub patch: String,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<Empty>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Whether the answer was cut off inside of it.
    pub truncated: bool,
    /// The files, in order; legacy mode does not look at them.
    pub files: Vec<FileReport>,
    /// What was left out because of its path.
    pub refused: Vec<Refusal>,
    /// Drafts that a later one replaces.
    pub superseded: usize,
    /// What repairing changed or could not.
    pub changes: Vec<Change>,
}

/// What a patch does to a file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// Its name after the change, or before where there is none after.
    pub path: String,
    /// Where in the answer it stands: `tag`, `fence`, `text`, `search_replace`, `whole_file` or `fenced_file`.
    pub source: &'static str,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
}

/// Finds the patch in an answer and rewrites it as asked. A patch is an answer, too.
///
/// # Errors
/// Those of the tree; in legacy mode those of the reference.
pub fn process(answer: &str, steps: &Steps<'_>) -> Result<Report> {
    match steps.mode {
        Mode::Robust => robust(answer, steps),
        Mode::Legacy => by_reference(answer, steps),
    }
}

/// The patch that a run records: found and, in robust mode, recounted.
pub fn model_patch(answer: &str, mode: Mode) -> String {
    match mode {
        Mode::Legacy => legacy::extract_diff(answer).to_owned(),
        Mode::Robust => {
            let mut files = diffs(extract(answer).files);
            recount(&mut files);
            to_text(&files)
        }
    }
}

fn robust(answer: &str, steps: &Steps<'_>) -> Result<Report> {
    let Extraction { mut files, mut truncated, mut refused, superseded, mut empty } = extract(answer);
    let mut is_edit = false;
    if empty == Some(Empty::NoDiff) {
        let edits = edits::find(answer);
        if !edits.is_empty() {
            truncated |= edits::is_cut(&edits);
            empty = Some(match steps.tree {
                Some(tree) => {
                    files = edits::to_diffs(&edits, tree)?;
                    Empty::DoesNotFit
                }
                None if edits::need_a_tree(&edits) => Empty::NeedsRepository,
                None => Empty::NoDiff,
            });
            is_edit = !files.is_empty();
        }
    }
    let sources: Vec<(String, &'static str)> =
        files.iter().map(|found| (found.diff.path().to_owned(), found.place.name())).collect();
    let mut files = diffs(files);
    let mut changes = Vec::new();
    match steps.tree {
        // Search/replace blocks have no places of their own.
        Some(tree) if steps.repair || is_edit => {
            let (made, links) =
                repair(&mut files, tree, if is_edit { Unplaced::Drop } else { Unplaced::Keep })?;
            changes = made;
            refused.extend(links);
        }
        _ if steps.repair => changes = recount(&mut files),
        _ => {}
    }
    if steps.minimal {
        minimize(&mut files);
    }
    let patch = to_text(&files);
    let empty = if !patch.is_empty() {
        None
    } else if empty.is_none() {
        Some(Empty::Refused)
    } else {
        empty
    };
    let source =
        |path: &str| sources.iter().find(|(known, _)| known == path).map_or("text", |(_, place)| *place);
    let files = files
        .iter()
        .map(|diff| FileReport {
            path: diff.path().to_owned(),
            source: source(diff.path()),
            added: diff.num_added(),
            removed: diff.num_removed(),
        })
        .collect();
    let reason = empty.map(Empty::reason);
    Ok(Report { patch, empty, reason, truncated, files, refused, superseded, changes })
}

fn by_reference(answer: &str, steps: &Steps<'_>) -> Result<Report> {
    let mut patch = legacy::extract_diff(answer).to_owned();
    if steps.repair {
        patch = legacy::repair_patch(&patch)?;
    }
    if steps.minimal {
        patch = legacy::minimal_patch(&patch)?;
    }
    let empty =
        patch.is_empty().then_some(if answer.trim().is_empty() { Empty::NoAnswer } else { Empty::NoDiff });
    Ok(Report {
        patch,
        empty,
        reason: empty.map(Empty::reason),
        truncated: false,
        files: Vec::new(),
        refused: Vec::new(),
        superseded: 0,
        changes: Vec::new(),
    })
}

fn diffs(files: Vec<Found<'_>>) -> Vec<FileDiff<'_>> {
    files.into_iter().map(|found| found.diff).collect()
}
