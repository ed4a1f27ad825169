//! Tokenizers of dataset runs: tiktoken's encodings by name, and those of models.

use std::path::Path;

use crate::cancel::CancelToken;
use crate::client::Counter;
use crate::error::{Error, ErrorKind, Result};
use crate::hub::{Hub, RepoId, RepoKind};
use crate::tokenizer::Tokenizer;

/// What the reference's name `llama` stands for.
const LLAMA: &str = "togethercomputer/LLaMA-2-7B-32K";
/// SentencePiece's token of a line end that is no part of another token.
const LINE_END: &str = "<0x0A>";

/// Turns texts of datasets into token ids, without the tokens that a model's rules put around a text.
#[derive(Debug)]
pub(super) struct TextTokenizer {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tiktoken(Counter),
    Model {
        tokenizer: Tokenizer,
        /// The id of a line end, where that is always a token of its own.
        line_end: Option<u32>,
    },
}

impl TextTokenizer {
    /// The tokenizer called `cl100k`, `o200k` or `llama`; else the one in a `tokenizer.json`, a `tokenizer.model` or a model
    /// directory, or of a model on the hub.
    ///
    /// # Errors
    /// `NotFound` when it is none of these; `Network` when the hub does not answer.
    pub(super) fn open(name: &str, cache_dir: Option<&Path>, cancel: &CancelToken) -> Result<Self> {
        if let Some(counter) = Counter::of_encoding(name) {
            return Ok(Self { kind: Kind::Tiktoken(counter) });
        }
        let path = Path::new(name);
        let tokenizer = if path.is_dir() {
            Tokenizer::open(path)?
        } else if path.is_file() {
            Self::open_file(path)?
        } else if name == "llama" || name.contains('/') {
            Self::fetch(if name == "llama" { LLAMA } else { name }, cache_dir, cancel)?
        } else {
            return Err(unknown(name));
        };
        let line_end = tokenizer.encode("\n", false)?.last().copied();
        let line_end = line_end.filter(|id| tokenizer.token(*id).as_deref() == Some(LINE_END));
        Ok(Self { kind: Kind::Model { tokenizer, line_end } })
    }

    /// A file is opened with the side files of its directory.
    fn open_file(path: &Path) -> Result<Tokenizer> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("tokenizer.json" | "tokenizer.model") => Tokenizer::open(path.parent().unwrap_or(path)),
            _ => Err(Error::invalid_argument("not a tokenizer")
                .with_path(path)
                .with_expected("tokenizer.json, tokenizer.model, or their directory", "another file")),
        }
    }

    fn fetch(name: &str, cache_dir: Option<&Path>, cancel: &CancelToken) -> Result<Tokenizer> {
        let repo = RepoId::parse(RepoKind::Model, name).map_err(|_| unknown(name))?;
        let hub = Hub::from_env(cache_dir)?.with_cancel(cancel.clone());
        let snapshot = hub.snapshot(&repo, None)?;
        let is_needed = |name: &String| {
            name.starts_with("tokenizer")
                || matches!(
                    name.as_str(),
                    "special_tokens_map.json" | "added_tokens.json" | "generation_config.json"
                )
        };
        let names: Vec<String> = snapshot.file_names().into_iter().filter(is_needed).collect();
        Tokenizer::open(&hub.fetch(&snapshot, &names)?)
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Tiktoken(counter) => {
                counter.ids(text).ok_or_else(|| Error::internal("a named encoding has no ids"))
            }
            Kind::Model { tokenizer, .. } => tokenizer.encode(text, false),
        }
    }

    /// The ids that a text has behind a line end: SentencePiece would put a space before one that stands alone.
    pub(super) fn encode_after_line_end(&self, text: &str) -> Result<Vec<u32>> {
        let Kind::Model { line_end: Some(line_end), .. } = &self.kind else { return self.encode(text) };
        let mut ids = self.encode(&format!("\n{text}"))?;
        match ids.iter().take(3).position(|id| id == line_end) {
            Some(position) => Ok(ids.split_off(position + 1)),
            None => {
                Err(Error::new(ErrorKind::Unsupported, "the tokenizer joins a line end with what follows it"))
            }
        }
    }

    /// What ends an answer, as text: a model's end-of-sequence token, nothing for tiktoken's encodings.
    pub(super) fn end_of_text(&self) -> Option<String> {
        match &self.kind {
            Kind::Tiktoken(_) => None,
            Kind::Model { tokenizer, .. } => {
                tokenizer.special_tokens().eos.first().and_then(|id| tokenizer.token(*id))
            }
        }
    }
}

/// How a tokenizer is called in names of datasets.
pub(super) fn nickname(name: &str) -> &str {
    let parts = name.rsplit('/').filter(|part| !part.is_empty());
    parts.into_iter().find(|part| !matches!(*part, "tokenizer.json" | "tokenizer.model")).unwrap_or(name)
}

fn unknown(name: &str) -> Error {
    Error::not_found("there is no such tokenizer")
        .with_expected("cl100k, o200k, llama, a path, or a model's name on the hub", format_args!("`{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str) -> Result<TextTokenizer> {
        TextTokenizer::open(name, None, &CancelToken::new())
    }

    fn golden(name: &str) -> String {
        format!("{}/tests/data/goldens/tokenizers/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn tokenizers_are_found_by_name_and_by_path() {
        let cl100k = open("cl100k").unwrap();
        assert_eq!(cl100k.encode("hello world").unwrap(), [15339, 1917]);
        assert_eq!(cl100k.encode_after_line_end("hello world").unwrap(), [15339, 1917]);
        assert_eq!(cl100k.end_of_text(), None);
        let demo = format!("{}/tests/data/demo", env!("CARGO_MANIFEST_DIR"));
        for path in [demo.clone(), format!("{demo}/tokenizer.json")] {
            let tokenizer = open(&path).unwrap();
            assert_eq!(tokenizer.end_of_text().as_deref(), Some("</s>"));
            assert!(!tokenizer.encode("x").unwrap().is_empty());
        }
        for (name, says) in
            [("p50k", "cl100k, o200k, llama"), (&format!("{demo}/config.json"), "not a tokenizer")]
        {
            let error = open(name).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn text_behind_a_line_end_gets_no_space() {
        let tokenizer = open(&golden("spm-no-bos")).unwrap();
        let after = tokenizer.encode_after_line_end("def").unwrap();
        let whole = tokenizer.encode("\ndef").unwrap();
        assert!(whole.ends_with(&after) && after.len() < whole.len());
        assert_ne!(tokenizer.encode("def").unwrap(), after);
        assert!(tokenizer.encode_after_line_end("").unwrap().is_empty());
    }

    #[test]
    fn nicknames_are_parts_of_file_names() {
        for (name, expected) in [
            ("cl100k", "cl100k"),
            ("/models/llama/tokenizer.model", "llama"),
            ("org/model", "model"),
            ("dir/", "dir"),
        ] {
            assert_eq!(nickname(name), expected);
        }
    }
}
