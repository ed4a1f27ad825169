//! Reads `tokenizer.model`: the pieces of a SentencePiece model and how it was trained to split.
//!
//! Field numbers are those of `sentencepiece_model.proto` in <https://github.com/google/sentencepiece>.

use std::collections::HashMap;

use super::protobuf::Fields;
use crate::error::{Error, Result};

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    /// `<s>` and the like: an id that no text has.
    Control,
    /// A symbol that is never split and never merged with its neighbours.
    UserDefined,
    Unused,
    /// `<0x00>` to `<0xFF>`: a byte of a character that no piece has.
    Byte,
}

/// One entry of the vocabulary; its id is its place in [`SentencePieceModel::pieces`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Higher merges earlier.
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// A BPE model as SentencePiece writes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SentencePieceModel {
    pub(super) pieces: Vec<Piece>,
    /// Characters without a piece become bytes instead of the unknown piece.
    pub(super) byte_fallback: bool,
    /// A space goes in front of the text.
    pub(super) add_dummy_prefix: bool,
    /// Leading, trailing and repeated spaces are dropped (no Llama, but OpenLLaMA).
    pub(super) remove_extra_whitespaces: bool,
}

impl SentencePieceModel {
    /// Parses the content of `tokenizer.model`.
    ///
    /// # Errors
    /// `InvalidData` for a malformed file, `Unsupported` for anything but BPE without character normalisation.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut trainer = TrainerSpec::default();
        let mut normalizer = NormalizerSpec::default();
        for field in Fields::new(bytes) {
            match field? {
                (1, value) => pieces.push(
                    piece(value.bytes()?)
                        .map_err(|error| error.context(format!("piece {} is malformed", pieces.len())))?,
                ),
                (2, value) => trainer = TrainerSpec::parse(value.bytes()?)?,
                (3, value) => normalizer = NormalizerSpec::parse(value.bytes()?)?,
                _ => {}
            }
        }
        trainer.check()?;
        normalizer.check()?;
        check_pieces(&pieces)?;
        Ok(Self {
            pieces,
            byte_fallback: trainer.byte_fallback,
            add_dummy_prefix: normalizer.add_dummy_prefix,
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces,
        })
    }
}

