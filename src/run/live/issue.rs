//! One issue to its prompt: the repository at its commit, the files that are found and fit, the words.

use std::path::Path;

use super::config::RunLiveConfig;
use super::event::Retrieved;
use crate::cancel::CancelToken;
use crate::client::{Driver, Github, Issue, IssueAddress};
use crate::error::Result;
use crate::prompt::{Fidelity, Files, PromptInput, named, pack, readmes};
use crate::repo::{ObjectId, Repository, Snapshot};
use crate::retrieval::{Corpus, FileFilter, HITS, Query};
use crate::run::text_tokenizer::TextTokenizer;

/// The encoding that the reference counts in.
const ENCODING: &str = "cl100k";

/// What every issue of a run needs.
pub(super) struct Workshop<'a> {
    config: &'a RunLiveConfig,
    github: Github,
    driver: Driver,
    tokenizer: TextTokenizer,
}

/// A prompt, and what it was made of.
pub(super) struct Prepared {
    pub(super) repository: Repository,
    pub(super) commit: ObjectId,
    pub(super) retrieved: Vec<Retrieved>,
    /// As datasets have it: without white space around it, and two line ends.
    pub(super) text: String,
}

impl<'a> Workshop<'a> {
    /// # Errors
    /// `InvalidArgument` for the interface's URL or the token, `Io` when the system gives no thread.
    pub(super) fn new(config: &'a RunLiveConfig, github: Github, cancel: &CancelToken) -> Result<Self> {
        let tokenizer = TextTokenizer::open(ENCODING, None, cancel)?;
        Ok(Self { config, github, driver: Driver::start()?, tokenizer })
    }

    /// Fetches an issue.
    ///
    /// # Errors
    /// As [`Github::issue`]; `Cancelled`.
    pub(super) fn fetch(&self, address: &IssueAddress, cancel: &CancelToken) -> Result<Issue> {
        log::info!("{address}: fetching");
        self.driver.wait(cancel, self.github.issue(address, self.config.include_comments))?
    }

    /// Makes the prompt of an issue.
    ///
    /// # Errors
    /// `NotFound` when the repository or the commit is not there, `Network` when it cannot be cloned, `Cancelled`.
    pub(super) fn prepare(
        &self,
        address: &IssueAddress,
        base_commit: Option<&str>,
        issue: &Issue,
        cancel: &CancelToken,
    ) -> Result<Prepared> {
        let (repository, commit) = self.open(address, base_commit, cancel)?;
        log::info!("{address}: searching {} at {commit}", repository.git_dir().display());
        let problem = problem_statement(issue);
        let config = self.config;
        let filter = FileFilter::new(&config.extensions);
        let corpus = Corpus::new(config.document_encoding_func, filter, config.threads(), None);
        let mut reader = repository.reader()?;
        let hits = corpus.index(&mut reader, commit, cancel)?.search(&Query::new(&problem), HITS);
        let mut snapshot = Snapshot::new(&mut reader, commit)?;
        let readmes = if config.include_readmes { readmes(&mut snapshot)? } else { Files::new() };
        let found = named(&mut snapshot, hits.iter().map(|hit| hit.docid.as_str()))?;
        let files = self.pack(&problem, &readmes, found)?;
        let retrieved = hits
            .into_iter()
            .map(|hit| Retrieved { shown: files.contains_key(&hit.docid), path: hit.docid, score: hit.score })
            .collect();
        let text = self.render(&problem, &readmes, &files);
        Ok(Prepared { repository, commit, retrieved, text: format!("{}\n\n", text.trim()) })
    }

    fn open(
        &self,
        address: &IssueAddress,
        base_commit: Option<&str>,
        cancel: &CancelToken,
    ) -> Result<(Repository, ObjectId)> {
        if let Some(path) = &self.config.local_repo {
            return open_local(path, base_commit, cancel);
        }
        let name = format!("{}/{}", address.owner(), address.name()).parse()?;
        let mirrors = self.config.mirrors(address)?;
        match base_commit {
            Some(revision) => mirrors.open_at(&name, revision, cancel),
            None => mirrors.open_newest(&name, cancel),
        }
    }

    fn pack(&self, problem: &str, readmes: &Files, found: Vec<(String, String)>) -> Result<Files> {
        let count = |text: &str| Ok(self.tokenizer.encode_after_line_end(text)?.len());
        let len = self.tokenizer.encode(&self.render(problem, readmes, &Files::new()))?.len();
        pack(found, len, self.config.max_context_length.get(), count)
    }

    fn render(&self, problem: &str, readmes: &Files, files: &Files) -> String {
        let input = PromptInput { problem_statement: problem, readmes, files, patch: "" };
        self.config.prompt_style.render(&input, Fidelity::Mended)
    }
}

/// A repository on the disk at a commit of its own.
///
/// # Errors
/// `NotFound` when there is no repository or no such commit.
pub(super) fn open_local(
    path: &Path,
    base_commit: Option<&str>,
    cancel: &CancelToken,
) -> Result<(Repository, ObjectId)> {
    let repository = Repository::open(path)?;
    let commit = repository.resolve(base_commit.unwrap_or("HEAD"), cancel)?;
    Ok((repository, commit))
}

/// The issue in the form of the benchmark: title, body, and comments where they were asked for, each on lines of its own.
fn problem_statement(issue: &Issue) -> String {
    let mut text = format!("{}\n{}", issue.title, issue.body);
    for comment in &issue.comments {
        text.push('\n');
        text.push_str(comment);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_in_the_order_of_the_page() {
        let issue = Issue { title: "T".into(), body: String::new(), comments: vec!["a".into(), "b".into()] };
        assert_eq!(problem_statement(&issue), "T\n\na\nb");
    }
}
