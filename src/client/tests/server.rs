//! A server on loopback that sends bytes as it is told, well-formed or not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is done on one connection, after a request was read.
#[derive(Clone)]
pub(in crate::client) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends nothing, and waits for the client to go.
    Hang,
}

/// A server; its thread ends with the process.
pub(in crate::client) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves one connection after another, each by the next of the scripts; the last one serves all others.
    pub(in crate::client) fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let script = scripts[number.min(scripts.len() - 1)].clone();
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream.unwrap(), script, &seen));
            }
        });
        Self { url, requests }
    }

    /// One whole answer after another.
    pub(in crate::client) fn answering(answers: &[(u16, &str, &str)]) -> Self {
        Self::start(
            answers
                .iter()
                .map(|(status, headers, body)| vec![Act::Send(answer(*status, headers, body.as_bytes()))])
                .collect(),
        )
    }

    /// Head and body of every request so far.
    pub(in crate::client) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// An answer with its length; `headers` are whole lines.
pub(in crate::client) fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A chunked stream of events, cut into pieces of `size` bytes; without its end when `cut`.
pub(in crate::client) fn events(events: &str, size: usize, cut: bool) -> Vec<Act> {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut acts = vec![Act::Send(head.into())];
    for piece in events.as_bytes().chunks(size) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        acts.push(Act::Send(chunk));
    }
    if !cut {
        acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
    }
    acts
}

fn serve(mut stream: TcpStream, script: Vec<Act>, seen: &Mutex<Vec<String>>) {
    stream.set_nodelay(true).unwrap();
    let Some(request) = read_request(&mut stream) else { return };
    seen.lock().unwrap().push(request);
    for act in script {
        match act {
            // A client that was cancelled reads no more.
            Act::Send(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::Hang => {
                let _ = stream.read(&mut [0]);
            }
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return Some(text.into_owned());
            }
        }
    }
}
