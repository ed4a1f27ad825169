//! Where requests go and what they carry: configuration, environment and key, resolved once.

use std::path::Path;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::config::{ClientConfig, KeySource, OpenaiApi};
use super::protocol::Protocol;
use super::redact::Redactor;
use super::{Provider, Secret};
use crate::error::{Error, Result};

/// The dated interface of Anthropic from which on any sampling parameter is refused.
const ANTHROPIC_WITHOUT_SAMPLING: &str = "2026-10-21";

const DEFAULT_ANTHROPIC_VERSION: &str = "2023-06-01";

/// Largest file that is read as a key, in bytes.
const MAX_KEY_FILE: u64 = 64 << 10;

/// An environment: a variable's value by its name, `None` where it is not set.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A resolved server.
pub(super) struct Endpoint {
    /// Who is there.
    pub provider: Provider,
    /// How to speak.
    pub protocol: Protocol,
    /// What every request carries, the key included.
    pub headers: HeaderMap,
    /// Knows the key and the headers' values.
    pub redactor: Redactor,
    /// Where the key was found, for messages; `None` when there is none.
    pub key_origin: Option<String>,
    /// Whether any sampling parameter is refused.
    pub refuses_sampling: bool,
    base: Url,
    /// Azure's URLs that name a deployment: the one that the base URL fixes, or the request's model.
    deployments: Option<Option<String>>,
}

impl Endpoint {
    /// Resolves a configuration that [`ClientConfig::validate`] has accepted.
    ///
    /// # Errors
    /// `InvalidArgument` that says what to set, `Io` and `NotFound` for the key's file.
    pub(super) fn resolve(config: &ClientConfig, environment: Lookup<'_>) -> Result<Self> {
        let lookup = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let provider = match (config.provider, &config.base_url) {
            (Some(provider), _) => provider,
            (None, Some(_)) => Provider::of_model(&config.model).unwrap_or(Provider::Openai),
            (None, None) => Provider::of_model(&config.model)?,
        };
        let base_url = config.base_url.clone().or_else(|| lookup(provider.base_url_variable()));
        let given = base_url.is_some();
        let base_url =
            base_url.or_else(|| provider.default_base_url().map(str::to_owned)).ok_or_else(|| {
                Error::invalid_argument("no base URL is given").with_hint(format!(
                    "set {} to the resource, such as https://RESOURCE.openai.azure.com",
                    provider.base_url_variable()
                ))
            })?;
        let mut base = parse_base(&base_url)?;
        let mut version = config.api_version.clone();
        let mut deployments = None;
        match provider {
            Provider::Openai => {
                if segments(&base).is_empty() {
                    extend(&mut base, &["v1"]);
                }
            }
            Provider::Azure => {
                version = version.or_else(|| lookup("OPENAI_API_VERSION"));
                deployments = resolve_azure(&mut base, version.as_deref());
            }
            Provider::Anthropic | Provider::AnthropicText => {
                if segments(&base).last().is_none_or(|last| last != "v1") {
                    extend(&mut base, &["v1"]);
                }
            }
        }
        let protocol = match (provider, config.openai_api) {
            (Provider::Openai | Provider::Azure, OpenaiApi::Chat) => Protocol::Chat,
            (Provider::Openai | Provider::Azure, OpenaiApi::Responses) => Protocol::Responses,
            (Provider::Anthropic, _) => Protocol::Messages,
            (Provider::AnthropicText, _) => Protocol::Complete,
        };
        let mut headers = HeaderMap::new();
        let mut refuses_sampling = false;
        if matches!(provider, Provider::Anthropic | Provider::AnthropicText) {
            let version = version.as_deref().unwrap_or(DEFAULT_ANTHROPIC_VERSION);
            refuses_sampling = version >= ANTHROPIC_WITHOUT_SAMPLING;
            headers.insert("anthropic-version", header_value("api_version", version)?);
        }
        let key = resolve_key(config, provider, given && provider != Provider::Azure, &lookup)?;
        if let Some(key) = &key {
            let secret = key.secret.expose();
            let (name, value) = match (provider, key.bearer) {
                (Provider::Openai, _) | (_, true) => (AUTHORIZATION, format!("Bearer {secret}")),
                (Provider::Azure, false) => (HeaderName::from_static("api-key"), secret.to_owned()),
                (_, false) => (HeaderName::from_static("x-api-key"), secret.to_owned()),
            };
            headers.insert(name, header_value(&key.origin, &value)?);
            if base.scheme() == "http" && !is_local(&base) {
                log::warn!("the key is sent without encryption to {}", display(&base));
            }
        }
        for (name, value) in &config.headers.0 {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                Error::invalid_argument("`headers` has a name that is none")
                    .with_expected("a header's name", format!("`{}`", name.escape_debug()))
            })?;
            headers.insert(parsed, header_value(name, value)?);
        }
        let redactor = Redactor::new(
            key.iter()
                .map(|key| key.secret.expose())
                .chain(config.headers.0.values().map(String::as_str))
                .chain(base.password()),
        );
        Ok(Self {
            provider,
            protocol,
            headers,
            redactor,
            key_origin: key.map(|key| key.origin),
            refuses_sampling,
            base,
            deployments,
        })
    }

    /// Where to ask for an answer of this model.
    pub(super) fn url(&self, model: &str) -> Url {
        let path: &[&str] = match self.protocol {
            Protocol::Chat => &["chat", "completions"],
            Protocol::Responses => &["responses"],
            Protocol::Messages => &["messages"],
            Protocol::Complete => &["complete"],
        };
        match &self.deployments {
            Some(fixed) if self.protocol == Protocol::Chat => {
                let deployment = fixed.as_deref().unwrap_or(model);
                self.at(&[&["deployments", deployment], path].concat())
            }
            _ => self.at(path),
        }
    }

    /// An address below the base URL; each segment is escaped.
    pub(super) fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        extend(&mut url, path);
        url
    }

    /// The server as messages name it: without credentials and query.
    pub(super) fn server(&self) -> String {
        display(&self.base)
    }

    /// Whether TLS is not needed, so that a machine without certificates will do.
    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }
}

