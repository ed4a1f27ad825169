//! The commands beside the run.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::cli::Cli;
use crate::demo;

#[test]
fn info_is_for_people_and_for_machines() {
    let cli = Cli::new();
    let text = cli.run(["info"]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    for line in ["swebench-infer", "cpu            available", "reference", "cuda", "safetensors", "parquet"]
    {
        assert!(text.stdout.contains(line), "no {line:?} in\n{}", text.stdout);
    }
    let json: Value = serde_json::from_str(&cli.run(["info", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["backends"][0]["name"], "cpu");
}

#[test]
fn completions_know_every_command() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = cli.run(["completions", shell]);
        assert_eq!(outcome.code, Some(0), "{shell}");
        for word in ["run-llama", "extract-diff", "model-name-or-path"] {
            assert!(outcome.stdout.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let cli = Cli::new();
    let mut child = cli.spawn(["completions", "bash"]);
    drop(child.stdout.take());
    let outcome = child.wait_with_output().unwrap();
    assert_eq!((outcome.status.code(), outcome.stderr), (Some(0), vec![]));
}

#[test]
fn extract_diff_prints_the_patch_and_nothing_else() {
    let cli = Cli::new();
    let answer = "Here it is:\n<patch>\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n</patch>\nbye";
    let patch = "\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
    fs::write(cli.dir().join("answer.txt"), answer).unwrap();
    let outcome = cli.run(["extract-diff", "answer.txt", "--mode", "legacy"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(0), patch, ""));

    let mut child =
        cli.command(["extract-diff", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, patch.as_bytes());

    cli.refuses(&["extract-diff", "missing.txt"], 1, &["error: cannot read missing.txt"]);
}

#[test]
fn bench_measures_random_weights() {
    let cli = Cli::new();
    let config = demo::data("demo/config.json");
    let flags =
        ["bench", "--config", &config, "--prompt", "16", "--gen", "2", "--depth", "0,8", "--batch", "1,2"];
    let flags: Vec<&str> = flags.into_iter().chain(["--repetitions", "1"]).collect();
    let table = cli.run(&flags);
    assert_eq!(table.code, Some(0), "{table:?}");
    let tests: Vec<_> = table.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        tests,
        ["cpu", "memory:", "roofline:", "test", "pp16", "tg2@0", "tg2@0x2", "tg2@8", "tg2@8x2"]
    );

    let json = cli.run(flags.iter().chain(&["--json"]));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 5);
    assert!(report["rows"][0]["tokens_per_second"].as_f64().unwrap() > 0.0);
}
