//! Clients against services on loopback: streaming, costs, failures, cancelling, and wrong use.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::swebench::sys::*;
use super::swebench::{Client, Job, config_validate, init};

/// A service whose every connection is served by a function; its threads end with the process.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves the request of each number, from 0.
    pub fn start(serve: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, serve) = (Arc::clone(&requests), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, serve, mut stream) = (Arc::clone(&seen), Arc::clone(&serve), stream.unwrap());
                std::thread::spawn(move || {
                    let Some(request) = read_request(&mut stream) else { return };
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request);
                        seen.len() - 1
                    };
                    serve(&mut stream, number);
                });
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until a request is there.
    fn wait(&self) {
        while self.requests().is_empty() {
            std::thread::yield_now();
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
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text.into_owned());
        }
    }
}

fn send(stream: &mut TcpStream, status: u16, content_type: &str, body: &str) {
    // A client that was cancelled reads no more.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-type: {content_type}\r\n\r\n{body}"
    );
}

/// The beginning of a stream in OpenAI's form.
fn begin_text(stream: &mut TcpStream, pieces: &[&str]) {
    let events: String = pieces
        .iter()
        .map(|piece| format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": piece}}]})))
        .collect();
    send(stream, 200, "text/event-stream", &events);
}

/// A whole stream of 1000 tokens of prompt and 100 of answer.
pub fn stream_text(stream: &mut TcpStream, pieces: &[&str]) {
    begin_text(stream, pieces);
    let end = json!({
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
    });
    let _ = write!(stream, "data: {end}\n\ndata: [DONE]\n\n");
}

/// An answer that is an error.
pub fn refuse(stream: &mut TcpStream, status: u16) {
    let body = json!({"error": {"message": "no such luck", "code": "bad_luck"}});
    send(stream, status, "application/json", &body.to_string());
}

fn hang(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0]);
}