struct Key {
    secret: Secret,
    bearer: bool,
    origin: String,
}

fn resolve_key(
    config: &ClientConfig,
    provider: Provider,
    keyless: bool,
    lookup: Lookup<'_>,
) -> Result<Option<Key>> {
    let key = |text: &str, bearer: bool, origin: String| {
        let secret = Secret::new(text);
        if secret.expose().is_empty() || !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid_argument(format!("the key in {origin} is none"))
                .with_expected("one word of printable ASCII", "something else"));
        }
        Ok(Some(Key { secret, bearer, origin }))
    };
    let is_token = |name: &str| provider.token_variable() == Some(name);
    match &config.key {
        KeySource::None => Ok(None),
        KeySource::Given(secret) => key(secret.expose(), config.bearer, "the key that was given".into()),
        KeySource::Environment(name) => match lookup(name) {
            Some(text) => key(&text, config.bearer || is_token(name), name.clone()),
            None => Err(Error::invalid_argument(format!("the environment variable {name} is not set"))
                .with_hint("put the provider's API key there, or say that the server needs none")),
        },
        KeySource::File(path) => key(&read_key(path)?, config.bearer, path.display().to_string()),
        KeySource::Auto | KeySource::Optional => {
            let variables = [Some(provider.key_variable()), provider.token_variable()];
            for name in variables.into_iter().flatten() {
                if let Some(text) = lookup(name) {
                    return key(&text, config.bearer || is_token(name), name.to_owned());
                }
            }
            if keyless || config.key == KeySource::Optional {
                return Ok(None);
            }
            Err(Error::invalid_argument(format!("no API key for {provider}")).with_hint(format!(
                "put it into the environment variable {}, or name a file that holds it",
                provider.key_variable()
            )))
        }
    }
}

