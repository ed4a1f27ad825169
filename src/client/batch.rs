//! Requests that the provider answers within a day at half price: OpenAI's files and batches, Anthropic's message batches.
//!
//! Nothing is remembered here: the caller keeps the batch's id, and a process that has it can ask on.

use reqwest::header::HeaderValue;
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::protocol::{Answer, Form, Misread, Protocol};
use super::refusal::{Refusal, one_line};
use super::retry::{Exchange, Fault, Success, Tries};
use super::service::{Client, encode};
use super::transport::{Call, Transport};
use super::{Failure, FailureKind, Request, Usage};
use crate::error::Error;

/// Largest file of results, in bytes.
const MAX_RESULTS: usize = 1 << 30;

/// Largest status of a batch, in bytes.
const MAX_STATUS: usize = 1 << 20;

/// How far a batch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchStatus {
    /// The provider's name for it.
    pub id: String,
    /// The state in the provider's words.
    pub state: String,
    /// Whether nothing more will happen: the results, perhaps of a part, can be fetched.
    pub is_ended: bool,
    /// Requests that have an answer.
    pub succeeded: u64,
    /// Requests that will have none.
    pub failed: u64,
    /// All requests, where the provider says.
    pub total: Option<u64>,
    /// Why the whole batch was refused.
    pub error: Option<String>,
    /// OpenAI's files of answers and of errors.
    files: Vec<String>,
}

/// What became of one request of a batch.
#[derive(Debug)]
pub struct BatchResult {
    /// The caller's name for the request.
    pub custom_id: String,
    /// The answer, which was billed at the price of batches.
    pub answer: Result<BatchAnswer, Failure>,
}

/// An answer out of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The answers.
    pub choices: Vec<super::Choice>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens; `None` where the server does not count.
    pub usage: Option<Usage>,
}

impl From<Answer> for BatchAnswer {
    fn from(Answer { choices, model, usage }: Answer) -> Self {
        Self { choices, model, usage }
    }
}

impl Client {
    /// One line of a batch, without a line end: for OpenAI and vLLM's `run-batch` a line of the file, for Anthropic one of
    /// the requests.
    ///
    /// # Errors
    /// `Rejected` where the provider has no batches, or the request cannot be written.
    pub fn batch_line(&self, custom_id: &str, request: &Request) -> Result<String, Failure> {
        let request = &self.with_model(request);
        let form =
            Form { n: request.n.max(1), stream: false, refuses_sampling: self.refuses_sampling(request) };
        let rejected =
            |reason: String| Failure::unsent(FailureKind::Rejected, Error::invalid_argument(reason));
        let body = self.endpoint.protocol.body(request, form).map_err(rejected)?;
        let line = match self.endpoint.protocol {
            Protocol::Chat | Protocol::Responses => json!({
                "custom_id": custom_id, "method": "POST", "url": self.batch_path(), "body": body,
            }),
            Protocol::Messages => json!({"custom_id": custom_id, "params": body}),
            Protocol::Complete => return Err(rejected("anthropic-text has no batches".into())),
        };
        Ok(line.to_string())
    }

    /// Sends lines of [`Client::batch_line`] as one batch; the provider works on it from then on.
    ///
    /// A try whose fate is unknown is not repeated: there could be two batches.
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn submit_batch(&self, lines: &[String]) -> Result<BatchStatus, Failure> {
        if self.endpoint.protocol == Protocol::Messages {
            let body = format!("{{\"requests\":[{}]}}", lines.join(","));
            let url = self.endpoint.at(&["messages", "batches"]);
            return self.read_status(Call::post_json(url, body.into_bytes()), true).await;
        }
        let file: Value = self.fetch_json(upload(self.endpoint.at(&["files"]), lines), false).await?;
        let body = json!({
            "input_file_id": file["id"], "endpoint": self.batch_path(), "completion_window": "24h",
        });
        self.read_status(Call::post_json(self.endpoint.at(&["batches"]), encode(&body)?), true).await
    }

