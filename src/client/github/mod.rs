//! Issues of GitHub and of hosts that speak its REST interface.

mod address;

pub use address::IssueAddress;

use std::time::Duration;

use chrono::Utc;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client as Http, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::Timeouts;
use super::secret::Secret;
use super::transport::build_http;
use crate::error::{Error, ErrorKind, Result, ServerReply};

/// The interface of github.com.
const PUBLIC_API: &str = "https://api.github.com";
/// The version of the interface that this is written for.
const API_VERSION: &str = "2022-11-28";
/// Most bytes of an answer: a page of the longest comments that GitHub allows, written as JSON.
const MAX_BODY: usize = 16 << 20;
/// Most bytes of a refusal that are read.
const MAX_REFUSAL: usize = 64 << 10;
/// Comments of a page, the most that GitHub gives.
const PAGE: usize = 100;
/// Most pages of comments; no context holds more.
const MAX_PAGES: usize = 10;
/// Renamed repositories redirect, once for each name that they had.
const MAX_REDIRECTS: usize = 4;
/// Tries of a request.
const MAX_ATTEMPTS: u32 = 4;
/// The longest wait for a limit to be lifted. GitHub's last up to an hour.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// An issue as its host tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Its title.
    pub title: String,
    /// What its author wrote; often with CRLF line ends, and empty where nothing was written.
    pub body: String,
    /// What others wrote below it, oldest first; empty unless it was asked for.
    pub comments: Vec<String>,
}

/// A connection to one host's interface.
#[derive(Debug)]
pub struct Github {
    http: Http,
    api: Url,
    has_token: bool,
}

