//! Tokens of a prompt before it is sent: counted as OpenAI does, or estimated.

use std::fmt;

use serde::{Deserialize, Serialize};
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};
use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};

use super::Request;

/// Tokens that a chat format puts around each message, its role included, as OpenAI documents it for GPT-3.5 and GPT-4.
const MESSAGE_OVERHEAD: u64 = 4;
/// Tokens that open the answer.
const ANSWER_OVERHEAD: u64 = 3;
/// What the unpublished formats of other models may add to a whole prompt, for the bound only.
const OVERHEAD_MARGIN: u64 = 64;

/// The longest text that is encoded at once: the splitting expression keeps one stack entry for each character of a run
/// of blanks, and panics at a million.
const LONGEST_PIECE: usize = 256 << 10;

/// An estimate is a token for this many ASCII characters.
const ASCII_CHARS_PER_TOKEN: f64 = 2.8;
/// And this many tokens for each other character.
const TOKENS_PER_OTHER_CHAR: f64 = 1.5;
/// No prompt has more ASCII characters a token: SWE-bench's have at most 5.7.
const MOST_ASCII_CHARS_PER_TOKEN: f64 = 8.0;
/// Nor fewer tokens for another character.
const LEAST_TOKENS_PER_OTHER_CHAR: f64 = 0.25;

/// How a number of tokens came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// tiktoken's `cl100k_base`.
    Cl100k,
    /// tiktoken's `o200k_base`.
    O200k,
    /// The provider's own count.
    Provider,
    /// Estimated from the number of characters.
    Estimate,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cl100k => "cl100k",
            Self::O200k => "o200k",
            Self::Provider => "provider",
            Self::Estimate => "estimate",
        })
    }
}

/// Tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The number, or the estimate of it.
    pub tokens: u64,
    /// What it is at the least, for prompts that are refused unsent.
    pub at_least: u64,
    /// What the number will not pass, for budgets.
    pub at_most: u64,
    /// How it came about.
    pub method: Method,
}

impl Count {
    /// The number that a provider's endpoint for counting gave.
    pub fn from_provider(tokens: u64) -> Self {
        let at_most = tokens.saturating_add(OVERHEAD_MARGIN);
        Self { tokens, at_least: tokens, at_most, method: Method::Provider }
    }

    /// Whether the number is counted, not estimated.
    pub fn is_exact(&self) -> bool {
        self.method != Method::Estimate
    }

    /// Whether the prompt and an answer of `answer` tokens fit into a context of `limit`; one that is unknown takes all.
    pub fn fit(&self, answer: u64, limit: Option<u64>) -> Fit {
        let Some(limit) = limit else { return Fit::Fits };
        let overflow = Overflow { prompt: *self, answer, limit };
        if self.at_least.saturating_add(answer) > limit {
            Fit::Overflows(overflow)
        } else if self.tokens.saturating_add(answer) > limit {
            Fit::Doubtful(overflow)
        } else {
            Fit::Fits
        }
    }
}

/// Whether a prompt with room for its answer is within the model's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It is, as far as is known.
    Fits,
    /// By the estimate it is not, which may be too high.
    Doubtful(Overflow),
    /// It is not.
    Overflows(Overflow),
}

/// A prompt that, with room for its answer, is longer than the model's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// The prompt.
    pub prompt: Count,
    /// The room for the answer.
    pub answer: u64,
    /// The context.
    pub limit: u64,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { tokens, at_least, method, .. } = self.prompt;
        let tokens = match method {
            Method::Estimate => format!("about {tokens} tokens, at least {at_least} (estimate)"),
            method => format!("{tokens} tokens ({method})"),
        };
        write!(
            f,
            "the prompt has {tokens}, which with {} for the answer exceed the context of {}",
            self.answer, self.limit
        )
    }
}

/// Counts the tokens of one model's prompts.
///
/// The vocabulary is loaded at the first count and then shared by the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    method: Method,
}

impl Counter {
    /// The counter for this model: tiktoken where OpenAI publishes which encoding the model has, an estimate otherwise.
    pub fn for_model(model: &str) -> Self {
        let bare = model.strip_prefix("openai/").unwrap_or(model);
        let method = match get_tokenizer(bare) {
            Some(Tokenizer::Cl100kBase) => Method::Cl100k,
            Some(Tokenizer::O200kBase | Tokenizer::O200kHarmony) => Method::O200k,
            _ => Method::Estimate,
        };
        Self { method }
    }

    /// The counter of a published encoding: `cl100k` or `o200k`.
    pub fn of_encoding(name: &str) -> Option<Self> {
        let methods = [("cl100k", Method::Cl100k), ("o200k", Method::O200k)];
        methods.into_iter().find(|(encoding, _)| *encoding == name).map(|(_, method)| Self { method })
    }

