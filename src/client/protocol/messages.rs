//! Anthropic's Messages.

use serde_json::{Map, Value, json};

use super::{Answer, Form, Misread, Partial, add_sampling, anthropic_finish_reason, joined_text, string};
use crate::client::{Choice, Request, Usage};

/// The answer's limit where none is given, which this protocol does not allow: the reference's.
const DEFAULT_MAX_TOKENS: u32 = 4096;

pub(super) fn body(request: &Request, form: Form) -> Map<String, Value> {
    let mut body = prompt(request);
    body.insert("max_tokens".into(), request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).into());
    if !form.refuses_sampling {
        add_sampling(&mut body, request);
        if takes_one_sampling_parameter(&request.model) && body.contains_key("temperature") {
            body.shift_remove("top_p");
        }
    }
    if !request.stop.is_empty() {
        body.insert("stop_sequences".into(), request.stop.clone().into());
    }
    body
}

/// The part that has tokens to count: model, system and messages.
pub(in crate::client) fn prompt(request: &Request) -> Map<String, Value> {
    let block = |text: &str, cached: bool| {
        if cached {
            json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
        } else {
            text.into()
        }
    };
    let mut body = Map::new();
    body.insert("model".into(), request.model.as_str().into());
    if !request.system.is_empty() {
        body.insert("system".into(), block(&request.system, request.prompt_cache));
    }
    // Instances share their instructions; several answers to one instance share its message too.
    let user = block(&request.user, request.prompt_cache && request.n > 1);
    body.insert("messages".into(), json!([{"role": "user", "content": user}]));
    body
}

pub(super) fn answer(value: &Value) -> Option<Answer> {
    let content = value.get("content").filter(|content| content.is_array())?;
    let choice = Choice {
        text: joined_text(content),
        finish_reason: value["stop_reason"].as_str().map(anthropic_finish_reason),
    };
    let mut usage = None;
    update_usage(&mut usage, &value["usage"]);
    Some(Answer { choices: vec![choice], model: string(value, "model"), usage })
}

pub(super) fn fold(
    partial: &mut Partial,
    value: &Value,
    on_text: &mut dyn FnMut(&str),
) -> Result<(), Misread> {
    match value["type"].as_str() {
        Some("message_start") => {
            partial.set_model(&value["message"]);
            partial.choice(0)?;
            update_usage(&mut partial.answer.usage, &value["message"]["usage"]);
        }
        Some("content_block_start") if value["content_block"]["type"] == "text" => {
            partial.add_text(0, value["content_block"]["text"].as_str().unwrap_or_default(), on_text)?;
        }
        Some("content_block_delta") if value["delta"]["type"] == "text_delta" => {
            partial.add_text(0, value["delta"]["text"].as_str().unwrap_or_default(), on_text)?;
        }
        Some("message_delta") => {
            if let Some(reason) = value["delta"]["stop_reason"].as_str() {
                partial.choice(0)?.finish_reason = Some(anthropic_finish_reason(reason));
            }
            update_usage(&mut partial.answer.usage, &value["usage"]);
        }
        Some("message_stop") => partial.done = true,
        _ => {}
    }
    Ok(())
}

/// Takes over the counts that are there: a stream gives the prompt's at its start and the answer's at its end.
fn update_usage(usage: &mut Option<Usage>, counts: &Value) {
    if !counts.is_object() {
        return;
    }
    let usage = usage.get_or_insert_default();
    let count = |name: &str| counts[name].as_u64();
    let uncached =
        usage.input_tokens.saturating_sub(usage.cached_tokens).saturating_sub(usage.cache_write_tokens);
    let uncached = count("input_tokens").unwrap_or(uncached);
    usage.cached_tokens = count("cache_read_input_tokens").unwrap_or(usage.cached_tokens);
    usage.cache_write_tokens = count("cache_creation_input_tokens").unwrap_or(usage.cache_write_tokens);
    usage.input_tokens =
        uncached.saturating_add(usage.cached_tokens).saturating_add(usage.cache_write_tokens);
    usage.output_tokens = count("output_tokens").unwrap_or(usage.output_tokens);
}

/// Whether the model refuses a temperature together with `top_p`, as all do since the third generation.
fn takes_one_sampling_parameter(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.starts_with("claude-")
        && !["claude-1", "claude-2", "claude-3", "claude-instant"].iter().any(|old| name.starts_with(old))
}
