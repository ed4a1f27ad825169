//! Prompt lookup decoding: guesses the next tokens by copying what followed the same tokens earlier.
//!
//! Three sources foretell each token of a guess: the sequence's own text ([`Places`]), the answers that the engine has
//! finished ([`Answers`]), and the copy in progress ([`Copying`]), which sees through what a diff changes in every line.
//! How often forecasts of their kinds were right ([`Trust`]) decides between them; the guess ends where the chance falls
//! below what a row costs ([`RowCost`](super::row_cost::RowCost)).
//! After Saxena, "Prompt Lookup Decoding", 2023.

mod answers;
mod copy;
mod places;
mod trust;

pub(super) use answers::Answers;

use copy::{Copying, Next};
use places::{Match, Places};
use trust::{Class, Source, Trust};

/// Longest guess: with the token before it, sixteen rows, the height of a matrix tile.
const MAX_DRAFT: usize = 15;
/// Least agreement of a copy that is asked: of shorter ones the text itself knows as much.
const MIN_AGREEMENT: usize = 4;

/// What a source says about one token.
#[derive(Debug, Clone, Copy)]
struct Forecast {
    /// Which of the tokens to come, from 0.
    ahead: usize,
    token: u32,
    class: Class,
}

/// Guesses one sequence's tokens.
#[derive(Debug)]
pub(super) struct PromptLookup {
    places: Places,
    copying: Copying,
    trust: Trust,
    /// Tokens of the last call.
    seen: usize,
    /// What was said then about those that follow, each under the condition that the guess is right before it.
    forecasts: Vec<Forecast>,
    guess: Vec<u32>,
    /// Where the last tokens occur before.
    found: Option<Match>,
    /// What the copy says comes next.
    copied: Vec<Next>,
}

