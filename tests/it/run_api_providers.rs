//! What each provider's URLs, headers and options put into a request, and how its answers become predictions.

use std::fs;

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::demo::{data, lines};
use crate::run_api::{PATCH, all_ids, ids, predictions};
use crate::server::{Answer, Request, Server};

/// An answer in the form that the path asks for: as many choices as the protocol gives.
fn answer(request: &Request) -> Answer {
    let text = format!("<patch>{PATCH}</patch>");
    let usage =
        json!({"input_tokens": 100, "output_tokens": 10, "prompt_tokens": 100, "completion_tokens": 10});
    let answer = if request.path.ends_with("/chat/completions") {
        let n = request.json()["n"].as_u64().unwrap_or(1);
        let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
        json!({"choices": vec![choice; n as usize], "usage": usage})
    } else if request.path.ends_with("/responses") {
        let reasoning = json!({"type": "reasoning", "summary": []});
        let message = json!({"type": "message", "content": [{"type": "output_text", "text": text}]});
        json!({"status": "completed", "output": [reasoning, message], "usage": usage})
    } else if request.path.ends_with("/messages") {
        json!({"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage})
    } else {
        json!({"completion": text, "stop_reason": "stop_sequence"})
    };
    (200, "", answer.to_string())
}

/// The one instance that most of these runs ask for.
const ONE: [&str; 2] = ["--filter", "marshmallow.*1359$"];

/// Runs over the demo dataset with no flags of a service but these, `{url}` being the server's, and these variables.
fn run_with(
    cli: &Cli,
    server: &Server,
    flags: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String) {
    let dataset = data("swe-bench-lite-mit");
    let basic = ["run-api", "--dataset-name-or-path", &dataset, "--output-dir", "out"];
    let fill = |text: &str| text.replace("{url}", &server.url);
    let mut command = cli.command(basic.iter().chain(flags).map(|flag| fill(flag)));
    for name in [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_API_VERSION",
        "AZURE_OPENAI_ENDPOINT",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
    ] {
        command.env_remove(name);
    }
    command.env("NO_PROXY", "127.0.0.1").envs(environment.iter().map(|(name, value)| (name, fill(value))));
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("sk-test"), "the key is printed: {stderr}");
    (output.status.code(), stderr)
}

struct Case {
    flags: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// The path with its query.
    target: &'static str,
    /// Header lines that have to be there.
    headers: &'static [&'static str],
}

