//! Requests that the provider answers within a day at half price: OpenAI's files and batches, Anthropic's message batches.
//!
//! Nothing is remembered here: the caller keeps the batch's id, and a process that has it can ask on.

mod input;
mod status;

pub use input::BatchInput;
pub use status::BatchStatus;

use reqwest::header::HeaderValue;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::protocol::{Answer, Form, Misread, Protocol};
use super::refusal::{Refusal, one_line};
use super::retry::{Exchange, Fault, Success, Tries};
use super::service::{Client, encode};
use super::transport::{Call, Transport};
use super::{Failure, FailureKind, Provider, Request, Usage};
use crate::error::{Error, Result as LibraryResult};

/// Largest file of results, in bytes.
const MAX_RESULTS: usize = 1 << 30;

/// Largest status of a batch, or page of a list of them, in bytes.
const MAX_STATUS: usize = 16 << 20;

/// Where OpenAI's batches keep the caller's name for them, in their metadata.
const MARKER: &str = "swebench_infer";

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

/// A batch's requests where [`Client::create_batch`] finds them.
#[derive(Debug)]
pub struct UploadedBatch(Upload);

#[derive(Debug)]
enum Upload {
    /// OpenAI's file.
    File(Value),
    /// Anthropic has the requests in the call that makes the batch.
    Body(Vec<u8>),
}

impl Client {
    /// Checks that the provider has batches.
    ///
    /// # Errors
    /// `Unsupported` for the former `/v1/complete`.
    pub fn require_batches(&self) -> LibraryResult<()> {
        match self.endpoint.protocol {
            Protocol::Complete => Err(Error::unsupported("anthropic-text has no batches")
                .with_hint("give the provider `anthropic` and a model of its Messages")),
            _ => Ok(()),
        }
    }

    /// Checks that batches are JSON Lines of OpenAI's form, which vLLM's `run-batch` reads, too.
    ///
    /// # Errors
    /// `Unsupported` for Anthropic's interfaces.
    pub fn require_batch_files(&self) -> LibraryResult<()> {
        match self.endpoint.protocol {
            Protocol::Chat | Protocol::Responses => Ok(()),
            Protocol::Messages | Protocol::Complete => {
                Err(Error::unsupported("files of requests have OpenAI's form")
                    .with_expected("the provider openai or azure", self.endpoint.provider))
            }
        }
    }

    /// How many lines of a batch a request for `n` answers is: protocols that give one answer a request have `n`.
    pub fn batch_lines_of(&self, n: u32) -> u32 {
        if self.endpoint.protocol == Protocol::Chat { 1 } else { n.max(1) }
    }

    /// The lines of a batch for a request, without line ends: for OpenAI and vLLM's `run-batch` lines of the file, for
    /// Anthropic objects of the list. `custom_id` names the line of each number below [`Client::batch_lines_of`].
    ///
    /// # Errors
    /// `Rejected` where the provider has no batches, or the request cannot be written.
    pub fn batch_lines(
        &self,
        request: &Request,
        custom_id: impl Fn(u32) -> String,
    ) -> Result<Vec<String>, Failure> {
        let request = &self.with_model(request);
        let form =
            Form { n: request.n.max(1), stream: false, refuses_sampling: self.refuses_sampling(request) };
        let rejected =
            |reason: String| Failure::unsent(FailureKind::Rejected, Error::invalid_argument(reason));
        let body = self.endpoint.protocol.body(request, form).map_err(rejected)?;
        let line = |sample| {
            let custom_id = custom_id(sample);
            let line = match self.endpoint.protocol {
                Protocol::Messages => json!({"custom_id": custom_id, "params": body}),
                _ => json!({
                    "custom_id": custom_id, "method": "POST", "url": self.batch_path(), "body": body,
                }),
            };
            line.to_string()
        };
        Ok((0..self.batch_lines_of(request.n)).map(line).collect())
    }

    /// A batch without requests.
    pub fn batch_input(&self) -> BatchInput {
        BatchInput::new(self.endpoint.protocol)
    }

    /// Brings a batch's requests to where the provider reads them; nothing is worked on yet, and nothing billed.
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn upload_batch(&self, input: BatchInput) -> Result<UploadedBatch, Failure> {
        let body = input.into_body();
        if self.endpoint.protocol == Protocol::Messages {
            return Ok(UploadedBatch(Upload::Body(body)));
        }
        let call = Call {
            content_type: HeaderValue::from_static(input::FORM),
            ..Call::post_json(self.endpoint.at(&["files"]), body)
        };
        let mut file = self.fetch_json(call, "id", MAX_STATUS, false).await?;
        Ok(UploadedBatch(Upload::File(file["id"].take())))
    }

