//! Prompt lookup decoding: guesses the next tokens by copying what followed the same tokens earlier in the sequence.
//!
//! Answers here are diffs, mostly lines of the prompt. What a diff changes in every line it copies (the mark in front, line
//! numbers left out) is learned as an [`Edit`] and applied in the middle of a guess, without knowledge of the text.
//! Saxena, "Prompt Lookup Decoding", 2023, with the edits added.

use std::collections::HashMap;

/// Tokens that have to agree before a place is taken as the source of a copy.
const GRAM: usize = 1;
/// Most earlier places that are compared for one guess.
const MAX_PLACES: usize = 64;
/// Most tokens by which the agreement of a place is measured.
const MAX_AGREEMENT: usize = 32;
/// Longest guess: with the token before it, sixteen rows, the height of a matrix tile.
const MAX_DRAFT: usize = 15;
/// Longest guess of a sequence that has not had one yet.
const FIRST_DRAFT: usize = 4;
/// Tokens that a copy has to agree with before an edit of it is believed; short agreement is mostly chance, and what
/// is learned from it spoils later guesses.
const MIN_COPY: usize = 8;
/// By what a token that is not in the source divides the trust in a copy.
const DOUBT: usize = 4;
/// Most tokens left out of the source, and put in instead, by one edit.
const MAX_EDIT: usize = 6;
/// Least share of guesses that have to be right, at least in their first token, to go on guessing.
const MIN_RATE: f32 = 0.1;
/// Weight of the newest guess in that share.
const RATE_STEP: f32 = 0.15;
/// Tokens after which a guess is tried in spite of its rate: text that is not copied pays for one token in this many.
const RETRY_AFTER: usize = 100;

/// What guesses of about the same agreement have been worth.
#[derive(Debug, Clone, Copy)]
struct Trust {
    /// Share of guesses that were right at first.
    rate: f32,
    /// Longest guess that is worth its cost.
    max_draft: usize,
}

impl Trust {
    /// The kinds of agreement that are told apart.
    const CLASSES: usize = 5;

    fn class(agreement: usize) -> usize {
        match agreement {
            0..=1 => 0,
            2 => 1,
            3..=4 => 2,
            5..=8 => 3,
            _ => 4,
        }
    }

    fn learn(&mut self, drafted: usize, accepted: usize) {
        let right = if accepted > 0 { 1.0 } else { 0.0 };
        self.rate += RATE_STEP * (right - self.rate);
        let worth =
            if accepted == drafted { self.max_draft * 2 } else { (self.max_draft + accepted).div_ceil(2) };
        self.max_draft = worth.clamp(1, MAX_DRAFT);
    }
}

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
    /// How far the copy is trusted, in tokens that agreed; each one that did not has divided it by [`DOUBT`].
    agreement: usize,
}

/// Guesses one sequence's tokens.
#[derive(Debug)]
pub(super) struct PromptLookup {
    /// The last place that follows each [`GRAM`] of tokens.
    places: HashMap<[u32; GRAM], usize>,
    /// For each place, the one before it that follows the same tokens; 0 is none.
    earlier: Vec<usize>,
    copy: Option<Copy>,
    /// What to do after an anchor when this token, or any, comes next in the source.
    edits: HashMap<(u32, Option<u32>), Edit>,
    trust: [Trust; Trust::CLASSES],
    /// The class of the last guess.
    class: usize,
    /// Tokens until the next guess that is made in spite of its rate.
    pause: usize,
}

