//! Every provider's JSON, both ways.

use serde_json::json;

use super::*;
use crate::client::Sampling;

const PLAIN: Form = Form { n: 1, stream: false, refuses_sampling: false };

fn request(model: &str) -> Request {
    Request {
        model: model.into(),
        system: "sys".into(),
        user: "u\nv".into(),
        max_tokens: Some(7),
        n: 1,
        ..Request::default()
    }
}

#[test]
fn requests_are_written_in_each_protocol() {
    #[track_caller]
    fn check(protocol: Protocol, request: &Request, form: Form, expected: Value) {
        assert_eq!(Value::from(protocol.body(request, form).unwrap()), expected);
    }
    let messages = json!([{"role": "system", "content": "sys"}, {"role": "user", "content": "u\nv"}]);
    check(
        Protocol::Chat,
        &request("gpt-4o"),
        PLAIN,
        json!({"model": "gpt-4o", "messages": messages, "max_tokens": 7}),
    );
    let sampled = Sampling { temperature: Some(0.2), top_p: Some(0.95) };
    check(
        Protocol::Chat,
        &Request {
            sampling: sampled.clone(),
            stop: vec!["X".into()],
            system: String::new(),
            ..request("o3")
        },
        Form { n: 3, stream: true, ..PLAIN },
        json!({
            "model": "o3", "messages": [{"role": "user", "content": "u\nv"}], "max_completion_tokens": 7,
            "temperature": 0.2, "top_p": 0.95, "stop": ["X"], "n": 3,
            "stream_options": {"include_usage": true}, "stream": true,
        }),
    );
    let extra =
        json!({"max_tokens": null, "seed": 1, "model": "other", "stream": true}).as_object().unwrap().clone();
    check(
        Protocol::Chat,
        &Request { extra, ..request("m") },
        PLAIN,
        json!({"model": "other", "messages": messages, "seed": 1}),
    );
    check(
        Protocol::Responses,
        &Request { sampling: Sampling { temperature: Some(1.0), top_p: None }, ..request("gpt-5.5") },
        PLAIN,
        json!({
            "model": "gpt-5.5", "instructions": "sys", "input": "u\nv", "max_output_tokens": 7,
            "temperature": 1.0, "store": false,
        }),
    );
    let both = Request { sampling: sampled, stop: vec!["X".into()], ..request("claude-3-opus") };
    let user = json!([{"role": "user", "content": "u\nv"}]);
    check(
        Protocol::Messages,
        &both,
        PLAIN,
        json!({
            "model": "claude-3-opus", "system": "sys", "messages": user, "max_tokens": 7, "temperature": 0.2,
            "top_p": 0.95, "stop_sequences": ["X"],
        }),
    );
    check(
        Protocol::Messages,
        &Request { model: "claude-opus-5-5".into(), stop: vec![], max_tokens: None, ..both.clone() },
        PLAIN,
        json!({"model": "claude-opus-5-5", "system": "sys", "messages": user, "max_tokens": 4096, "temperature": 0.2}),
    );
    check(
        Protocol::Messages,
        &Request { stop: vec![], ..both.clone() },
        Form { refuses_sampling: true, ..PLAIN },
        json!({"model": "claude-3-opus", "system": "sys", "messages": user, "max_tokens": 7}),
    );
    let cached = |text: &str| json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
    check(
        Protocol::Messages,
        &Request { prompt_cache: true, ..request("c") },
        PLAIN,
        json!({"model": "c", "system": cached("sys"), "messages": user, "max_tokens": 7}),
    );
    check(
        Protocol::Messages,
        &Request { prompt_cache: true, n: 2, ..request("c") },
        PLAIN,
        json!({
            "model": "c", "system": cached("sys"), "messages": [{"role": "user", "content": cached("u\nv")}],
            "max_tokens": 7,
        }),
    );
    check(
        Protocol::Complete,
        &Request { max_tokens: None, ..both },
        PLAIN,
        json!({
            "model": "claude-3-opus", "prompt": "\n\nHuman: sys\nu\nv \n\nAssistant:", "max_tokens_to_sample": 6000,
            "temperature": 0.2, "top_p": 0.95, "stop_sequences": ["X"],
        }),
    );
    assert!(Protocol::Responses.body(&Request { stop: vec!["X".into()], ..request("o3") }, PLAIN).is_err());
}

/// `[input, cached, cache_write, output, reasoning]`.
fn counts(usage: Option<Usage>) -> Option<[u64; 5]> {
    usage
        .map(|u| [u.input_tokens, u.cached_tokens, u.cache_write_tokens, u.output_tokens, u.reasoning_tokens])
}

