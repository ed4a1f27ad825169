//! What an engine's answers have in common: the last ones that it has finished.

use super::places::{Match, Places};

/// Most tokens that are kept.
const MAX_TOKENS: usize = 1 << 16;

/// Tokens of finished answers, one after the other.
#[derive(Debug, Default)]
pub(in crate::engine) struct Answers {
    tokens: Vec<u32>,
    places: Places,
}

impl Answers {
    /// Adds an answer; the oldest half is forgotten when there are too many tokens.
    pub(in crate::engine) fn push(&mut self, answer: &[u32]) {
        self.tokens.extend(answer);
        if self.tokens.len() > MAX_TOKENS {
            self.tokens.drain(..self.tokens.len() - MAX_TOKENS / 2);
            self.places = Places::default();
        }
        self.places.extend(&self.tokens);
    }

    /// What followed the end of `tokens` and then `draft`.
    pub(super) fn find(&self, tokens: &[u32], draft: &[u32]) -> Option<(u32, Match)> {
        let found = self.places.find(&self.tokens, tokens, draft)?;
        Some((self.tokens[found.place], found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answers_are_kept() {
        let mut answers = Answers::default();
        answers.push(&[1, 2, 3, 4]);
        assert_eq!(answers.find(&[9, 2], &[3]).map(|(token, found)| (token, found.agreement)), Some((4, 2)));
        answers.push(&[2, 3, 5]);
        assert_eq!(
            answers.find(&[9, 2], &[3]).map(|(token, found)| (token, found.contested)),
            Some((5, true))
        );
        answers.push(&vec![7; MAX_TOKENS]);
        assert_eq!(answers.tokens.len(), MAX_TOKENS / 2);
        assert_eq!(answers.find(&[9, 2], &[3]), None);
        assert_eq!(answers.find(&[7], &[]).map(|(token, _)| token), Some(7));
    }
}
