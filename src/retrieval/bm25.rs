//! BM25 with Lucene's arithmetic: f32, lengths in one byte, and no factor `k1 + 1`.

/// How soon repetition stops to count; Anserini's default.
const K1: f32 = 0.9;
/// How much a document's length counts; Anserini's default.
const B: f32 = 0.4;

/// What a term weighs: rare terms more, and terms that the query repeats.
pub(super) fn weight(query_count: u32, documents: usize, documents_with_term: usize) -> f32 {
    let (all, with) = (documents as f64, documents_with_term as f64);
    let idf = (1.0 + (all - with + 0.5) / (with + 0.5)).ln() as f32;
    query_count as f32 * idf
}

/// What a document of this length multiplies its counts with.
pub(super) fn length_factor(length: u32, average_length: f32) -> f32 {
    1.0 / (K1 * ((1.0 - B) + B * stored_length(length) as f32 / average_length))
}

/// What a term adds to a document's score.
pub(super) fn score(weight: f32, count: u32, length_factor: f32) -> f32 {
    weight - weight / (1.0 + count as f32 * length_factor)
}

/// The length that remains of `length` in Lucene's byte: exact below 40, four significant bits above.
fn stored_length(length: u32) -> u32 {
    /// Values of the byte that the floating point form leaves free.
    const EXACT: u32 = 24;
    match length.checked_sub(EXACT) {
        Some(rest) => {
            let dropped = (u32::BITS - rest.leading_zeros()).saturating_sub(4);
            EXACT + (rest >> dropped << dropped)
        }
        None => length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_lucene() {
        for (length, stored) in [
            (0, 0),
            (23, 23),
            (24, 24),
            (39, 39),
            (40, 40),
            (41, 40),
            (42, 42),
            (57, 56),
            (1000, 984),
            (65_560, 65_560),
        ] {
            assert_eq!(stored_length(length), stored, "{length}");
        }
    }

    #[test]
    fn scores_follow_the_formula() {
        let weight = weight(2, 100, 10);
        assert!((weight - 2.0 * (1.0_f32 + 90.5 / 10.5).ln()).abs() < 1e-6);
        // At average length the factor is 1 / k1.
        let factor = length_factor(100, 100.0);
        assert!((factor * K1 * (0.6 + 0.4 * 96.0 / 100.0) - 1.0).abs() < 1e-6);
        assert!((score(weight, 3, factor) - weight * 3.0 * factor / (1.0 + 3.0 * factor)).abs() < 1e-5);
    }
}