    /// How far the batch of this id is.
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn batch_status(&self, id: &str) -> Result<BatchStatus, Failure> {
        let url = match self.endpoint.protocol {
            Protocol::Messages => self.endpoint.at(&["messages", "batches", id]),
            _ => self.endpoint.at(&["batches", id]),
        };
        self.read_status(get(url), false).await
    }

    /// Every result that an ended batch has, in any order.
    ///
    /// # Errors
    /// The failure of fetching them; failures of single requests are results.
    pub async fn batch_results(&self, status: &BatchStatus) -> Result<Vec<BatchResult>, Failure> {
        let urls: Vec<Url> = match self.endpoint.protocol {
            // The status names a URL as well, but a key goes nowhere that the user did not name.
            Protocol::Messages => vec![self.endpoint.at(&["messages", "batches", &status.id, "results"])],
            _ => status.files.iter().map(|file| self.endpoint.at(&["files", file, "content"])).collect(),
        };
        let mut results = Vec::new();
        for url in urls {
            let body = self.fetch(get(url), MAX_RESULTS, false).await?;
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            results.extend(lines.filter_map(|line| self.read_batch_line(line)));
        }
        Ok(results)
    }

    /// One line of a file of results, also of vLLM's `run-batch`; `None` when it does not say which request it is about.
    pub fn read_batch_line(&self, line: &[u8]) -> Option<BatchResult> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let custom_id = value.get("custom_id")?.as_str()?.to_owned();
        let (status, body) = match value.get("result") {
            Some(result) if result["type"] == "succeeded" => (200, result["message"].clone()),
            Some(result) if result["type"] == "errored" => (200, result["error"].clone()),
            Some(result) => {
                (200, json!({"error": {"message": format!("the request is {}", result["type"])}}))
            }
            None if value["response"].is_object() => {
                let status = value["response"]["status_code"].as_u64().unwrap_or(200);
                (u16::try_from(status).unwrap_or(500), value["response"]["body"].clone())
            }
            None => (200, json!({"error": value["error"]})),
        };
        let answer = if status == 200 {
            self.endpoint.protocol.answer(body.to_string().as_bytes())
        } else {
            Err(Misread::Refused(Refusal::read(body.to_string().as_bytes())))
        };
        let answer = answer.map(BatchAnswer::from).map_err(|misread| {
            let fault = match misread {
                Misread::Refused(refusal) => self.transport.refused(status, &refusal),
                Misread::Malformed(reason) => self.transport.malformed(status, &reason),
            };
            Failure::unsent(fault.kind, fault.error)
        });
        Some(BatchResult { custom_id, answer })
    }

    fn batch_path(&self) -> &'static str {
        match self.endpoint.protocol {
            Protocol::Responses => "/v1/responses",
            _ => "/v1/chat/completions",
        }
    }

    async fn read_status(&self, call: Call, once: bool) -> Result<BatchStatus, Failure> {
        Ok(read_status(&self.fetch_json(call, once).await?))
    }

    async fn fetch_json(&self, call: Call, once: bool) -> Result<Value, Failure> {
        let body = self.fetch(call, MAX_STATUS, once).await?;
        serde_json::from_slice::<Value>(&body).ok().filter(|value| value["id"].is_string()).ok_or_else(|| {
            let fault = self
                .transport
                .malformed(200, &format!("no batch: {}", one_line(&String::from_utf8_lossy(&body))));
            Failure::unsent(fault.kind, fault.error)
        })
    }

    async fn fetch(&self, call: Call, limit: usize, once: bool) -> Result<Vec<u8>, Failure> {
        let mut tries = Tries::new(&self.retry);
        let mut fetch = Fetch { transport: &self.transport, call, limit, once };
        match tries.make(&self.retry, &self.breaker, "", &mut fetch).await {
            Ok(body) => Ok(body),
            Err(stopped) => Err(tries.into_failure(stopped)),
        }
    }
}