const CASES: [Case; 14] = [
    Case {
        flags: &["--model-name-or-path", "gpt-4o", "--base-url", "{url}"],
        environment: &[("OPENAI_API_KEY", "sk-test-1")],
        target: "/v1/chat/completions",
        headers: &["authorization: bearer sk-test-1"],
    },
    Case {
        flags: &["--model-name-or-path", "gpt-4o"],
        environment: &[("OPENAI_API_KEY", "sk-test-1"), ("OPENAI_BASE_URL", "{url}/gateway/v2/")],
        target: "/gateway/v2/chat/completions",
        headers: &["authorization: bearer sk-test-1"],
    },
    Case {
        flags: &["--model-name-or-path", "gpt-4o", "--base-url", "{url}", "--openai-api", "responses"],
        environment: &[("OPENAI_API_KEY", "sk-test-1")],
        target: "/v1/responses",
        headers: &["authorization: bearer sk-test-1"],
    },
    // Azure's v1 URLs: the model is the deployment, and there is no version.
    Case {
        flags: &["--model-name-or-path", "mine", "--provider", "azure", "--base-url", "{url}"],
        environment: &[("AZURE_OPENAI_API_KEY", "sk-test-2")],
        target: "/openai/v1/chat/completions",
        headers: &["api-key: sk-test-2"],
    },
    Case {
        flags: &["--model-name-or-path", "mine", "--provider", "azure", "--base-url", "{url}/openai/v1/"],
        environment: &[("AZURE_OPENAI_API_KEY", "sk-test-2"), ("OPENAI_API_VERSION", "preview")],
        target: "/openai/v1/chat/completions?api-version=preview",
        headers: &["api-key: sk-test-2"],
    },
    Case {
        flags: &["--model-name-or-path", "mine", "--provider", "azure", "--openai-api", "responses"],
        environment: &[("AZURE_OPENAI_API_KEY", "sk-test-2"), ("AZURE_OPENAI_ENDPOINT", "{url}")],
        target: "/openai/v1/responses",
        headers: &["api-key: sk-test-2"],
    },
    // Azure's classic URLs: a dated version, or a deployment in the URL.
    Case {
        flags: &["--model-name-or-path", "mine", "--provider", "azure", "--api-version", "2024-10-21"],
        environment: &[("AZURE_OPENAI_API_KEY", "sk-test-2"), ("AZURE_OPENAI_ENDPOINT", "{url}")],
        target: "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        headers: &["api-key: sk-test-2"],
    },
    Case {
        flags: &[
            "--model-name-or-path",
            "gpt-4o",
            "--provider",
            "azure",
            "--base-url",
            "{url}/openai/deployments/theirs",
        ],
        environment: &[("AZURE_OPENAI_API_KEY", "sk-test-2"), ("OPENAI_API_VERSION", "2024-10-21")],
        target: "/openai/deployments/theirs/chat/completions?api-version=2024-10-21",
        headers: &["api-key: sk-test-2"],
    },
    // An AD token goes where Azure expects it, on either URL.
    Case {
        flags: &["--model-name-or-path", "mine", "--provider", "azure", "--base-url", "{url}"],
        environment: &[("AZURE_OPENAI_AD_TOKEN", "sk-test-3")],
        target: "/openai/v1/chat/completions",
        headers: &["authorization: bearer sk-test-3"],
    },
    Case {
        flags: &[
            "--model-name-or-path",
            "mine",
            "--provider",
            "azure",
            "--api-version",
            "2024-10-21",
            "--key-env",
            "AZURE_OPENAI_AD_TOKEN",
        ],
        environment: &[
            ("AZURE_OPENAI_AD_TOKEN", "sk-test-3"),
            ("AZURE_OPENAI_API_KEY", "sk-test-2"),
            ("AZURE_OPENAI_ENDPOINT", "{url}"),
        ],
        target: "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        headers: &["authorization: bearer sk-test-3"],
    },
    Case {
        flags: &["--model-name-or-path", "claude-opus-5-5", "--base-url", "{url}"],
        environment: &[("ANTHROPIC_API_KEY", "sk-test-4")],
        target: "/v1/messages",
        headers: &["x-api-key: sk-test-4", "anthropic-version: 2023-06-01"],
    },
    Case {
        flags: &["--model-name-or-path", "claude-opus-5-5", "--api-version", "2026-10-21"],
        environment: &[("ANTHROPIC_AUTH_TOKEN", "sk-test-4"), ("ANTHROPIC_BASE_URL", "{url}/v1")],
        target: "/v1/messages",
        headers: &["authorization: bearer sk-test-4", "anthropic-version: 2026-10-21"],
    },
    Case {
        flags: &["--model-name-or-path", "claude-2", "--base-url", "{url}"],
        environment: &[("ANTHROPIC_API_KEY", "sk-test-4")],
        target: "/v1/complete",
        headers: &["x-api-key: sk-test-4"],
    },
    Case {
        flags: &["--model-name-or-path", "local", "--base-url", "{url}", "--key-file", "key.txt"],
        environment: &[],
        target: "/v1/chat/completions",
        headers: &["authorization: bearer sk-test-5"],
    },
];

#[test]
fn requests_go_where_each_provider_has_them_with_its_key() {
    for Case { flags, environment, target, headers } in CASES {
        let (cli, server) = (Cli::new(), Server::by_request(|_, request| answer(request)));
        fs::write(cli.dir().join("key.txt"), "sk-test-5\n").unwrap();
        let (code, stderr) = run_with(&cli, &server, &[flags, &ONE].concat(), environment);
        assert_eq!(code, Some(0), "{flags:?}: {stderr}");
        let seen = server.seen();
        assert_eq!(seen.len(), 1, "{flags:?}");
        let query = if seen[0].query.is_empty() { String::new() } else { format!("?{}", seen[0].query) };
        assert_eq!(
            format!("{} {}{query}", seen[0].method, seen[0].path),
            format!("POST {target}"),
            "{flags:?}"
        );
        for header in headers {
            assert!(
                seen[0].head.lines().any(|line| line == *header),
                "{flags:?}: no {header:?} in {}",
                seen[0].head
            );
        }
        let names = ["authorization: ", "api-key: ", "x-api-key: "];
        let keys = seen[0].head.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        assert_eq!(keys.count(), 1, "{flags:?}: {}", seen[0].head);
        let line = &lines(&predictions(&cli, flags[1]))[0];
        assert_eq!(
            (&line["model_patch"], &line["finish_reason"]),
            (&json!(PATCH.trim_start()), &json!("stop")),
            "{flags:?}"
        );
    }
}