fn read_key(path: &Path) -> Result<String> {
    let length = std::fs::metadata(path).map_err(|error| Error::io("read the key", path, error))?.len();
    if length > MAX_KEY_FILE {
        return Err(Error::invalid_argument("the file is not a key")
            .with_path(path)
            .with_expected("a few bytes", format!("{length} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| Error::io("read the key", path, error))
}

/// Puts Azure's path in place; returns the deployment's place in it for the URLs that have one.
fn resolve_azure(base: &mut Url, version: Option<&str>) -> Option<Option<String>> {
    let mut path = segments(base);
    let fixed = path.iter().position(|segment| segment == "deployments").and_then(|at| {
        let deployment = path.get(at + 1).cloned();
        path.truncate(at);
        deployment
    });
    let is_v1 = path.last().is_some_and(|last| last == "v1");
    if !is_v1 && !path.iter().any(|segment| segment == "openai") {
        path.push("openai".into());
    }
    // The dated versions are of the URLs with deployments; `preview` and `v1` are of the others.
    let dated = version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()));
    let classic = fixed.is_some() || (dated && !is_v1);
    if !classic && !is_v1 {
        path.push("v1".into());
    }
    if let Some(version) = version
        && (classic || !dated)
        && !base.query_pairs().any(|(name, _)| name == "api-version")
    {
        base.query_pairs_mut().append_pair("api-version", version);
    }
    base.set_path("");
    extend(base, &path.iter().map(String::as_str).collect::<Vec<_>>());
    classic.then_some(fixed)
}

fn parse_base(text: &str) -> Result<Url> {
    let refused = |got: String| {
        Error::invalid_argument("the base URL is none")
            .with_expected("one such as http://localhost:8000/v1", got)
    };
    // Credentials in it must not be repeated.
    let base = Url::parse(text.trim()).map_err(|error| refused(error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
        return Err(refused(format!("the scheme `{}`", base.scheme())));
    }
    Ok(base)
}

/// The path's segments as they were before escaping, without empty ones.
fn segments(url: &Url) -> Vec<String> {
    url.path().split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

fn extend(url: &mut Url, path: &[&str]) {
    // Only URLs such as `mailto:` have no segments, and `parse_base` lets none of them in.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
}

fn display(url: &Url) -> String {
    let mut text = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        text.push_str(&format!(":{port}"));
    }
    text
}

fn is_local(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

fn header_value(origin: &str, value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        Error::invalid_argument(format!("{origin} cannot be sent as a header"))
            .with_expected("printable ASCII", "other characters")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: &ClientConfig, environment: &[(&str, &str)]) -> Result<Endpoint> {
        Endpoint::resolve(config, &|name| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn server_and_key_come_from_the_environment() {
        #[track_caller]
        fn check(
            model: &str,
            provider: Option<Provider>,
            environment: &[(&str, &str)],
            url: &str,
            header: (&str, &str),
        ) {
            let config = ClientConfig { model: model.into(), provider, ..ClientConfig::default() };
            let endpoint = resolve(&config, environment).unwrap();
            assert_eq!(endpoint.url(model).as_str(), url);
            assert_eq!(endpoint.headers.get(header.0).unwrap(), header.1);
        }
        check(
            "gpt-4o",
            None,
            &[("OPENAI_API_KEY", " k\n")],
            "https://api.openai.com/v1/chat/completions",
            ("authorization", "Bearer k"),
        );
        check(
            "claude-opus-5-5",
            None,
            &[("ANTHROPIC_API_KEY", "k")],
            "https://api.anthropic.com/v1/messages",
            ("x-api-key", "k"),
        );
        check(
            "claude-2",
            None,
            &[("ANTHROPIC_AUTH_TOKEN", "k"), ("ANTHROPIC_BASE_URL", "http://gateway/a")],
            "http://gateway/a/v1/complete",
            ("authorization", "Bearer k"),
        );
        let azure = ("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/");
        check(
            "d",
            Some(Provider::Azure),
            &[azure, ("AZURE_OPENAI_API_KEY", "k"), ("OPENAI_API_VERSION", "2024-10-21")],
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            ("api-key", "k"),
        );
        check(
            "d",
            Some(Provider::Azure),
            &[
                azure,
                ("AZURE_OPENAI_API_KEY", " "),
                ("AZURE_OPENAI_AD_TOKEN", "t"),
                ("OPENAI_API_VERSION", "preview"),
            ],
            "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview",
            ("authorization", "Bearer t"),
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_before_anything_is_sent() {
        #[track_caller]
        fn check(config: ClientConfig, environment: &[(&str, &str)], expected: &str) {
            let error = resolve(&config, environment).err().unwrap();
            let text = format!("{} / {}", error.to_line(), error.hint().unwrap_or_default());
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
        let named = |model: &str| ClientConfig { model: model.into(), ..ClientConfig::default() };
        let at = |url: &str| ClientConfig { base_url: Some(url.into()), ..named("m") };
        let keyed = |key: KeySource| ClientConfig { key, ..named("gpt-4o") };
        check(named("llama"), &[], "`llama` does not tell its provider / give the provider");
        check(
            named("gpt-4o"),
            &[],
            "no API key for openai / put it into the environment variable OPENAI_API_KEY",
        );
        check(keyed(KeySource::Environment("MINE".into())), &[], "MINE is not set");
        check(keyed(KeySource::Given(Secret::new("s3cret\nmore"))), &[], "the key that was given is none");
        check(keyed(KeySource::File("/nowhere/key".into())), &[], "/nowhere/key: cannot read the key");
        check(keyed(KeySource::None), &[("OPENAI_BASE_URL", "localhost:8000")], "the base URL is none");
        check(at("http://u:s3cret@[/"), &[], "the base URL is none");
        check(at("file:///etc/passwd"), &[], "got the scheme `file`");
        let azure = ClientConfig { provider: Some(Provider::Azure), ..named("d") };
        check(azure, &[], "no base URL is given / set AZURE_OPENAI_ENDPOINT");
        let headers = super::super::Headers([("x y".to_owned(), "s3cret".to_owned())].into());
        check(ClientConfig { headers, ..at("http://h") }, &[], "got `x y`");
        let headers = super::super::Headers([("x".to_owned(), "s3cret\r\ny: z".to_owned())].into());
        check(ClientConfig { headers, ..at("http://h") }, &[], "cannot be sent as a header");
    }

    #[test]
    fn another_server_needs_no_key_and_is_named_without_credentials() {
        let config = ClientConfig {
            base_url: Some("http://u:s3cret@localhost:1/v1?q=s3cret".into()),
            model: "meta/llama".into(),
            ..ClientConfig::default()
        };
        let endpoint = resolve(&config, &[]).unwrap();
        assert_eq!((endpoint.provider, endpoint.server().as_str()), (Provider::Openai, "http://localhost:1"));
        assert!(endpoint.headers.is_empty() && endpoint.key_origin.is_none());
    }

    #[test]
    fn sampling_is_refused_from_a_version_on() {
        for (version, expected) in [(None, false), (Some("2023-06-01"), false), (Some("2026-10-21"), true)] {
            let config = ClientConfig {
                provider: Some(Provider::Anthropic),
                key: KeySource::None,
                api_version: version.map(str::to_owned),
                ..ClientConfig::default()
            };
            let endpoint = resolve(&config, &[]).unwrap();
            assert_eq!(endpoint.refuses_sampling, expected, "{version:?}");
            assert_eq!(endpoint.headers["anthropic-version"], version.unwrap_or(DEFAULT_ANTHROPIC_VERSION));
        }
    }
}