#[test]
fn answers_are_read_from_each_protocol() {
    #[track_caller]
    fn check(
        protocol: Protocol,
        body: Value,
        text: &str,
        reason: Option<FinishReason>,
        usage: Option<[u64; 5]>,
    ) {
        let answer = protocol.answer(body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.choices, [Choice { text: text.into(), finish_reason: reason }]);
        assert_eq!(counts(answer.usage), usage);
        assert_eq!(answer.model.as_deref(), Some("m"));
    }
    let usage = json!({
        "prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 12},
    });
    let chat = |message: Value, reason: Value| json!({"model": "m", "choices": [{"message": message, "finish_reason": reason}], "usage": usage});
    let tokens = Some([100, 64, 0, 20, 12]);
    check(
        Protocol::Chat,
        chat(json!({"content": "hi", "reasoning_content": "hm"}), json!("stop")),
        "hi",
        Some(FinishReason::Stop),
        tokens,
    );
    check(
        Protocol::Chat,
        chat(
            json!({"content": [{"type": "text", "text": "a"}, {"type": "thinking", "text": "no"}, {"type": "text", "text": "b"}]}),
            json!("length"),
        ),
        "ab",
        Some(FinishReason::Length),
        tokens,
    );
    check(
        Protocol::Chat,
        chat(json!({"content": null, "refusal": "I cannot"}), json!("stop")),
        "I cannot",
        Some(FinishReason::Refusal),
        tokens,
    );
    check(
        Protocol::Chat,
        chat(json!({"content": "x"}), json!("content_filter")),
        "x",
        Some(FinishReason::Refusal),
        tokens,
    );
    check(
        Protocol::Chat,
        chat(json!({"content": null}), json!("tool_calls")),
        "",
        Some(FinishReason::ToolUse),
        tokens,
    );
    check(
        Protocol::Chat,
        json!({"model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": null}]}),
        "x",
        None,
        None,
    );

    let responses = |content: Value, status: &str, why: Value| {
        json!({
            "model": "m", "status": status, "error": null, "incomplete_details": why,
            "output": [{"type": "reasoning", "summary": []}, {"type": "message", "content": content}],
            "usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3,
                      "output_tokens_details": {"reasoning_tokens": 2}},
        })
    };
    let text = json!([{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}]);
    let tokens = Some([5, 4, 0, 3, 2]);
    check(
        Protocol::Responses,
        responses(text.clone(), "completed", Value::Null),
        "ab",
        Some(FinishReason::Stop),
        tokens,
    );
    check(
        Protocol::Responses,
        responses(text, "incomplete", json!({"reason": "max_output_tokens"})),
        "ab",
        Some(FinishReason::Length),
        tokens,
    );
    check(
        Protocol::Responses,
        responses(json!([{"type": "refusal", "refusal": "no"}]), "completed", Value::Null),
        "no",
        Some(FinishReason::Refusal),
        tokens,
    );

    let messages = |reason: &str| {
        json!({
            "model": "m", "stop_reason": reason,
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "usage": {"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 4},
        })
    };
    for (reason, expected) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("tool_use", FinishReason::ToolUse),
        ("pause_turn", FinishReason::Other("pause_turn".into())),
        ("refusal", FinishReason::Refusal),
        ("model_context_window_exceeded", FinishReason::ContextWindow),
    ] {
        check(Protocol::Messages, messages(reason), "ab", Some(expected), Some([60, 30, 20, 4, 0]));
    }
    check(
        Protocol::Complete,
        json!({"model": "m", "completion": " ok", "stop_reason": "stop_sequence"}),
        " ok",
        Some(FinishReason::Stop),
        None,
    );
}

