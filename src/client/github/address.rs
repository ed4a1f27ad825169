//! URLs of issues.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use crate::error::{Error, Result};

/// The page of an issue: `https://HOST/OWNER/NAME/issues/NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssueAddress {
    host: String,
    owner: String,
    name: String,
    number: u64,
}

impl IssueAddress {
    /// The host with its scheme and port, `https://github.com`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's owner.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name, without its owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The issue's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The instance's id, `owner__name-number`.
    pub fn instance_id(&self) -> String {
        format!("{}__{}-{}", self.owner, self.name, self.number)
    }

    /// Whether it is on github.com itself.
    pub fn is_on_github(&self) -> bool {
        matches!(self.host.as_str(), "https://github.com" | "https://www.github.com")
    }
}

impl FromStr for IssueAddress {
    type Err = Error;

    /// Reads the URL of an issue's page; a query and a fragment, as links to comments have them, are passed over.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |got: &str| {
            Error::invalid_argument("not the URL of an issue")
                .with_expected("https://github.com/OWNER/NAME/issues/NUMBER", got)
        };
        let shown = format!("`{}`", text.escape_debug());
        let url = Url::parse(text).map_err(|_| wrong(&shown))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a URL with credentials").with_hint("put a token into GITHUB_TOKEN"));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(&shown));
        }
        let parts: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
        let (owner, name, kind, number) = match parts[..] {
            [owner, name, kind, number] | [owner, name, kind, number, ""] => (owner, name, kind, number),
            _ => return Err(wrong(&shown)),
        };
        if matches!(kind, "pull" | "pulls") {
            return Err(wrong("that of a pull request"));
        }
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number =
            number.parse().ok().filter(|_| kind == "issues" && is_number && is_name(owner) && is_name(name));
        let number = number.ok_or_else(|| wrong(&shown))?;
        let host = url.origin().ascii_serialization();
        Ok(Self { host, owner: owner.to_owned(), name: name.to_owned(), number })
    }
}

/// Whether the text means nothing but itself as a part of a path, of a URL and of a file's name.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().all(is_plain) && !text.is_empty() && !text.starts_with(['.', '-']) && text.len() <= 100
}

impl fmt::Display for IssueAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/issues/{}", self.host, self.owner, self.name, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_whole_or_refused() {
        for text in [
            "https://github.com/psf/requests/issues/5",
            "https://github.com/psf/requests/issues/5/",
            "https://github.com/psf/requests/issues/5?x=1#issuecomment-7",
            "https://GitHub.com:443/psf/requests/issues/5",
        ] {
            let address: IssueAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), "https://github.com/psf/requests/issues/5", "{text}");
            assert_eq!(address.instance_id(), "psf__requests-5");
            assert!(address.is_on_github());
        }
        let address: IssueAddress = "http://127.0.0.1:81/o/n/issues/7".parse().unwrap();
        assert_eq!((address.host(), address.owner(), address.name()), ("http://127.0.0.1:81", "o", "n"));
        assert!(!address.is_on_github());
        for text in [
            "",
            "psf/requests/issues/5",
            "https://github.com/a/b/c/issues/5",
            "https://github.com/b/issues/5",
            "https://github.com/a/b/issues/",
            "https://github.com/a/b/issues/0",
            "https://github.com/a/b/issues/5x",
            "https://github.com/a/b/issues/99999999999999999999",
            "https://github.com/a/b/issues/5/events",
            "https://github.com/../b/issues/5",
            "https://github.com/-a/b/issues/5",
            "https://github.com/a/%2e%2e/issues/5",
            "https://github.com/a/b%2fc/issues/5",
            "file:///a/b/issues/5",
            "ext::sh -c touch",
        ] {
            let error = text.parse::<IssueAddress>().unwrap_err();
            assert!(error.to_string().contains("not the URL of an issue"), "{text}: {error}");
        }
        let error = "https://github.com/a/b/pull/5".parse::<IssueAddress>().unwrap_err();
        assert!(error.to_string().contains("pull request"), "{error}");
        let error = "https://me:secret@github.com/a/b/issues/5".parse::<IssueAddress>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
