//! Clients: text from a service's model.

use std::ffi::c_void;
use std::sync::Arc;

use serde_json::{Value, json};

use super::boundary::{OK, Out, borrow, enter, free};
use super::buf::Buf;
use super::config::{CompletionConfig, parse};
use super::error::ErrorObject;
use super::event::{Event, SWEBENCH_EVENT_SAMPLE};
use super::generate::{TextCallback, result};
use super::job::{Job, Reporter};
use super::text::Str;
use crate::client::{self, ClientConfig, Driver, KeySource, OnText, Response, Secret, Usage};
use crate::error::{Error, ErrorKind, Result};

/// A service, ready for requests. Any number of threads may ask it at once: they share its connections.
pub struct Client(Arc<Connection>);

/// What jobs keep alive while they run.
struct Connection {
    client: client::Client,
    driver: Driver,
}

/// Prepares requests to a service: OpenAI, Azure, Anthropic, or any server that speaks one of their protocols. Connects to
/// nothing yet.
///
/// `config_json` is a configuration of kind "client", such as `{"model": "gpt-4o"}` or `{"model": "m", "base_url":
/// "http://localhost:8000/v1"}`. `key` is the API key, which is copied and never shown again; with the empty text it is
/// where the configuration's `key` says, by default in the provider's environment variable. Free `out` with
/// swebench_client_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_client_open(
    config_json: Str,
    key: Str,
    out: *mut *mut Client,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: texts and output are valid by contract.
        let (config_json, key, out) =
            unsafe { (config_json.get("config_json")?, key.get("key")?, Out::new(out, "out")?) };
        let mut config: ClientConfig = parse(config_json)?;
        if !key.is_empty() {
            if config.key != KeySource::Auto {
                return Err(Error::invalid_argument(
                    "the key that was passed and `key` in the configuration exclude each other",
                ));
            }
            config.key = KeySource::Given(Secret::new(key));
        }
        let client = client::Client::new(&config)?;
        out.write_boxed(Client(Arc::new(Connection { client, driver: Driver::start()? })));
        OK
    })
}

/// Starts a request and returns at once; fetch its events with swebench_job_next().
///
/// `request_json` is a request of kind "completion", at least `{"user": "Hello"}`. Events: TEXT with the first answer's text as
/// it comes, when the request says `stream`; SAMPLE for each of `n` answers, whose JSON is `{index, text, finish_reason}`;
/// and FINISHED with `{samples, model, usage, cost, attempts}`. Reasons are "stop", "length", "context_window", "refusal",
/// "tool_use", "cancelled", or the service's own word. `usage` counts tokens over all answers, `cost` is in dollars and null
/// where the price or a part of the tokens is not known, `attempts` tells every try. Failed tries are repeated as the
/// client's `retry` says; the error of a request that fails for good has `http_status`, `provider_code` and `retry_after`. A
/// cancelled request ends within a tenth of a second, with the text so far and `usage` null. Free `out` with
/// swebench_job_free(); the client may be freed before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_client_complete_start(
    client: *const Client,
    request_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: client, text and output are NULL or valid, by contract.
        let (client, request, out) =
            unsafe { (borrow(client, "client")?, request_json.get("request_json")?, Out::new(out, "out")?) };
        out.write_boxed(start(client, request)?);
        OK
    })
}

/// Asks and returns when the answer is there: swebench_client_complete_start() without a job to hold.
///
/// `on_text` may be NULL; it is called on this thread only, for requests that say `stream`. `out` receives the JSON of the
/// event FINISHED; free it with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_client_complete(
    client: *const Client,
    request_json: Str,
    on_text: TextCallback,
    user: *mut c_void,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: client, text and output are NULL or valid, by contract.
        let (client, request, out) =
            unsafe { (borrow(client, "client")?, request_json.get("request_json")?, Out::new(out, "out")?) };
        let job = start(client, request)?;
        // SAFETY: the caller's function and data, by contract.
        out.write(unsafe { result(&job, on_text, user)? });
        OK
    })
}

/// Frees a client; NULL is ignored. Jobs that use it go on, and its connections are closed with the last of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_client_free(client: *mut Client) {
    // SAFETY: NULL or a client that the caller owns, by contract.
    unsafe { free(client) }
}

fn start(client: &Client, request_json: &str) -> Result<Job> {
    let config: CompletionConfig = parse(request_json)?;
    let connection = Arc::clone(&client.0);
    Job::start(move |reporter| complete(&connection, config, reporter))
}

fn complete(connection: &Connection, config: CompletionConfig, reporter: Reporter<'_>) -> Result<Value> {
    let Connection { client, driver } = connection;
    let streams = config.stream;
    let request = config.request();
    let mut streamed = String::new();
    let mut on_text = |text: &str| {
        streamed.push_str(text);
        reporter.report(Event::text(0, text.to_owned(), Vec::new()));
    };
    let on_text: Option<OnText<'_>> = if streams { Some(&mut on_text) } else { None };
    let response = match driver.wait(reporter.cancel, client.complete(&request, on_text)) {
        Ok(response) => response.map_err(|failure| failure.error)?,
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            let samples = [sample(reporter, 0, streamed, Some("cancelled"))];
            return Ok(json!({
                "samples": samples, "model": null, "usage": null, "cost": null, "attempts": [],
            }));
        }
        Err(error) => return Err(error),
    };
    let cost = client.cost(&request, &response);
    let Response { choices, model, usage, attempts, .. } = response;
    let samples = (0u32..).zip(choices).map(|(index, choice)| {
        sample(reporter, index, choice.text, choice.finish_reason.as_ref().map(client::FinishReason::name))
    });
    let samples: Vec<Value> = samples.collect();
    let attempts = attempts.iter().map(|attempt| {
        json!({
            "http_status": attempt.status,
            "error": attempt.error,
            "duration_ms": attempt.duration.as_secs_f64() * 1e3,
            "wait_ms": attempt.wait.as_secs_f64() * 1e3,
        })
    });
    Ok(json!({
        "samples": samples,
        "model": model,
        "usage": describe(&usage),
        "cost": cost,
        "attempts": attempts.collect::<Vec<_>>(),
    }))
}

/// Reports an answer and returns its JSON.
fn sample(reporter: Reporter<'_>, index: u32, text: String, finish_reason: Option<&str>) -> Value {
    let sample = json!({"index": index, "text": text, "finish_reason": finish_reason});
    reporter.report(Event { index, text, ..Event::json(SWEBENCH_EVENT_SAMPLE, &sample) });
    sample
}

fn describe(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "completion_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    })
}
