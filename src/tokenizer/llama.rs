//! The Llama tokenizer: a `tokenizer.model` with tokens added by its side files.
//!
//! Gives the ids of transformers' (4.x) `LlamaTokenizer` over Python's `sentencepiece`, for which the models were made;
//! its fast twin and transformers 5 differ from it around added tokens and leading spaces.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, Model};

use super::added_tokens::{AddedTokens, Segment};
use super::decoding::Decoding;
use super::merges::bpe;
use super::sentencepiece::{PieceKind, SentencePieceModel};
use super::side_files::SideFiles;
use super::{Vocabulary, file, library};
use crate::error::Result;

/// SentencePiece's character for a space.
const SPACE: &str = "▁";

/// Far above the largest known file (5 MB); a bound on memory.
const MAX_BYTES: u64 = 64 << 20;

/// Where a space is put in front, so that a first word is like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrefixSpace {
    Never,
    /// In front of the text (`"legacy": false`).
    Text,
    /// In front of the text and after each added token (`"legacy": true`, the default).
    Segment,
}

/// A SentencePiece BPE model with added tokens.
pub(super) struct LlamaTokenizer {
    pieces: Vec<String>,
    model: BPE,
    /// Of the model: found in the escaped text, and no reason for another prefix.
    user_defined: AddedTokens,
    /// Of the side files: found in the text as it is.
    added: AddedTokens,
    /// Ids that no text has: control pieces and special tokens.
    special: HashSet<u32>,
    /// Ids of `bos_token` and its like.
    named: HashSet<u32>,
    /// Ids that are put in front of a text and at its end.
    prefix: Option<u32>,
    suffix: Option<u32>,
    prefix_space: PrefixSpace,
    remove_extra_whitespaces: bool,
}

impl LlamaTokenizer {
    /// Opens the file at `path`; `None` when there is no such file.
    pub(super) fn open(path: &Path, side_files: &SideFiles) -> Result<Option<(Self, Decoding)>> {
        let Some(bytes) = file::read_optional(path, MAX_BYTES)? else { return Ok(None) };
        let tokenizer = SentencePieceModel::parse(&bytes).and_then(|model| Self::new(model, side_files));
        tokenizer.map(Some).map_err(|error| error.with_path(path))
    }

    fn new(model: SentencePieceModel, side_files: &SideFiles) -> Result<(Self, Decoding)> {
        let prefix_space = if !model.add_dummy_prefix || side_files.flag("add_prefix_space") == Some(false) {
            PrefixSpace::Never
        } else if side_files.flag("legacy").unwrap_or(true) {
            PrefixSpace::Segment
        } else {
            PrefixSpace::Text
        };
        let decoding = Decoding::Pieces {
            replacements: vec![(SPACE.to_owned(), " ".to_owned())],
            byte_fallback: model.byte_fallback,
            strip_start: usize::from(prefix_space != PrefixSpace::Never),
        };
        let bpe = bpe(&model)?;
        let user_defined =
            model.pieces.iter().zip(0..).filter(|(piece, _)| piece.kind == PieceKind::UserDefined);
        let user_defined = user_defined.map(|(piece, id)| (id, AddedToken::from(&piece.text, false)));
        let control = model.pieces.iter().zip(0..).filter(|(piece, _)| piece.kind == PieceKind::Control);
        let mut tokenizer = Self {
            special: control.map(|(_, id)| id).collect(),
            user_defined: AddedTokens::new(user_defined)?,
            pieces: model.pieces.into_iter().map(|piece| piece.text).collect(),
            model: bpe,
            added: AddedTokens::default(),
            named: HashSet::new(),
            prefix: None,
            suffix: None,
            prefix_space,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
        };
        tokenizer.add_tokens(side_files)?;
        Ok((tokenizer, decoding))
    }

