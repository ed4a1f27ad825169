//! Takes keys out of text that came from elsewhere: servers echo what they were sent, whole or with a few characters starred.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{NoExpand, Regex};

/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// Shorter header values are words, such as `true`, that appear in any text.
const MIN_LEN: usize = 6;

/// What keys look like, and what is left of them when some of their characters are starred.
#[expect(clippy::expect_used, reason = "the pattern is a constant that every test of this module compiles")]
static KEY_LIKE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\bsk-[\w-]{6,}|[\w-]*\*{3,}[\w*-]*|(?i:\bbearer\s+)[\w.~+/=-]{16,}")
        .expect("a valid pattern")
});

/// Knows a client's secrets.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// One that removes these besides everything that looks like a key.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<String> =
            secrets.into_iter().filter(|secret| secret.len() >= MIN_LEN).map(str::to_owned).collect();
        // A secret may be part of another one.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// The text without secrets.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), REDACTED));
            }
        }
        KEY_LIKE.replace_all(&text, NoExpand(REDACTED)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_removed_whole_and_starred() {
        let redactor = Redactor::new(["local-key-42", "local-key-42-longer", "yes"]);
        for (text, expected) in [
            ("bad key local-key-42.", "bad key [redacted]."),
            ("bad key local-key-42-longer", "bad key [redacted]"),
            ("yes, said the server", "yes, said the server"),
            ("Incorrect API key provided: sk-ab***********wxyz.", "Incorrect API key provided: [redacted]."),
            ("sk-ant-api03-AbCdEf_123 is revoked", "[redacted] is revoked"),
            ("got Bearer eyJhbGciOi.J9.abcdefgh", "got [redacted]"),
            ("the task-force failed", "the task-force failed"),
        ] {
            assert_eq!(redactor.scrub(text), expected);
        }
    }
}
