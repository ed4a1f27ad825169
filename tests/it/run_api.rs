//! Runs against services on loopback: what is sent, what is recorded, and what it may cost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::demo::{data, gold_patches, lines};
use crate::server::{Answer, Server};

/// What the reference's extraction gives, with the line end after the tag.
pub const PATCH: &str = "\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";

/// Prices of the models that the tests ask for, so that costs are round: a cent for a thousand tokens either way.
const PRICES: &str = r#"{"priced": {"input_cost_per_token": 1e-5, "output_cost_per_token": 1e-5, "max_input_tokens": 100000}}"#;

pub fn chat(tokens: u64) -> Answer {
    let answer = json!({
        "model": "m",
        "choices": [{"message": {"content": format!("<patch>{PATCH}</patch>")}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}},
    });
    (200, "", answer.to_string())
}

fn messages() -> Answer {
    let answer = json!({
        "content": [{"type": "text", "text": "<patch>"}, {"type": "text", "text": format!("{PATCH}</patch>")}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 90, "cache_read_input_tokens": 10, "output_tokens": 5},
    });
    (200, "", answer.to_string())
}

fn completion() -> Answer {
    (
        200,
        "",
        json!({"completion": format!("<patch>{PATCH}</patch>"), "stop_reason": "stop_sequence"}).to_string(),
    )
}

pub fn error(status: u16, headers: &'static str, message: &str) -> Answer {
    (status, headers, json!({"error": {"message": message}}).to_string())
}

/// The flags of a run over the demo dataset, in the reference's spelling.
pub fn run_api(server: &Server, model: &str, more: &[&str]) -> Vec<String> {
    let dataset = data("swe-bench-lite-mit");
    let flags = [
        "run-api",
        "--dataset_name_or_path",
        &dataset,
        "--model_name_or_path",
        model,
        "--output_dir",
        "out",
        "--base_url",
        &server.url,
        "--key-env",
        "TEST_API_KEY",
    ];
    flags.iter().chain(more).map(|flag| (*flag).to_owned()).collect()
}

pub fn command(cli: &Cli, args: Vec<String>) -> std::process::Command {
    fs::write(cli.dir().join("prices.json"), PRICES).unwrap();
    let mut command = cli.command(args);
    command.env("TEST_API_KEY", "sk-test-0123456789").env("NO_PROXY", "127.0.0.1");
    command
}

/// Exit code and standard error.
pub fn run(cli: &Cli, args: Vec<String>) -> (Option<i32>, String) {
    let output = command(cli, args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("sk-test"), "the key is printed: {stderr}");
    (output.status.code(), stderr)
}

pub fn predictions(cli: &Cli, model: &str) -> PathBuf {
    cli.dir().join(format!("out/{model}__swe-bench-lite-mit__test.jsonl"))
}

