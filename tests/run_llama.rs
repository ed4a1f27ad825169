//! The local-model run on the demo model and real instances: gold patches, cancelling, and processes that are killed.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use swebench_infer::run::llama::{RunEvent, RunLlamaConfig, RunSummary, run};
use swebench_infer::{CancelToken, Result};

/// Tells a child process of this test where to write; see [`child_process`].
const CHILD_OUTPUT_DIR: &str = "SWEBENCH_TEST_OUTPUT_DIR";

/// The four shortest prompts.
const INSTANCES: [&str; 4] =
    ["pydicom__pydicom-1139", "pydicom__pydicom-1256", "sqlfluff__sqlfluff-1625", "sqlfluff__sqlfluff-2419"];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn config(output_dir: &Path) -> RunLlamaConfig {
    RunLlamaConfig {
        model_name_or_path: data("demo").to_str().unwrap().into(),
        dataset_path: data("swe-bench-lite-mit").to_str().unwrap().into(),
        output_dir: output_dir.into(),
        instance_ids: Some(INSTANCES.map(str::to_owned).to_vec()),
        batch_size: Some(2),
        ..RunLlamaConfig::default()
    }
}

fn run_quietly(output_dir: &Path) -> Result<RunSummary> {
    run(&config(output_dir), &CancelToken::new(), &mut |_| ())
}

fn json_lines(path: &Path) -> Vec<Value> {
    let content = std::fs::read_to_string(path).unwrap();
    content.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every instance has exactly one line, and it holds the gold patch, after the tag's newline.
#[track_caller]
fn check_predictions(output_dir: &Path) {
    let gold = json_lines(&data("gold-patches.jsonl"));
    let predictions =
        json_lines(&output_dir.join("swe-bench-lite-mit__test__demo__temp-0.0__top-p-1.0.jsonl"));
    let mut ids: Vec<_> = predictions.iter().map(|line| line["instance_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, INSTANCES);
    for prediction in &predictions {
        let gold = gold.iter().find(|gold| gold["instance_id"] == prediction["instance_id"]).unwrap();
        let patch = prediction["model_patch"].as_str().unwrap();
        assert_eq!(patch.strip_prefix('\n'), gold["patch"].as_str(), "{}", prediction["instance_id"]);
        assert_eq!(prediction["finish_reason"], "stop");
    }
}

#[test]
fn a_cancelled_run_is_continued_to_the_gold_patches() {
    let dir = tempfile::tempdir().unwrap();
    let cancel = CancelToken::new();
    let summary = run(&config(dir.path()), &cancel, &mut |event| {
        if let RunEvent::InstanceFinished { .. } = event {
            cancel.cancel();
        }
    })
    .unwrap();
    assert!(summary.interrupted);
    assert!((1..4).contains(&summary.finished), "{summary:?}");

    let rest = run_quietly(dir.path()).unwrap();
    assert!(!rest.interrupted);
    assert_eq!((rest.total, rest.already_done), (4, summary.finished));
    assert_eq!((rest.finished, rest.failed), (4 - summary.finished, 0));
    check_predictions(dir.path());

    let nothing = run_quietly(dir.path()).unwrap();
    assert_eq!((nothing.total, nothing.already_done, nothing.finished), (4, 4, 0));
    check_predictions(dir.path());
}

#[test]
fn a_prompt_that_does_not_fit_has_a_record_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // Room for 2496 tokens of keys and values: 4 layers, 2 heads of 32, 2 bytes each.
    let config = RunLlamaConfig { kv_memory: Some(2496 * 4 * 2 * 32 * 2 * 2), ..config(dir.path()) };
    let summary = run(&config, &CancelToken::new(), &mut |_| ()).unwrap();
    assert_eq!((summary.finished, summary.failed), (1, 3));
    for prediction in json_lines(&summary.output_file) {
        let error = prediction["error"].as_str().unwrap_or_default();
        assert_eq!(
            error.contains("the prompt can never fit"),
            prediction["instance_id"] != INSTANCES[0],
            "{error}"
        );
        assert_eq!(error.is_empty(), !prediction["full_output"].is_null());
    }
    // Failures are tried again, here with more room.
    let rest = run_quietly(dir.path()).unwrap();
    assert_eq!((rest.already_done, rest.finished), (1, 3));
    check_predictions(dir.path());
}

#[test]
fn shards_of_a_run_share_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |shard_id| {
        let config = RunLlamaConfig { shard_id: Some(shard_id), num_shards: Some(3), ..config(dir.path()) };
        run(&config, &CancelToken::new(), &mut |_| ()).unwrap()
    };
    assert_eq!([2, 0, 1].map(|shard_id| shard(shard_id).finished), [1, 2, 1]);
    // A run without shards finds all of it done.
    let whole = run_quietly(dir.path()).unwrap();
    assert_eq!((whole.total, whole.already_done), (4, 4));
}

/// Kills a run after its 1st, 2nd, 3rd … report until one gets to its end.
#[test]
fn a_killed_run_loses_nothing_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for reports_to_survive in 1.. {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--ignored", "--nocapture"])
            .env(CHILD_OUTPUT_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reports = BufReader::new(child.stdout.take().unwrap()).lines();
        let survived = reports
            .map_while(Result::ok)
            .filter(|line| line.starts_with("report"))
            .take(reports_to_survive)
            .count();
        if survived < reports_to_survive {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 2, "killed {kills} times");
    check_predictions(dir.path());
}

/// Not a test of its own: the process that [`a_killed_run_loses_nothing_and_doubles_nothing`] kills.
#[test]
#[ignore = "run by another test"]
fn child_process() {
    let Some(output_dir) = std::env::var_os(CHILD_OUTPUT_DIR) else { return };
    let mut stdout = std::io::stdout();
    run(&config(Path::new(&output_dir)), &CancelToken::new(), &mut |event| {
        // Progress comes by the clock, so a kill after it can hit anything.
        writeln!(stdout, "\nreport {event:?}").unwrap();
    })
    .unwrap();
}