    /// The token ids of a text, where the encoding is known; text that spells a special token is ordinary text.
    pub fn ids(&self, text: &str) -> Option<Vec<u32>> {
        let encoding = match self.method {
            Method::Cl100k => cl100k_base_singleton(),
            Method::O200k => o200k_base_singleton(),
            Method::Provider | Method::Estimate => return None,
        };
        Some(pieces(text).flat_map(|piece| encoding.encode_ordinary(piece)).collect())
    }

    /// How this counter counts.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Tokens of a text alone; text that spells a special token, such as `<|endoftext|>`, is ordinary text.
    pub fn text(&self, text: &str) -> Count {
        let exact = match self.method {
            Method::Cl100k => encode(cl100k_base_singleton(), text),
            Method::O200k => encode(o200k_base_singleton(), text),
            Method::Provider | Method::Estimate => return estimate(text),
        };
        Count { tokens: exact, at_least: exact, at_most: exact, method: self.method }
    }

    /// Tokens of a request's prompt, with what the chat format adds.
    pub fn request(&self, request: &Request) -> Count {
        let mut count = Count {
            tokens: ANSWER_OVERHEAD,
            at_least: 0,
            at_most: ANSWER_OVERHEAD + OVERHEAD_MARGIN,
            method: self.method,
        };
        for message in [&request.system, &request.user].into_iter().filter(|message| !message.is_empty()) {
            let message = self.text(message);
            count.tokens += message.tokens + MESSAGE_OVERHEAD;
            count.at_least += message.at_least;
            count.at_most += message.at_most + MESSAGE_OVERHEAD;
        }
        if count.is_exact() {
            count.at_least = count.tokens;
        }
        count
    }
}

/// The number of tokens, in time that grows with the length of the text whatever it holds.
fn encode(encoding: &CoreBPE, text: &str) -> u64 {
    pieces(text).map(|piece| encoding.count_ordinary(piece) as u64).sum()
}

/// The parts of a text that are encoded one after another.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(piece_end(rest));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where the piece that is encoded next ends.
///
/// No token of either encoding joins a letter to a line end behind it, so a cut between the two changes nothing. Text of
/// [`LONGEST_PIECE`] bytes without one such place is cut anywhere, which moves the count by a token or two.
fn piece_end(text: &str) -> usize {
    if text.len() <= LONGEST_PIECE {
        return text.len();
    }
    let joint = |pair: &[u8]| pair[0].is_ascii_alphabetic() && pair[1] == b'\n';
    match text.as_bytes()[..LONGEST_PIECE].windows(2).rposition(joint) {
        Some(letter) => letter + 1,
        None => (0..=LONGEST_PIECE).rfind(|end| text.is_char_boundary(*end)).unwrap_or(text.len()),
    }
}

