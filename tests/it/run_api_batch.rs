//! Runs through providers' batches on loopback: nothing is sent twice, whenever a step is killed, and the file is a plain
//! run's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::batch_server::{self, Provider};
use crate::cli::Cli;
use crate::demo::lines;
use crate::run_api::{all_ids, command, ids, predictions, run, run_api, spent};
use crate::server::{Request, Server};

const PRICED: [&str; 4] = ["--prices", "prices.json", "--max-tokens", "100"];

fn step(provider: &Provider, step: &str, more: &[&str]) -> Vec<String> {
    run_api(&provider.server, "priced", &[&PRICED, &["--batch", step][..], more].concat())
}

/// The lines of a predictions file by instance, without what batches cannot know.
fn comparable(file: &Path) -> Vec<Value> {
    let mut lines = lines(file);
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("latency_ms");
    }
    lines.sort_by_key(|line| line["instance_id"].to_string());
    lines
}

#[test]
fn each_provider_fills_the_file_that_a_plain_run_fills() {
    for (name, more) in [("openai", &["--n", "2"][..]), ("anthropic", &[]), ("anthropic", &["--n", "2"])] {
        let (cli, provider) = (Cli::new(), Provider::start(|_| None));
        let more = [&["--provider", name], more].concat();
        let file = predictions(&cli, "priced");
        let (code, stderr) = run(&cli, step(&provider, "submit", &more));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains("11 instances sent for at most $"), "{stderr}");
        // What is in a batch is not sent again, and not answered yet.
        assert_eq!(run(&cli, step(&provider, "submit", &more)).0, Some(0));
        assert_eq!(run(&cli, step(&provider, "fetch", &more)).0, Some(0));
        assert_eq!((provider.with(|batches| batches.stored.len()), lines(&file).len()), (1, 0));

        provider.end_all();
        let status = command(&cli, step(&provider, "status", &more)).output().unwrap();
        let table = String::from_utf8(status.stdout).unwrap();
        assert!(table.starts_with("BATCH") && table.contains("batch-0"), "{table}");
        let (code, stderr) = run(&cli, step(&provider, "fetch", &more));
        assert_eq!((code, ids(&file)), (Some(0), all_ids()), "{stderr}");
        assert_eq!(run(&cli, step(&provider, "fetch", &more)).0, Some(0));
        assert_eq!(run(&cli, step(&provider, "submit", &more)).0, Some(0));
        assert_eq!(provider.with(|batches| batches.stored.len()), 1);
        // A request of 100 tokens for a cent a thousand, halved; Anthropic is asked once for each answer.
        let requests = if name == "anthropic" && more.len() > 2 { 22.0 } else { 11.0 };
        assert!((spent(&file) - requests * 0.0005).abs() < 1e-9, "{}", spent(&file));

        let plain = Cli::new();
        let server = Server::start(move |_, body| {
            let answer = batch_server::chat(body);
            let message = json!({
                "content": [{"type": "text", "text": answer["choices"][0]["message"]["content"]}],
                "stop_reason": "end_turn", "usage": {"input_tokens": 90, "output_tokens": 10},
            });
            (200, "", if name == "openai" { answer } else { message }.to_string())
        });
        let flags = run_api(&server, "priced", &[&PRICED, &more[..]].concat());
        assert_eq!(run(&plain, flags).0, Some(0));
        let mut expected = comparable(&predictions(&plain, "priced"));
        for line in &mut expected {
            line["cost"] = json!(line["cost"].as_f64().unwrap() / 2.0);
        }
        assert_eq!(comparable(&file), expected);
    }
}

#[test]
fn failures_and_expired_requests_are_records_and_are_sent_again() {
    let (cli, provider) = (Cli::new(), Provider::start(|_| None));
    provider.with(|batches| (batches.errors, batches.expired) = (vec![0], vec![1]));
    let file = predictions(&cli, "priced");
    assert_eq!(run(&cli, step(&provider, "submit", &[])).0, Some(0));
    provider.end_all();
    let (code, stderr) = run(&cli, step(&provider, "fetch", &[]));
    assert_eq!((code, ids(&file)), (Some(3), all_ids()), "{stderr}");
    let errors: Vec<String> =
        lines(&file).iter().filter_map(|line| line["error"].as_str().map(str::to_owned)).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().any(|error| error.contains("bad day")), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("without an answer")), "{errors:?}");

    assert_eq!(run(&cli, step(&provider, "submit", &[])).0, Some(0));
    provider.end_all();
    let (code, stderr) = run(&cli, step(&provider, "fetch", &[]));
    assert_eq!((code, ids(&file)), (Some(0), all_ids()), "{stderr}");
    assert_eq!(provider.with(|batches| batches.stored["batch-1"].lines.len()), 2);
    assert!((spent(&file) - 11.0 * 0.0005).abs() < 1e-9, "{}", spent(&file));
}