/// A call whose answer is bytes.
struct Fetch<'a> {
    transport: &'a Transport,
    call: Call,
    limit: usize,
    /// Whether it must not be made twice.
    once: bool,
}

impl Exchange for Fetch<'_> {
    type Answer = Vec<u8>;

    async fn attempt(&mut self) -> Result<Success<Vec<u8>>, Fault> {
        let result = async {
            let response = self.transport.send(&self.call).await?;
            let status = response.status().as_u16();
            let answer = self.transport.body(response, self.limit).await?;
            Ok(Success { answer, status, usage: Usage::default(), unmetered: false })
        };
        result.await.map_err(|fault: Fault| {
            // What a refusal for too many requests says for sure, a broken connection and a failed server do not.
            let done_perhaps = fault.unmetered || fault.kind == FailureKind::Server;
            Fault { transient: fault.transient && !(self.once && done_perhaps), unmetered: false, ..fault }
        })
    }
}

fn get(url: Url) -> Call {
    Call { method: Method::GET, ..Call::post_json(url, Vec::new()) }
}

/// A form with the lines as its file (RFC 7578).
fn upload(url: Url, lines: &[String]) -> Call {
    // JSON has no line that begins like this.
    const BOUNDARY: &str = "swebench-infer-batch-boundary";
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{BOUNDARY}\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"batch.jsonl\"\r\n\
         Content-Type: application/jsonl\r\n\r\n"
    );
    for line in lines {
        body.push_str(line);
        body.push('\n');
    }
    body.push_str(&format!("\r\n--{BOUNDARY}--\r\n"));
    let content_type =
        HeaderValue::from_static("multipart/form-data; boundary=swebench-infer-batch-boundary");
    Call { content_type, ..Call::post_json(url, body.into_bytes()) }
}

