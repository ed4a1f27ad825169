//! Requests to the hub: headers, timeouts, retries, and what its status codes mean.
//!
//! Addresses and headers as described in <https://huggingface.co/docs/hub/api>.

use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::cache::is_commit;
use super::config::{HubConfig, Token};
use super::repo::RepoId;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest silence in the middle of a download; also how long a cancelled one may take to notice.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: u32 = 4;
const MAX_LISTING: u64 = 64 << 20;

/// Sends requests and tries them again.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    pub(super) cancel: CancelToken,
    /// Pause after the first failure; doubled after each further one.
    pub(super) retry_pause: Duration,
}

/// Why a request failed, and whether trying again can help.
pub(super) enum Failure {
    /// Another attempt may succeed. `progressed` when this one brought something: then the count starts again.
    Transient { error: Error, progressed: bool },
    /// It will not.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// What the hub says of one revision of a repository.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) sha: String,
    /// The files.
    pub(super) siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sibling {
    pub(super) rfilename: String,
    #[serde(default)]
    pub(super) size: Option<u64>,
    /// The git hash of a file that is in git itself.
    #[serde(rename = "blobId", default)]
    pub(super) blob_id: Option<String>,
    #[serde(default)]
    pub(super) lfs: Option<LargeFile>,
}

/// A file outside of git.
#[derive(Debug, Deserialize)]
pub(super) struct LargeFile {
    pub(super) sha256: String,
    #[serde(default)]
    pub(super) size: Option<u64>,
}

impl Client {
    pub(super) fn new(config: &HubConfig) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The hub redirects large files to other hosts, which must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("swebench-infer/", env!("CARGO_PKG_VERSION")))
            // Ranges and sizes are those of the file, not of a compressed transfer.
            .accept_encoding("identity")
            .build()
            .new_agent();
        Self {
            agent,
            endpoint: config.endpoint.clone(),
            token: config.token.clone(),
            cancel: CancelToken::new(),
            retry_pause: Duration::from_millis(500),
        }
    }

    /// For requests other than reading.
    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The files of a revision.
    pub(super) fn list(&self, repo: &RepoId, revision: &str) -> Result<Listing> {
        self.retrying(|| {
            let mut response = self.get(&repo.listing_path(revision), 0)?;
            if response.status() != StatusCode::OK {
                return Err(self.refusal(&response, repo, revision, None));
            }
            let text = response
                .body_mut()
                .with_config()
                .limit(MAX_LISTING)
                .read_to_vec()
                .map_err(|error| self.broken(error, false))?;
            let listing: Listing = serde_json::from_slice(&text).map_err(|error| {
                Error::new(ErrorKind::Network, format!("the hub's description of {repo} is not readable"))
                    .with_hint(format!("is {} a Hugging Face hub?", self.endpoint))
                    .with_source(error)
            })?;
            if !is_commit(&listing.sha) {
                return Err(Error::invalid_data(format!("the hub's description of {repo} names no commit"))
                    .with_expected("40 hexadecimal digits", format_args!("`{}`", listing.sha.escape_debug()))
                    .into());
            }
            Ok(listing)
        })
    }

    /// The answer to a request for the path from byte `start` on, whatever its status.
    pub(super) fn get(&self, path: &str, start: u64) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(format!("{}/{path}", self.endpoint));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.authorization());
        }
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        request.call().map_err(|error| self.broken(error, false))
    }

    /// Calls `attempt` until it succeeds, fails for good, or has failed too often without progress.
    pub(super) fn retrying<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut failures = 0;
        loop {
            self.cancel.check()?;
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient { error, progressed }) => {
                    failures = if progressed { 1 } else { failures + 1 };
                    if failures >= MAX_ATTEMPTS {
                        return Err(error);
                    }
                    log::warn!("{}; trying again", error.to_line());
                    self.pause(self.retry_pause * 2_u32.pow(failures - 1))?;
                }
            }
        }
    }

    fn pause(&self, mut left: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        while !left.is_zero() {
            self.cancel.check()?;
            std::thread::sleep(left.min(STEP));
            left = left.saturating_sub(STEP);
        }
        Ok(())
    }

    /// The network failed, or the server broke off.
    pub(super) fn broken(&self, error: impl Into<ureq::Error>, progressed: bool) -> Failure {
        let error = Error::new(ErrorKind::Network, format!("no answer from {}", self.endpoint))
            .with_hint("check the network, and HF_ENDPOINT if a mirror is used; HF_HUB_OFFLINE=1 uses the cache alone")
            .with_source(error.into());
        Failure::Transient { error, progressed }
    }

    /// What a status other than success means for `file` of `repo`, or for the repository itself.
    pub(super) fn refusal(
        &self,
        response: &Response<Body>,
        repo: &RepoId,
        revision: &str,
        file: Option<&str>,
    ) -> Failure {
        let code =
            response.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let status = response.status();
        let token = match self.token {
            Some(_) => "the token in use may not read it",
            None => "no token is set: put one in HF_TOKEN if it is private",
        };
        let found = Error::new;
        let error = match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") => {
                found(ErrorKind::NotFound, format!("access to {repo} has to be granted")).with_hint(
                    "accept its terms on its page on the hub, and put a token of that account in HF_TOKEN",
                )
            }
            (404, "RevisionNotFound") => {
                found(ErrorKind::NotFound, format!("{repo} has no revision `{revision}`"))
            }
            (404, _) if file.is_some() => {
                found(ErrorKind::NotFound, format!("{repo} has no file `{}`", file.unwrap_or_default()))
            }
            // The hub does not tell strangers whether a private repository exists.
            (401 | 403 | 404, _) => {
                found(ErrorKind::NotFound, format!("{repo} is not on {}, or it is private", self.endpoint))
                    .with_hint(format!("check the name; {token}"))
            }
            _ => found(ErrorKind::Network, format!("{} refused to send {repo}", self.endpoint))
                .with_expected("success", format_args!("HTTP status {status}")),
        };
        match status.as_u16() {
            408 | 429 | 500.. => Failure::Transient { error, progressed: false },
            _ => Failure::Final(error),
        }
    }
}
