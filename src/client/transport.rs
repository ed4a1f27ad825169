//! HTTP: one connection pool, one try at a time, and every way it can fail put into words.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Method, Response, Url, redirect};

use super::config::{Timeouts, seconds};
use super::endpoint::Endpoint;
use super::rate_limit::Pace;
use super::redact::Redactor;
use super::refusal::{PROXY_WANTS_A_PASSWORD, Refusal};
use super::retry::Fault;
use super::{FailureKind, Provider, Usage};
use crate::error::{Error, ErrorKind, Result, ServerReply};

/// Most of an error's body that is read, in bytes.
const MAX_ERROR: usize = 64 << 10;

/// Largest PEM file of certificate authorities, in bytes.
const MAX_CA_FILE: u64 = 16 << 20;

/// Told what the headers of every answer say, failures included; called from the tasks that make the requests.
pub type PaceObserver = Arc<dyn Fn(&Pace) + Send + Sync>;

/// One HTTP request, the same at every try.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// `GET` or `POST`.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// What the body is; not sent without one.
    pub content_type: HeaderValue,
    /// The body, shared by the tries.
    pub body: Bytes,
}

impl Call {
    /// Sends JSON.
    pub(super) fn post_json(url: Url, body: Vec<u8>) -> Self {
        let content_type = HeaderValue::from_static("application/json");
        Self { method: Method::POST, url, content_type, body: body.into() }
    }
}

/// The connections to one server.
pub(super) struct Transport {
    /// Made by the first request, so that a client without certificates can be made and say so then.
    http: OnceLock<reqwest::Client>,
    headers: HeaderMap,
    timeouts: Timeouts,
    ca_file: Option<PathBuf>,
    is_plain: bool,
    redactor: Redactor,
    server: String,
    provider: Provider,
    key_origin: Option<String>,
    observer: Option<PaceObserver>,
}

impl Transport {
    pub(super) fn new(endpoint: &Endpoint, timeouts: Timeouts, ca_file: Option<PathBuf>) -> Self {
        Self {
            http: OnceLock::new(),
            headers: endpoint.headers.clone(),
            timeouts,
            ca_file,
            is_plain: endpoint.is_plain(),
            redactor: endpoint.redactor.clone(),
            server: endpoint.server(),
            provider: endpoint.provider,
            key_origin: endpoint.key_origin.clone(),
            observer: None,
        }
    }

    pub(super) fn observe(&mut self, observer: PaceObserver) {
        self.observer = Some(observer);
    }

