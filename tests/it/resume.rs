//! Runs that are killed or interrupted at any point continue: no prediction is lost, and none is written twice.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};

use crate::cli::Cli;
use crate::demo::{gold_patches, lines, predictions_file, run_llama};

/// Few tokens and few instances at once, so that lines come one after the other.
const FLAGS: [&str; 4] = ["--max-new-tokens", "6", "--batch-size", "2"];

/// The lines that an uninterrupted run writes, by instance.
fn uninterrupted() -> BTreeMap<String, String> {
    let cli = Cli::new();
    assert_eq!(cli.run(run_llama(&FLAGS)).code, Some(0));
    outputs(&predictions_file(cli.dir()))
}

/// `instance_id` to `full_output`; an id that is there twice is a failure.
fn outputs(file: &Path) -> BTreeMap<String, String> {
    let mut outputs = BTreeMap::new();
    for line in lines(file) {
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
        assert!(outputs.insert(text("instance_id"), text("full_output")).is_none(), "twice: {line}");
    }
    outputs
}

/// Waits until the file has `size` bytes or the process has ended; whether the process still runs.
fn wait_for_size(child: &mut Child, file: &Path, size: u64) -> bool {
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if fs::metadata(file).is_ok_and(|metadata| metadata.len() >= size) {
            return true;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_run_continues_and_loses_nothing() {
    let cli = Cli::new();
    let file = predictions_file(cli.dir());
    // A fixed sequence of odd sizes: kills fall before, between and right after writes.
    let mut state = 0x2545_f491_u64;
    let mut finished = BTreeMap::new();
    let mut kills = 0;
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let size = fs::metadata(&file).map_or(0, |metadata| metadata.len()) + (state >> 33) % 700;
        let mut child = cli.spawn(run_llama(&FLAGS));
        let killed = kills < 12 && wait_for_size(&mut child, &file, size);
        if killed {
            child.kill().unwrap();
            kills += 1;
        }
        let status = child.wait_with_output().unwrap();
        if file.exists() {
            let whole = fs::read_to_string(&file).unwrap();
            let whole = whole.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let complete = whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let now: BTreeMap<String, String> = complete
                .map(|line| (line["instance_id"].to_string(), line["full_output"].to_string()))
                .collect();
            for (id, output) in &finished {
                assert_eq!(now.get(id), Some(output), "{id} was lost after {kills} kills");
            }
            finished = now;
        }
        if !killed {
            assert_eq!(status.status.code(), Some(0), "{status:?}");
            break;
        }
    }
    assert!(kills > 3, "only {kills} kills");
    assert_eq!(outputs(&file), uninterrupted());
}

#[test]
fn an_interrupted_run_keeps_what_is_finished_and_continues() {
    for signal in ["-INT", "-TERM"] {
        let cli = Cli::new();
        let mut child = cli.spawn(run_llama(&FLAGS));
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(stderr.any(|line| line.starts_with("[2/11]")));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let rest: Vec<String> = stderr.collect();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{rest:?}");
        assert!(rest.last().unwrap().contains("the same command continues"), "{rest:?}");

        let file = predictions_file(cli.dir());
        let finished = outputs(&file);
        assert!((2..11).contains(&finished.len()), "{signal}: {} finished", finished.len());
        let outcome = cli.run(run_llama(&FLAGS));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("{} done before", finished.len())), "{}", outcome.stderr);
        let all = outputs(&file);
        assert_eq!(all.keys().collect::<Vec<_>>(), gold_patches().keys().collect::<Vec<_>>());
        for (id, output) in finished {
            assert_eq!(all[&id], output);
        }
    }
}

#[test]
fn two_runs_on_one_file_are_refused() {
    let cli = Cli::new();
    let mut first = cli.spawn(run_llama(&[]));
    let mut stderr = BufReader::new(first.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.any(|line| line.starts_with("[1/11]")));
    let second = cli.run(run_llama(&[]));
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("error: "), "{}", second.stderr);
    first.kill().unwrap();
    first.wait().unwrap();
}