#[test]
fn what_is_no_answer_is_told_apart() {
    for body in
        ["", "null", "[]", "{}", r#"{"choices": []}"#, r#"{"choices": [1]}"#, "<html>", r#"{"choices": [{"#]
    {
        for protocol in [Protocol::Chat, Protocol::Responses, Protocol::Messages, Protocol::Complete] {
            let result = protocol.answer(body.as_bytes());
            assert!(matches!(result, Err(Misread::Malformed(_))), "{protocol:?} {body}: {result:?}");
        }
    }
    let error = json!({"error": {"message": "x", "code": 502}}).to_string();
    assert!(matches!(Protocol::Chat.answer(error.as_bytes()), Err(Misread::Refused(_))));
    let failed = json!({"status": "failed", "error": {"code": "server_error", "message": "x"}, "output": []});
    assert!(matches!(Protocol::Responses.answer(failed.to_string().as_bytes()), Err(Misread::Refused(_))));
}

/// The text as it came, and the answer.
fn stream(protocol: Protocol, events: &[Value]) -> Result<(String, Option<Answer>), Misread> {
    let mut partial = Partial::default();
    let mut text = String::new();
    for event in events {
        let data = event.as_str().map_or_else(|| event.to_string(), str::to_owned);
        protocol.fold(&mut partial, &data, &mut |piece| text.push_str(piece))?;
    }
    Ok((text, partial.take_finished()))
}

#[test]
fn streams_say_what_whole_answers_say() {
    #[track_caller]
    fn check(
        protocol: Protocol,
        events: &[Value],
        text: &str,
        reason: FinishReason,
        usage: Option<[u64; 5]>,
    ) {
        let (emitted, answer) = stream(protocol, events).unwrap();
        let answer = answer.unwrap();
        assert_eq!(emitted, text);
        assert_eq!(answer.choices, [Choice { text: text.into(), finish_reason: Some(reason) }]);
        assert_eq!((counts(answer.usage), answer.model.as_deref()), (usage, Some("m")));
        let cut = &events[..events.len() / 2];
        assert_eq!(stream(protocol, cut).unwrap().1, None, "half a stream is no answer");
    }
    let chunk = |delta: Value, reason: Value| json!({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
    let usage = json!({"model": "m", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}});
    check(
        Protocol::Chat,
        &[
            json!({"model": "m", "choices": [], "prompt_filter_results": []}),
            chunk(json!({"role": "assistant", "content": ""}), Value::Null),
            chunk(json!({"content": "h"}), Value::Null),
            chunk(json!({"reasoning_content": "hm"}), Value::Null),
            chunk(json!({"content": "i"}), Value::Null),
            chunk(json!({}), json!("stop")),
            usage.clone(),
            json!("[DONE]"),
        ],
        "hi",
        FinishReason::Stop,
        Some([9, 0, 0, 2, 0]),
    );
    check(
        Protocol::Chat,
        &[chunk(json!({"refusal": "no"}), Value::Null), chunk(json!({}), json!("stop"))],
        "no",
        FinishReason::Refusal,
        None,
    );
    check(
        Protocol::Responses,
        &[
            json!({"type": "response.created", "response": {"status": "in_progress"}}),
            json!({"type": "response.output_text.delta", "delta": "h"}),
            json!({"type": "response.output_text.delta", "delta": "i"}),
            json!({"type": "response.incomplete", "response": {
                "model": "m", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
                "usage": {"input_tokens": 9, "output_tokens": 2}}}),
        ],
        "hi",
        FinishReason::Length,
        Some([9, 0, 0, 2, 0]),
    );
    check(
        Protocol::Messages,
        &[
            json!({"type": "message_start", "message": {"model": "m", "usage":
                {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 1}}}),
            json!({"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}}),
            json!({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}),
            json!({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
            json!({"type": "message_stop"}),
        ],
        "hi",
        FinishReason::Stop,
        Some([9, 8, 0, 2, 0]),
    );
    check(
        Protocol::Complete,
        &[
            json!({"completion": "h", "stop_reason": null, "model": "m"}),
            json!({"completion": "i", "stop_reason": "max_tokens", "model": "m"}),
        ],
        "hi",
        FinishReason::Length,
        None,
    );
}

#[test]
fn streams_of_several_choices_are_kept_apart() {
    let chunk = |index: u64, text: &str, reason: Value| json!({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]});
    let events = [
        chunk(1, "b", Value::Null),
        chunk(0, "a", json!("stop")),
        chunk(1, "c", json!("length")),
        json!("[DONE]"),
    ];
    let (emitted, answer) = stream(Protocol::Chat, &events).unwrap();
    let given_up = [chunk(0, "a", Value::Null), json!("[DONE]")];
    assert_eq!(
        stream(Protocol::Chat, &given_up).unwrap().1,
        None,
        "an end mark does not make an answer whole"
    );
    let texts: Vec<String> = answer.unwrap().choices.into_iter().map(|choice| choice.text).collect();
    assert_eq!((emitted.as_str(), texts.as_slice()), ("a", &["a".to_owned(), "bc".to_owned()][..]));
    let far = stream(Protocol::Chat, &[chunk(u64::MAX, "x", Value::Null)]);
    assert!(matches!(far, Err(Misread::Malformed(_))));
}