impl Github {
    /// The interface at `api_url`, with a token for private repositories and a higher rate limit.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no http or https URL, and for a token that cannot be a header.
    pub fn new(api_url: &str, token: Option<&Secret>) -> Result<Self> {
        let api = Url::parse(api_url).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty()
        });
        let Some(api) = api.filter(|url| url.password().is_none()) else {
            return Err(Error::invalid_argument("the URL of the issues' interface is wrong").with_expected(
                "an http or https URL without credentials, such as https://github.example.com/api/v3",
                "another text",
            ));
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static(API_VERSION));
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| Error::invalid_argument("the token for GitHub is no token"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = build_http(&headers, Timeouts::default(), None, api.scheme() == "http")?;
        Ok(Self { http, api, has_token: token.is_some() })
    }

    /// The interface of the host that an issue's page is on, where it is known without asking.
    ///
    /// # Errors
    /// `InvalidArgument` for another host than github.com: a token must not go where a URL says.
    pub fn api_url_of(address: &IssueAddress) -> Result<&'static str> {
        if address.is_on_github() {
            return Ok(PUBLIC_API);
        }
        Err(Error::invalid_argument(format!("the interface of {} is not known", address.host()))
            .with_hint(format!("name it: --github-api-url {}/api/v3", address.host())))
    }

    /// Fetches an issue.
    ///
    /// # Errors
    /// `NotFound` when it is not there or not to be seen, `InvalidArgument` for a pull request, `InvalidData` for an issue
    /// without text and for an answer that is no issue, `Network` when the host cannot be reached or refuses.
    pub async fn issue(&self, address: &IssueAddress, with_comments: bool) -> Result<Issue> {
        let wanted: RawIssue = self.get(address, &[], "").await?;
        if wanted.pull_request.is_some() {
            return Err(Error::invalid_argument(format!("{address} is a pull request"))
                .with_expected("the URL of an issue", "that of a pull request"));
        }
        let mut issue = Issue {
            title: wanted.title.unwrap_or_default(),
            body: wanted.body.unwrap_or_default(),
            comments: Vec::new(),
        };
        if with_comments {
            issue.comments = self.comments(address).await?;
        }
        let is_blank = |text: &String| text.trim().is_empty();
        if is_blank(&issue.title) && is_blank(&issue.body) && issue.comments.iter().all(is_blank) {
            return Err(Error::invalid_data(format!("{address} is empty")));
        }
        Ok(issue)
    }

    async fn comments(&self, address: &IssueAddress) -> Result<Vec<String>> {
        let mut comments = Vec::new();
        for page in 1..=MAX_PAGES {
            let query = format!("per_page={PAGE}&page={page}");
            let found: Vec<RawComment> = self.get(address, &["comments"], &query).await?;
            let is_last = found.len() < PAGE;
            comments.extend(found.into_iter().filter_map(|comment| comment.body));
            if is_last {
                return Ok(comments);
            }
        }
        log::warn!("{address}: only the first {} comments are read", PAGE * MAX_PAGES);
        Ok(comments)
    }

    /// Gets what is at a path below the issue.
    async fn get<T: DeserializeOwned>(
        &self,
        address: &IssueAddress,
        below: &[&str],
        query: &str,
    ) -> Result<T> {
        let mut url = self.api.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            let number = address.number().to_string();
            path.pop_if_empty().extend(["repos", address.owner(), address.name(), "issues", &number]);
            path.extend(below);
        }
        url.set_query((!query.is_empty()).then_some(query));
        let body = self.body(url, address).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::invalid_data(format!("the answer about {address} is not what GitHub's interface gives"))
                .with_hint("is the URL of the interface right?")
                .with_source(error)
        })
    }

    /// The body of a successful answer, after as many tries and waits as are worth it.
    async fn body(&self, mut url: Url, address: &IssueAddress) -> Result<Vec<u8>> {
        let mut redirects = 0;
        let mut attempt = 1;
        loop {
            let fault = match self.http.get(url.clone()).send().await {
                Ok(response) if response.status().is_success() => match read(response, MAX_BODY).await {
                    Ok(Some(body)) => return Ok(body),
                    Ok(None) => {
                        return Err(Error::invalid_data(format!(
                            "the answer about {address} is longer than {} MiB",
                            MAX_BODY >> 20
                        )));
                    }
                    Err(error) => Fault::transient(self.broken(error)),
                },
                Ok(response) if response.status().is_redirection() => {
                    redirects += 1;
                    url = self.redirected(&url, &response, redirects)?;
                    continue;
                }
                Ok(response) => self.refused(response, address).await,
                Err(error) => Fault::transient(self.broken(error)),
            };
            let Some(wait) = fault.wait(attempt).filter(|_| attempt < MAX_ATTEMPTS) else {
                return Err(fault.error);
            };
            log::info!("{address}: {}; trying again in {:.0} s", fault.error.to_line(), wait.as_secs_f64());
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Where a repository that was renamed is; on the same server, as the token goes along.
    fn redirected(&self, from: &Url, response: &Response, redirects: usize) -> Result<Url> {
        let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
        let target = target.and_then(|target| from.join(target).ok());
        match target.filter(|target| target.origin() == self.api.origin() && redirects <= MAX_REDIRECTS) {
            Some(target) => Ok(target),
            None => Err(Error::new(ErrorKind::Network, format!("{} redirects to nowhere", self.server()))
                .with_hint("is the URL of the interface right?")),
        }
    }

    async fn refused(&self, response: Response, address: &IssueAddress) -> Fault {
        let status = response.status();
        let limit = Limit::read(response.headers(), Utc::now().timestamp());
        let body = read(response, MAX_REFUSAL).await.ok().flatten().unwrap_or_default();
        let said =
            serde_json::from_slice::<RawRefusal>(&body).unwrap_or_default().message.unwrap_or_default();
        let said: String = said.chars().take(300).flat_map(char::escape_debug).collect();
        let is_limit = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::FORBIDDEN
                && (limit.is_exhausted || limit.retry_after.is_some() || said.contains("rate limit")));
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let server = self.server();
        let error = match status.as_u16() {
            404 => Error::not_found(format!("{address} is not there")).with_hint(match self.has_token {
                true => "check the URL, and whether the token may read the repository",
                false => "check the URL; for a private repository put a token into GITHUB_TOKEN",
            }),
            410 => Error::not_found(format!("{address} was deleted, or its repository has no issues")),
            401 => Error::new(ErrorKind::Network, format!("{server} refuses the token{said}"))
                .with_hint("check GITHUB_TOKEN; public issues need none"),
            _ if is_limit => Error::new(ErrorKind::Network, format!("{server} wants to be left alone{said}"))
                .with_hint(match self.has_token {
                    true => "try again later: the same command continues",
                    false => "put a token into GITHUB_TOKEN, which raises the limit, or try again later",
                }),
            code => Error::new(ErrorKind::Network, format!("{server} answered with status {code}{said}")),
        };
        let reply = ServerReply { status: status.as_u16(), code: None, retry_after: limit.wait() };
        let is_transient = is_limit || status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
        Fault { error: error.with_reply(reply), is_transient, is_limit, limit: limit.wait() }
    }

    fn broken(&self, error: reqwest::Error) -> Error {
        Error::new(ErrorKind::Network, format!("no answer from {}", self.server()))
            .with_hint("check the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if a proxy is used")
            .with_source(error.without_url())
    }

    fn server(&self) -> &str {
        self.api.host_str().unwrap_or_default()
    }
}

