//! Fake hub on the loopback interface, for the tests of this layer and of datasets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Hub, HubConfig, Token};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// With the query.
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What it is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn refuse(status: u16, code: &str) -> Self {
        Self { status, headers: vec![("X-Error-Code", code.to_owned())], ..Self::default() }
    }

    /// The part of `body` that the request's range asks for.
    pub(crate) fn file(request: &Request, body: &[u8]) -> Self {
        let start = request
            .range
            .as_deref()
            .map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
        match start {
            None => Self::ok(body),
            Some(start) if start >= body.len() => Self::refuse(416, ""),
            Some(start) => Self {
                status: 206,
                headers: vec![("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len()))],
                body: body[start..].to_vec(),
                cut: None,
            },
        }
    }
}

/// A server that answers until it is dropped, one connection after the other.
pub(crate) struct TestServer {
    pub(crate) endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(crate) fn start(mut answer: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    if let Some(request) = read_request(&stream) {
                        requests.lock().unwrap().push(request.clone());
                        // A client that hangs up early is part of some tests.
                        drop(send(stream, &answer(&request)));
                    }
                }
            }
        });
        Self { endpoint, requests, stop, thread: Some(thread) }
    }

    /// What has been asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// A hub that talks to this server and does not pause between attempts.
    pub(crate) fn hub(&self, cache: &Path) -> Hub {
        let mut hub = Hub::new(HubConfig {
            endpoint: self.endpoint.clone(),
            cache: cache.to_path_buf(),
            token: Some(Token::new("hf_secret").unwrap()),
            offline: false,
        });
        hub.client.retry_pause = Duration::ZERO;
        hub
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.endpoint.trim_start_matches("http://")));
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the test server panicked");
        }
    }
}

/// The description of a repository with these files, the large ones outside of git.
pub(crate) fn listing(files: &[(&str, &[u8])]) -> Value {
    let siblings: Vec<Value> = files
        .iter()
        .map(|(name, body)| match name.ends_with(".json") {
            true => json!({"rfilename": name, "size": body.len(), "blobId": git_hash(body)}),
            false => {
                let sha256 = hex(&Sha256::digest(body));
                json!({"rfilename": name, "size": body.len(), "blobId": git_hash(name.as_bytes()),
                       "lfs": {"sha256": sha256, "size": body.len(), "pointerSize": 134}})
            }
        })
        .collect();
    json!({"id": "o/n", "sha": COMMIT, "private": false, "siblings": siblings})
}

/// Forty hexadecimal digits, as git's SHA-1 has; which ones does not matter.
fn git_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..20])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range: None, authorization: None, body: Vec::new() };
    let mut length = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "authorization" => request.authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut request.body).ok()?;
    Some(request)
}

fn send(mut stream: TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    head += &format!("Content-Length: {}\r\n", reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])
}