    /// Sends a request and waits for the head of a successful answer.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, Fault> {
        let http = self.http().map_err(|error| Fault {
            transient: false,
            unmetered: false,
            ..network_fault(FailureKind::WrongAddress, error)
        })?;
        let mut request = http.request(call.method.clone(), call.url.clone());
        if call.method != Method::GET {
            request = request.header(CONTENT_TYPE, &call.content_type).body(call.body.clone());
        }
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status().as_u16();
        let pace = Pace::read(status, response.headers(), Utc::now());
        if let Some(observer) = &self.observer {
            observer(&pace);
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let mut refusal = Refusal::default();
        if response.status().is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            refusal.message = format!("it redirects to {}", target.unwrap_or("nowhere"));
        } else {
            refusal = Refusal::read(&self.beginning(response).await);
        }
        let kind = refusal.classify(status);
        let mut fault = self.refused(status, &refusal);
        fault.wait = pace.wait();
        if let Some(reply) = fault.error.reply().cloned() {
            fault.error = fault.error.with_reply(ServerReply { retry_after: fault.wait, ..reply });
        }
        fault.transient = !kind.is_final() && pace.should_retry.unwrap_or_else(|| kind.is_transient());
        Err(fault)
    }

    /// The whole body of an answer, of at most `limit` bytes after decompression.
    pub(super) async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if body.len() + piece.len() > limit {
                return Err(
                    self.malformed(response.status().as_u16(), &format!("it is longer than {limit} bytes"))
                );
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next piece of an answer's body; `None` at its end.
    pub(super) async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>, Fault> {
        let status = response.status().as_u16();
        response.chunk().await.map_err(|error| Fault { status: Some(status), ..self.broken(error) })
    }

    /// What is there of an error's body.
    async fn beginning(&self, mut response: Response) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < MAX_ERROR
            && let Ok(Some(piece)) = response.chunk().await
        {
            body.extend_from_slice(&piece);
        }
        body.truncate(MAX_ERROR);
        body
    }

    /// The fault of an answer that is an error, which may have come with another status than it means.
    pub(super) fn refused(&self, status: u16, refusal: &Refusal) -> Fault {
        let kind = refusal.classify(status);
        let code = refusal.code.as_ref().or(refusal.kind.as_ref());
        let shown = code.map(|code| format!(" ({code})")).unwrap_or_default();
        let mut message = format!("{} answered with status {status}{shown}", self.server);
        if !refusal.message.is_empty() {
            message.push_str(": ");
            message.push_str(&refusal.message);
        }
        let code = code.map(|code| self.redactor.scrub(code));
        let reply = ServerReply { status, code, retry_after: None };
        let mut error = Error::new(kind.error_kind(), self.redactor.scrub(&message)).with_reply(reply);
        if status == PROXY_WANTS_A_PASSWORD {
            error = error.with_hint(
                "the proxy wants to know who asks: HTTPS_PROXY or HTTP_PROXY=http://USER:PASSWORD@HOST:PORT, or name the \
                 server in NO_PROXY",
            );
        } else if let Some(hint) = self.hint(kind, refusal) {
            error = error.with_hint(hint);
        }
        Fault {
            kind,
            error,
            status: Some(status),
            transient: kind.is_transient(),
            wait: None,
            usage: Usage::default(),
            unmetered: false,
        }
    }

    /// The fault of an answer that is not what the protocol says.
    pub(super) fn malformed(&self, status: u16, reason: &str) -> Fault {
        let error = Error::new(
            FailureKind::Protocol.error_kind(),
            self.redactor.scrub(&format!("the answer of {} is unusable: {reason}", self.server)),
        )
        .with_hint(format!("does this server speak the protocol of {}?", self.provider));
        Fault {
            kind: FailureKind::Protocol,
            error,
            status: Some(status),
            transient: false,
            wait: None,
            usage: Usage::default(),
            unmetered: true,
        }
    }

    /// Tells the observer that the server left an answer unfinished.
    pub(super) fn observe_cut(&self, status: u16) {
        if let Some(observer) = &self.observer {
            observer(&Pace { status, cut_off: true, ..Pace::default() });
        }
    }

    /// The fault of a stream that ended before the answer did.
    pub(super) fn cut_off(&self, status: u16) -> Fault {
        let error = Error::new(
            FailureKind::Network.error_kind(),
            format!("{} ended the stream in the middle of the answer", self.server),
        );
        Fault { status: Some(status), ..network_fault(FailureKind::Network, error) }
    }

    fn hint(&self, kind: FailureKind, refusal: &Refusal) -> Option<String> {
        Some(match kind {
            FailureKind::Authentication => match &self.key_origin {
                Some(origin) => format!("check that {origin} holds a valid key for {}", self.server),
                None => format!(
                    "the server wants a key: put it into the environment variable {}",
                    self.provider.key_variable()
                ),
            },
            FailureKind::Quota => "add credit or raise the limit in the provider's console".into(),
            FailureKind::UnknownModel if self.provider == Provider::Azure => {
                "on Azure the model is the name of a deployment".into()
            }
            FailureKind::UnknownModel => "check the model's name, and whether the key may use it".into(),
            FailureKind::WrongAddress => {
                "check the base URL, such as http://localhost:8000/v1, and the provider".into()
            }
            FailureKind::ContextOverflow => "shorten the prompt, or ask for fewer tokens".into(),
            FailureKind::Rejected if refusal.message.contains("max_completion_tokens") => {
                "give the model's arguments `max_tokens=null` and `max_completion_tokens=NUMBER`".into()
            }
            FailureKind::RateLimited => "make fewer requests at once".into(),
            _ => return None,
        })
    }

    /// The fault behind an error of the connection.
    fn broken(&self, error: reqwest::Error) -> Fault {
        let error = error.without_url();
        if error.is_builder() {
            let error = Error::invalid_argument("the request cannot be sent").with_source(error);
            return Fault {
                transient: false,
                unmetered: false,
                ..network_fault(FailureKind::Rejected, error)
            };
        }
        let before_sending = error.is_connect();
        let failed = |message: String| Error::new(ErrorKind::Network, message);
        if let Some(certificate) = certificate_error(&error) {
            let error = failed(format!("{} is not who it should be: {certificate}", self.server)).with_hint(
                "install the operating system's CA certificates (Debian: ca-certificates), or name the file of the \
                 authority that signed the server's certificate",
            );
            return Fault {
                transient: false,
                unmetered: false,
                ..network_fault(FailureKind::WrongAddress, error)
            };
        }
        let fault = match (error.is_timeout(), before_sending) {
            (true, true) => failed(format!("no connection to {} in time", self.server)),
            (true, false) => failed(format!("no answer from {} in time", self.server)),
            (false, true) => failed(format!("no connection to {}", self.server)),
            (false, false) => failed(format!("the connection to {} broke", self.server)),
        };
        let fault = if before_sending {
            fault.with_hint("check the base URL, the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if a proxy is used")
        } else {
            fault
        };
        Fault { unmetered: !before_sending, ..network_fault(FailureKind::Network, fault.with_source(error)) }
    }

    fn http(&self) -> Result<&reqwest::Client> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = self.build()?;
        Ok(self.http.get_or_init(|| http))
    }

    fn build(&self) -> Result<reqwest::Client> {
        build_http(&self.headers, self.timeouts, self.ca_file.as_ref(), self.is_plain)
    }
}