impl PromptLookup {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self {
            places: Places::default(),
            copying: Copying::default(),
            trust: Trust::new(),
            seen: 0,
            forecasts: Vec::new(),
            guess: Vec::new(),
            found: None,
            copied: Vec::new(),
        }
    }

    /// A guess of at most `room` tokens that follow `tokens`, which are those of the last call with new ones at the end.
    ///
    /// It ends where the chance that a token is right, with all before it, falls below `min_chance`.
    pub(super) fn propose(
        &mut self,
        answers: &Answers,
        tokens: &[u32],
        room: usize,
        min_chance: f32,
    ) -> &[u32] {
        self.observe(tokens);
        self.guess.clear();
        let mut chance = 1.0;
        while self.guess.len() < room.min(MAX_DRAFT) {
            let Some((token, token_chance)) = self.choose(answers, tokens) else { break };
            chance *= token_chance;
            if chance < min_chance {
                break;
            }
            self.guess.push(token);
        }
        &self.guess
    }

    /// Learns from the new tokens.
    fn observe(&mut self, tokens: &[u32]) {
        let new = &tokens[self.seen..];
        let right = self.guess.iter().zip(new).take_while(|(guess, token)| guess == token).count();
        for &Forecast { ahead, token, class } in &self.forecasts {
            if let Some(&actual) = new.get(ahead).filter(|_| ahead <= right) {
                self.trust.learn(class, token == actual);
            }
        }
        self.forecasts.clear();
        self.places.extend(tokens);
        for index in self.seen..tokens.len() {
            self.copying.follow(tokens, index);
        }
        self.seen = tokens.len();
        self.found = self.places.find(tokens, tokens, &[]);
        if let (Some(found), Some(&last)) = (self.found, tokens.last()) {
            self.copying.consider(found, last);
        }
        self.copied.clear();
        if self.copying.agreement() >= MIN_AGREEMENT {
            self.copying.foretell(tokens, MAX_DRAFT, &mut self.copied);
        }
    }

    /// The token that is the most likely to follow the guess so far, and its chance.
    fn choose(&mut self, answers: &Answers, tokens: &[u32]) -> Option<(u32, f32)> {
        let ahead = self.guess.len();
        let found = match ahead {
            0 => self.found,
            _ => self.places.find(tokens, tokens, &self.guess),
        };
        let text = found.map(|found| {
            let source = Source::Text { contested: found.contested };
            Forecast { ahead, token: tokens[found.place], class: Class::new(source, found.agreement) }
        });
        let answer = answers.find(tokens, &self.guess).map(|(token, found)| {
            let source = Source::Answers { contested: found.contested };
            Forecast { ahead, token, class: Class::new(source, found.agreement) }
        });
        let forecasts = [text, answer, self.foretell_copy(ahead)];
        let first = self.forecasts.len();
        self.forecasts.extend(forecasts.into_iter().flatten());
        let chances = self.forecasts[first..]
            .iter()
            .map(|forecast| (forecast.token, self.trust.chance(forecast.class)));
        chances.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// What the copy says, if the guess has followed it so far.
    fn foretell_copy(&self, ahead: usize) -> Option<Forecast> {
        let agreement = self.copying.agreement();
        let next = self.copied.get(ahead)?;
        let followed = self.guess.iter().zip(&self.copied).all(|(token, next)| *token == next.token);
        let class = Class::new(Source::Copy { edited: next.edited }, agreement);
        followed.then_some(Forecast { ahead, token: next.token, class })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row is worth to models of a billion parameters and more.
    const MIN_CHANCE: f32 = 0.1;

    /// Decodes `answer` after `prompt`; the steps that took, and how many tokens were guessed in vain.
    fn decode(prompt: &[u32], answer: &[u32]) -> (usize, usize) {
        let (mut lookup, answers) = (PromptLookup::new(), Answers::default());
        let mut tokens = prompt.to_vec();
        let (mut steps, mut wasted) = (0, 0);
        while tokens.len() < prompt.len() + answer.len() {
            let left = &answer[tokens.len() - prompt.len()..];
            let draft = lookup.propose(&answers, &tokens, left.len() - 1, MIN_CHANCE);
            assert!(draft.len() < left.len());
            let accepted = draft.iter().zip(left).take_while(|(guess, token)| guess == token).count();
            steps += 1;
            wasted += draft.len() - accepted;
            tokens.extend(&left[..accepted + 1]);
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
            ("plain", lines.concat(), copied.concat(), 13.0),
            ("marked", lines.concat(), marked(copied, &[PLUS]), 9.0),
            ("numbered", numbered(&lines), copied.concat(), 12.5),
            ("numbered and marked", numbered(&lines), marked(copied, &[SPACE]), 9.0),
            ("marked as in a diff", lines.concat(), marked(copied, &diff), 6.0),
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
            assert!(wasted * 100 <= 10 * answer.len(), "{wasted} tokens wasted, vocabulary of {vocab_size}");
            assert!(steps <= answer.len());
        }
    }

    #[test]
    fn guessing_resumes_when_copying_starts() {
        let lines = lines(60);
        let mut state = 7;
        let mut answer: Vec<u32> = (0..2000).map(|_| 100 + random(&mut state, 400)).collect();
        let (steps_before, _) = decode(&lines.concat(), &answer);
        answer.extend(lines[20..50].concat());
        let (steps, _) = decode(&lines.concat(), &answer);
        assert!(steps - steps_before < 60, "{} steps for 300 copied tokens", steps - steps_before);
    }

    #[test]
    fn what_answers_share_is_guessed() {
        // Nothing of the form is in the prompt.
        let (form, prompt) = (lines(20).concat(), vec![NEWLINE; 9]);
        let mut answers = Answers::default();
        answers.push(&form);
        let (mut lookup, mut tokens, mut right) = (PromptLookup::new(), prompt, 0);
        for &token in &form {
            right += usize::from(lookup.propose(&answers, &tokens, 1, MIN_CHANCE).first() == Some(&token));
            tokens.push(token);
        }
        assert!(right * 10 >= form.len() * 9, "{right} of {}", form.len());
    }

    #[test]
    fn there_is_no_guess_without_room_or_history() {
        let answers = Answers::default();
        for (tokens, room) in [(&[][..], 5), (&[1], 5), (&[1, 2, 3, 4, 1, 2, 3], 0), (&[1, 2, 3, 4], 5)] {
            assert_eq!(
                PromptLookup::new().propose(&answers, tokens, room, MIN_CHANCE),
                [0u32; 0],
                "{tokens:?}"
            );
        }
        assert_eq!(
            PromptLookup::new().propose(&answers, &[1, 2, 3, 4, 1, 2, 3], 6, MIN_CHANCE),
            [4, 1, 2, 3, 4, 1]
        );
    }
}
