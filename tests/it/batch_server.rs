//! A provider's batches on loopback: OpenAI's files and batches or Anthropic's message batches, kept as long as the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::run_api::PATCH;
use crate::server::{Answer, Request, Server};

/// What the provider does with one batch.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Its lines: names and bodies.
    pub lines: Vec<(String, Value)>,
    pub metadata: Value,
    pub is_ended: bool,
}

/// All batches of a provider, and how they end.
#[derive(Default)]
pub struct Batches {
    files: BTreeMap<String, Vec<Value>>,
    pub stored: BTreeMap<String, Stored>,
    /// Numbers of lines, over all batches, that get an error instead of an answer.
    pub errors: Vec<usize>,
    /// Numbers of lines that get nothing, as in a batch that expired.
    pub expired: Vec<usize>,
}

/// A running provider.
pub struct Provider {
    pub server: Server,
    batches: Arc<Mutex<Batches>>,
}

impl Provider {
    /// `before` may answer a request in the provider's place; it is told the path without its query.
    pub fn start(before: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let batches = Arc::new(Mutex::new(Batches::default()));
        let kept = Arc::clone(&batches);
        let server = Server::by_request(move |_, request| {
            before(request).unwrap_or_else(|| answer(&mut kept.lock().unwrap(), request))
        });
        Self { server, batches }
    }

    /// Looks at, or changes, what there is.
    pub fn with<T>(&self, look: impl FnOnce(&mut Batches) -> T) -> T {
        look(&mut self.batches.lock().unwrap())
    }

    /// Lets all batches end.
    pub fn end_all(&self) {
        self.with(|batches| batches.stored.values_mut().for_each(|batch| batch.is_ended = true));
    }
}

pub fn answer(batches: &mut Batches, request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let path: Vec<&str> = request.path.trim_start_matches("/v1/").split('/').collect();
    let value = match (request.method.as_str(), &path[..]) {
        ("POST", ["files"]) => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let lines = text.lines().filter(|line| line.starts_with("{\"custom_id\""));
            let id = format!("file-{}", batches.files.len());
            batches.files.insert(id.clone(), lines.map(|line| serde_json::from_str(line).unwrap()).collect());
            json!({"id": id})
        }
        ("POST", ["batches"]) => {
            let lines = batches.files[body["input_file_id"].as_str().unwrap()].clone();
            store(batches, lines, "body", &body["metadata"])
        }
        ("POST", ["messages", "batches"]) => {
            let lines = body["requests"].as_array().unwrap().clone();
            store(batches, lines, "params", &Value::Null)
        }
        ("GET", ["batches"] | ["messages", "batches"]) => {
            let is_openai = path.len() == 1;
            let data: Vec<Value> =
                batches.stored.iter().rev().map(|(id, batch)| describe(id, batch, is_openai)).collect();
            json!({"data": data, "has_more": false})
        }
        ("GET", ["batches", id]) => describe(id, &batches.stored[*id], true),
        ("GET", ["messages", "batches", id]) => describe(id, &batches.stored[*id], false),
        ("GET", ["files", file, "content"]) => {
            return results(batches, file.trim_start_matches("out-"), true);
        }
        ("GET", ["messages", "batches", id, "results"]) => return results(batches, id, false),
        other => return (404, "", json!({"error": {"message": format!("{other:?}")}}).to_string()),
    };
    (200, "", value.to_string())
}

fn store(batches: &mut Batches, lines: Vec<Value>, key: &str, metadata: &Value) -> Value {
    let id = format!("batch-{}", batches.stored.len());
    let name = |line: &Value| line["custom_id"].as_str().unwrap().to_owned();
    let lines = lines.iter().map(|line| (name(line), line[key].clone())).collect();
    let batch = Stored { lines, metadata: metadata.clone(), is_ended: false };
    let described = describe(&id, &batch, key == "body");
    batches.stored.insert(id, batch);
    described
}

fn describe(id: &str, batch: &Stored, is_openai: bool) -> Value {
    let (count, created_at) = (batch.lines.len(), 4_000_000_000_i64);
    match (is_openai, batch.is_ended) {
        (true, false) => {
            json!({"id": id, "status": "in_progress", "metadata": batch.metadata, "request_counts": {"total": count}})
        }
        (true, true) => json!({
            "id": id, "status": "completed", "metadata": batch.metadata, "output_file_id": format!("out-{id}"),
            "created_at": created_at, "request_counts": {"total": count, "completed": count},
        }),
        (false, false) => {
            json!({"id": id, "processing_status": "in_progress", "request_counts": {"processing": count}})
        }
        (false, true) => {
            json!({"id": id, "processing_status": "ended", "request_counts": {"succeeded": count}})
        }
    }
}

fn results(batches: &Batches, id: &str, is_openai: bool) -> Answer {
    let before: usize =
        batches.stored.iter().take_while(|(name, _)| *name != id).map(|(_, batch)| batch.lines.len()).sum();
    let mut text = String::new();
    // In another order than they were asked, as providers do.
    for (number, (custom_id, body)) in batches.stored[id].lines.iter().enumerate().rev() {
        let number = before + number;
        if batches.expired.contains(&number) {
            continue;
        }
        let refused = json!({"error": {"message": "the server had a bad day", "type": "server_error"}});
        let is_refused = batches.errors.contains(&number);
        let line = match (is_openai, is_refused) {
            (true, true) => {
                json!({"custom_id": custom_id, "response": {"status_code": 500, "body": refused}, "error": null})
            }
            (true, false) => {
                json!({"custom_id": custom_id, "response": {"status_code": 200, "body": chat(body)}})
            }
            (false, true) => json!({"custom_id": custom_id, "result": {"type": "errored", "error": refused}}),
            (false, false) => {
                json!({"custom_id": custom_id, "result": {"type": "succeeded", "message": message()}})
            }
        };
        text.push_str(&format!("{line}\n"));
    }
    (200, "", text)
}

/// As many answers as were asked for.
pub fn chat(request: &Value) -> Value {
    let n = request["n"].as_u64().unwrap_or(1);
    let choice = json!({"message": {"content": format!("<patch>{PATCH}</patch>")}, "finish_reason": "stop"});
    json!({
        "choices": vec![choice; n as usize],
        "usage": {"prompt_tokens": 90, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}},
    })
}

fn message() -> Value {
    json!({
        "content": [{"type": "text", "text": format!("<patch>{PATCH}</patch>")}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 90, "output_tokens": 10},
    })
}
