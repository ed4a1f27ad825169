//! Stop rules that look at generated tokens and text: stop strings and repetition.

use std::collections::HashMap;
use std::collections::VecDeque;

/// Generated tokens that the repetition rule looks back on.
const REPETITION_WINDOW: usize = 100;

/// Counts the distinct tokens of the last [`REPETITION_WINDOW`] generated ones, in constant time a token.
#[derive(Debug)]
pub(super) struct Repetition {
    max_distinct: usize,
    window: VecDeque<u32>,
    counts: HashMap<u32, usize>,
}

impl Repetition {
    /// A rule that fires when a full window holds at most `max_distinct` distinct tokens; 0 never fires.
    pub(super) fn new(max_distinct: usize) -> Self {
        Self { max_distinct, window: VecDeque::new(), counts: HashMap::new() }
    }

    /// Adds a token and returns whether the text repeats itself.
    pub(super) fn push(&mut self, token: u32) -> bool {
        if self.max_distinct == 0 {
            return false;
        }
        if self.window.len() == REPETITION_WINDOW
            && let Some(oldest) = self.window.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.window.push_back(token);
        *self.counts.entry(token).or_default() += 1;
        self.window.len() == REPETITION_WINDOW && self.counts.len() <= self.max_distinct
    }
}

/// Looks for stop strings in text that arrives in pieces, and holds back what could still become one.
///
/// The string that is complete first wins (of several, the longest), so the result does not depend on how the text was cut into pieces.
#[derive(Debug)]
pub(super) struct StopStrings {
    matchers: Vec<Matcher>,
    /// Text that is not released: its end is the beginning of a stop string.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// No stop string; this text is certain not to be part of one.
    Text(String),
    /// A stop string was found; this is the text before it.
    Stop(String),
}

impl StopStrings {
    /// Looks for `strings`, none of them empty.
    pub(super) fn new(strings: &[String]) -> Self {
        Self { matchers: strings.iter().map(|string| Matcher::new(string)).collect(), held: String::new() }
    }

    /// Adds a piece of text.
    pub(super) fn push(&mut self, piece: &str) -> Scan {
        let start = self.held.len();
        self.held.push_str(piece);
        for (index, byte) in piece.bytes().enumerate() {
            let longest = self.matchers.iter_mut().filter_map(|matcher| matcher.push(byte)).max();
            if let Some(length) = longest {
                self.held.truncate(start + index + 1 - length);
                return Scan::Stop(self.finish());
            }
        }
        let keep = self.matchers.iter().map(|matcher| matcher.matched).max().unwrap_or(0);
        // A beginning of a stop string begins with a character's first byte, so this is a character boundary.
        let held = self.held.split_off(self.held.len() - keep);
        Scan::Text(std::mem::replace(&mut self.held, held))
    }

    /// The text held back, when no more comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The Knuth-Morris-Pratt automaton of one stop string: constant time a byte, however long the string.
#[derive(Debug)]
struct Matcher {
    pattern: Vec<u8>,
    /// For each prefix `pattern[..=i]`, the length of its longest proper border.
    borders: Vec<usize>,
    /// Length of the longest prefix of the pattern that the text ends with.
    matched: usize,
}

impl Matcher {
    fn new(string: &str) -> Self {
        let pattern = string.as_bytes().to_vec();
        assert!(!pattern.is_empty(), "an empty stop string matches everywhere");
        let mut borders = vec![0; pattern.len()];
        for index in 1..pattern.len() {
            borders[index] = extend(&pattern, &borders, borders[index - 1], pattern[index]);
        }
        Self { pattern, borders, matched: 0 }
    }

