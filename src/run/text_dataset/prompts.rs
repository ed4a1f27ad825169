//! One instance to its prompt.

use std::collections::HashMap;

use super::clones::Worker;
use super::config::{FileSource, TextDatasetConfig};
use crate::cancel::CancelToken;
use crate::dataset::Instance;
use crate::error::{Error, Result};
use crate::prompt::{Fidelity, Files, PromptInput, PromptStyle, all, named, oracle, pack, readmes};
use crate::run::text_tokenizer::TextTokenizer;

/// What every prompt of a run is made with.
#[derive(Debug)]
pub(super) struct PromptMaker {
    style: PromptStyle,
    source: FileSource,
    fidelity: Fidelity,
    hits: HashMap<String, Vec<String>>,
    /// The most tokens, and what counts them.
    limit: Option<(usize, TextTokenizer)>,
}

impl PromptMaker {
    pub(super) fn new(
        config: &TextDatasetConfig,
        hits: HashMap<String, Vec<String>>,
        tokenizer: Option<TextTokenizer>,
    ) -> Self {
        Self {
            style: config.prompt_style,
            source: config.file_source,
            fidelity: config.fidelity(),
            hits,
            limit: config.max_context_len.map(usize::from).zip(tokenizer),
        }
    }

    /// The text of an instance as the dataset has it: the prompt without white space around it, and two line ends.
    ///
    /// # Errors
    /// `NotFound` when the repository, the commit or a file is not there, `InvalidData` for an instance without what the
    /// prompt needs.
    pub(super) fn text(
        &self,
        worker: &mut Worker<'_>,
        instance: &Instance,
        cancel: &CancelToken,
    ) -> Result<String> {
        let name = field(instance, "repo")?.parse()?;
        let issue = field(instance, "problem_statement")?;
        let patch = if self.source == FileSource::Oracle { field(instance, "patch")? } else { "" };
        let (readmes, files) = worker.with_commit(
            &name,
            field(instance, "base_commit")?,
            |repository, commit, mut snapshot| {
                let readmes = readmes(&mut snapshot)?;
                let files = match self.source {
                    FileSource::None => Files::new(),
                    FileSource::Oracle => oracle(&mut snapshot, patch, self.fidelity)?,
                    FileSource::All => all(&mut snapshot, &repository.tree(commit, cancel)?, self.fidelity)?,
                    FileSource::Bm25 => {
                        let hits = self.hits.get(&instance.instance_id).ok_or_else(|| {
                            Error::not_found("the retrieval file does not have the instance").with_hint(
                                "finish the retrieval first: the same bm25-retrieval command continues it",
                            )
                        })?;
                        let found = named(&mut snapshot, hits.iter().map(String::as_str))?;
                        self.pack(issue, &readmes, found)?
                    }
                };
                Ok((readmes, files))
            },
        )?;
        let input = PromptInput { problem_statement: issue, readmes: &readmes, files: &files, patch };
        Ok(format!("{}\n\n", self.style.render(&input, self.fidelity).trim()))
    }

    fn pack(&self, issue: &str, readmes: &Files, found: Vec<(String, String)>) -> Result<Files> {
        let Some((max_len, tokenizer)) = &self.limit else { return Ok(found.into_iter().collect()) };
        let none = Files::new();
        let empty = PromptInput { problem_statement: issue, readmes, files: &none, patch: "" };
        let len = tokenizer.encode(&self.style.render(&empty, self.fidelity))?.len();
        pack(found, len, *max_len, |file| Ok(tokenizer.encode_after_line_end(file)?.len()))
    }
}

/// A text that every instance has.
fn field<'a>(instance: &'a Instance, name: &str) -> Result<&'a str> {
    instance
        .fields
        .get(name)
        .and_then(|value| value.as_str())
        .ok_or_else(|| Error::invalid_data(format!("the instance has no `{name}`")))
}