fn read_status(value: &Value) -> BatchStatus {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let counts = value["request_counts"].as_object().cloned().unwrap_or_else(Map::new);
    let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
    let sum = |names: [&str; 4]| names.into_iter().fold(0_u64, |sum, name| sum.saturating_add(count(name)));
    let state = text("processing_status").or_else(|| text("status")).unwrap_or_default();
    let errors = value["errors"]["data"].as_array().into_iter().flatten();
    let error = errors.filter_map(|error| error["message"].as_str()).next().map(one_line);
    let is_anthropic = value["processing_status"].is_string();
    let all = ["processing", "succeeded", "errored", "canceled"];
    BatchStatus {
        id: text("id").unwrap_or_default(),
        is_ended: matches!(state.as_str(), "ended" | "completed" | "failed" | "expired" | "cancelled"),
        state,
        succeeded: count("succeeded").saturating_add(count("completed")),
        failed: sum(["failed", "errored", "canceled", "expired"]),
        total: if is_anthropic {
            Some(sum(all).saturating_add(count("expired")))
        } else {
            counts.get("total").and_then(Value::as_u64)
        },
        error,
        files: ["output_file_id", "error_file_id"].into_iter().filter_map(text).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::server::Server;
    use super::super::{ClientConfig, KeySource, Provider};
    use super::*;

    fn client(provider: Provider, url: &str) -> Client {
        let config = ClientConfig {
            provider: Some(provider),
            base_url: Some(url.into()),
            key: KeySource::None,
            model: "m".into(),
            retry: super::super::RetryPolicy { first_wait: 0.001, ..Default::default() },
            ..ClientConfig::default()
        };
        Client::with_environment(&config, &|_| None).unwrap()
    }

    fn request() -> Request {
        Request { user: "hello".into(), ..Request::default() }
    }

    #[tokio::test]
    async fn an_openai_batch_goes_through_its_files() {
        let results = r#"{"custom_id":"a","response":{"status_code":200,"body":{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}},"error":null}

{"custom_id":"b","response":{"status_code":400,"body":{"error":{"message":"maximum context length is 8"}}},"error":null}
{"custom_id":"c","response":null,"error":{"code":"batch_expired","message":"too late"}}
torn"#;
        let server = Server::answering(&[
            (429, "", "{}"),
            (200, "", r#"{"id":"file-1"}"#),
            (200, "", r#"{"id":"batch-1","status":"validating"}"#),
            (
                200,
                "",
                r#"{"id":"batch-1","status":"completed","output_file_id":"file/2","request_counts":{"total":3,"completed":1,"failed":2}}"#,
            ),
            (200, "", results),
        ]);
        let client = client(Provider::Openai, &server.url);
        let line = client.batch_line("a", &request()).unwrap();
        assert_eq!(
            line,
            r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"hello"}]}}"#
        );
        let batch = client.submit_batch(std::slice::from_ref(&line)).await.unwrap();
        assert_eq!((batch.id.as_str(), batch.is_ended), ("batch-1", false));
        let status = client.batch_status(&batch.id).await.unwrap();
        assert_eq!((status.is_ended, status.succeeded, status.failed, status.total), (true, 1, 2, Some(3)));
        let results = client.batch_results(&status).await.unwrap();
        let kinds: Vec<_> = results
            .iter()
            .map(|result| {
                (result.custom_id.as_str(), result.answer.as_ref().err().map(|failure| failure.kind))
            })
            .collect();
        let expected =
            [("a", None), ("b", Some(FailureKind::ContextOverflow)), ("c", Some(FailureKind::Server))];
        assert_eq!(kinds, expected);
        let requests = server.requests();
        assert!(requests[1].contains("name=\"purpose\"\r\n\r\nbatch\r\n") && requests[1].contains(&line));
        assert!(requests[2].contains("\"input_file_id\":\"file-1\""));
        assert!(requests[4].starts_with("GET /v1/files/file%2F2/content "), "{}", requests[4]);
    }

    #[tokio::test]
    async fn an_anthropic_batch_is_one_request() {
        let results = r#"{"custom_id":"a","result":{"type":"succeeded","message":{"content":[{"type":"text","text":"x"}],"stop_reason":"end_turn"}}}
{"custom_id":"b","result":{"type":"errored","error":{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}}}
{"custom_id":"c","result":{"type":"expired"}}"#;
        let server = Server::answering(&[
            (200, "", r#"{"id":"b1","processing_status":"in_progress","request_counts":{"processing":3}}"#),
            (
                200,
                "",
                r#"{"id":"b1","processing_status":"ended","results_url":"http://elsewhere/","request_counts":{"processing":0,"succeeded":1,"errored":1,"expired":1}}"#,
            ),
            (200, "", results),
        ]);
        let client = client(Provider::Anthropic, &server.url);
        let line = client.batch_line("a", &request()).unwrap();
        let batch = client.submit_batch(&[line]).await.unwrap();
        assert_eq!((batch.is_ended, batch.total), (false, Some(3)));
        let status = client.batch_status(&batch.id).await.unwrap();
        assert_eq!((status.is_ended, status.succeeded, status.failed), (true, 1, 2));
        let results = client.batch_results(&status).await.unwrap();
        let kinds: Vec<_> =
            results.iter().map(|result| result.answer.as_ref().err().map(|failure| failure.kind)).collect();
        assert_eq!(kinds, [None, Some(FailureKind::ContextOverflow), Some(FailureKind::Server)]);
    }

    #[tokio::test]
    async fn a_batch_that_may_exist_is_not_sent_again() {
        for answers in [vec![(500, "", "{}")], vec![(200, "", "junk")]] {
            let server = Server::answering(&answers);
            let client = client(Provider::Anthropic, &server.url);
            client.submit_batch(&[client.batch_line("a", &request()).unwrap()]).await.unwrap_err();
            assert_eq!(server.requests().len(), 1);
        }
    }
}
