//! A service on loopback that answers as a function of the request, each connection on a thread of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Status, further header lines, and body; status 0 closes the connection without an answer.
pub type Answer = (u16, &'static str, String);

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// The path, without its query.
    pub path: String,
    pub query: String,
    /// The header lines in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The body; `null` for one that is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A running service; its threads end with the process.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers the request of each number, from 0, by its JSON.
    pub fn start(answer: impl Fn(usize, &Value) -> Answer + Send + Sync + 'static) -> Self {
        Self::by_request(move |number, request| answer(number, &request.json()))
    }

    /// Answers the request of each number, from 0.
    pub fn by_request(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { url, seen: requests }
    }

    /// The JSON of every request so far.
    pub fn requests(&self) -> Vec<Value> {
        self.seen.lock().unwrap().iter().map(Request::json).collect()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// A client that was killed reads and sends no more: then the connection just ends.
fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(usize, &Request) -> Answer) {
    let Some(request) = read_request(&mut stream) else { return };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let (status, headers, body) = answer(number, &request);
    if status == 0 {
        return;
    }
    let head = format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let (first, head) = head.split_once("\r\n").unwrap_or((&head, ""));
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = &bytes[end + 4..];
        if body.len() >= length.unwrap_or(0) {
            let mut words = first.split(' ').map(str::to_owned);
            let (method, target) = (words.next()?, words.next()?);
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let (path, query) = (path.to_owned(), query.to_owned());
            return Some(Request { method, path, query, head, body: body.to_vec() });
        }
    }
}