impl PromptLookup {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self {
            places: HashMap::new(),
            earlier: Vec::new(),
            copy: None,
            edits: HashMap::new(),
            trust: [Trust { rate: 0.5, max_draft: FIRST_DRAFT }; Trust::CLASSES],
            class: 0,
            pause: 0,
        }
    }

    /// Appends to `draft` a guess of at most `room` tokens that follow `tokens`, which are those of the last call with
    /// new ones at the end.
    pub(super) fn propose(&mut self, tokens: &[u32], room: usize, draft: &mut Vec<u32>) {
        self.observe(tokens);
        self.class = Trust::class(self.choose_source(tokens));
        let trust = self.trust[self.class];
        if trust.rate >= MIN_RATE {
            self.draft(tokens, room.min(trust.max_draft), draft);
        } else if self.pause == 0 {
            self.draft(tokens, room.min(1), draft);
            // One that finds nothing to guess can be repeated at once.
            self.pause = if draft.is_empty() { 0 } else { RETRY_AFTER };
        }
    }

    /// Takes note of how many tokens of the last guess were right.
    pub(super) fn learn(&mut self, drafted: usize, accepted: usize) {
        if drafted > 0 {
            self.trust[self.class].learn(drafted, accepted);
        }
    }

    /// Indexes the new tokens and follows the copy along them.
    fn observe(&mut self, tokens: &[u32]) {
        let first_call = self.earlier.is_empty();
        // Place `i` is only known by the tokens before it, and is of use when there is a token at it.
        let new = self.earlier.len()..tokens.len();
        self.pause = self.pause.saturating_sub(new.len());
        for place in new {
            let earlier = gram(tokens, place).and_then(|gram| self.places.insert(gram, place));
            self.earlier.push(earlier.unwrap_or(0));
            if !first_call {
                self.follow(tokens, place);
            }
        }
    }

    /// Moves the copy along the token at `index`, and learns from it where it departs from the source.
    fn follow(&mut self, tokens: &[u32], index: usize) {
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

    /// Decides where to copy from, and returns how many of the last tokens agree with it.
    ///
    /// The copy in progress is only given up for a longer agreement: behind an edit, the text before it agrees best with
    /// earlier lines of the copy, and those are not what comes next.
    fn choose_source(&mut self, tokens: &[u32]) -> usize {
        let Some(&anchor) = tokens.last() else { return 0 };
        let mut best = self.copy.as_ref().map_or(0, |copy| copy.agreement);
        let mut place =
            gram(tokens, tokens.len()).and_then(|gram| self.places.get(&gram)).map_or(0, |&place| place);
        for _ in 0..MAX_PLACES {
            if place == 0 {
                break;
            }
            let agreement = agreement(tokens, place);
            if agreement > best {
                best = agreement;
                self.copy = Some(Copy { source: place, anchor, inserted: Vec::new(), agreement });
            }
            place = self.earlier[place];
        }
        best
    }

    /// Copies from the source, through the edits that are known.
    fn draft(&self, tokens: &[u32], max_draft: usize, draft: &mut Vec<u32>) {
        let Some(copy) = &self.copy else { return };
        let (mut source, mut anchor) = (copy.source, copy.anchor);
        let mut done = copy.inserted.len();
        while draft.len() < max_draft && source < tokens.len() {
            if let Some(edit) = self.edit(anchor, tokens[source]) {
                draft.extend(edit.inserted.iter().skip(done));
                source += edit.skipped;
            }
            done = 0;
            let Some(&token) = tokens.get(source) else { break };
            draft.push(token);
            source += 1;
            anchor = token;
        }
        draft.truncate(max_draft);
    }

    fn edit(&self, anchor: u32, next: u32) -> Option<&Edit> {
        self.edits.get(&(anchor, Some(next))).or_else(|| self.edits.get(&(anchor, None)))
    }
}

/// The tokens right before `place`.
fn gram(tokens: &[u32], place: usize) -> Option<[u32; GRAM]> {
    tokens[..place].last_chunk().copied()
}