fn piece(message: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    for field in Fields::new(message) {
        match field? {
            (1, value) => value.string()?.clone_into(&mut piece.text),
            (2, value) => piece.score = value.float()?,
            (3, value) => {
                piece.kind = match value.integer()? {
                    1 => PieceKind::Normal,
                    2 => PieceKind::Unknown,
                    3 => PieceKind::Control,
                    4 => PieceKind::UserDefined,
                    5 => PieceKind::Unused,
                    6 => PieceKind::Byte,
                    other => {
                        return Err(
                            Error::invalid_data("unknown type of piece").with_expected("1 to 6", other)
                        );
                    }
                }
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn check_pieces(pieces: &[Piece]) -> Result<()> {
    if pieces.is_empty() {
        return Err(Error::invalid_data("the model has no pieces"));
    }
    let mut ids = HashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        if piece.text.is_empty() || piece.score.is_nan() {
            return Err(Error::invalid_data(format!("piece {id} has no text or no score")));
        }
        if let Some(first) = ids.insert(piece.text.as_str(), id) {
            let text = &piece.text;
            return Err(Error::invalid_data(format!("pieces {first} and {id} are both {text:?}")));
        }
    }
    Ok(())
}

/// The part of `TrainerSpec` that tells how to encode.
struct TrainerSpec {
    model_type: u64,
    byte_fallback: bool,
    treat_whitespace_as_suffix: bool,
}

impl Default for TrainerSpec {
    fn default() -> Self {
        Self { model_type: 1, byte_fallback: false, treat_whitespace_as_suffix: false }
    }
}

impl TrainerSpec {
    fn parse(message: &[u8]) -> Result<Self> {
        let mut spec = Self::default();
        for field in Fields::new(message) {
            match field? {
                (3, value) => spec.model_type = value.integer()?,
                (24, value) => spec.treat_whitespace_as_suffix = value.boolean()?,
                (35, value) => spec.byte_fallback = value.boolean()?,
                _ => {}
            }
        }
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        let name = match self.model_type {
            1 => "unigram",
            2 if self.treat_whitespace_as_suffix => "BPE with spaces at the end of words",
            2 => return Ok(()),
            3 => "word",
            4 => "char",
            _ => "unknown",
        };
        Err(Error::unsupported("SentencePiece model of an unsupported type")
            .with_expected("BPE", name)
            .with_hint("convert it to a `tokenizer.json` with Hugging Face transformers"))
    }
}

/// What SentencePiece does to a text before it splits.
struct NormalizerSpec {
    name: String,
    has_character_map: bool,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Default for NormalizerSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            has_character_map: false,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

impl NormalizerSpec {
    fn parse(message: &[u8]) -> Result<Self> {
        let mut spec = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, value) => value.string()?.clone_into(&mut spec.name),
                (2, value) => spec.has_character_map = !value.bytes()?.is_empty(),
                (3, value) => spec.add_dummy_prefix = value.boolean()?,
                (4, value) => spec.remove_extra_whitespaces = value.boolean()?,
                (5, value) => spec.escape_whitespaces = value.boolean()?,
                _ => {}
            }
        }
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        let got = if self.has_character_map {
            format!("`{}`", self.name)
        } else if !self.escape_whitespaces {
            "spaces that are not escaped".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::unsupported("SentencePiece model with an unsupported normalisation")
            .with_expected("`identity`", got)
            .with_hint("convert it to a `tokenizer.json` with Hugging Face transformers"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A field with a length: a message, bytes or a string.
    pub(in super::super) fn field(number: u8, content: &[u8]) -> Vec<u8> {
        assert!(content.len() < 0x4000);
        let len = [(content.len() & 0x7f) as u8 | 0x80, (content.len() >> 7) as u8];
        [&[number << 3 | 2][..], &len, content].concat()
    }

    /// The message of one piece.
    pub(in super::super) fn piece_field(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let score = score.to_le_bytes();
        field(1, &[&field(1, text.as_bytes())[..], &[0x15], &score, &[0x18, kind]].concat())
    }

    const BPE: &[u8] = &[0x18, 2];
    /// A prefix space, no spaces removed.
    pub(in super::super) const LLAMA_NORMALIZER: &[u8] = &[0x18, 1, 0x20, 0];

    fn model(pieces: &[Vec<u8>], trainer: &[u8], normalizer: &[u8]) -> Vec<u8> {
        [pieces.concat(), field(2, trainer), field(3, normalizer)].concat()
    }

    /// `<unk>`, `<s>`, `</s>`, `▁`, `a`, `b`, `▁a`, `ab`, `▁ab` with ids from 0, the later ones merging later.
    pub(in super::super) fn small_model(normalizer: &[u8]) -> Vec<u8> {
        let special = [piece_field("<unk>", 0.0, 2), piece_field("<s>", 0.0, 3), piece_field("</s>", 0.0, 3)];
        let normal = ["▁", "a", "b", "▁a", "ab", "▁ab"].into_iter().zip(0_u8..);
        let normal = normal.map(|(text, rank)| piece_field(text, -f32::from(rank), 1));
        model(&special.into_iter().chain(normal).collect::<Vec<_>>(), BPE, normalizer)
    }

    #[test]
    fn pieces_and_options_are_read() {
        let pieces =
            [piece_field("<unk>", 0.0, 2), piece_field("▁a", -1.5, 1), piece_field("<0x0A>", 0.0, 6)];
        let bytes = model(&pieces, &[BPE, &[0x98, 0x02, 1]].concat(), LLAMA_NORMALIZER);
        let model = SentencePieceModel::parse(&bytes).unwrap();
        assert!(model.byte_fallback && model.add_dummy_prefix && !model.remove_extra_whitespaces);
        assert_eq!(model.pieces[1], Piece { text: "▁a".to_owned(), score: -1.5, kind: PieceKind::Normal });
        assert_eq!(model.pieces[2].kind, PieceKind::Byte);
    }

    #[test]
    fn what_cannot_be_encoded_is_refused_by_name() {
        let check = |bytes: &[u8], part: &str| {
            let error = SentencePieceModel::parse(bytes).unwrap_err();
            assert!(error.to_line().contains(part), "{}", error.to_line());
        };
        let a = [piece_field("a", 0.0, 1)];
        check(&[], "unigram");
        check(&model(&a, &[], &[]), "expected BPE, got unigram");
        check(&model(&a, &[0x18, 3], &[]), "got word");
        check(&model(&a, &[BPE, &[0xc0, 0x01, 1]].concat(), &[]), "spaces at the end of words");
        check(&model(&a, BPE, &[field(1, b"nmt_nfkc"), field(2, b"x")].concat()), "got `nmt_nfkc`");
        check(&model(&a, BPE, &[0x20, 0, 0x28, 0]), "not escaped");
        check(&model(&[], BPE, LLAMA_NORMALIZER), "no pieces");
        check(&model(&[a.concat(), a.concat()], BPE, LLAMA_NORMALIZER), "pieces 0 and 1 are both \"a\"");
        check(&model(&[piece_field("", 0.0, 1)], BPE, LLAMA_NORMALIZER), "piece 0 has no text");
        check(&model(&[piece_field("a", f32::NAN, 1)], BPE, LLAMA_NORMALIZER), "no score");
        check(&model(&[piece_field("a", 0.0, 9)], BPE, &[]), "piece 0 is malformed: unknown type of piece");
        check(&field(1, &field(1, b"\xff")), "not UTF-8");
        check(b"not a model", "wire type");
    }

    #[test]
    fn a_truncated_file_is_an_error_or_a_model_with_fewer_pieces() {
        let bytes = model(&[piece_field("a", 0.0, 1), piece_field("b", 0.0, 1)], BPE, LLAMA_NORMALIZER);
        for len in 0..bytes.len() {
            if let Ok(model) = SentencePieceModel::parse(&bytes[..len]) {
                assert_eq!(model.pieces.len(), 2);
            }
        }
    }
}