pub fn ids(file: &Path) -> BTreeSet<String> {
    let lines = lines(file);
    let ids: BTreeSet<String> =
        lines.iter().map(|line| line["instance_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), lines.len(), "an instance is there twice");
    ids
}

pub fn all_ids() -> BTreeSet<String> {
    gold_patches().into_keys().collect()
}

pub fn spent(file: &Path) -> f64 {
    lines(file).iter().map(|line| line["cost"].as_f64().unwrap()).sum()
}

#[test]
fn every_protocol_fills_the_same_file() {
    #[track_caller]
    fn check(provider: &str, answer: fn() -> Answer, text_key: &str, usage: &Value) {
        let (cli, server) = (Cli::new(), Server::start(move |_, _| answer()));
        let (code, stderr) = run(&cli, run_api(&server, "org/some-model", &["--provider", provider]));
        assert_eq!(code, Some(0), "{stderr}");
        let file = predictions(&cli, "some-model");
        assert_eq!(ids(&file), all_ids());
        for line in lines(&file) {
            assert_eq!(line["model_name_or_path"], "org/some-model");
            assert_eq!(line["model_patch"], PATCH.trim_start());
            assert_eq!((&line["finish_reason"], &line["cost"]), (&json!("stop"), &Value::Null));
            assert_eq!(&line["usage"], usage, "{provider}");
            assert!(line[text_key].as_str().unwrap().starts_with("You will be provided"), "{line}");
            assert!(line.as_object().unwrap().contains_key("cost"));
        }
        // What is finished is not asked for again.
        assert_eq!(run(&cli, run_api(&server, "org/some-model", &["--provider", provider])).0, Some(0));
        assert_eq!(server.requests().len(), 11);
    }
    let usage = |prompt, cached, completion| json!({"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion});
    check("openai", || chat(100), "text", &usage(100, 4, 10));
    check("anthropic", messages, "text_inputs", &usage(100, 10, 5));
    // This one does not count.
    check("anthropic-text", completion, "text_inputs", &Value::Null);
}

#[test]
fn the_first_line_is_the_system_message_and_parameters_are_typed() {
    let (cli, server) = (Cli::new(), Server::start(|_, _| chat(100)));
    let flags = [
        "--model-args",
        "temperature=0.2,top_p=0.95,seed=-1,stop=[\"a\",\"b\"]",
        "--filter",
        "marshmallow.*1359$",
    ];
    let (code, stderr) = run(&cli, run_api(&server, "m", &flags));
    assert_eq!(code, Some(0), "{stderr}");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request["temperature"], 0.2);
    assert_eq!((&request["seed"], &request["stop"]), (&json!(-1), &json!(["a", "b"])));
    let system = request["messages"][0]["content"].as_str().unwrap();
    assert!(system.starts_with("You will be provided") && !system.contains('\n'), "{system}");
    assert!(request["messages"][1]["content"].as_str().unwrap().ends_with("\n\n"));
}

#[test]
fn refusals_are_waited_out() {
    let (cli, server) = (
        Cli::new(),
        Server::start(|number, _| match number {
            0 => error(429, "retry-after-ms: 1\r\n", "slow down"),
            1 => error(529, "retry-after: 0\r\n", "overloaded"),
            _ => chat(100),
        }),
    );
    let (code, stderr) = run(&cli, run_api(&server, "m", &[]));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(ids(&predictions(&cli, "m")), all_ids());
    assert_eq!(server.requests().len(), 13);
}

#[test]
fn an_instance_that_does_not_fit_has_a_record_and_is_tried_again() {
    let (cli, server) = (
        Cli::new(),
        Server::start(|number, _| match number {
            0 => error(400, "", "This model's maximum context length is 10 tokens"),
            _ => chat(100),
        }),
    );
    let (code, stderr) = run(&cli, run_api(&server, "m", &["--concurrency", "1"]));
    assert_eq!(code, Some(3), "{stderr}");
    let file = predictions(&cli, "m");
    assert_eq!(ids(&file), all_ids());
    let failed: Vec<Value> = lines(&file).into_iter().filter(|line| line["error"].is_string()).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["error"].as_str().unwrap().contains("maximum context length"), "{}", failed[0]);
    assert_eq!(run(&cli, run_api(&server, "m", &["--redo-failed"])).0, Some(0));
    assert_eq!((ids(&file), server.requests().len()), (all_ids(), 12));
}

#[test]
fn the_cap_holds_over_runs() {
    let (cli, server) = (Cli::new(), Server::start(|_, _| chat(90)));
    let file = predictions(&cli, "priced");
    let flags = |cap| {
        run_api(&server, "priced", &["--prices", "prices.json", "--max_cost", cap, "--max-tokens", "100"])
    };
    // A request costs a tenth of a cent, and at worst, by the bytes of its prompt, 6 to 16 cents.
    for cap in ["0.05", "0.1"] {
        let (code, stderr) = run(&cli, flags(cap));
        assert_eq!(code, Some(3), "{cap}: {stderr}");
        assert!(stderr.contains("max_cost"), "{stderr}");
        assert!(spent(&file) <= cap.parse().unwrap());
    }
    let before = lines(&file).len();
    let (code, stderr) = run(&cli, flags("1000"));
    assert_eq!((code, ids(&file)), (Some(0), all_ids()), "{stderr}");
    assert!(before < 11 && (spent(&file) - 0.011).abs() < 1e-9, "{before} before, {} spent", spent(&file));

    let unknown = run(&cli, run_api(&server, "nobodys", &["--max-cost", "1"]));
    assert_eq!(unknown.0, Some(1), "{}", unknown.1);
    assert!(unknown.1.contains("`nobodys`") && unknown.1.contains("input_cost_per_token"), "{}", unknown.1);
}

#[test]
fn a_try_that_may_have_been_billed_is_repeated_only_within_the_cap() {
    let one = ["--prices", "prices.json", "--max-tokens", "100", "--filter", "marshmallow.*1359$"];
    let cli = Cli::new();
    let broken = || Server::start(|number, _| if number == 0 { (0, "", String::new()) } else { chat(90) });
    let dry = command(&cli, run_api(&broken(), "priced", &[&one[..], &["--dry-run", "--json"]].concat()));
    let worst = String::from_utf8({ dry }.output().unwrap().stdout).unwrap();
    let worst: Value = serde_json::from_str(worst.lines().next().unwrap()).unwrap();
    let worst = worst["cost_reserved"].as_f64().unwrap();
    // The first try counts at its worst, with room for a second one or without.
    for (rounds, code, expected) in [(2.0, 0, worst + 0.001), (1.9, 3, worst)] {
        let (cli, server) = (Cli::new(), broken());
        let cap = (worst * rounds).to_string();
        let (found, stderr) =
            run(&cli, run_api(&server, "priced", &[&one[..], &["--max-cost", &cap]].concat()));
        assert_eq!(found, Some(code), "{stderr}");
        let file = predictions(&cli, "priced");
        assert!((spent(&file) - expected).abs() < 1e-9, "{} and not {expected}", spent(&file));
        assert_eq!(server.requests().len(), if code == 0 { 2 } else { 1 });
    }
}

#[test]
fn all_sorts_of_tokens_are_recorded_and_billed_by_request() {
    let cli = Cli::new();
    let prices = r#"{"tiered": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6,
        "input_cost_per_token_above_1k_tokens": 1e-3, "cache_creation_input_token_cost": 2e-6}}"#;
    fs::write(cli.dir().join("tiers.json"), prices).unwrap();
    let server = Server::start(|_, _| {
        let usage = json!({"input_tokens": 500, "cache_creation_input_tokens": 100, "output_tokens": 10});
        (200, "", json!({"content": [{"type": "text", "text": "a"}], "usage": usage}).to_string())
    });
    let flags = ["--provider", "anthropic", "--n", "3", "--prices", "tiers.json", "--filter", "1359$"];
    let (code, stderr) = run(&cli, run_api(&server, "tiered", &flags));
    assert_eq!((code, server.requests().len()), (Some(0), 3), "{stderr}");
    let line = &lines(&predictions(&cli, "tiered"))[0];
    let usage = json!({"prompt_tokens": 1800, "cache_write_tokens": 300, "completion_tokens": 30});
    assert_eq!(line["usage"], usage);
    // No single prompt is above a thousand tokens.
    assert!((line["cost"].as_f64().unwrap() - 3.0 * 710e-6).abs() < 1e-12, "{line}");
}

