//! The commands beside the run.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

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
    assert_eq!(child.wait_with_output().unwrap().stdout, patch.trim_start().as_bytes());

    cli.refuses(&["extract-diff", "missing.txt"], 1, &["error: cannot read missing.txt"]);
}

#[test]
fn extract_diff_repairs_and_checks_in_a_repository() {
    let cli = Cli::new();
    let repository = cli.dir().join("repo@1");
    fs::create_dir(&repository).unwrap();
    fs::write(repository.join("x.py"), "one\ntwo\nthree\n").unwrap();
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let status = Command::new("git").args(identity).args(args).current_dir(&repository).status().unwrap();
        assert!(status.success());
    };
    git(&["init", "--quiet"]);
    git(&["add", "x.py"]);
    git(&["commit", "--quiet", "--message=x"]);
    let answer = "```diff\n--- x.py\n+++ x.py\n@@ -7,1 +7,1 @@\n two \n-three\n+3\n```\n";
    fs::write(cli.dir().join("answer.txt"), answer).unwrap();
    let broken = cli.run(["extract-diff", "answer.txt", "--check", "repo@1"]);
    assert_eq!(broken.code, Some(1), "{broken:?}");
    assert!(broken.stdout.starts_with("--- a/x.py\n"), "{broken:?}");
    assert!(broken.stderr.contains("error: the patch does not apply: "), "{broken:?}");
    let patch = "--- a/x.py\n+++ b/x.py\n@@ -2,2 +2,2 @@\n two\n-three\n+3\n";
    let repaired = cli.run(["-v", "extract-diff", "answer.txt", "--repair", "--check", "repo@1@HEAD"]);
    assert_eq!((repaired.code, &*repaired.stdout), (Some(0), patch), "{repaired:?}");
    assert!(repaired.stderr.contains("x.py, hunk 1: moved by -5 lines"), "{repaired:?}");
    fs::write(cli.dir().join("edit.txt"), "x.py\n<<<<<<< SEARCH\nthree\n=======\n3\n>>>>>>> REPLACE\n")
        .unwrap();
    let edit = cli.run(["extract-diff", "edit.txt", "--check", "repo@1", "--harness", "--minimal", "--json"]);
    let report: Value = serde_json::from_str(&edit.stdout).unwrap();
    assert_eq!(report["files"][0]["source"], "search_replace");
    assert_eq!(report["check"], serde_json::json!({"applies": true, "by": "git apply"}));
    let nothing = cli.run(["extract-diff", "edit.txt"]);
    assert_eq!((nothing.code, &*nothing.stdout), (Some(0), ""));
    assert!(nothing.stderr.contains("only with the repository"), "{nothing:?}");
    cli.refuses(&["extract-diff", "edit.txt", "--check", "nowhere"], 1, &["no git repository"]);
    cli.refuses(&["extract-diff", "edit.txt", "--check", "repo@1@v9"], 1, &["no commit `v9`"]);
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