    /// Adds a byte; the pattern's length when it is now complete.
    fn push(&mut self, byte: u8) -> Option<usize> {
        self.matched = extend(&self.pattern, &self.borders, self.matched, byte);
        (self.matched == self.pattern.len()).then_some(self.matched)
    }
}

/// The longest prefix of `pattern` that ends a text which ended with `matched` bytes of it before `byte` came.
fn extend(pattern: &[u8], borders: &[usize], mut matched: usize, byte: u8) -> usize {
    while matched > 0 && pattern[matched] != byte {
        matched = borders[matched - 1];
    }
    if pattern[matched] == byte { matched + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `pieces`; the pieces released, the rest at the end, and whether a stop string was found.
    fn scan(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut stops = StopStrings::new(&stops);
        let mut released = Vec::new();
        for piece in pieces {
            match stops.push(piece) {
                Scan::Text(text) => released.push(text),
                Scan::Stop(text) => {
                    released.push(text);
                    return (released, true);
                }
            }
        }
        released.push(stops.finish());
        (released, false)
    }

    #[test]
    fn text_is_released_as_soon_as_it_cannot_be_a_stop_string() {
        for (stops, pieces, released, stopped) in [
            (&[][..], &["a", "b"][..], &["a", "b", ""][..], false),
            (&["</s>"], &["x<", "/s", ">y"], &["x", "", ""], true),
            (&["</s>"], &["x<", "/", "p>"], &["x", "", "</p>", ""], false),
            (&["</s>"], &["x<"], &["x", "<"], false),
            (&["aab"], &["a", "a", "a", "b"], &["", "", "a", ""], true),
            (&["xaby", "ab"], &["xaby"], &["x"], true),
            (&["xaby", "ab"], &["xa", "b", "y"], &["", "x"], true),
            (&["b", "ab"], &["za", "b"], &["z", ""], true),
            (&["é!"], &["aé", "é!"], &["a", "é"], true),
            (&["```\n"], &["``", "`", "`", "\n"], &["", "", "`", ""], true),
        ] {
            let released: Vec<String> = released.iter().map(|text| text.to_string()).collect();
            assert_eq!(scan(stops, pieces), (released, stopped), "{stops:?} in {pieces:?}");
        }
    }

    proptest::proptest! {
        /// However the text is cut, the released text is the one before the stop string that is complete first.
        #[test]
        fn cuts_do_not_matter(
            text in "[abé]{0,40}",
            stops in proptest::collection::vec("[abé]{1,4}", 0..3),
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let end_of = |stop: &String| text.find(stop.as_str()).map(|start| (start + stop.len(), start));
            let expected = stops.iter().filter_map(end_of).min().map_or(text.as_str(), |(_, start)| &text[..start]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (released, _) = scan(&stops, &pieces);
            proptest::prop_assert_eq!(released.concat(), expected);
        }
    }

    #[test]
    fn repetition_needs_a_full_window_of_few_distinct_tokens() {
        // (tokens before the loop, period of the loop, limit, tokens pushed when it fires)
        for (lead, period, max_distinct, fires_at) in [
            (0, 10, 10, Some(100)),
            (0, 11, 10, None),
            (0, 1, 1, Some(100)),
            (50, 10, 10, Some(150)),
            (0, 1, 0, None),
        ] {
            let mut repetition = Repetition::new(max_distinct);
            let tokens = (1000..1000 + lead).chain((0..400).map(|index| index % period));
            let fired = tokens.into_iter().position(|token| repetition.push(token)).map(|index| index + 1);
            assert_eq!(fired, fires_at, "lead {lead}, period {period}, limit {max_distinct}");
        }
    }

    proptest::proptest! {
        #[test]
        fn repetition_agrees_with_counting(tokens in proptest::collection::vec(0u32..8, 0..300), limit in 1usize..8) {
            let mut repetition = Repetition::new(limit);
            for (index, token) in tokens.iter().enumerate() {
                let window = &tokens[(index + 1).saturating_sub(REPETITION_WINDOW)..=index];
                let distinct = window.iter().collect::<std::collections::HashSet<_>>().len();
                let expected = window.len() == REPETITION_WINDOW && distinct <= limit;
                proptest::prop_assert_eq!(repetition.push(*token), expected);
            }
        }
    }
}
