//! Where the hub is, where its cache lies, and the token: from the same environment variables as in Python.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How to reach the hub.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The server, without a final slash.
    pub endpoint: String,
    /// The directory that holds `models--owner--name` and its like, shared with Python.
    pub cache: PathBuf,
    /// Sent to the endpoint and to nobody else.
    pub token: Option<Token>,
    /// Use the cache alone.
    pub offline: bool,
}

/// An access token; never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token as the hub issues them.
    ///
    /// # Errors
    /// `InvalidArgument` when it holds characters that cannot be sent; the message does not show it.
    pub fn new(token: &str) -> Result<Self> {
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid_argument(
                "the hub's token is empty or holds characters that no token has",
            ));
        }
        Ok(Self(token.to_owned()))
    }

    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl HubConfig {
    /// From `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` or the home directory; `HF_TOKEN`, `HF_TOKEN_PATH`
    /// or the token file of `hf auth login`; `HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed endpoint or token, and when no variable says where the cache is.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let user = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let directory =
            |name: &str| set(name).map(|value| expand_home(PathBuf::from(value), user.as_deref()));

        let home = directory("HF_HOME")
            .or_else(|| directory("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| user.as_ref().map(|user| user.join(".cache/huggingface")));
        let cache = directory("HF_HUB_CACHE")
            .or_else(|| directory("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| {
                Error::invalid_argument("there is no place for the hub's cache")
                    .with_expected("HF_HUB_CACHE, HF_HOME or HOME", "none of them")
            })?;
        let token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Some(Token::new(&token)?),
            None => directory("HF_TOKEN_PATH")
                .or_else(|| home.map(|home| home.join("token")))
                .and_then(|path| std::fs::read_to_string(path).ok())
                .filter(|token| !token.trim().is_empty())
                .map(|token| Token::new(&token))
                .transpose()?,
        };
        let is_on = |name: &str| {
            text(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
            })
        };
        Ok(Self {
            endpoint: endpoint(text("HF_ENDPOINT").as_deref().unwrap_or(DEFAULT_ENDPOINT))?,
            cache,
            token,
            offline: is_on("HF_HUB_OFFLINE") || is_on("HF_DATASETS_OFFLINE"),
        })
    }
}

fn endpoint(text: &str) -> Result<String> {
    // A password in the address would end up in logs and errors, so that it is not shown here either.
    if text.contains('@') {
        return Err(
            Error::invalid_argument("HF_ENDPOINT holds credentials").with_hint("put the token in HF_TOKEN")
        );
    }
    if !text.starts_with("https://") && !text.starts_with("http://") {
        return Err(Error::invalid_argument("HF_ENDPOINT is not an address")
            .with_expected("https://host", format_args!("`{}`", text.escape_debug())));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn expand_home(path: PathBuf, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<HubConfig> {
        HubConfig::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let check = |variables: &[(&str, &str)], expected: &str| {
            assert_eq!(from(variables).unwrap().cache, Path::new(expected), "{variables:?}");
        };
        check(&[("HOME", "/h")], "/h/.cache/huggingface/hub");
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub");
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")], "/h/hf/hub");
        check(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")], "/c");
        assert!(from(&[]).unwrap_err().to_string().contains("HF_HOME"));
    }

    #[test]
    fn endpoint_and_offline_mode() {
        assert_eq!(from(&[("HOME", "/h")]).unwrap().endpoint, DEFAULT_ENDPOINT);
        let mirror =
            from(&[("HOME", "/h"), ("HF_ENDPOINT", "http://127.0.0.1:1/"), ("HF_DATASETS_OFFLINE", "1")])
                .unwrap();
        assert_eq!(mirror.endpoint, "http://127.0.0.1:1");
        assert!(mirror.offline);
        assert!(!from(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        from(&[("HOME", "/h"), ("HF_ENDPOINT", "mirror")]).unwrap_err();
        let error = from(&[("HOME", "/h"), ("HF_ENDPOINT", "https://me:hunter2@mirror")]).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file_and_is_never_printed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        assert!(from(&[("HF_HOME", path)]).unwrap().token.is_none());
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let token = |config: HubConfig| config.token.unwrap().authorization();
        assert_eq!(token(from(&[("HF_HOME", path)]).unwrap()), "Bearer hf_file");
        let both = from(&[("HF_HOME", path), ("HF_TOKEN", "hf_variable")]).unwrap();
        assert!(!format!("{both:?}").contains("hf_variable"));
        assert_eq!(token(both), "Bearer hf_variable");
        let error = from(&[("HF_HOME", path), ("HF_TOKEN", "hf_a\r\nX: y")]).unwrap_err();
        assert!(!format!("{error:?}").contains("hf_a"));
    }
}