/// The instances that the provider was asked for, by the prompts' text; one that is there twice is a failure.
fn asked(provider: &Provider) -> usize {
    let prompts: Vec<String> = provider.with(|batches| {
        batches
            .stored
            .values()
            .flat_map(|batch| &batch.lines)
            .map(|(_, body)| body["messages"].to_string())
            .collect()
    });
    assert_eq!(prompts.iter().collect::<BTreeSet<_>>().len(), prompts.len(), "an instance was sent twice");
    prompts.len()
}

/// Runs a step that the provider hangs up on at a certain request, and kills it there.
fn kill_at(cli: &Cli, flags: Vec<String>, is_there: &AtomicBool) {
    let mut child = command(cli, flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !is_there.load(Ordering::SeqCst) {
        assert!(child.try_wait().unwrap().is_none(), "the step ended before it was killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Makes submissions of killed processes old enough to be decided, where there are some.
fn let_a_minute_pass(file: &Path) {
    let path = file.with_extension("jsonl.batches");
    let Ok(text) = fs::read_to_string(&path) else { return };
    let mut batches: Value = serde_json::from_str(&text).unwrap();
    for batch in batches.as_array_mut().unwrap() {
        if let Some(at) = batch["phase"]["creating"]["at"].as_i64() {
            batch["phase"]["creating"]["at"] = json!(at - 61);
        }
    }
    fs::write(path, batches.to_string()).unwrap();
}

#[test]
fn a_kill_at_any_request_sends_nothing_twice_and_loses_nothing() {
    type Place = fn(&Request) -> bool;
    // Where the step is killed, and whether the provider has taken the request by then.
    let places: [(&str, &str, Place, bool); 6] = [
        ("openai", "submit", |request| request.path == "/v1/files", false),
        ("openai", "submit", |request| request.method == "POST" && request.path == "/v1/batches", false),
        ("openai", "submit", |request| request.method == "POST" && request.path == "/v1/batches", true),
        ("anthropic", "submit", |request| request.method == "POST", false),
        ("anthropic", "submit", |request| request.method == "POST", true),
        ("openai", "fetch", |request| request.path.ends_with("/content"), false),
    ];
    for (name, killed, place, is_taken) in places {
        let cli = Cli::new();
        let (is_armed, is_there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (armed, there) = (Arc::clone(&is_armed), Arc::clone(&is_there));
        let inner = Arc::new(Provider::start(|_| None));
        let behind = Arc::clone(&inner);
        let provider = Provider::start(move |request| {
            let answer = |request: &Request| behind.with(|batches| batch_server::answer(batches, request));
            if !(place(request) && armed.swap(false, Ordering::SeqCst)) {
                return Some(answer(request));
            }
            if is_taken {
                answer(request);
            }
            there.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        });
        let what = format!("{name} {killed} {is_taken}");
        let flags = |step_name: &str| step(&provider, step_name, &["--provider", name, "--max-cost", "3"]);
        let file = predictions(&cli, "priced");
        if killed == "fetch" {
            assert_eq!(run(&cli, flags("submit")).0, Some(0), "{what}");
            inner.end_all();
        }
        is_armed.store(true, Ordering::SeqCst);
        kill_at(&cli, flags(killed), &is_there);

        // A plain run would pay twice.
        if killed == "submit" {
            let plain = run_api(&provider.server, "priced", &[&PRICED[..], &["--provider", name]].concat());
            let (code, stderr) = run(&cli, plain);
            assert_eq!(code, Some(1), "{what}: {stderr}");
            assert!(stderr.contains("11 instances of this run are in batches"), "{what}: {stderr}");
            // A request on its way may still arrive, so that nothing is sent at once.
            let (code, stderr) = run(&cli, flags("submit"));
            assert_eq!(code, Some(0), "{what}: {stderr}");
            asked(&inner);
            let_a_minute_pass(&file);
        }
        inner.end_all();
        assert_eq!(run(&cli, flags("submit")).0, Some(0), "{what}");
        inner.end_all();
        let (code, stderr) = run(&cli, flags("fetch"));
        assert_eq!((code, ids(&file)), (Some(0), all_ids()), "{what}: {stderr}");
        assert_eq!(asked(&inner), 11, "{what}");
        // What was reserved for a submission that came to nothing is free again: three dollars suffice.
        assert!((spent(&file) - 11.0 * 0.0005).abs() < 1e-9, "{what}: {}", spent(&file));
        assert!(stderr.contains("$0.0055"), "{what}: {stderr}");
    }
}

#[test]
fn a_fetch_that_is_killed_between_lines_writes_each_prediction_once() {
    let (cli, provider) = (Cli::new(), Provider::start(|_| None));
    let file = predictions(&cli, "priced");
    assert_eq!(run(&cli, step(&provider, "submit", &[])).0, Some(0));
    provider.end_all();
    let state = fs::read(file.with_extension("jsonl.batches")).unwrap();
    assert_eq!(run(&cli, step(&provider, "fetch", &[])).0, Some(0));
    let (predictions, costs) = (fs::read_to_string(&file).unwrap(), file.with_extension("jsonl.costs"));
    let ledger = fs::read_to_string(&costs).unwrap();
    // What the files say after a kill behind each prediction, before and after its cost is booked, the last line torn.
    for done in [0, 1, 6, 11] {
        for booked in [done, done.max(1) - 1] {
            let kept: String = predictions.lines().take(done).map(|line| format!("{line}\n")).collect();
            fs::write(&file, format!("{kept}{{\"instance_id\": \"to")).unwrap();
            let kept: String = ledger.lines().take(11 + booked).map(|line| format!("{line}\n")).collect();
            fs::write(&costs, kept).unwrap();
            fs::write(file.with_extension("jsonl.batches"), &state).unwrap();
            let (code, stderr) = run(&cli, step(&provider, "fetch", &[]));
            assert_eq!((code, ids(&file)), (Some(0), all_ids()), "{done} {booked}: {stderr}");
            assert!(stderr.contains("$0.0055"), "{done} {booked}: {stderr}");
        }
    }
}

#[test]
fn the_cap_holds_for_what_batches_may_cost() {
    let (cli, provider) = (Cli::new(), Provider::start(|_| None));
    // At worst, by the bytes of its prompt, a request costs 3 to 8 cents in a batch.
    let (code, stderr) = run(&cli, step(&provider, "submit", &["--max-cost", "0.1"]));
    assert_eq!(code, Some(3), "{stderr}");
    let first = asked(&provider);
    assert!((1..4).contains(&first), "{first}");
    // The batch holds its worst case until it is fetched, and what it has cost from then on.
    assert_eq!(run(&cli, step(&provider, "submit", &["--max-cost", "0.1"])).0, Some(3));
    assert_eq!(asked(&provider), first);
    provider.end_all();
    assert_eq!(run(&cli, step(&provider, "fetch", &["--max-cost", "0.1"])).0, Some(0));
    assert_eq!(run(&cli, step(&provider, "submit", &["--max-cost", "0.1"])).0, Some(3));
    assert!(asked(&provider) > first);
}

#[test]
fn a_dry_run_of_submit_has_the_prices_of_batches_and_leaves_out_what_is_in_some() {
    let (cli, provider) = (Cli::new(), Provider::start(|_| None));
    let dry = |flags: Vec<String>| {
        let flags = [flags, vec!["--dry-run".into(), "--json".into()]].concat();
        let output = command(&cli, flags).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str::<Value>(text.trim_end().lines().last().unwrap()).unwrap()
    };
    let plain = dry(run_api(&provider.server, "priced", &PRICED));
    let batch = dry(step(&provider, "submit", &[]));
    assert_eq!((&plain["sendable"], &batch["sendable"]), (&json!(11), &json!(11)));
    let dollars = |result: &Value| result["cost_most"].as_f64().unwrap();
    assert!((dollars(&plain) - 2.0 * dollars(&batch)).abs() < 1e-9, "{plain} {batch}");
    let one = step(&provider, "submit", &["--filter", "marshmallow"]);
    assert_eq!(run(&cli, one).0, Some(0));
    assert_eq!(dry(step(&provider, "submit", &[]))["sendable"], 9);
}

#[test]
fn shards_have_batches_of_their_own() {
    let (cli, provider) = (Cli::new(), Provider::start(|_| None));
    for shard in ["0", "1"] {
        let shard = ["--shard-id", shard, "--num-shards", "2"];
        assert_eq!(run(&cli, step(&provider, "submit", &shard)).0, Some(0));
    }
    assert_eq!((asked(&provider), provider.with(|batches| batches.stored.len())), (11, 2));
    provider.end_all();
    let mut found = BTreeSet::new();
    for shard in 0..2 {
        let flags = ["--shard-id", &shard.to_string(), "--num-shards", "2"];
        assert_eq!(run(&cli, step(&provider, "fetch", &flags)).0, Some(0));
        let name = format!("out/priced__swe-bench-lite-mit__test__shard-{shard}__num_shards-2.jsonl");
        found.extend(ids(&cli.dir().join(name)));
    }
    assert_eq!(found, all_ids());
}

#[test]
fn a_refused_submission_leaves_nothing_behind() {
    let provider = Provider::start(|request| {
        let refused = json!({"error": {"message": "Incorrect API key provided"}}).to_string();
        (request.method == "POST" && request.path == "/v1/batches").then_some((401, "", refused))
    });
    let cli = Cli::new();
    let (code, stderr) = run(&cli, step(&provider, "submit", &["--max-cost", "3"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("TEST_API_KEY"), "{stderr}");
    assert!(!predictions(&cli, "priced").with_extension("jsonl.batches").exists());
    let (code, stderr) = run(&cli, step(&provider, "fetch", &["--max-cost", "3"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("$0.0000"), "{stderr}");
}

#[test]
fn files_go_through_vllm() {
    let (cli, server) = (Cli::new(), Server::start(|_, _| panic!("files need no server")));
    let flags = |step: &str, file: &str| run_api(&server, "m", &["--batch", step, "--batch-file", file]);
    let output = command(&cli, flags("write", "requests.jsonl")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "requests.jsonl\n");
    let requests = lines(&cli.dir().join("requests.jsonl"));
    assert_eq!(requests.len(), 11);
    let answers: String = requests
        .iter()
        .enumerate()
        .map(|(number, line)| {
            assert_eq!((&line["method"], &line["url"]), (&json!("POST"), &json!("/v1/chat/completions")));
            assert_eq!(line["body"]["model"], "m");
            let response = if number == 3 {
                json!({"status_code": 400, "request_id": "r", "body": null})
            } else {
                json!({"status_code": 200, "request_id": "r", "body": batch_server::chat(&line["body"])})
            };
            let error = if number == 3 { json!({"message": "no such thing"}) } else { Value::Null };
            let answer =
                json!({"id": "vllm-1", "custom_id": line["custom_id"], "response": response, "error": error});
            format!("{answer}\n")
        })
        .collect();
    fs::write(cli.dir().join("answers.jsonl"), format!("{answers}junk\n")).unwrap();
    let file = predictions(&cli, "m");
    for code in [Some(3), Some(3)] {
        let (found, stderr) = run(&cli, flags("read", "answers.jsonl"));
        assert_eq!((found, ids(&file)), (code, all_ids()), "{stderr}");
        assert!(stderr.contains("1 lines of answers.jsonl are no answers"), "{stderr}");
    }
    let failed: Vec<Value> = lines(&file).into_iter().filter(|line| line["error"].is_string()).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["error"].as_str().unwrap().contains("no such thing"), "{}", failed[0]);
    // Only what failed is written again.
    assert_eq!(run(&cli, flags("write", "requests.jsonl")).0, Some(0));
    assert_eq!(lines(&cli.dir().join("requests.jsonl")).len(), 1);
}

#[test]
fn steps_that_cannot_be_are_refused() {
    let (cli, provider) = (Cli::new(), Provider::start(|_| None));
    for (flags, code, says) in [
        (&["--batch", "send"][..], 2, "submit"),
        (&["--batch", "write"], 2, "`batch_file`"),
        (&["--batch", "submit", "--batch-file", "f"], 2, "`batch_file`"),
        (&["--batch", "submit", "--provider", "anthropic-text"], 1, "no batches"),
        (&["--batch", "write", "--batch-file", "f", "--provider", "anthropic"], 1, "openai"),
        (&["--batch", "read", "--batch-file", "missing.jsonl"], 1, "missing.jsonl"),
        (&["--batch", "write", "--batch-file", "f", "--openai-api", "responses", "--n", "2"], 1, "`n`"),
    ] {
        let (found, stderr) = run(&cli, run_api(&provider.server, "m", flags));
        assert_eq!(found, Some(code), "{flags:?}: {stderr}");
        assert!(stderr.contains(says), "{flags:?}: {stderr}");
    }
    assert_eq!(provider.server.seen().len(), 0);

    assert_eq!(run(&cli, step(&provider, "submit", &[])).0, Some(0));
    let (code, stderr) = run(&cli, step(&provider, "fetch", &["--provider", "anthropic"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("with another service"), "{stderr}");
}
