//! Names of hosted repositories, `owner/name`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A repository as its host names it: `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName {
    owner: String,
    name: String,
}

impl RepositoryName {
    /// What a clone's directory is called: `owner__name`.
    pub fn directory(&self) -> String {
        format!("{}__{}", self.owner, self.name)
    }
}

impl FromStr for RepositoryName {
    type Err = Error;

    /// Reads `owner/name`. The parts become a directory and a URL, so they hold nothing that means more than itself there.
    fn from_str(text: &str) -> Result<Self> {
        let is_part = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
                && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && part.len() <= 100
        };
        match text.split_once('/') {
            Some((owner, name)) if is_part(owner) && is_part(name) => {
                Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => Err(Error::invalid_data("not the name of a repository")
                .with_expected("owner/name", format_args!("`{}`", text.escape_debug()))),
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let name: RepositoryName = "marshmallow-code/apispec.io".parse().unwrap();
        assert_eq!(
            (name.to_string().as_str(), name.directory().as_str()),
            ("marshmallow-code/apispec.io", "marshmallow-code__apispec.io")
        );
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/.git",
            "-a/b",
            "a/--upload-pack=x",
            "a/b c",
            "a/b\n",
        ] {
            assert!(text.parse::<RepositoryName>().is_err(), "{text:?}");
        }
    }
}
