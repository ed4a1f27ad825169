//! Where the end of a text, or a part of it, occurs in a text that grows.

use std::collections::HashMap;

/// Most places that are compared, the last ones: what was written long ago says less about what comes next.
const MAX_PLACES: usize = 16;
/// Most tokens by which agreement is measured.
pub(super) const MAX_AGREEMENT: usize = 32;

/// For each token of a text, the places that follow it.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The last place that follows each token.
    last: HashMap<u32, usize>,
    /// For each place, the one before it that follows the same token; 0 is none.
    earlier: Vec<usize>,
}

/// The place that follows the longest agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) place: usize,
    /// How many tokens before it agree, at most [`MAX_AGREEMENT`].
    pub(super) agreement: usize,
    /// Whether another token follows at least half as long an agreement.
    pub(super) contested: bool,
}

impl Places {
    /// Adds the places of `text`, which is that of the last call with tokens at the end.
    pub(super) fn extend(&mut self, text: &[u32]) {
        for place in self.earlier.len()..text.len() {
            let before = place.checked_sub(1).and_then(|index| self.last.insert(text[index], place));
            self.earlier.push(before.unwrap_or(0));
        }
    }

    /// Where in `text`, all of whose places are known, the end of `tokens` and then `draft` occurs.
    pub(super) fn find(&self, text: &[u32], tokens: &[u32], draft: &[u32]) -> Option<Match> {
        let end = || draft.iter().rev().chain(tokens.iter().rev());
        let mut place = *self.last.get(end().next()?)?;
        let mut found = [(0, 0); MAX_PLACES];
        let mut count = 0;
        while place != 0 && count < MAX_PLACES {
            let pairs = text[..place].iter().rev().zip(end());
            found[count] = (place, pairs.take(MAX_AGREEMENT).take_while(|(a, b)| a == b).count());
            count += 1;
            place = self.earlier[place];
        }
        let found = &found[..count];
        // Of equal agreements the last place, which is the first one here.
        let &(place, agreement) = found.iter().rev().max_by_key(|(_, agreement)| agreement)?;
        let contested =
            found.iter().any(|&(other, length)| text[other] != text[place] && length * 2 >= agreement);
        Some(Match { place, agreement, contested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_agreement_is_found() {
        for (text, draft, expected) in [
            (&[1, 2, 3, 9, 2, 3][..], &[][..], Some((3, 2, false))),
            (&[1, 2, 3, 9, 2, 3], &[9], Some((4, 3, false))),
            (&[1, 2, 3, 9, 2, 3], &[9, 2, 3], Some((3, 2, false))),
            // Of equal agreements the last one; of tokens that agree less, those of half the length count.
            (&[5, 1, 6, 1, 7, 1], &[], Some((4, 1, true))),
            (&[8, 4, 3, 2, 9, 1, 2, 5, 8, 4, 3, 2], &[], Some((4, 4, false))),
            (&[8, 4, 3, 2, 9, 3, 2, 5, 8, 4, 3, 2], &[], Some((4, 4, true))),
            (&[5, 1, 6, 1, 6, 1], &[], Some((4, 3, false))),
            (&[1, 2, 3], &[], None),
            (&[1, 2, 3], &[7], None),
            (&[], &[], None),
        ] {
            let mut places = Places::default();
            places.extend(&text[..text.len() / 2]);
            places.extend(text);
            let expected =
                expected.map(|(place, agreement, contested)| Match { place, agreement, contested });
            assert_eq!(places.find(text, text, draft), expected, "{text:?} {draft:?}");
        }
    }

    #[test]
    fn agreement_and_places_are_bounded() {
        let mut text = vec![7; 100];
        let mut places = Places::default();
        places.extend(&text);
        let found = Match { place: 99, agreement: MAX_AGREEMENT, contested: false };
        assert_eq!(places.find(&text, &text, &[]), Some(found));
        // The only place where two tokens agree is behind too many others.
        text = [8, 7, 1].into_iter().chain([7, 2].into_iter().cycle().take(2 * MAX_PLACES)).collect();
        places = Places::default();
        places.extend(&text);
        assert_eq!(places.find(&text, &[8, 7], &[]).map(|found| found.agreement), Some(1));
    }
}