fn open(server: &Server, more: &Value) -> Client {
    init().unwrap();
    let mut config = json!({"base_url": server.url, "model": "gpt-4o", "key": "none"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Client::open(&config.to_string(), "").unwrap()
}

/// The text of TEXT events, the JSON of SAMPLE events, and the result.
fn collect(job: Job) -> (String, Vec<Value>, Value) {
    let (mut text, mut samples) = (String::new(), Vec::new());
    for event in job {
        let event = event.unwrap();
        let json = || serde_json::from_str::<Value>(event.json()).unwrap();
        match event.kind() {
            SWEBENCH_EVENT_TEXT => text.push_str(event.text()),
            SWEBENCH_EVENT_SAMPLE => {
                assert_eq!(
                    (&json()["text"], &json()["index"]),
                    (&event.text().into(), &event.index().into())
                );
                samples.push(json());
            }
            SWEBENCH_EVENT_FINISHED => return (text, samples, json()),
            kind => panic!("event {kind}"),
        }
    }
    panic!("no result");
}

#[test]
fn an_answer_streams_with_its_usage_and_cost() {
    let server = Server::start(|stream, _| stream_text(stream, &["Hel", "lo"]));
    let client = open(&server, &json!({}));
    let request =
        json!({"system": "Be brief.", "user": "Hi", "stream": true, "temperature": 0, "extra": {"seed": 7}});
    let (text, samples, result) = collect(client.complete(&request.to_string()).unwrap());
    assert_eq!(text, "Hello");
    assert_eq!(samples, [json!({"index": 0, "text": "Hello", "finish_reason": "stop"})]);
    assert_eq!(result["samples"], json!(samples));
    assert_eq!(
        (&result["usage"], &result["cost"]),
        (
            &json!({"prompt_tokens": 1000, "cached_tokens": 0, "cache_write_tokens": 0, "completion_tokens": 100, "reasoning_tokens": 0}),
            &json!(0.0035)
        )
    );
    let sent = server.requests()[0].clone();
    for part in [r#""model":"gpt-4o""#, r#""content":"Be brief.""#, r#""seed":7"#, r#""temperature":0.0"#] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
}

#[test]
fn answers_come_at_once_without_streaming_and_failed_tries_are_told() {
    let server = Server::start(|stream, number| match number {
        0 => refuse(stream, 503),
        _ => {
            let choice = |text: &str| json!({"message": {"content": text}, "finish_reason": "length"});
            let answer = json!({"model": "gpt-4o-x", "choices": [choice("a"), choice("b")]});
            send(stream, 200, "application/json", &answer.to_string());
        }
    });
    let client = open(&server, &json!({"retry": {"first_wait": 0.0}}));
    let (text, samples, result) = collect(client.complete(r#"{"user": "Hi", "n": 2}"#).unwrap());
    assert_eq!((text.as_str(), samples.len(), &samples[1]["text"]), ("", 2, &"b".into()));
    // The server does not count, so that nobody knows the cost.
    assert_eq!((&result["cost"], &result["model"]), (&Value::Null, &"gpt-4o-x".into()));
    let statuses: Vec<_> =
        result["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["http_status"]).collect();
    assert_eq!(statuses, [503, 200]);
}

#[test]
fn the_key_comes_by_the_call_and_is_never_shown() {
    let server = Server::start(|stream, _| refuse(stream, 401));
    init().unwrap();
    let config = json!({"base_url": server.url, "model": "gpt-4o"}).to_string();
    let client = Client::open(&config, " sk-secret-0123456789\n").unwrap();
    let error = client.complete(r#"{"user": "Hi"}"#).unwrap().find_map(Result::err).unwrap();
    assert!(server.requests()[0].contains("authorization: Bearer sk-secret-0123456789\r\n"));
    assert_eq!(error.code(), SWEBENCH_ERROR_INVALID_ARGUMENT);
    assert!(!error.json().contains("sk-secret") && !error.to_string().contains("sk-secret"), "{error}");
    let details: Value = serde_json::from_str(error.json()).unwrap();
    assert_eq!(
        (&details["http_status"], &details["provider_code"], &details["retry_after"]),
        (&json!(401), &json!("bad_luck"), &Value::Null)
    );
    let config = json!({"base_url": server.url, "model": "gpt-4o", "key": {"environment": "NO_SUCH"}});
    for (config, key, says) in [
        (&config, "sk-1", "exclude each other"),
        (&config, "", "NO_SUCH is not set"),
        (&json!({"model": "gpt-4o"}), "two words", "printable ASCII"),
        (&json!({"model": "whose"}), "", "does not tell its provider"),
        (&json!({"model": "gpt-4o", "prices": "/nowhere/prices.json"}), "sk-1", "/nowhere/prices.json"),
    ] {
        let error = Client::open(&config.to_string(), key).err().unwrap();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let effective = config_validate("client", r#"{"model": "gpt-4o"}"#).unwrap();
    assert_eq!(config_validate("client", &effective).unwrap(), effective);
}

#[test]
fn a_wait_is_cancelled_within_a_tenth_of_a_second() {
    let server = Server::start(|stream, number| {
        if number % 2 == 1 {
            begin_text(stream, &["so far"]);
        }
        hang(stream);
    });
    let client = open(&server, &json!({}));
    let mut times = Vec::new();
    // Machines are busy at times: one of the rounds has to be in time, and all have to end as they should.
    for number in 0..6 {
        let mut job = client.complete(r#"{"user": "Hi", "stream": true}"#).unwrap();
        let expected = if number % 2 == 1 {
            assert_eq!(job.next().unwrap().unwrap().text(), "so far");
            "so far"
        } else {
            while server.requests().len() <= number {
                std::thread::yield_now();
            }
            ""
        };
        let start = Instant::now();
        job.handle().cancel();
        let (_, samples, result) = collect(job);
        times.push(start.elapsed());
        assert_eq!(samples, [json!({"index": 0, "text": expected, "finish_reason": "cancelled"})]);
        assert_eq!((&result["usage"], &result["cost"]), (&Value::Null, &Value::Null));
    }
    assert!(times.iter().min() < Some(&Duration::from_millis(100)), "{times:?}");
}

#[test]
fn a_client_may_be_freed_before_its_jobs_and_jobs_before_their_ends() {
    let server = Server::start(|stream, number| match number {
        0 => stream_text(stream, &["still here"]),
        _ => hang(stream),
    });
    let client = open(&server, &json!({}));
    let job = client.complete(r#"{"user": "Hi", "stream": true}"#).unwrap();
    drop(client);
    assert_eq!(collect(job).1[0]["text"], "still here");

    let client = open(&server, &json!({}));
    let jobs = [0, 1].map(|_| client.complete(r#"{"user": "Hi", "stream": true}"#).unwrap());
    server.wait();
    let start = Instant::now();
    drop(client);
    drop(jobs);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn threads_share_a_client() {
    let server = Server::start(|stream, _| stream_text(stream, &["x"]));
    let client = open(&server, &json!({}));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(
                    collect(client.complete(r#"{"user": "Hi", "stream": true}"#).unwrap()).1[0]["text"],
                    "x"
                )
            });
        }
    });
    assert_eq!(server.requests().len(), 8);
}

#[test]
fn wrong_requests_are_refused_at_the_start() {
    let server = Server::start(|_, _| panic!("nothing is sent"));
    let client = open(&server, &json!({}));
    for (request, says) in [
        ("{}", "missing field `user`"),
        (r#"{"user": "a", "prompt": "b"}"#, "unknown key `prompt`"),
        (r#"{"user": "a", "top_p": 2}"#, "`top_p` is out of range"),
        ("[", "not valid JSON"),
    ] {
        let error = client.complete(request).err().unwrap();
        assert_eq!(error.code(), SWEBENCH_ERROR_INVALID_ARGUMENT, "{request}");
        assert!(error.to_string().contains(says), "{request}: {error}");
    }
}

#[test]
fn the_blocking_call_gives_text_to_the_callers_function_and_stops_when_told() {
    unsafe extern "C" fn stop(text: swebench_str, index: u32, user: *mut std::ffi::c_void) -> i32 {
        // SAFETY: the test's own string, used by this thread alone; the text lives during the call.
        unsafe {
            let bytes = std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len);
            (*user.cast::<String>()).push_str(&format!("{index}:{}", String::from_utf8_lossy(bytes)));
        }
        1
    }
    let server = Server::start(|stream, _| {
        begin_text(stream, &["first"]);
        hang(stream);
    });
    init().unwrap();
    let text = |text: &str| swebench_str { ptr: text.as_ptr().cast(), len: text.len() };
    let config = json!({"base_url": server.url, "model": "m", "key": "none"}).to_string();
    let (mut client, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mut out = swebench_buf { ptr: std::ptr::null_mut(), len: 0, reserved: 0 };
    let mut heard = String::new();
    // SAFETY: texts and outputs live during the calls; client and buffer are freed once.
    let result = unsafe {
        assert_eq!(swebench_client_open(text(&config), text(""), &raw mut client, none), SWEBENCH_OK);
        let request = r#"{"user": "Hi", "stream": true}"#;
        let user = (&raw mut heard).cast();
        let status = swebench_client_complete(client, text(request), Some(stop), user, &raw mut out, none);
        assert_eq!(status, SWEBENCH_OK);
        let bytes = std::slice::from_raw_parts(out.ptr.cast::<u8>(), out.len).to_vec();
        swebench_buf_free(&raw mut out);
        swebench_client_free(client);
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(heard, "0:first");
    let result: Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["samples"][0]["finish_reason"], "cancelled");
}