#[test]
fn killed_runs_lose_nothing_write_nothing_twice_and_forget_no_cost() {
    let cli = Cli::new();
    let hangs = Arc::new(AtomicBool::new(true));
    let hanging = Arc::clone(&hangs);
    let server = Server::start(move |number, _| {
        if number % 2 == 1 && hanging.load(Ordering::Relaxed) {
            std::thread::park();
        }
        chat(90)
    });
    let file = predictions(&cli, "priced");
    let flags = || {
        let more =
            ["--prices", "prices.json", "--max-tokens", "100", "--max-cost", "1000", "--concurrency", "64"];
        run_api(&server, "priced", &more)
    };
    let mut finished = BTreeSet::new();
    for kill in 1..=2 {
        let before = server.requests().len();
        let mut child = command(&cli, flags()).stderr(std::process::Stdio::null()).spawn().unwrap();
        while server.requests().len() < before + 4
            || fs::metadata(&file).map_or(0, |metadata| metadata.len()) == 0
        {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before kill {kill}");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let now: BTreeSet<String> = whole
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["instance_id"].as_str().unwrap().to_owned()
            })
            .collect();
        assert!(now.is_superset(&finished), "a line was lost");
        finished = now;
    }
    // Whatever was in flight counts at its worst, so that nothing fits below this cap any more.
    let capped =
        run_api(&server, "priced", &["--prices", "prices.json", "--max-tokens", "100", "--max-cost", "0.2"]);
    // The server may see the last requests of the killed run only now, so that its count says nothing.
    let (code, stderr) = run(&cli, capped);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("0 finished, 0 failed"), "a request was sent above the cap: {stderr}");

    hangs.store(false, Ordering::Relaxed);
    let (code, stderr) = run(&cli, flags());
    assert_eq!((code, ids(&file)), (Some(0), all_ids()), "{stderr}");
}

#[test]
fn an_interrupt_ends_the_run_at_once() {
    let cli = Cli::new();
    let server = Server::start(|_, _| {
        std::thread::park();
        chat(1)
    });
    let mut child =
        command(&cli, run_api(&server, "m", &[])).stderr(std::process::Stdio::null()).spawn().unwrap();
    while server.requests().is_empty() {
        std::thread::yield_now();
    }
    let start = std::time::Instant::now();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn what_can_never_be_right_is_refused_before_anything_is_sent() {
    let (cli, server) = (Cli::new(), Server::start(|_, _| chat(1)));
    for (flags, code, says) in [
        (&["--model-args", "warm"][..], 2, "`model_args`"),
        (&["--filter", "("], 2, "`filter`"),
        (&["--max-cost=-1"], 2, "`max_cost`"),
        (&["--provider", "nobody"], 2, "provider"),
        (&["--prices", "missing.json"], 1, "missing.json"),
        (&["--split", "train"], 1, "train"),
    ] {
        let (found, stderr) = run(&cli, run_api(&server, "m", flags));
        assert_eq!(found, Some(code), "{flags:?}: {stderr}");
        assert!(stderr.contains(says), "{flags:?}: {stderr}");
    }
    assert_eq!(server.requests().len(), 0);
}