/// Connections with these headers on every request; redirections are not followed.
///
/// # Errors
/// `InvalidData` for certificates that cannot be read, `Unsupported` when there are none and `is_plain` does not say that none are
/// needed.
pub(super) fn build_http(
    headers: &HeaderMap,
    timeouts: Timeouts,
    ca_file: Option<&PathBuf>,
    is_plain: bool,
) -> Result<reqwest::Client> {
    // An error says that the process has a provider already, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = match ca_file {
        Some(path) => Some(read_certificates(path)?),
        None => None,
    };
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("swebench-infer/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers.clone())
            // A key must not follow a redirection to another server.
            .redirect(redirect::Policy::none())
            .connect_timeout(seconds(timeouts.connect))
            .read_timeout(seconds(timeouts.idle))
            .timeout(seconds(timeouts.total))
            // Routers forget connections that are silent while a model thinks.
            .tcp_keepalive(Duration::from_secs(60))
            .http2_adaptive_window(true)
    };
    match certificates {
        Some(certificates) => builder().tls_certs_merge(certificates).build(),
        None => builder().build(),
    }
    // Without TLS the machine needs no certificates.
    .or_else(|error| if is_plain { builder().tls_certs_only([]).build() } else { Err(error) })
    .map_err(|error| {
        Error::new(ErrorKind::Unsupported, "encrypted connections cannot be made")
            .with_hint(
                "install the operating system's CA certificates (Debian: ca-certificates), or name a PEM file in \
                 SSL_CERT_FILE",
            )
            .with_source(error)
    })
}

fn read_certificates(path: &PathBuf) -> Result<Vec<Certificate>> {
    let length = std::fs::metadata(path).map_err(|error| Error::io("read certificates", path, error))?.len();
    if length > MAX_CA_FILE {
        return Err(Error::invalid_data("the file holds no certificates")
            .with_path(path)
            .with_expected(format!("at most {MAX_CA_FILE} bytes"), length));
    }
    let pem = std::fs::read(path).map_err(|error| Error::io("read certificates", path, error))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid_data("the file holds no certificate in PEM form").with_path(path)),
        Err(error) => {
            Err(Error::invalid_data("the certificates cannot be read").with_path(path).with_source(error))
        }
    }
}

/// A fault of the connection, which may have been billed.
fn network_fault(kind: FailureKind, error: Error) -> Fault {
    Fault { kind, error, status: None, transient: true, wait: None, usage: Usage::default(), unmetered: true }
}

/// The reason why the server's certificate was refused, when that is what happened.
fn certificate_error(error: &(dyn StdError + 'static)) -> Option<String> {
    match error.downcast_ref::<rustls::Error>() {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => return Some(tls.to_string()),
        Some(_) => return None,
        None => {}
    }
    // What an `io::Error` holds is not among its sources.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => certificate_error(inner),
        None => certificate_error(error.source()?),
    }
}
