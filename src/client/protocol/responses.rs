//! OpenAI's Responses API: one answer a request, made of items.

use serde_json::{Map, Value};

use super::{Answer, Misread, Partial, add_sampling, openai_usage, string};
use crate::client::refusal::Refusal;
use crate::client::{Choice, FinishReason, Request};

pub(super) fn body(request: &Request) -> Result<Map<String, Value>, String> {
    if !request.stop.is_empty() {
        return Err("the Responses API knows no stop strings".into());
    }
    let mut body = Map::new();
    body.insert("model".into(), request.model.as_str().into());
    if !request.system.is_empty() {
        body.insert("instructions".into(), request.system.as_str().into());
    }
    body.insert("input".into(), request.user.as_str().into());
    if let Some(max_tokens) = request.max_tokens {
        body.insert("max_output_tokens".into(), max_tokens.into());
    }
    add_sampling(&mut body, request);
    // The service keeps answers for later turns unless it is told not to; here is none.
    body.insert("store".into(), false.into());
    Ok(body)
}

pub(super) fn answer(value: &Value) -> Result<Option<Answer>, Misread> {
    if value["status"] == "failed" {
        return Err(Misread::Refused(Refusal::from_value(value).unwrap_or_default()));
    }
    let Some(items) = value["output"].as_array() else { return Ok(None) };
    let mut text = String::new();
    let mut refused = false;
    let mut tool = false;
    for item in items {
        tool |= item["type"].as_str().is_some_and(|kind| kind.ends_with("_call"));
        if item["type"] != "message" {
            continue;
        }
        for part in item["content"].as_array().into_iter().flatten() {
            let refusal = part["refusal"].as_str();
            refused |= refusal.is_some();
            text.push_str(part["text"].as_str().or(refusal).unwrap_or_default());
        }
    }
    let finish_reason = match (value["status"].as_str(), value["incomplete_details"]["reason"].as_str()) {
        _ if refused => Some(FinishReason::Refusal),
        (_, Some("max_output_tokens")) => Some(FinishReason::Length),
        (_, Some("content_filter")) => Some(FinishReason::Refusal),
        (_, Some(other)) => Some(FinishReason::Other(other.to_owned())),
        (Some("completed"), None) if tool && text.is_empty() => Some(FinishReason::ToolUse),
        (Some("completed"), None) => Some(FinishReason::Stop),
        (Some(other), None) => Some(FinishReason::Other(other.to_owned())),
        (None, None) => None,
    };
    Ok(Some(Answer {
        choices: vec![Choice { text, finish_reason }],
        model: string(value, "model"),
        usage: openai_usage(value),
    }))
}

pub(super) fn fold(
    partial: &mut Partial,
    value: &Value,
    on_text: &mut dyn FnMut(&str),
) -> Result<(), Misread> {
    match value["type"].as_str() {
        Some("response.output_text.delta" | "response.refusal.delta") => {
            partial.add_text(0, value["delta"].as_str().unwrap_or_default(), on_text)?;
        }
        // The last event repeats the whole answer.
        Some("response.completed" | "response.incomplete" | "response.failed") => {
            if let Some(answer) = answer(&value["response"])? {
                partial.answer = answer;
                partial.done = true;
            }
        }
        Some("error") => {
            return Err(Misread::Refused(Refusal::from_value(value).unwrap_or_default()));
        }
        _ => {}
    }
    Ok(())
}
