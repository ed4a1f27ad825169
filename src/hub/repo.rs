//! The name of a repository on the hub, and the addresses and cache folders made from it.

use std::fmt;

use crate::error::{Error, Result};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// Weights, configuration, tokenizer.
    Model,
    /// Data files.
    Dataset,
}

/// A repository, `owner/name` or an old name without an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    kind: RepoKind,
    name: String,
}

impl RepoId {
    /// Parses a name.
    ///
    /// # Errors
    /// `InvalidArgument` when the hub cannot have a repository of that name.
    pub fn parse(kind: RepoKind, name: &str) -> Result<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(Error::invalid_argument("not the name of a repository on the hub").with_expected(
                "owner/name of letters, digits, `-`, `_` and `.`",
                format_args!("`{}`", name.escape_debug()),
            ));
        }
        Ok(Self { kind, name: name.to_owned() })
    }

    /// `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder in the cache, `datasets--owner--name`.
    pub(super) fn folder(&self) -> String {
        format!("{}--{}", self.plural(), self.name.replace('/', "--"))
    }

    /// The path below the endpoint that describes `revision`, with the sizes and hashes of its files.
    pub(super) fn listing_path(&self, revision: &str) -> String {
        format!("api/{}/{}/revision/{}?blobs=true", self.plural(), self.name, encode(revision, ""))
    }

    /// The path below the endpoint of one file.
    pub(super) fn file_path(&self, commit: &str, file: &str) -> String {
        let prefix = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        format!("{prefix}{}/resolve/{}/{}", self.name, encode(commit, ""), encode(file, "/"))
    }

    fn plural(&self) -> &'static str {
        match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RepoKind::Model => "model",
            RepoKind::Dataset => "dataset",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// The hub allows 96 characters a part; `--` stands for the slash in the cache's folders, and dots alone climb.
fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && !part.contains("--")
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Percent-encodes all but unreserved characters and those in `kept`.
fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_addresses_and_folders() {
        let dataset = RepoId::parse(RepoKind::Dataset, "o/n.x").unwrap();
        assert_eq!(dataset.listing_path("refs/pr/1"), "api/datasets/o/n.x/revision/refs%2Fpr%2F1?blobs=true");
        assert_eq!(
            dataset.file_path("c0", "data/a b.parquet"),
            "datasets/o/n.x/resolve/c0/data/a%20b.parquet"
        );
        assert_eq!(dataset.folder(), "datasets--o--n.x");
        assert_eq!(RepoId::parse(RepoKind::Model, "gpt2").unwrap().file_path("c0", "f"), "gpt2/resolve/c0/f");
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for name in ["", "/", "a/", "/a", "a/b/c", "..", "a/..", "../b", "a b/c", "a/b?x", "a--b/c", "-a/b"] {
            RepoId::parse(RepoKind::Model, name).unwrap_err();
        }
    }
}
