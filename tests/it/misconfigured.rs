//! Services, keys, proxies and files that are not what they should be: what is said, and what it must not cost.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::Cli;
use crate::demo::{data, lines};
use crate::run_api::{all_ids, chat, command, error, ids, predictions, run, run_api};
use crate::server::{Answer, Server};

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn what_is_wrong_before_the_first_request() {
    let (cli, server) = (Cli::new(), Server::start(|_, _| chat(1)));
    let url = server.url.as_str();
    for (name, text) in [
        ("prose.json", r#"{"m": {"input_cost_per_token": "two dollars a million"}}"#),
        ("words.json", "prices: high"),
        ("bare.jsonl", "{\"instance_id\": \"a\", \"repo\": \"o/n\"}\n"),
        ("empty.key", "\n"),
    ] {
        fs::write(cli.dir().join(name), text).unwrap();
    }
    let gpt = ["--model-name-or-path", "gpt-4o"];
    let local = ["--model-name-or-path", "m", "--base-url", url];
    let with = |flags: &[&str], more: &[&str]| -> Vec<String> {
        let dataset = data("swe-bench-lite-mit");
        let mut args: Vec<String> =
            ["run-api"].iter().chain(flags).chain(more).map(|flag| (*flag).to_owned()).collect();
        if !more.contains(&"--dataset-name-or-path") {
            args.extend(["--dataset-name-or-path".to_owned(), dataset]);
        }
        args
    };
    let cases: Vec<(Vec<String>, i32, &[&str])> = vec![
        (with(&gpt, &[]), 1, &["no API key for openai", "hint: ", "OPENAI_API_KEY"]),
        (with(&gpt, &["--key-env", "UNSET_KEY"]), 1, &["UNSET_KEY is not set", "hint: "]),
        (with(&gpt, &["--key-file", "missing.key"]), 1, &["missing.key"]),
        (with(&gpt, &["--key-file", "empty.key"]), 1, &["empty.key is none"]),
        (with(&["--model-name-or-path", "llama"], &[]), 1, &["`llama` does not tell its provider", "hint: "]),
        (
            with(&["--model-name-or-path", "m", "--base-url", "localhost:1"], &[]),
            1,
            &["http://localhost:8000/v1"],
        ),
        (
            with(&local, &["--model-args", "temperature:1"]),
            2,
            &["`model_args`", "key=value", "`temperature:1`"],
        ),
        (with(&local, &["--model-args", "model=x"]), 2, &["`model=x`", "model_name_or_path"]),
        (with(&local, &["--prices", "prose.json"]), 1, &["prose.json", "model `m`", "two dollars", "hint: "]),
        (with(&local, &["--prices", "words.json"]), 1, &["words.json: not a price map", "hint: "]),
        (
            with(&local, &["--max-cost", "1"]),
            1,
            &["price of `m` is not known", "hint: ", "input_cost_per_token"],
        ),
        (
            with(&local, &["--dataset-name-or-path", "bare.jsonl"]),
            1,
            &["`text`", "`repo`", "hint: ", "create-text-dataset"],
        ),
        (with(&local, &["--dataset-name-or-path", "./none"]), 1, &["./none: no such file"]),
    ];
    for (args, code, says) in cases {
        let mut command = cli.command(&args);
        for name in ["OPENAI_API_KEY", "UNSET_KEY", "OPENAI_BASE_URL"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        says.iter().for_each(|text| assert!(stderr.contains(text), "{args:?}: no {text:?} in\n{stderr}"));
    }
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn what_every_request_would_meet_ends_the_run_and_blames_no_instance() {
    #[track_caller]
    fn check(answer: fn() -> Answer, most: usize, recorded: usize, says: &[&str]) {
        let (cli, server) = (Cli::new(), Server::start(move |_, _| answer()));
        let start = Instant::now();
        let (code, stderr) = run(&cli, run_api(&server, "m", &["--concurrency", "8"]));
        assert_eq!(code, Some(1), "{stderr}");
        says.iter().for_each(|text| assert!(stderr.contains(text), "no {text:?} in\n{stderr}"));
        assert!(!stderr.contains("not sent, because"), "it is said second-hand: {stderr}");
        assert!(server.requests().len() <= most, "{} requests", server.requests().len());
        let written = lines(&predictions(&cli, "m"));
        assert!(written.len() <= recorded, "{written:?}");
        assert!(start.elapsed() < Duration::from_secs(20));
        // Once it is put right, everything is done.
        let good = Server::start(|_, _| chat(1));
        assert_eq!(run(&cli, run_api(&good, "m", &[])).0, Some(0));
        assert_eq!(ids(&predictions(&cli, "m")), all_ids());
    }
    check(|| error(401, "", "Incorrect API key provided"), 8, 0, &["status 401", "TEST_API_KEY", "hint: "]);
    check(
        || {
            (
                404,
                "",
                r#"{"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}"#.into(),
            )
        },
        8,
        0,
        &["The model `m` does not exist", "hint: check the model's name"],
    );
    check(
        || {
            (
                429,
                "",
                r#"{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}"#
                    .into(),
            )
        },
        8,
        0,
        &["exceeded your current quota", "hint: add credit"],
    );
    check(
        || (404, "", "<html><title>nginx</title></html>".into()),
        8,
        0,
        &["nginx", "hint: check the base URL"],
    );
    check(|| (407, "", String::new()), 8, 0, &["status 407", "USER:PASSWORD"]);
    // Five that are refused before any succeeds, and those in flight beside them.
    check(
        || error(400, "", "Unsupported parameter: 'temperature'"),
        12,
        11,
        &["none of the first 5 requests was accepted", "Unsupported parameter"],
    );
    check(
        || (200, "", "<html><title>Open WebUI</title></html>".into()),
        12,
        11,
        &["none of the first 5", "Open WebUI", "hint: does this server speak"],
    );
}

#[test]
fn nobody_at_the_address_is_said_within_seconds() {
    #[track_caller]
    fn check(url: &str, variables: &[(&str, &str)], says: &[&str]) {
        let cli = Cli::new();
        let dataset = data("swe-bench-lite-mit");
        let mut command = cli.command([
            "run-api",
            "--model-name-or-path",
            "m",
            "--dataset-name-or-path",
            &dataset,
            "--base-url",
            url,
        ]);
        for name in
            ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"]
        {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        let start = Instant::now();
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{url}: {stderr}");
        says.iter().for_each(|text| assert!(stderr.contains(text), "{url}: no {text:?} in\n{stderr}"));
        assert!(start.elapsed() < Duration::from_secs(30), "{url}: {:?}", start.elapsed());
        let file = cli.dir().join("outputs/m__swe-bench-lite-mit__test.jsonl");
        assert_eq!(lines(&file), Vec::<Value>::new());
    }
    let nobody = nobody();
    let no_connection = format!("no connection to {nobody}");
    check(&nobody, &[], &[&no_connection, "hint: check the base URL"]);
    let proxied = "no connection to http://service.example";
    check("http://service.example/v1", &[("HTTP_PROXY", &nobody)], &[proxied, "HTTP_PROXY"]);
    let proxied = "no connection to https://service.example";
    let secure = "https://service.example/v1";
    check(secure, &[("HTTPS_PROXY", &nobody)], &[proxied, "tunnel", "HTTPS_PROXY"]);
    let bare = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")];
    check(secure, &bare, &["encrypted connections cannot be made", "hint: ", "ca-certificates"]);
}

#[test]
fn two_runs_cannot_write_one_file() {
    let cli = Cli::new();
    let server = Server::start(|_, _| {
        std::thread::park();
        chat(1)
    });
    let mut first =
        command(&cli, run_api(&server, "m", &[])).stderr(std::process::Stdio::null()).spawn().unwrap();
    while server.requests().is_empty() {
        std::thread::yield_now();
    }
    let asked = server.requests().len();
    let (code, stderr) = run(&cli, run_api(&server, "m", &["--concurrency", "1"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("another run is writing this file"), "{stderr}");
    // A dry run only looks.
    let (code, stderr) = run(&cli, run_api(&server, "m", &["--dry-run"]));
    assert_eq!((code, server.requests().len() <= asked.max(4)), (Some(0), true), "{stderr}");
    first.kill().unwrap();
    first.wait().unwrap();
}
