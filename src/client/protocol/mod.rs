//! The providers' JSON: what a request looks like, and what an answer says, whole or as a stream.

mod chat;
mod complete;
pub(super) mod messages;
mod responses;

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::sse::BadEvent;
use super::{Choice, FinishReason, Request, Usage};

/// Most text of one answer, in bytes: what servers send without end is not kept.
const MAX_TEXT: usize = 16 << 20;

/// Most answers in one stream.
const MAX_CHOICES: u64 = 1024;

/// The language of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's Responses API.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Anthropic's former text completions.
    Complete,
}

/// What a request's JSON depends on besides the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// How many answers to ask for.
    pub n: u32,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether the endpoint answers 400 to any sampling parameter.
    pub refuses_sampling: bool,
}

/// What an answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The answers, at least one.
    pub choices: Vec<Choice>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens; `None` where the server does not count.
    pub usage: Option<Usage>,
}

/// Why an answer with a successful status is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misread {
    /// It is an error all the same.
    Refused(Refusal),
    /// It is not what the protocol says.
    Malformed(String),
}

impl From<BadEvent> for Misread {
    fn from(BadEvent(reason): BadEvent) -> Self {
        Self::Malformed(reason.to_owned())
    }
}

impl Protocol {
    /// The request as a JSON object.
    ///
    /// # Errors
    /// A sentence fragment that says what this protocol cannot ask for.
    pub(super) fn body(self, request: &Request, form: Form) -> Result<Map<String, Value>, String> {
        let mut body = match self {
            Self::Chat => chat::body(request, form),
            Self::Responses => responses::body(request)?,
            Self::Messages => messages::body(request, form),
            Self::Complete => complete::body(request, form),
        };
        for (name, value) in &request.extra {
            match value {
                Value::Null => body.shift_remove(name),
                value => body.insert(name.clone(), value.clone()),
            };
        }
        if form.stream {
            body.insert("stream".into(), true.into());
        } else {
            body.shift_remove("stream");
            body.shift_remove("stream_options");
        }
        Ok(body)
    }

    /// The answer in a whole body.
    pub(super) fn answer(self, body: &[u8]) -> Result<Answer, Misread> {
        let value = json(body)?;
        let answer = match self {
            Self::Chat => chat::answer(&value),
            Self::Responses => responses::answer(&value)?,
            Self::Messages => messages::answer(&value),
            Self::Complete => complete::answer(&value),
        };
        answer
            .filter(|answer| !answer.choices.is_empty())
            .ok_or_else(|| Misread::Malformed("the answer holds no choice".into()))
    }

    /// Adds an event's data to what the stream said before; text of the first choice goes to `on_text` too.
    pub(super) fn fold(
        self,
        partial: &mut Partial,
        data: &str,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<(), Misread> {
        if data == "[DONE]" {
            partial.done = true;
            return Ok(());
        }
        let value = json(data.as_bytes())?;
        match self {
            Self::Chat => chat::fold(partial, &value, on_text)?,
            Self::Responses => responses::fold(partial, &value, on_text)?,
            Self::Messages => messages::fold(partial, &value, on_text)?,
            Self::Complete => complete::fold(partial, &value, on_text)?,
        }
        if partial.answer.choices.iter().map(|choice| choice.text.len()).sum::<usize>() > MAX_TEXT {
            return Err(Misread::Malformed("the answer is longer than 16 MiB".into()));
        }
        Ok(())
    }
}

/// What a stream has said so far.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The answer up to now.
    pub answer: Answer,
    /// Whether the stream said that it has ended.
    done: bool,
    /// Whether some of the text is a refusal.
    refused: bool,
}

impl Partial {
    /// Whether the stream said that it has ended, so that nothing follows.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the answer has begun, and with it the cost.
    pub(super) fn has_begun(&self) -> bool {
        self.answer.usage.is_some() || !self.answer.choices.is_empty()
    }

    /// The answer when the stream has ended; `None` when it ended too early. Some servers leave the end mark out, and
    /// some set it below an answer that they have given up (llama-cpp-python, when another request comes in).
    pub(super) fn take_finished(&mut self) -> Option<Answer> {
        let choices = &self.answer.choices;
        let complete = !choices.is_empty() && choices.iter().all(|choice| choice.finish_reason.is_some());
        complete.then(|| std::mem::take(&mut self.answer))
    }

    fn choice(&mut self, index: u64) -> Result<&mut Choice, Misread> {
        if index >= MAX_CHOICES {
            return Err(Misread::Malformed(format!("the stream has a choice of number {index}")));
        }
        let index = index as usize;
        if self.answer.choices.len() <= index {
            self.answer.choices.resize(index + 1, Choice { text: String::new(), finish_reason: None });
        }
        Ok(&mut self.answer.choices[index])
    }

    fn add_text(&mut self, index: u64, text: &str, on_text: &mut dyn FnMut(&str)) -> Result<(), Misread> {
        if !text.is_empty() {
            self.choice(index)?.text.push_str(text);
            if index == 0 {
                on_text(text);
            }
        }
        Ok(())
    }

    fn set_model(&mut self, value: &Value) {
        if self.answer.model.is_none() {
            self.answer.model = string(value, "model");
        }
    }
}

/// JSON that is not an error in disguise.
fn json(text: &[u8]) -> Result<Value, Misread> {
    let value = serde_json::from_slice(text).map_err(|error| {
        let words = Refusal::read(text).message;
        let words: String = words.chars().take(100).collect();
        Misread::Malformed(format!("the answer is not JSON ({error}): {words}"))
    })?;
    match Refusal::within(&value) {
        Some(refusal) => Err(Misread::Refused(refusal)),
        None => Ok(value),
    }
}

/// Text that is a string, or the text parts of a list joined; reasoning and tool calls are other types.
fn joined_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter(|part| matches!(part["type"].as_str(), None | Some("text" | "output_text")))
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

fn string(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// OpenAI's counts, in the words of either interface.
fn openai_usage(value: &Value) -> Option<Usage> {
    let usage = value.get("usage").filter(|usage| usage.is_object())?;
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage[*name].as_u64());
    let detail = |tables: [&str; 2], name: &str| {
        tables.iter().find_map(|table| usage[*table][name].as_u64()).unwrap_or_default()
    };
    let input = ["prompt_tokens_details", "input_tokens_details"];
    Some(Usage {
        input_tokens: count(["prompt_tokens", "input_tokens"])?,
        cached_tokens: detail(input, "cached_tokens"),
        cache_write_tokens: detail(input, "cache_write_tokens"),
        output_tokens: count(["completion_tokens", "output_tokens"]).unwrap_or_default(),
        reasoning_tokens: detail(["completion_tokens_details", "output_tokens_details"], "reasoning_tokens"),
    })
}

/// Puts the parameters that are given into the body.
fn add_sampling(body: &mut Map<String, Value>, request: &Request) {
    if let Some(temperature) = request.sampling.temperature {
        body.insert("temperature".into(), temperature.into());
    }
    if let Some(top_p) = request.sampling.top_p {
        body.insert("top_p".into(), top_p.into());
    }
}

/// Anthropic's reasons, of both its interfaces.
fn anthropic_finish_reason(reason: &str) -> FinishReason {
    match reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" => FinishReason::Length,
        "model_context_window_exceeded" => FinishReason::ContextWindow,
        "refusal" => FinishReason::Refusal,
        "tool_use" => FinishReason::ToolUse,
        other => FinishReason::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests;