#[derive(Debug, Deserialize)]
struct RawIssue {
    title: Option<String>,
    body: Option<String>,
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct RawComment {
    body: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct RawRefusal {
    message: Option<String>,
}

/// Why a try failed, and whether another is worth it.
#[derive(Debug)]
struct Fault {
    error: Error,
    is_transient: bool,
    is_limit: bool,
    limit: Option<Duration>,
}

impl Fault {
    fn transient(error: Error) -> Self {
        Self { error, is_transient: true, is_limit: false, limit: None }
    }

    /// How long to wait before the next try; `None` when there is to be none.
    fn wait(&self, attempt: u32) -> Option<Duration> {
        let wait = match self.limit {
            Some(limit) => limit,
            // What GitHub asks for where it does not say how long.
            None if self.is_limit => Duration::from_secs(60),
            None => Duration::from_secs(1 << (attempt - 1).min(4)),
        };
        (self.is_transient && wait <= LONGEST_WAIT).then_some(wait)
    }
}

/// What an answer says about limits.
#[derive(Debug, Default, PartialEq, Eq)]
struct Limit {
    retry_after: Option<Duration>,
    is_exhausted: bool,
    reset: Option<Duration>,
}

impl Limit {
    /// `retry-after` in seconds; `x-ratelimit-reset` in seconds since 1970, which holds once nothing remains.
    fn read(headers: &HeaderMap, now: i64) -> Self {
        let number =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<i64>().ok());
        let seconds = |number: i64| Duration::from_secs(number.max(0).unsigned_abs());
        Self {
            retry_after: number("retry-after").map(seconds),
            is_exhausted: number("x-ratelimit-remaining") == Some(0),
            // A second more, as the host's clock may be behind by a part of one.
            reset: number("x-ratelimit-reset").map(|at| seconds(at.saturating_sub(now).saturating_add(1))),
        }
    }

    fn wait(&self) -> Option<Duration> {
        self.retry_after.or(self.reset.filter(|_| self.is_exhausted))
    }
}

/// A body; `None` when it is longer than `limit`.
async fn read(mut response: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_the_headers_say() {
        #[track_caller]
        fn check(headers: &[(&'static str, &'static str)], wait: Option<u64>) {
            let headers = headers.iter().map(|(name, value)| {
                (name.parse::<reqwest::header::HeaderName>().unwrap(), HeaderValue::from_static(value))
            });
            let limit = Limit::read(&headers.collect(), 1000);
            assert_eq!(limit.wait(), wait.map(Duration::from_secs));
        }
        check(&[], None);
        check(&[("retry-after", "7")], Some(7));
        check(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1060")], Some(61));
        check(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "10")], Some(0));
        check(&[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "1060")], None);
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "-9223372036854775808")], Some(0));
    }

    #[test]
    fn a_limit_of_an_hour_is_not_waited_for() {
        let fault = |limit| Fault {
            error: Error::internal(""),
            is_transient: true,
            is_limit: true,
            limit: Some(Duration::from_secs(limit)),
        };
        assert_eq!(fault(3600).wait(1), None);
        assert_eq!(fault(60).wait(1), Some(Duration::from_secs(60)));
        assert_eq!(Fault::transient(Error::internal("")).wait(3), Some(Duration::from_secs(4)));
    }
}
