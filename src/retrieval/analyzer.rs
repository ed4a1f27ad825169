//! Words to terms, as Lucene's `EnglishAnalyzer`: possessive, lower case, stop words, stem.

use super::porter::stem;
use super::words::for_each_word;

/// Lucene's English stop words, by length.
const STOP_WORDS: [&[&str]; 6] = [
    &[],
    &["a"],
    &["an", "as", "at", "be", "by", "if", "in", "is", "it", "no", "of", "on", "or", "to"],
    &["and", "are", "but", "for", "not", "the", "was"],
    &["into", "such", "that", "then", "they", "this", "will", "with"],
    &["their", "there", "these"],
];

/// Calls `visit` with the UTF-8 of each term of `text`, repeated ones included.
pub(super) fn for_each_term(text: &str, mut visit: impl FnMut(&[u8])) {
    let mut bytes: Vec<u8> = Vec::new();
    let mut characters: Vec<char> = Vec::new();
    for_each_word(text, |word| {
        let word = without_possessive(word);
        bytes.clear();
        if word.is_ascii() {
            bytes.extend(word.bytes().map(|byte| byte.to_ascii_lowercase()));
        } else {
            // Character by character, as Java's `Character.toLowerCase` does, which never makes two of one.
            for lower in word.chars().filter_map(|character| character.to_lowercase().next()) {
                bytes.extend(lower.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        if bytes.is_empty() || is_stop_word(&bytes) {
            return;
        }
        if bytes.is_ascii() {
            stem(&mut bytes);
        } else {
            characters.clear();
            characters.extend(String::from_utf8_lossy(&bytes).chars());
            stem(&mut characters);
            bytes.clear();
            bytes.extend(characters.iter().collect::<String>().bytes());
        }
        visit(&bytes);
    });
}

fn is_stop_word(word: &[u8]) -> bool {
    STOP_WORDS.get(word.len()).is_some_and(|words| words.iter().any(|stop| stop.as_bytes() == word))
}

fn without_possessive(word: &str) -> &str {
    word.strip_suffix(['s', 'S'])
        .and_then(|rest| rest.strip_suffix(['\'', '\u{2019}', '\u{ff07}']))
        .unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_stems_of_lower_case_words() {
        #[track_caller]
        fn check(text: &str, expected: &[&str]) {
            let mut terms = Vec::new();
            for_each_term(text, |term| terms.push(String::from_utf8(term.to_vec()).unwrap()));
            assert_eq!(terms, expected, "{text:?}");
        }
        check("The parser's tests are FAILING", &["parser", "test", "fail"]);
        check("It is what it is: an issue", &["what", "issu"]);
        check("the user\u{2019}s caf\u{c9}S \u{130}x", &["user", "caf\u{e9}", "ix"]);
        check("'s I's", &["s", "i"]);
        check("", &[]);
    }

    #[test]
    fn there_are_33_stop_words() {
        assert_eq!(STOP_WORDS.iter().map(|words| words.len()).sum::<usize>(), 33);
        for (length, words) in STOP_WORDS.iter().enumerate() {
            assert!(words.iter().all(|word| word.len() == length));
        }
    }
}
