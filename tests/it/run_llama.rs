//! The main job: the demo model over the demo dataset.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::cli::Cli;
use crate::demo::{data, gold_patches, lines, predictions_file, run_llama, trees};

/// Whether `git apply --check` takes the patch on a directory of these files.
fn applies<'a>(files: impl IntoIterator<Item = (&'a String, &'a String)>, patch: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    // In a repository of its own, so that git looks at no other.
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        git
    };
    assert!(git(&["init", "-q"]).status().unwrap().success());
    let mut check = git(&["apply", "--check"]).stdin(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(patch.as_bytes()).unwrap();
    check.wait().unwrap().success()
}

#[test]
fn the_demo_run_writes_patches_that_apply() {
    let cli = Cli::new();
    let outcome = cli.run(run_llama(&[]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let file = predictions_file(cli.dir());
    assert_eq!(
        cli.dir().join(outcome.stdout.trim_end()),
        cli.dir().join("./outputs").join(file.file_name().unwrap())
    );
    let (gold, trees, predictions) = (gold_patches(), trees(), lines(&file));
    assert_eq!(predictions.len(), gold.len());
    for prediction in &predictions {
        let id = prediction["instance_id"].as_str().unwrap();
        let patch = prediction["model_patch"].as_str().unwrap();
        assert_eq!(patch, gold[id], "{id}");
        assert_eq!(prediction["model_name_or_path"], data("demo").as_str());
        assert!(prediction["full_output"].as_str().unwrap().contains("<patch>"));
        assert!(applies(&trees[id], patch), "{id}: git refuses\n{patch}");
    }
    // The check can fail.
    let (id, files) = trees.iter().next().unwrap();
    assert!(!applies(files, &gold[id].replace("\n ", "\n x")));

    let again = cli.run(run_llama(&[]));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.contains("0 finished, 0 failed, 11 done before"), "{}", again.stderr);
    assert_eq!(lines(&file), predictions);
}

#[test]
fn shards_share_the_dataset_between_them() {
    let cli = Cli::new();
    let mut ids = Vec::new();
    for shard in ["0", "1", "2"] {
        let flags = ["--shard-id", shard, "--num-shards", "3", "--max-new-tokens", "1"];
        let outcome = cli.run(run_llama(&flags));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.ends_with(&format!("__shard-{shard}-3.jsonl\n")), "{}", outcome.stdout);
        let predictions = lines(&cli.dir().join(outcome.stdout.trim_end()));
        ids.extend(predictions.iter().map(|line| line["instance_id"].as_str().unwrap().to_owned()));
    }
    ids.sort();
    assert_eq!(ids, gold_patches().into_keys().collect::<Vec<_>>());
}

#[test]
fn an_instance_that_fails_is_recorded_and_the_exit_code_tells() {
    let cli = Cli::new();
    // A token's keys and values take 1024 bytes: five of the prompts have more than 3200 tokens.
    let outcome = cli.run(run_llama(&["--kv-memory", "3276800", "--dtype", "bf16", "--max-new-tokens", "4"]));
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let predictions = lines(&predictions_file(cli.dir()));
    let failed = predictions.iter().filter(|line| line["error"].is_string()).count();
    assert_eq!((failed, predictions.len()), (5, 11));
    assert!(outcome.stderr.contains("6 finished, 5 failed"), "{}", outcome.stderr);
    let again = cli.run(run_llama(&["--max-new-tokens", "4"]));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.contains("5 finished, 0 failed, 6 done before"), "{}", again.stderr);
}
