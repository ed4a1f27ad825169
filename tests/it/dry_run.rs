//! Dry runs: tokens and costs without a request for an answer, a file or a key.

use std::fs;

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::demo::data;
use crate::run_api::{all_ids, chat, command, error, run_api};
use crate::server::Server;

/// Exit code, the lines on standard output, and standard error.
fn dry_run(cli: &Cli, args: Vec<String>) -> (Option<i32>, Vec<Value>, String) {
    let output = command(cli, args).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn nothing_is_asked_for_spent_or_written() {
    let (cli, server) = (Cli::new(), Server::start(|_, _| chat(1)));
    let flags = ["--dry-run", "--json", "--max-tokens", "100", "--n", "2"];
    let (code, mut lines, stderr) = dry_run(&cli, run_api(&server, "gpt-4o", &flags));
    assert_eq!((code, server.requests().len()), (Some(0), 0), "{stderr}");
    assert!(!cli.dir().join("out").exists());
    let all = lines.pop().unwrap();
    let ids: Vec<&str> = lines.iter().map(|line| line["instance_id"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().map(|id| (*id).to_owned()).collect::<std::collections::BTreeSet<_>>(), all_ids());
    let sum = |key: &str| lines.iter().map(|line| line[key].as_f64().unwrap()).sum::<f64>();
    let close = |key: &str| assert!((sum(key) - all[key].as_f64().unwrap()).abs() < 1e-9, "{key}: {all}");
    ["prompt_tokens", "cost_least", "cost_most"].iter().for_each(|key| close(key));
    // One prompt and two answers of at most 100 tokens, at $2.50 and $10 a million.
    let expected = sum("prompt_tokens") * 2.5e-6;
    assert!((sum("cost_least") - expected).abs() < 1e-9);
    assert!((sum("cost_most") - expected - 11.0 * 200.0 * 1e-5).abs() < 1e-9);
    assert!(lines.iter().all(|line| line["method"] == "o200k" && line["error"].is_null()));
    assert_eq!((&all["sendable"], &all["methods"]), (&json!(11), &json!({"o200k": 11})));
}

#[test]
fn a_table_for_people_needs_no_key() {
    let cli = Cli::new();
    let dataset = data("swe-bench-lite-mit");
    let args = [
        "run-api",
        "--model-name-or-path",
        "claude-haiku-5-5",
        "--dataset-name-or-path",
        &dataset,
        "--dry-run",
    ];
    let output = cli.command(args).env_remove("ANTHROPIC_API_KEY").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "instances       11: 0 done before, 11 to send, 0 not",
        "11 estimated from their characters",
        "answers         at most 4,096 tokens each",
        "$0.10 in, $0.0100 cached, $0.50 out",
    ] {
        assert!(stdout.contains(part), "no {part:?} in\n{stdout}");
    }
    let refused = cli.run(["run-api", "--model-name-or-path", "m", "--dataset-name-or-path", "d", "--json"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn anthropic_counts_where_there_is_a_key() {
    let cli = Cli::new();
    let counting = Server::start(|_, request| match request.get("max_tokens") {
        None => (200, "", r#"{"input_tokens": 1000}"#.into()),
        Some(_) => error(500, "", "a message was asked for"),
    });
    let flags = ["--provider", "anthropic", "--dry-run", "--json"];
    let (code, mut lines, stderr) = dry_run(&cli, run_api(&counting, "claude-haiku-5-5", &flags));
    assert_eq!((code, counting.requests().len()), (Some(0), 11), "{stderr}");
    let all = lines.pop().unwrap();
    assert_eq!((&all["prompt_tokens"], &all["methods"]), (&json!(11_000), &json!({"provider": 11})));

    // A service that does not count leaves estimates, and a wrong key is found out before it costs anything.
    let other = Server::start(|_, _| error(404, "", "no such page"));
    let (code, lines, stderr) = dry_run(&cli, run_api(&other, "claude-haiku-5-5", &flags));
    assert_eq!((code, &lines[11]["methods"]), (Some(0), &json!({"estimate": 11})), "{stderr}");
    let wrong = Server::start(|_, _| error(401, "", "invalid x-api-key"));
    let (code, _, stderr) = dry_run(&cli, run_api(&wrong, "claude-haiku-5-5", &flags));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("TEST_API_KEY"), "{stderr}");
}

#[test]
fn what_does_not_fit_is_said_with_the_reason_and_not_sent() {
    let cli = Cli::new();
    let limits = r#"{"small": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "max_input_tokens": 1400}}"#;
    fs::write(cli.dir().join("limits.json"), limits).unwrap();
    fs::write(
        cli.dir().join("lengths.jsonl"),
        ["short", "middle", "long"]
            .iter()
            .zip([1_000, 5_000, 20_000])
            .map(|(id, len)| format!("{{\"instance_id\":\"{id}\",\"text\":\"{}\"}}\n", "x".repeat(len)))
            .chain(["{\"instance_id\":\"none\",\"text\":null}\n".to_owned()])
            .collect::<String>(),
    )
    .unwrap();
    let (server, file) = (Server::start(|_, _| chat(90)), cli.dir().join("lengths.jsonl"));
    let mut args = run_api(&server, "small", &["--prices", "limits.json", "--max-tokens", "100"]);
    args[2] = file.to_str().unwrap().to_owned();
    let dry = [args.clone(), vec!["--dry-run".into(), "--json".into()]].concat();
    let (code, lines, stderr) = dry_run(&cli, dry);
    assert_eq!(code, Some(0), "{stderr}");
    let reason = |id: &str, key: &str| {
        let line = lines.iter().find(|line| line["instance_id"] == id).unwrap();
        line[key].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((reason("short", "error"), reason("short", "doubt")), (String::new(), String::new()));
    assert!(
        reason("middle", "doubt").contains("at least 625 (estimate), which with 100 for the answer exceed")
    );
    assert!(reason("long", "error").contains("at least 2500 (estimate)"), "{}", reason("long", "error"));
    assert!(reason("none", "error").contains("no `text`"));
    let all = &lines[4];
    assert_eq!(
        [&all["sendable"], &all["doubtful"], &all["refused"]].map(Value::as_u64),
        [Some(2), Some(1), Some(2)]
    );

    // The run does as it was said: two are asked for, two have records with the reasons.
    let output = command(&cli, args).output().unwrap();
    assert_eq!((output.status.code(), server.requests().len()), (Some(3), 2));
    let records = crate::demo::lines(&cli.dir().join("out/small__lengths.jsonl__test.jsonl"));
    let errors: Vec<_> = records.iter().filter_map(|line| line["error"].as_str()).collect();
    assert_eq!((records.len(), errors.len()), (4, 2));
}
