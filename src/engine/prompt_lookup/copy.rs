//! The copy in progress, and what it changes on the way.
//!
//! A diff copies lines with a mark in front and line numbers left out. Such an [`Edit`] is learned when it is first seen
//! and expected at the next place of its kind, without knowledge of the text.

use std::collections::HashMap;

use super::places::{MAX_AGREEMENT, Match};

/// Tokens that a copy has to agree with before an edit of it is believed; short agreement is mostly chance, and what
/// is learned from it spoils later guesses.
const MIN_COPY: usize = 8;
/// By what a token that is not in the source divides the agreement.
const DOUBT: usize = 4;
/// Most tokens left out of the source, and put in instead, by one edit.
const MAX_EDIT: usize = 6;

/// How the copy departs from its source at one place: these tokens instead of so many.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    inserted: Vec<u32>,
    skipped: usize,
}

/// A copy in progress.
#[derive(Debug)]
struct Copy {
    /// Where the source of the next token is.
    source: usize,
    /// The last token that came from the source.
    anchor: u32,
    /// Tokens since then that are not in the source.
    inserted: Vec<u32>,
    /// Tokens that agreed; each one that did not has divided them by [`DOUBT`].
    agreement: usize,
}

/// A token that the copy foretells.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) token: u32,
    /// Whether it is part of an edit or right behind one.
    pub(super) edited: bool,
}

/// Follows one sequence's copying.
#[derive(Debug, Default)]
pub(super) struct Copying {
    copy: Option<Copy>,
    /// What to do after an anchor when this token, or any, comes next in the source.
    edits: HashMap<(u32, Option<u32>), Edit>,
}

impl Copying {
    /// Tokens that agreed so far.
    pub(super) fn agreement(&self) -> usize {
        self.copy.as_ref().map_or(0, |copy| copy.agreement)
    }

    /// Moves the copy along the token at `index`, and learns from it where it departs from the source.
    pub(super) fn follow(&mut self, tokens: &[u32], index: usize) {
        let Some(copy) = &mut self.copy else { return };
        let token = tokens[index];
        let end = index.min(copy.source + MAX_EDIT);
        let skipped = tokens[copy.source..end].iter().position(|&source| source == token);
        if skipped != Some(0) && copy.inserted.is_empty() && copy.agreement < MIN_COPY {
            self.copy = None;
            return;
        }
        let Some(skipped) = skipped else {
            copy.inserted.push(token);
            copy.agreement /= DOUBT;
            if copy.inserted.len() > MAX_EDIT {
                self.copy = None;
            }
            return;
        };
        let inserted = std::mem::take(&mut copy.inserted);
        let keys = [(copy.anchor, Some(tokens[copy.source])), (copy.anchor, None)];
        copy.source += skipped + 1;
        copy.anchor = token;
        copy.agreement = MAX_AGREEMENT.min(copy.agreement + 1);
        for key in keys {
            if skipped == 0 && inserted.is_empty() {
                self.edits.remove(&key);
            } else {
                self.edits.insert(key, Edit { inserted: inserted.clone(), skipped });
            }
        }
    }

    /// Copies from `found`, the best place for what follows `anchor`, if it agrees for longer than the copy in progress.
    ///
    /// Behind an edit, the text before it agrees best with earlier lines of the copy, and those are not what comes next.
    pub(super) fn consider(&mut self, found: Match, anchor: u32) {
        if found.agreement > self.agreement() {
            let Match { place, agreement, .. } = found;
            self.copy = Some(Copy { source: place, anchor, inserted: Vec::new(), agreement });
        }
    }

    /// Appends to `next`, which is empty, at most `max` tokens from the source, with the edits that are known.
    pub(super) fn foretell(&self, tokens: &[u32], max: usize, next: &mut Vec<Next>) {
        let Some(copy) = &self.copy else { return };
        let (mut source, mut anchor) = (copy.source, copy.anchor);
        let mut done = copy.inserted.len();
        while next.len() < max && source < tokens.len() {
            let edit = self.edit(anchor, tokens[source]);
            if let Some(edit) = edit {
                let left = edit.inserted.iter().skip(done);
                next.extend(left.map(|&token| Next { token, edited: true }));
                source += edit.skipped;
            }
            done = 0;
            let Some(&token) = tokens.get(source) else { break };
            next.push(Next { token, edited: edit.is_some() });
            source += 1;
            anchor = token;
        }
        next.truncate(max);
    }

    fn edit(&self, anchor: u32, next: u32) -> Option<&Edit> {
        self.edits.get(&(anchor, Some(next))).or_else(|| self.edits.get(&(anchor, None)))
    }
}