#[test]
fn what_a_provider_misses_is_said_before_anything_is_sent() {
    let (cli, server) = (Cli::new(), Server::by_request(|_, request| answer(request)));
    for (flags, environment, says) in [
        (&["--model-name-or-path", "gpt-4o"][..], &[][..], "OPENAI_API_KEY"),
        (&["--model-name-or-path", "claude-2"], &[], "ANTHROPIC_API_KEY"),
        (&["--model-name-or-path", "m", "--provider", "azure"], &[], "AZURE_OPENAI_ENDPOINT"),
        (
            &["--model-name-or-path", "m", "--provider", "azure", "--base-url", "{url}"],
            &[],
            "AZURE_OPENAI_API_KEY",
        ),
        (
            &["--model-name-or-path", "whose"],
            &[("OPENAI_API_KEY", "sk-test-1")],
            "does not tell its provider",
        ),
        (&["--model-name-or-path", "gpt-4o", "--key-file", "missing.txt"], &[], "missing.txt"),
        (&["--model-name-or-path", "gpt-4o", "--base-url", "ftp://x"], &[], "base URL"),
    ] {
        let (code, stderr) = run_with(&cli, &server, flags, environment);
        assert_eq!(code, Some(1), "{flags:?}: {stderr}");
        assert!(stderr.contains(says), "{flags:?}: {stderr}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn the_responses_api_has_its_own_names_and_no_memory() {
    let (cli, server) = (Cli::new(), Server::by_request(|_, request| answer(request)));
    let flags = [
        "--model-name-or-path",
        "m",
        "--base-url",
        "{url}",
        "--openai-api",
        "responses",
        "--max-tokens",
        "50",
    ];
    let (code, stderr) = run_with(&cli, &server, &[&flags[..], &ONE].concat(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let request = &server.requests()[0];
    assert_eq!((&request["max_output_tokens"], &request["store"]), (&json!(50), &json!(false)));
    assert!(request["instructions"].as_str().unwrap().starts_with("You will be provided"));
    assert!(request["messages"].is_null() && !request["input"].as_str().unwrap().is_empty());
    let line = &lines(&predictions(&cli, "m"))[0];
    assert_eq!(line["usage"], json!({"prompt_tokens": 100, "completion_tokens": 10}));
    assert!(line["text"].as_str().unwrap().ends_with("\n\n"), "{line}");
}

#[test]
fn several_answers_are_asked_for_as_each_protocol_can() {
    for (provider, extra, requests) in [
        ("openai", &[][..], 1),
        ("openai", &["--openai-api", "responses"], 3),
        ("anthropic", &[], 3),
        ("anthropic-text", &[], 3),
    ] {
        let (cli, server) = (Cli::new(), Server::by_request(|_, request| answer(request)));
        let flags = ["--model-name-or-path", "m", "--base-url", "{url}", "--provider", provider, "--n", "3"];
        let (code, stderr) = run_with(&cli, &server, &[&flags[..], &ONE, extra].concat(), &[]);
        assert_eq!(code, Some(0), "{provider}: {stderr}");
        let sent = server.requests();
        assert_eq!(sent.len(), requests, "{provider}");
        let expected = if requests == 1 { json!(3) } else { Value::Null };
        assert!(sent.iter().all(|request| request["n"] == expected), "{provider}");
        let line = &lines(&predictions(&cli, "m"))[0];
        let samples = line["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 3, "{provider}");
        assert!(
            samples.iter().all(|sample| sample["model_patch"] == PATCH.trim_start()),
            "{provider}: {line}"
        );
        assert_eq!(
            (&line["model_patch"], &line["full_output"]),
            (&json!(PATCH.trim_start()), &samples[0]["full_output"])
        );
        // Tokens of all requests, where they are counted.
        let prompt_tokens = if provider == "anthropic-text" { Value::Null } else { json!(100 * requests) };
        assert_eq!(line["usage"]["prompt_tokens"], prompt_tokens, "{provider}");
    }
}

#[test]
fn the_shared_beginning_is_marked_for_anthropics_cache_when_asked_for() {
    for (provider, flag, system, user) in [
        ("anthropic", &["--prompt-cache"][..], true, false),
        // Several answers share the whole prompt.
        ("anthropic", &["--prompt-cache", "--n", "2"], true, true),
        ("anthropic", &[], false, false),
        ("openai", &["--prompt-cache"], false, false),
    ] {
        let (cli, server) = (Cli::new(), Server::by_request(|_, request| answer(request)));
        let flags = ["--model-name-or-path", "m", "--base-url", "{url}", "--provider", provider];
        let (code, stderr) = run_with(&cli, &server, &[&flags[..], &ONE, flag].concat(), &[]);
        assert_eq!(code, Some(0), "{provider}: {stderr}");
        let request = &server.requests()[0];
        let is_marked = |content: &Value| content[0]["cache_control"]["type"] == "ephemeral";
        assert_eq!(is_marked(&request["system"]), system, "{provider} {flag:?}");
        assert_eq!(is_marked(&request["messages"][0]["content"]), user, "{provider} {flag:?}");
        assert_eq!(request.to_string().contains("cache_control"), system, "{provider} {flag:?}");
        if system {
            let text = request["system"][0]["text"].as_str().unwrap();
            assert!(text.starts_with("You will be provided") && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn a_filter_takes_the_instances_that_it_matches() {
    let matching =
        |pattern: &str| all_ids().into_iter().filter(|id| id.contains(pattern)).collect::<Vec<_>>();
    for (filter, expected) in [
        ("marshmallow", matching("marshmallow")),
        ("^marshmallow.*-1359$", matching("-1359")),
        ("(?i)MARSHMALLOW.*1359", matching("-1359")),
        ("nothing-like-it", Vec::new()),
        ("", all_ids().into_iter().collect()),
    ] {
        let (cli, server) = (Cli::new(), Server::by_request(|_, request| answer(request)));
        let flags = ["--model-name-or-path", "m", "--base-url", "{url}", "--filter", filter, "-v"];
        let (code, stderr) = run_with(&cli, &server, &flags, &[]);
        assert_eq!(code, Some(0), "{filter}: {stderr}");
        let left_out = 11 - expected.len();
        assert!(stderr.contains(&format!("{left_out} left out by the filter")), "{filter}: {stderr}");
        assert_eq!(ids(&predictions(&cli, "m")).into_iter().collect::<Vec<_>>(), expected, "{filter}");
        assert_eq!(server.seen().len(), expected.len(), "{filter}");
    }
}

#[test]
fn redo_failed_takes_the_failed_ones_and_leaves_what_was_never_tried() {
    let (cli, server) = (
        Cli::new(),
        Server::by_request(|number, request| match number {
            0 | 1 => (400, "", json!({"error": {"message": "not today"}}).to_string()),
            _ => answer(request),
        }),
    );
    let flags = |more: &[&'static str]| {
        [&["--model-name-or-path", "m", "--base-url", "{url}", "--concurrency", "1"], more].concat()
    };
    let file = predictions(&cli, "m");
    let some = flags(&["--filter", "^p"]);
    let (code, stderr) = run_with(&cli, &server, &some, &[]);
    let tried = ids(&file);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(tried.len() > 2 && tried.len() < 11, "{tried:?}");
    let failed = |file| lines(file).iter().filter(|line| line["error"].is_string()).count();
    assert_eq!((failed(&file), server.seen().len()), (2, tried.len()));

    // A filter narrows what is done again.
    let first_failed =
        lines(&file).iter().find(|line| line["error"].is_string()).unwrap()["instance_id"].to_string();
    let pattern = format!("^{}$", first_failed.trim_matches('"'));
    let narrow: Vec<&str> = [&flags(&["--redo-failed"])[..], &["--filter", &pattern]].concat();
    assert_eq!(run_with(&cli, &server, &narrow, &[]).0, Some(0));
    assert_eq!((failed(&file), server.seen().len()), (1, tried.len() + 1));

    assert_eq!(run_with(&cli, &server, &flags(&["--redo-failed"]), &[]).0, Some(0));
    assert_eq!((failed(&file), ids(&file), server.seen().len()), (0, tried.clone(), tried.len() + 2));
    // Nothing failed any more, so that nothing is done; without the flag the rest is.
    assert_eq!(run_with(&cli, &server, &flags(&["--redo-failed"]), &[]).0, Some(0));
    assert_eq!(server.seen().len(), tried.len() + 2);
    assert_eq!(run_with(&cli, &server, &flags(&[]), &[]).0, Some(0));
    assert_eq!(ids(&file), all_ids());
}
