//! Text to words, as Lucene's `StandardTokenizer` has them: Unicode's word boundaries (UAX #29) without what is no word.

use std::sync::LazyLock;

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;

/// Longer words are cut into pieces of this many characters.
const MAX_CHARACTERS: usize = 255;

/// Calls `visit` with each word of `text`.
pub(super) fn for_each_word(text: &str, mut visit: impl FnMut(&str)) {
    // No word goes on over white space.
    for piece in text.split_ascii_whitespace() {
        if piece.is_ascii() { ascii_words(piece, &mut visit) } else { unicode_words(piece, &mut visit) }
    }
}

/// The same rules for ASCII alone, where source code is, and where they are few.
fn ascii_words(piece: &str, visit: &mut impl FnMut(&str)) {
    let bytes = piece.as_bytes();
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut start = 0;
    while start < bytes.len() {
        if !is_part(bytes[start]) {
            start += 1;
            continue;
        }
        let mut end = start;
        let mut is_word = false;
        while end < bytes.len() && end - start < MAX_CHARACTERS {
            let byte = bytes[end];
            if is_part(byte) {
                is_word |= byte != b'_';
            } else if end + 1 - start == MAX_CHARACTERS
                || !bytes.get(end + 1).is_some_and(|&next| joins(bytes[end - 1], byte, next))
            {
                break;
            }
            end += 1;
        }
        if is_word {
            visit(&piece[start..end]);
        }
        start = end;
    }
}

/// Whether `middle` belongs to the word of its neighbours: `3.14`, `1,000`, `os.path`, `don't`, `a:b`.
fn joins(before: u8, middle: u8, after: u8) -> bool {
    match middle {
        b'.' | b'\'' => {
            (before.is_ascii_alphabetic() && after.is_ascii_alphabetic())
                || (before.is_ascii_digit() && after.is_ascii_digit())
        }
        b':' => before.is_ascii_alphabetic() && after.is_ascii_alphabetic(),
        b',' | b';' => before.is_ascii_digit() && after.is_ascii_digit(),
        _ => false,
    }
}

fn unicode_words(piece: &str, visit: &mut impl FnMut(&str)) {
    for segment in piece.split_word_bounds().filter(|segment| is_word(segment)) {
        let mut rest = segment;
        while let Some((cut, _)) = rest.char_indices().nth(MAX_CHARACTERS) {
            visit(&rest[..cut]);
            rest = &rest[cut..];
        }
        visit(rest);
    }
}

/// Letters, decimal digits and pictures make words; superscripts and circled digits, which are numbers, do not.
fn is_word(segment: &str) -> bool {
    static DIGIT_OR_PICTURE: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\p{Nd}|^\p{Extended_Pictographic}|^\p{Regional_Indicator}{2}").ok());
    segment.chars().any(char::is_alphabetic)
        || DIGIT_OR_PICTURE.as_ref().is_some_and(|pattern| pattern.is_match(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn words_are_those_of_unicode() {
        #[track_caller]
        fn check(text: &str, expected: &[&str]) {
            assert_eq!(words(text), expected, "{text:?}");
        }
        check("def foo_bar(self, x=3.14):", &["def", "foo_bar", "self", "x", "3.14"]);
        check("os.path.join('a','b')", &["os.path.join", "a", "b"]);
        check("x[a:b] 1:2 a.1 1.a v1.0", &["x", "a:b", "1", "2", "a", "1", "1", "a", "v1.0"]);
        check("don't ___ __init__ 'x' a'", &["don't", "__init__", "x", "a"]);
        check("1,000;2 a,b a;b 1. .5", &["1,000;2", "a", "b", "a", "b", "1", "5"]);
        check("a..b a_.b", &["a", "b", "a_", "b"]);
        check("na\u{ef}ve caf\u{e9}s x\u{b2}", &["na\u{ef}ve", "caf\u{e9}s", "x"]);
        check("\u{a9} 2020 \u{2194} \u{1f600}!", &["\u{a9}", "2020", "\u{2194}", "\u{1f600}"]);
        check("\u{4e2d}\u{6587} \u{661}\u{662} \u{2460}", &["\u{4e2d}", "\u{6587}", "\u{661}\u{662}"]);
        check("", &[]);
    }

    #[test]
    fn long_words_are_cut() {
        let lengths = |text: &str| words(text).iter().map(|word| word.chars().count()).collect::<Vec<_>>();
        assert_eq!(lengths(&"a".repeat(600)), [255, 255, 90]);
        assert_eq!(lengths(&"\u{e9}".repeat(600)), [255, 255, 90]);
        assert_eq!(lengths(&format!("{}.b", "a".repeat(254))), [254, 1]);
        assert_eq!(lengths(&"_".repeat(600)), [0; 0]);
    }

    #[test]
    fn the_rules_for_ascii_are_those_of_unicode() {
        let alphabet = b"ab1_.,:;'\"-(";
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let text: String = (0..8)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    char::from(alphabet[(state >> 33) as usize % alphabet.len()])
                })
                .collect();
            let mut expected = Vec::new();
            unicode_words(&text, &mut |word: &str| expected.push(word.to_owned()));
            assert_eq!(words(&text), expected, "{text}");
        }
    }
}
