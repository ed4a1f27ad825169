//! OpenAI's chat completions, which most servers speak.

use serde_json::{Map, Value, json};

use super::{Answer, Form, Misread, Partial, add_sampling, joined_text, openai_usage, string};
use crate::client::provider::is_reasoning_model;
use crate::client::{Choice, FinishReason, Request};

pub(super) fn body(request: &Request, form: Form) -> Map<String, Value> {
    let mut messages = Vec::with_capacity(2);
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    messages.push(json!({"role": "user", "content": request.user}));
    let mut body = Map::new();
    body.insert("model".into(), request.model.as_str().into());
    body.insert("messages".into(), messages.into());
    if let Some(max_tokens) = request.max_tokens {
        // Reasoning models refuse the older name, and compatible servers do not know the newer one.
        let name = if is_reasoning_model(&request.model) { "max_completion_tokens" } else { "max_tokens" };
        body.insert(name.into(), max_tokens.into());
    }
    add_sampling(&mut body, request);
    if !request.stop.is_empty() {
        body.insert("stop".into(), request.stop.clone().into());
    }
    if form.n > 1 {
        body.insert("n".into(), form.n.into());
    }
    if form.stream {
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    body
}

pub(super) fn answer(value: &Value) -> Option<Answer> {
    let choices = value.get("choices")?.as_array()?;
    let choices = choices
        .iter()
        .map(|choice| {
            let message = choice.get("message").filter(|message| message.is_object())?;
            let mut text = joined_text(&message["content"]);
            let mut reason = string(choice, "finish_reason").map(|reason| finish_reason(&reason));
            if let Some(refusal) = message["refusal"].as_str() {
                text.push_str(refusal);
                reason = Some(FinishReason::Refusal);
            }
            Some(Choice { text, finish_reason: reason })
        })
        .collect::<Option<_>>()?;
    Some(Answer { choices, model: string(value, "model"), usage: openai_usage(value) })
}

pub(super) fn fold(
    partial: &mut Partial,
    value: &Value,
    on_text: &mut dyn FnMut(&str),
) -> Result<(), Misread> {
    partial.set_model(value);
    if let Some(usage) = openai_usage(value) {
        partial.answer.usage = Some(usage);
    }
    for choice in value["choices"].as_array().into_iter().flatten() {
        let index = choice["index"].as_u64().unwrap_or_default();
        let delta = &choice["delta"];
        partial.add_text(index, &joined_text(&delta["content"]), on_text)?;
        if let Some(refusal) = delta["refusal"].as_str() {
            partial.add_text(index, refusal, on_text)?;
            partial.refused |= !refusal.is_empty();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            let reason = if partial.refused { FinishReason::Refusal } else { finish_reason(reason) };
            partial.choice(index)?.finish_reason = Some(reason);
        }
    }
    Ok(())
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::Refusal,
        "tool_calls" | "function_call" => FinishReason::ToolUse,
        other => FinishReason::Other(other.to_owned()),
    }
}
