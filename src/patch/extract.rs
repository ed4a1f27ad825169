//! The patch in a model's answer: of all diffs in it, those that are meant.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::diff::{FileDiff, to_text};
use super::path::{Unsafe, check_name};
use super::scan::{Place, Section, scan};

/// A patch, and where it came from.
#[derive(Debug)]
pub struct Extraction<'a> {
    /// What happens to each file, in the answer's order; two may be about one file.
    pub files: Vec<Found<'a>>,
    /// Whether the answer ends inside of a diff, or before the end of the tag or fence around one.
    pub truncated: bool,
    /// Diffs that were left out because of what they touch.
    pub refused: Vec<Refusal>,
    /// The number of diffs that a later one of the same file replaces.
    pub superseded: usize,
    /// Why there is no patch, when there is none.
    pub empty: Option<Empty>,
}

/// A diff of one file in an answer.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// The diff.
    pub diff: FileDiff<'a>,
    /// Where it stands.
    pub place: Place<'a>,
}

/// A path that no patch may touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The path as the answer has it.
    pub path: String,
    /// Why.
    pub reason: Unsafe,
}

/// Why there is no patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Empty {
    /// The answer is empty.
    NoAnswer,
    /// The answer has text, and no change in any form.
    NoDiff,
    /// There are diffs, and none changes anything.
    NoChanges,
    /// All that it changes are paths that no patch may touch.
    Refused,
    /// The change is in a form that only the repository's files turn into a patch.
    NeedsRepository,
    /// The change is in such a form, and does not fit the repository's files.
    DoesNotFit,
}

impl Empty {
    /// The reason as a sentence fragment.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoAnswer => "the answer is empty",
            Self::NoDiff => "the answer has no diff",
            Self::NoChanges => "the diff in the answer changes nothing",
            Self::Refused => "the answer changes only paths that no patch may touch",
            Self::NeedsRepository => {
                "the answer has whole files or search/replace blocks: only with the repository do they make a patch"
            }
            Self::DoesNotFit => {
                "the answer's whole files or search/replace blocks do not fit the repository's files"
            }
        }
    }
}

impl Extraction<'_> {
    /// The patch; it ends in exactly one newline, or is empty.
    pub fn to_text(&self) -> String {
        to_text(self.files.iter().map(|found| &found.diff))
    }
}

/// Finds the patch in an answer. Time is linear in its length, whatever it holds.
///
/// Diffs in a train of thought or in a quotation of the task count only when there are no others. Of several drafts of one
/// file, in different tags, fences or stretches of text, the last whole one counts; different files are joined.
pub fn extract(answer: &str) -> Extraction<'_> {
    let found = scan(answer);
    let mut extraction = Extraction {
        files: Vec::new(),
        truncated: found.cut,
        refused: Vec::new(),
        superseded: 0,
        empty: None,
    };
    let any = !found.sections.is_empty();
    let mut sections: Vec<Section<'_>> =
        found.sections.into_iter().filter(|section| section.diff.has_changes()).collect();
    let changes = !sections.is_empty();
    sections.retain(|section| match unsafe_name(&section.diff) {
        Some(refusal) => {
            extraction.refused.push(refusal);
            false
        }
        None => true,
    });
    if sections.iter().any(|section| !section.aside) {
        sections.retain(|section| !section.aside);
    }
    let mut chosen: HashMap<String, (usize, bool)> = HashMap::new();
    for Section { diff, block, cut, .. } in &sections {
        match chosen.get_mut(diff.path()) {
            Some(best) if *cut && !best.1 && best.0 != *block => {}
            Some(best) => *best = (*block, *cut),
            None => drop(chosen.insert(diff.path().to_owned(), (*block, *cut))),
        }
    }
    let total = sections.len();
    sections.retain(|section| chosen.get(section.diff.path()).is_some_and(|best| best.0 == section.block));
    extraction.superseded = total - sections.len();
    extraction.files = joined(sections);
    if extraction.files.is_empty() {
        extraction.empty = Some(if answer.trim().is_empty() {
            Empty::NoAnswer
        } else if changes {
            Empty::Refused
        } else if any {
            Empty::NoChanges
        } else {
            Empty::NoDiff
        });
    }
    extraction
}

fn unsafe_name(diff: &FileDiff<'_>) -> Option<Refusal> {
    let names = [&diff.old, &diff.new];
    if names.iter().all(|name| name.is_none()) {
        return Some(Refusal { path: "/dev/null".into(), reason: Unsafe::NoName });
    }
    names
        .into_iter()
        .flatten()
        .find_map(|name| check_name(name).err().map(|reason| Refusal { path: name.to_string(), reason }))
}

/// Joins sections about one file that only change its lines.
fn joined(sections: Vec<Section<'_>>) -> Vec<Found<'_>> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut files: Vec<Found<'_>> = Vec::with_capacity(sections.len());
    for Section { diff, place, .. } in sections {
        let only_lines = diff.old == diff.new && diff.extended.iter().all(|line| line.starts_with("index "));
        match first.get(diff.path()) {
            Some(&index) if only_lines => files[index].diff.hunks.extend(diff.hunks),
            _ => {
                if only_lines {
                    first.insert(diff.path().to_owned(), files.len());
                }
                files.push(Found { diff, place });
            }
        }
    }
    files.iter_mut().for_each(|found| drop_repetitions(&mut found.diff));
    files
}

/// A model in a loop writes a hunk again and again: the first one counts.
fn drop_repetitions(diff: &mut FileDiff<'_>) {
    if diff.hunks.len() > 1 {
        let mut seen = HashSet::new();
        let fresh: Vec<bool> = diff.hunks.iter().map(|hunk| seen.insert(hunk)).collect();
        let mut fresh = fresh.into_iter();
        diff.hunks.retain(|_| fresh.next().unwrap_or(true));
    }
}
