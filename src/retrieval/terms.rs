//! The terms of a text with their counts, which is all that ranking needs to know of it.

use super::analyzer::for_each_term;

/// A term's FNV-1a hash. Among a million terms the chance that any two share one is 3 in 100 million.
pub(super) type TermHash = u64;

/// Where FNV-1a begins.
pub(super) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The distinct terms of a text, by hash in ascending order, each with how often it occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    pub(super) counts: Vec<(TermHash, u32)>,
    /// All occurrences.
    pub(super) len: u32,
}

impl Terms {
    /// The terms of `text`.
    pub fn of(text: &str) -> Self {
        let mut hashes = Vec::with_capacity(text.len() / 8);
        for_each_term(text, |term| hashes.push(fnv(FNV_START, term)));
        hashes.sort_unstable();
        let len = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        let counts = hashes.chunk_by(|a, b| a == b);
        let counts = counts.map(|run| (run[0], u32::try_from(run.len()).unwrap_or(u32::MAX))).collect();
        Self { counts, len }
    }

    /// Calls `visit` with the position in `other` and the count in `self` of each term that both have.
    pub(super) fn for_each_common(&self, other: &Self, mut visit: impl FnMut(usize, u32)) {
        let mut rest = self.counts.iter().peekable();
        for (position, (hash, _)) in other.counts.iter().enumerate() {
            while rest.next_if(|(mine, _)| mine < hash).is_some() {}
            match rest.peek() {
                Some((mine, count)) if mine == hash => visit(position, *count),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Bytes that it takes in memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(self.counts.as_slice())
    }
}

/// FNV-1a over `bytes`, continued from `hash`.
pub(super) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_counted() {
        let terms = Terms::of("tests test the testing parser");
        assert_eq!(terms.len, 4);
        let mut counts: Vec<u32> = terms.counts.iter().map(|(_, count)| *count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 3]);
        assert!(terms.counts.is_sorted());
        assert_eq!(Terms::of("the"), Terms::default());
    }

    #[test]
    fn common_terms_are_found_from_either_side() {
        let (text, query) = (Terms::of("a b b c d e"), Terms::of("x b d y e e"));
        let mut common = Vec::new();
        text.for_each_common(&query, |position, count| {
            assert!(text.counts.contains(&(query.counts[position].0, count)));
            common.push(count);
        });
        common.sort_unstable();
        assert_eq!(common, [1, 1, 2]);
        Terms::default().for_each_common(&query, |_, _| panic!("nothing is common"));
        text.for_each_common(&Terms::default(), |_, _| panic!("nothing is common"));
    }
}