/// Tokens of a text whose encoding is not known, rather too many than too few.
///
/// SWE-bench's prompts have 3.4 to 5.7 characters a token in `cl100k_base` and `o200k_base`, so that an estimate is 1.2 to
/// 2 times their count; other vocabularies need more tokens. The upper bound that goes with it is the number of bytes, which
/// vocabularies fall back to.
fn estimate(text: &str) -> Count {
    let (mut ascii, mut other) = (0_u64, 0_u64);
    for character in text.chars() {
        *if character.is_ascii() { &mut ascii } else { &mut other } += 1;
    }
    let (ascii, other) = (ascii as f64, other as f64);
    Count {
        tokens: (ascii / ASCII_CHARS_PER_TOKEN + other * TOKENS_PER_OTHER_CHAR).ceil() as u64,
        at_least: (ascii / MOST_ASCII_CHARS_PER_TOKEN + other * LEAST_TOKENS_PER_OTHER_CHAR) as u64,
        at_most: text.len() as u64,
        method: Method::Estimate,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    const EXACT: [Counter; 2] = [Counter { method: Method::Cl100k }, Counter { method: Method::O200k }];
    const ESTIMATE: Counter = Counter { method: Method::Estimate };

    #[test]
    fn the_model_decides_the_method() {
        for (model, method) in [
            ("gpt-4o-2024-08-06", Method::O200k),
            ("openai/gpt-4o", Method::O200k),
            ("gpt-4.1", Method::O200k),
            ("gpt-5.5", Method::O200k),
            ("gpt-4-0613", Method::Cl100k),
            ("gpt-3.5-turbo-1106", Method::Cl100k),
            ("ft:gpt-4o:org::id", Method::O200k),
            ("gpt-6.1-sol", Method::Estimate),
            ("claude-opus-5-5", Method::Estimate),
            ("meta-llama/Llama-3.1-8B", Method::Estimate),
            ("", Method::Estimate),
        ] {
            assert_eq!(Counter::for_model(model).method(), method, "{model}");
        }
    }

    #[test]
    fn known_texts_have_known_counts() {
        for (text, cl100k, o200k) in [
            ("", 0, 0),
            ("hello world", 2, 2),
            ("tiktoken is great!", 6, 6),
            ("<|endoftext|>", 7, 7),
            ("お誕生日おめでとう", 9, 8),
        ] {
            let counts = EXACT.map(|counter| counter.text(text).tokens);
            assert_eq!(counts, [cl100k, o200k], "{text}");
        }
    }

    #[test]
    fn ids_are_those_of_a_named_encoding() {
        let counter = Counter::of_encoding("cl100k").unwrap();
        assert_eq!(counter.ids("tiktoken is great!").unwrap(), [83, 1609, 5963, 374, 2294, 0]);
        assert_eq!(counter.ids("<|endoftext|>").unwrap().len(), 7);
        assert_eq!(ESTIMATE.ids("x"), None);
        assert_eq!(Counter::of_encoding("p50k"), None);
    }

    #[test]
    fn a_request_counts_its_messages_and_their_frame() {
        let mut request = Request { user: "hello world".into(), ..Request::default() };
        let counter = Counter::for_model("gpt-4o");
        assert_eq!(counter.request(&request).tokens, 2 + 4 + 3);
        request.system = "hello world".into();
        assert_eq!(counter.request(&request).tokens, 2 * (2 + 4) + 3);
    }

    #[test]
    fn a_prompt_fits_with_room_for_its_answer() {
        let count = Count::from_provider(90);
        assert_eq!((count.fit(10, Some(100)), count.fit(u64::MAX, None)), (Fit::Fits, Fit::Fits));
        let Fit::Overflows(overflow) = count.fit(11, Some(100)) else { panic!("it fits") };
        assert_eq!(
            overflow.to_string(),
            "the prompt has 90 tokens (provider), which with 11 for the answer exceed the context of 100"
        );
        assert!(matches!(count.fit(u64::MAX, Some(u64::MAX - 1)), Fit::Overflows(_)));
    }

    #[test]
    fn an_estimate_refuses_only_what_is_surely_too_long() {
        let count = ESTIMATE.text(&"x".repeat(8_000));
        assert_eq!((count.at_least, count.tokens), (1_000, 2_858));
        assert_eq!(count.fit(0, Some(2_858)), Fit::Fits);
        assert!(matches!(count.fit(1, Some(2_858)), Fit::Doubtful(_)));
        let Fit::Overflows(overflow) = count.fit(0, Some(999)) else { panic!("it may fit") };
        assert!(overflow.to_string().contains("about 2858 tokens, at least 1000 (estimate)"), "{overflow}");
    }

    #[test]
    fn long_runs_are_counted_in_time_without_a_panic() {
        for counter in EXACT {
            counter.text("the vocabulary is loaded before the clock runs");
            for unit in [" ", "\t", "\n", " \n", "a", "A", "=", "0", "aA", "e\u{301}", "中", "\u{3000}", "😀"]
            {
                let text = unit.repeat(1_500_000 / unit.len());
                let start = Instant::now();
                let count = counter.text(&text);
                assert!(count.tokens > 0 && count.tokens <= text.len() as u64, "{unit:?}");
                assert!(start.elapsed() < Duration::from_secs(60), "{unit:?} took {:?}", start.elapsed());
            }
        }
    }

    #[test]
    fn cutting_at_line_ends_changes_no_count() {
        let line = "    def f(self, x):  # it's a \"test\" of 1234 things\n\n\n\tpass\r\n  return x\n== \n";
        let text = line.repeat(LONGEST_PIECE * 3 / line.len());
        for (counter, encoding) in EXACT.into_iter().zip([cl100k_base_singleton(), o200k_base_singleton()]) {
            assert_eq!(counter.text(&text).tokens, encoding.count_ordinary(&text) as u64);
            assert_eq!(counter.ids(&text).unwrap(), encoding.encode_ordinary(&text));
        }
    }

    #[test]
    fn estimates_of_code_are_on_the_safe_side() {
        for text in [
            include_str!("count.rs"),
            include_str!("prices/builtin.json"),
            include_str!("../../README.md"),
            include_str!("../../tests/data/make_datasets.py"),
        ] {
            for counter in EXACT {
                let (estimate, counted) = (ESTIMATE.text(text), counter.text(text).tokens);
                let ratio = estimate.tokens as f64 / counted as f64;
                assert!((1.0..2.0).contains(&ratio), "{ratio} of {} characters", text.len());
                assert!(estimate.at_least <= counted, "{} of {counted}", estimate.at_least);
            }
        }
    }

    proptest! {
        #[test]
        fn no_count_passes_its_bound(text in "\\PC{0,300}") {
            for counter in EXACT {
                prop_assert!(counter.text(&text).tokens <= ESTIMATE.text(&text).at_most);
            }
            let estimate = ESTIMATE.text(&text);
            prop_assert!(estimate.at_least <= estimate.tokens && estimate.tokens <= estimate.at_most.max(1));
        }

        #[test]
        fn cuts_are_on_characters_and_make_progress(unit in "\\PC{1,4}", letters in "[a-z\n]{0,4}") {
            let text = format!("{unit}{letters}").repeat(LONGEST_PIECE / 2);
            let end = piece_end(&text);
            prop_assert!(end > 0 && end <= text.len() && text.is_char_boundary(end));
        }
    }
}