    /// Has the provider work on a batch from now on. `marker` comes back in its [`BatchStatus`] at OpenAI.
    ///
    /// A try whose fate is unknown is not repeated, as there could be two batches: see [`Failure::may_have_arrived`].
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn create_batch(&self, batch: UploadedBatch, marker: &str) -> Result<BatchStatus, Failure> {
        let call = match batch.0 {
            Upload::Body(body) => Call::post_json(self.endpoint.at(&["messages", "batches"]), body),
            Upload::File(file) => {
                let body = json!({
                    "input_file_id": file, "endpoint": self.batch_path(), "completion_window": "24h",
                    "metadata": {MARKER: marker},
                });
                Call::post_json(self.endpoint.at(&["batches"]), encode(&body)?)
            }
        };
        self.read_status(call, true).await
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
                let body = match &value["response"]["body"] {
                    // vLLM's reason is beside the answer.
                    Value::Null => json!({"error": value["error"]}),
                    body => body.clone(),
                };
                (u16::try_from(status).unwrap_or(500), body)
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
        match (self.endpoint.provider, self.endpoint.protocol) {
            (Provider::Azure, Protocol::Responses) => "/responses",
            (Provider::Azure, _) => "/chat/completions",
            (_, Protocol::Responses) => "/v1/responses",
            _ => "/v1/chat/completions",
        }
    }

    async fn read_status(&self, call: Call, once: bool) -> Result<BatchStatus, Failure> {
        Ok(status::read(&self.fetch_json(call, "id", MAX_STATUS, once).await?))
    }

    /// An object that has the member `key`.
    async fn fetch_json(&self, call: Call, key: &str, limit: usize, once: bool) -> Result<Value, Failure> {
        let body = self.fetch(call, limit, once).await?;
        serde_json::from_slice::<Value>(&body).ok().filter(|value| value.get(key).is_some()).ok_or_else(
            || {
                let fault = self
                    .transport
                    .malformed(200, &format!("no batch: {}", one_line(&String::from_utf8_lossy(&body))));
                Failure::unsent(fault.kind, fault.error)
            },
        )
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

    async fn submit(client: &Client, lines: &[String]) -> Result<BatchStatus, Failure> {
        let mut input = client.batch_input();
        assert!(input.push(lines));
        client.create_batch(client.upload_batch(input).await?, "mark").await
    }

    #[tokio::test]
    async fn batches_are_listed_until_they_are_too_old() {
        let server = Server::answering(&[
            (
                200,
                "",
                r#"{"data":[{"id":"b3","created_at":30,"metadata":{"swebench_infer":"m"}},{"id":"b2","created_at":20}],"has_more":true}"#,
            ),
            (200, "", r#"{"data":[{"id":"b1","created_at":10},{"id":"b0","created_at":5}],"has_more":true}"#),
        ]);
        let batches = client(Provider::Openai, &server.url).batches_since(10).await.unwrap();
        let found: Vec<_> =
            batches.iter().map(|batch| (batch.id.as_str(), batch.marker.as_deref())).collect();
        assert_eq!(found, [("b3", Some("m")), ("b2", None), ("b1", None)]);
        let requests = server.requests();
        assert!(requests[1].starts_with("GET /v1/batches?limit=100&after=b2 "), "{}", requests[1]);
        assert_eq!(requests.len(), 2);
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
        let lines = client.batch_lines(&request(), |_| "a".into()).unwrap();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(
            line,
            r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"hello"}]}}"#
        );
        let batch = submit(&client, &lines).await.unwrap();
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
        assert!(requests[1].contains("name=\"purpose\"\r\n\r\nbatch\r\n") && requests[1].contains(line));
        assert!(requests[2].contains("\"input_file_id\":\"file-1\""));
        assert!(requests[2].contains("\"metadata\":{\"swebench_infer\":\"mark\"}"));
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
        let two = Request { n: 2, ..request() };
        let lines = client.batch_lines(&two, |sample| format!("a-{sample}")).unwrap();
        assert!(lines.len() == 2 && lines[1].starts_with("{\"custom_id\":\"a-1\""), "{lines:?}");
        let batch = submit(&client, &lines).await.unwrap();
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
            let lines = client.batch_lines(&request(), |_| "a".into()).unwrap();
            assert!(submit(&client, &lines).await.unwrap_err().may_have_arrived());
            assert_eq!(server.requests().len(), 1);
        }
    }
}
