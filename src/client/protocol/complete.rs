//! Anthropic's former text completions, with the prompt of the reference.

use serde_json::{Map, Value};

use super::{Answer, Form, Misread, Partial, add_sampling, anthropic_finish_reason, string};
use crate::client::{Choice, Request};

/// The answer's limit where none is given, which this protocol does not allow: the reference's.
const DEFAULT_MAX_TOKENS: u32 = 6000;

pub(super) fn body(request: &Request, form: Form) -> Map<String, Value> {
    // The request holds the prompt's first line apart; here it is one text.
    let line_end = if request.system.is_empty() { "" } else { "\n" };
    let prompt = format!("\n\nHuman: {}{line_end}{} \n\nAssistant:", request.system, request.user);
    let mut body = Map::new();
    body.insert("model".into(), request.model.as_str().into());
    body.insert("prompt".into(), prompt.into());
    body.insert("max_tokens_to_sample".into(), request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).into());
    if !form.refuses_sampling {
        add_sampling(&mut body, request);
    }
    if !request.stop.is_empty() {
        body.insert("stop_sequences".into(), request.stop.clone().into());
    }
    body
}

/// The service counts no tokens here.
pub(super) fn answer(value: &Value) -> Option<Answer> {
    let choice = Choice {
        text: string(value, "completion")?,
        finish_reason: value["stop_reason"].as_str().map(anthropic_finish_reason),
    };
    Some(Answer { choices: vec![choice], model: string(value, "model"), usage: None })
}

pub(super) fn fold(
    partial: &mut Partial,
    value: &Value,
    on_text: &mut dyn FnMut(&str),
) -> Result<(), Misread> {
    partial.set_model(value);
    partial.add_text(0, value["completion"].as_str().unwrap_or_default(), on_text)?;
    if let Some(reason) = value["stop_reason"].as_str() {
        partial.choice(0)?.finish_reason = Some(anthropic_finish_reason(reason));
        partial.done = true;
    }
    Ok(())
}