/// How many tokens before `place` are those at the end.
fn agreement(tokens: &[u32], place: usize) -> usize {
    let pairs = tokens[..place].iter().rev().zip(tokens.iter().rev());
    pairs.take(MAX_AGREEMENT).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `answer` after `prompt`; the steps that took, and how many tokens were guessed in vain.
    fn decode(prompt: &[u32], answer: &[u32]) -> (usize, usize) {
        let mut lookup = PromptLookup::new();
        let mut tokens = prompt.to_vec();
        let (mut steps, mut wasted) = (0, 0);
        while tokens.len() < prompt.len() + answer.len() {
            let left = &answer[tokens.len() - prompt.len()..];
            let mut draft = Vec::new();
            lookup.propose(&tokens, left.len() - 1, &mut draft);
            assert!(draft.len() < left.len());
            let accepted = draft.iter().zip(left).take_while(|(guess, token)| guess == token).count();
            lookup.learn(draft.len(), accepted);
            tokens.extend(&left[..accepted + 1]);
            steps += 1;
            wasted += draft.len() - accepted;
        }
        (steps, wasted)
    }

    fn random(state: &mut u32, below: u32) -> u32 {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 12) % below
    }

    const NEWLINE: u32 = 1;
    const TAB: u32 = 2;
    const PLUS: u32 = 3;
    const MINUS: u32 = 4;
    const SPACE: u32 = 5;
    const FIRST_NUMBER: u32 = 10_000;

    /// Lines of an indentation, eight words, and a newline.
    fn lines(count: usize) -> Vec<Vec<u32>> {
        let mut state = 1;
        let line = |_| {
            let mut line = vec![20 + random(&mut state, 4)];
            line.extend((0..8).map(|_| 100 + random(&mut state, 400)));
            line.push(NEWLINE);
            line
        };
        (0..count).map(line).collect()
    }

    fn numbered(lines: &[Vec<u32>]) -> Vec<u32> {
        let numbered = (FIRST_NUMBER..).zip(lines);
        numbered.flat_map(|(number, line)| [&[number, TAB][..], line].concat()).collect()
    }

    fn marked(lines: &[Vec<u32>], marks: &[u32]) -> Vec<u32> {
        lines
            .iter()
            .zip(marks.iter().cycle())
            .flat_map(|(line, &mark)| [&[mark][..], line].concat())
            .collect()
    }

    #[test]
    fn copies_are_guessed() {
        let lines = lines(60);
        let copied = &lines[20..50];
        let diff = [SPACE, SPACE, SPACE, MINUS, PLUS, SPACE];
        for (what, prompt, answer, tokens_per_step) in [
            ("plain", lines.concat(), copied.concat(), 11.0),
            ("marked", lines.concat(), marked(copied, &[PLUS]), 10.5),
            ("numbered", numbered(&lines), copied.concat(), 11.0),
            ("numbered and marked", numbered(&lines), marked(copied, &[SPACE]), 10.0),
            ("marked as in a diff", lines.concat(), marked(copied, &diff), 8.0),
            ("numbered, and marked as in a diff", numbered(&lines), marked(copied, &diff), 6.0),
        ] {
            let (steps, wasted) = decode(&prompt, &answer);
            let reached = answer.len() as f64 / steps as f64;
            assert!(reached >= tokens_per_step, "{what}: {reached} tokens a step, {wasted} wasted");
        }
    }

    #[test]
    fn text_that_is_not_copied_costs_little() {
        let mut state = 7;
        for vocab_size in [40, 300, 30_000] {
            let mut text = || (0..4000).map(|_| random(&mut state, vocab_size)).collect::<Vec<_>>();
            let (prompt, answer) = (text(), text());
            let (steps, wasted) = decode(&prompt, &answer);
            assert!(wasted * 100 <= 3 * answer.len(), "{wasted} tokens wasted, vocabulary of {vocab_size}");
            assert!(steps <= answer.len());
        }
    }

    #[test]
    fn a_pause_ends_when_copying_starts() {
        let lines = lines(60);
        let mut state = 7;
        let mut answer: Vec<u32> = (0..2000).map(|_| 100 + random(&mut state, 400)).collect();
        let (steps_before, _) = decode(&lines.concat(), &answer);
        answer.extend(lines[20..50].concat());
        let (steps, _) = decode(&lines.concat(), &answer);
        assert!(steps - steps_before < 60, "{} steps for 300 copied tokens", steps - steps_before);
    }

    #[test]
    fn there_is_no_guess_without_room_or_history() {
        let mut draft = Vec::new();
        for (tokens, room) in [(&[][..], 5), (&[1], 5), (&[1, 2, 3, 4, 1, 2, 3], 0), (&[1, 2, 3, 4], 5)] {
            PromptLookup::new().propose(tokens, room, &mut draft);
            assert_eq!(draft, [0u32; 0], "{tokens:?}");
        }
        PromptLookup::new().propose(&[1, 2, 3, 4, 1, 2, 3], 9, &mut draft);
        assert_eq!(draft, [4, 1, 2, 3]);
    }
}