    /// Adds what the side files name; a special token that has no id yet gets the next one.
    fn add_tokens(&mut self, side_files: &SideFiles) -> Result<()> {
        let mut tokens = side_files.added_tokens().clone();
        let mut ids: HashMap<String, u32> =
            tokens.iter().rev().map(|(&id, token)| (token.content.clone(), id)).collect();
        let mut next = (self.pieces.len() as u32).max(tokens.keys().next_back().map_or(0, |id| id + 1));
        for token in side_files.special_tokens() {
            let id = ids.get(&token.content).copied().or_else(|| self.model.token_to_id(&token.content));
            let id = id.unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            ids.insert(token.content.clone(), id);
            self.named.insert(id);
            tokens.entry(id).or_insert(token).special = true;
        }
        let named_id = |name| ids.get(&side_files.named_token(name)?.content).copied();
        self.prefix = named_id("bos_token").filter(|_| side_files.flag("add_bos_token").unwrap_or(true));
        self.suffix = named_id("eos_token").filter(|_| side_files.flag("add_eos_token").unwrap_or(false));
        self.special.extend(tokens.iter().filter(|(_, token)| token.special).map(|(&id, _)| id));
        self.added = AddedTokens::new(tokens)?;
        Ok(())
    }

    /// Cuts `text` at the added tokens and puts the prefix spaces in.
    fn segments(&self, text: &str) -> Result<Vec<Segment>> {
        if self.prefix_space != PrefixSpace::Text {
            return self.added.split(text);
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut segments = self.added.split(&format!("{SPACE}{}", text.replace(SPACE, " ")))?;
        if let [Segment::Text(first), Segment::Token(id), ..] = &segments[..]
            && first == SPACE
            && self.named.contains(id)
        {
            segments.remove(0);
        }
        Ok(segments)
    }

    /// Text without added tokens as the model sees it.
    fn normalize(&self, text: &str) -> String {
        let is_segment = self.prefix_space == PrefixSpace::Segment;
        let mut text = Cow::Borrowed(text);
        if self.remove_extra_whitespaces {
            text = Cow::Owned(without_extra_spaces(&text, is_segment));
        }
        let prefix = if is_segment && !text.is_empty() { SPACE } else { "" };
        format!("{prefix}{}", text.replace(' ', SPACE))
    }

    /// Appends the ids of text without added tokens.
    fn encode_segment(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for segment in self.user_defined.split(&self.normalize(text))? {
            match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(text) => {
                    let tokens = library::call(|| self.model.tokenize(&text))?;
                    ids.extend(tokens.into_iter().map(|token| token.id));
                }
            }
        }
        Ok(())
    }
}

impl Vocabulary for LlamaTokenizer {
    fn len(&self) -> usize {
        let is_new = |id: &u32| *id as usize >= self.pieces.len();
        self.pieces.len() + self.added.ids().filter(is_new).count()
    }

    fn piece(&self, id: u32) -> Option<Cow<'_, str>> {
        let added = self.added.get(id).map(|token| &token.content);
        added.or_else(|| self.pieces.get(id as usize)).map(|piece| Cow::Borrowed(piece.as_str()))
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.model.token_to_id(token))
    }

    fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        ids.extend(self.prefix.filter(|_| add_special_tokens));
        for segment in self.segments(text)? {
            match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(text) => self.encode_segment(&text, &mut ids)?,
            }
        }
        ids.extend(self.suffix.filter(|_| add_special_tokens));
        Ok(ids)
    }
}

/// One space for several, and none at the end nor, with `trim_start`, at the start.
///
/// A space that the text has in its escaped form counts at the end only, as in SentencePiece.
fn without_extra_spaces(text: &str, trim_start: bool) -> String {
    let text = text.trim_end_matches([' ', '▁']);
    let text = if trim_start { text.trim_start_matches(' ') } else { text };
    let mut previous = '\0';
    text.chars().filter(|&next| std::mem::replace(&mut previous, next) != ' ' || next != ' ').collect()
}

#[cfg(test)]
mod tests {
    use super::super::sentencepiece::tests::{LLAMA_NORMALIZER, small_model};
    use super::super::{Tokenizer, goldens};
    use super::*;

