//! Tokens that are matched in a text before the model sees it.

use std::collections::{HashMap, HashSet};

use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, AddedVocabulary, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
};

use super::library;
use crate::error::Result;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Text between tokens; never empty.
    Text(String),
    /// A token that was found in the text.
    Token(u32),
}

/// A set of tokens with their ids, found from left to right, the longest first.
#[derive(Default)]
pub(super) struct AddedTokens {
    /// Finds the tokens, but numbers them in its own way.
    matcher: AddedVocabulary,
    /// Our id for each of the matcher's.
    ids: Vec<u32>,
    tokens: HashMap<u32, AddedToken>,
}

impl AddedTokens {
    /// When two tokens have the same content, the first is the one that is found.
    pub(super) fn new(tokens: impl IntoIterator<Item = (u32, AddedToken)>) -> Result<Self> {
        let mut added = Self::default();
        let mut matched = Vec::new();
        let mut contents = HashSet::new();
        for (id, token) in tokens {
            if contents.insert(token.content.clone()) {
                added.ids.push(id);
                // There is no normaliser: both kinds are found in the text as it is.
                matched.push(token.clone().normalized(false));
            }
            added.tokens.insert(id, token);
        }
        let matcher = &mut added.matcher;
        library::call(|| matcher.add_tokens(matched, &BPE::default(), None::<&NormalizerWrapper>))?;
        Ok(added)
    }

    pub(super) fn get(&self, id: u32) -> Option<&AddedToken> {
        self.tokens.get(&id)
    }

    /// The id of the token with this content.
    pub(super) fn id(&self, content: &str) -> Option<u32> {
        let id = *self.matcher.get_vocab().get(content)?;
        self.ids.get(id as usize).copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.tokens.keys().copied()
    }

    /// Cuts `text` at every token.
    pub(super) fn split(&self, text: &str) -> Result<Vec<Segment>> {
        if self.ids.is_empty() {
            let whole = (!text.is_empty()).then(|| Segment::Text(text.to_owned()));
            return Ok(whole.into_iter().collect());
        }
        let split: PreTokenizedString =
            library::call(|| Ok(self.matcher.extract_and_normalize(None::<&NormalizerWrapper>, text)))?;
        let segments = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        let segments = segments.into_iter().map(|(text, _, tokens)| {
            let token = tokens.as_ref().and_then(|tokens| tokens.first());
            let id = token.and_then(|token| self.ids.get(token.id as usize));
            id.map_or_else(|| Segment::Text(text.to_owned()), |&id| Segment::Token(id))
        });
        Ok(segments.filter(|segment| *segment != Segment::Text(String::new())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_longest_first_with_their_own_ids() {
        let tokens = [("<a>", 7), ("<a><b>", 900), ("<w>", 3), ("<a>", 8)];
        let tokens =
            tokens.map(|(content, id)| (id, AddedToken::from(content, false).lstrip(content == "<w>")));
        let added = AddedTokens::new(tokens).unwrap();
        let text = |text: &str| Segment::Text(text.to_owned());
        let check = |input: &str, expected: &[Segment]| assert_eq!(added.split(input).unwrap(), expected);
        check("", &[]);
        check("x", &[text("x")]);
        check("<a>x<a><b>", &[Segment::Token(7), text("x"), Segment::Token(900)]);
        check("x  <w> y", &[text("x"), Segment::Token(3), text(" y")]);
        assert_eq!((added.id("<a>"), added.id("<b>")), (Some(7), None));
        assert_eq!(added.get(8).unwrap().content, "<a>");
    }
}
