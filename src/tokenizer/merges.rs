//! SentencePiece's pieces and scores as the vocabulary and merges of a `tokenizers` BPE model.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::library;
use super::sentencepiece::{PieceKind, SentencePieceModel};
use crate::error::{Error, Result};

/// Bound on the sum of the squares of the pieces' bytes, to which the time to find the merges is proportional.
///
/// A vocabulary of 256,000 pieces of 32 bytes has 2²⁸.
const MAX_WORK: u64 = 1 << 32;

/// The BPE model that merges as SentencePiece does.
pub(super) fn bpe(model: &SentencePieceModel) -> Result<BPE> {
    let vocabulary: Vocab = model.pieces.iter().map(|piece| piece.text.clone()).zip(0..).collect();
    let unknown = model.pieces.iter().find(|piece| piece.kind == PieceKind::Unknown);
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary, merges(model)?)
        .byte_fallback(model.byte_fallback)
        .fuse_unk(true)
        // A cache by word is useless here: a word is a whole text.
        .cache_capacity(0);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(unknown.text.clone());
    }
    library::call(|| builder.build())
}

/// Every split of a piece into two pieces, the best score first; the file holds no merges, only what they make.
fn merges(model: &SentencePieceModel) -> Result<Merges> {
    let ids: HashMap<&str, usize> = (model.pieces.iter().enumerate())
        .filter(|(_, piece)| piece.kind == PieceKind::Normal)
        .map(|(id, piece)| (piece.text.as_str(), id))
        .collect();
    let work: u64 = ids.keys().map(|text| (text.len() as u64).pow(2)).sum();
    if work >= MAX_WORK {
        return Err(Error::invalid_data("the pieces are too long"));
    }
    let mut merges = Vec::new();
    for (&text, &id) in &ids {
        for (middle, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(middle);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((id, left_id, right_id, left, right));
            }
        }
    }
    merges.sort_unstable_by(|a, b| {
        let score = |merge: &(usize, usize, usize, &str, &str)| model.pieces[merge.0].score;
        score(b).total_cmp(&score(a)).then_with(|| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)))
    });
    Ok(merges.into_iter().map(|(.., left, right)| (left.to_owned(), right.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::super::sentencepiece::tests::{LLAMA_NORMALIZER, small_model};
    use super::*;

    #[test]
    fn merges_are_all_splits_by_score() {
        let mut model = SentencePieceModel::parse(&small_model(LLAMA_NORMALIZER)).unwrap();
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        let expected = [pair("▁", "a"), pair("a", "b"), pair("▁", "ab"), pair("▁a", "b")];
        assert_eq!(merges(&model).unwrap(), expected);

        model.pieces[8].score = 1.0;
        model.pieces[7].kind = PieceKind::UserDefined;
        assert_eq!(merges(&model).unwrap(), [pair("▁a", "b"), pair("▁", "a")]);
    }

    #[test]
    fn pieces_that_would_take_for_ever_are_refused() {
        let mut model = SentencePieceModel::parse(&small_model(LLAMA_NORMALIZER)).unwrap();
        model.pieces[4].text = "a".repeat(1 << 16);
        assert!(merges(&model).unwrap_err().to_string().contains("too long"));
    }
}