    fn open(normalizer: &[u8], files: &[(&str, &str)]) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.model"), small_model(normalizer)).unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        Tokenizer::open(dir.path()).unwrap()
    }

    #[test]
    fn a_model_without_side_files_has_llama_s_defaults() {
        let tokenizer = open(LLAMA_NORMALIZER, &[]);
        let special = tokenizer.special_tokens();
        assert_eq!((special.bos, &special.eos[..]), (Some(1), &[2][..]));
        assert!(special.add_bos && !special.add_eos);
        assert_eq!(tokenizer.encode("ab a<s>", true).unwrap(), [1, 8, 6, 1]);
        assert_eq!(tokenizer.encode("aé", true).unwrap(), [1, 6, 0]);
        assert_eq!(tokenizer.token(6).as_deref(), Some("▁a"));
        assert_eq!(tokenizer.token(9), None);
    }

    #[test]
    fn the_side_files_add_tokens_and_rules() {
        let check = |config: &str, text: &str, expected: &[u32]| {
            let ids =
                open(LLAMA_NORMALIZER, &[("tokenizer_config.json", config)]).encode(text, true).unwrap();
            assert_eq!(ids, expected, "{config}: {text:?}");
        };
        check(r#"{"add_bos_token": false, "add_eos_token": true}"#, "a", &[6, 2]);
        check(r#"{"add_prefix_space": false}"#, "a", &[1, 4]);
        check(r#"{"legacy": false}"#, "<s>a</s>", &[1, 1, 4, 2]);
        check(r#"{"legacy": true}"#, "<s>a</s>", &[1, 1, 6, 2]);
        check(r#"{"pad_token": "<pad>"}"#, "<pad>", &[1, 9]);
        check(
            r#"{"pad_token": {"content": "<pad>"}, "added_tokens_decoder": {"12": {"content": "<x>"}}}"#,
            "<x><pad>",
            &[1, 12, 13],
        );
        check(r#"{"bos_token": "a", "additional_special_tokens": ["b"]}"#, "ab", &[4, 4, 5]);
    }

    #[test]
    fn the_model_says_how_spaces_are_treated() {
        let check = |normalizer: &[u8], text: &str, expected: &[u32]| {
            let ids = open(normalizer, &[]).encode(text, false).unwrap();
            assert_eq!(ids, expected, "{normalizer:?}: {text:?}");
        };
        let (no_prefix, squeeze): (&[u8], &[u8]) = (&[0x18, 0, 0x20, 0], &[0x18, 1, 0x20, 1]);
        check(LLAMA_NORMALIZER, " a ", &[3, 6, 3]);
        check(no_prefix, " a ", &[6, 3]);
        check(no_prefix, "a", &[4]);
        check(squeeze, "  a   b  ", &[6, 3, 5]);
        check(squeeze, "  ", &[]);
    }

    #[test]
    fn a_text_of_one_long_word_is_encoded_in_one_go() {
        let tokenizer = Tokenizer::open(&goldens::dir("spm")).unwrap();
        for text in ["a".repeat(400_000), " ".repeat(400_000), "ab é🙂<s>\n".repeat(40_000)] {
            let ids = tokenizer.encode(&text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids[1..], false).unwrap().replace("<s> ", "<s>"), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_model_is_an_error_or_works(damage: Vec<(u16, u8)>, len: u16) {
            let mut bytes = std::fs::read(goldens::dir("spm").join("tokenizer.model")).unwrap();
            for (position, byte) in damage {
                let position = usize::from(position) % bytes.len();
                bytes[position] = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(usize::from(len) / 16));
            let model = SentencePieceModel::parse(&bytes);
            if let Ok((tokenizer, _)) = model.and_then(|model| LlamaTokenizer::new(model, &SideFiles::default())) {
                let _ = tokenizer.encode("Hello <|fim|> 日本\n", true);
            }
        }
    }
}
