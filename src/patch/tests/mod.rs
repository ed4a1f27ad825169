//! Tests of the whole layer: every row of faults of the reference, hostile answers, and what git says of the results.

mod answers;
mod edits;
mod git;
mod hostile;
mod relocation;

use std::collections::HashMap;

use super::*;

impl Tree for HashMap<String, Vec<u8>> {
    fn look_up(&self, path: &str) -> crate::error::Result<Entry> {
        Ok(self.get(path).map_or(Entry::Missing, |content| Entry::File(content.clone())))
    }
}

/// A tree of text files.
pub(super) fn tree(files: &[(&str, &str)]) -> HashMap<String, Vec<u8>> {
    files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect()
}

/// An answer's patch, made to fit.
pub(super) fn repaired(answer: &str, tree: &dyn Tree) -> (String, Vec<Change>) {
    let mut files: Vec<_> = extract(answer).files.into_iter().map(|found| found.diff).collect();
    let (changes, _) = repair(&mut files, tree, Unplaced::Keep).unwrap();
    (to_text(&files), changes)
}
