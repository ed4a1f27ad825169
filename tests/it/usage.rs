//! Help, spellings, and command lines that can never be right.

use crate::cli::Cli;
use crate::demo;

#[test]
fn help_shows_flags_examples_and_exit_codes() {
    let cli = Cli::new();
    for (args, says) in [
        (
            &["--help"][..],
            &["run-llama", "run-api", "extract-diff", "info", "bench", "completions", "130  interrupted"][..],
        ),
        (
            &["run-llama", "--help"],
            &["--model-name-or-path <MODEL>", "Examples:", "--shard auto", "[default: test]"],
        ),
        (&["run-api", "--help"], &["--dataset-name-or-path <DATASET>", "Examples:", "--max-cost"]),
        (&["run-live", "--help"], &["--issue-url <URL>...", "Examples:", "--github-api-url", "--apply"]),
        (&["make-datasets", "--help"], &["bm25-retrieval", "eval-retrieval"]),
        (
            &["make-datasets", "bm25-retrieval", "--help"],
            &["--extensions <END>...", "Examples:", "--mirror-dir"],
        ),
        (&["make-datasets", "eval-retrieval", "--help"], &["--split", "Examples:"]),
        (&["extract-diff", "--help"], &["Examples:", "legacy"]),
        (&["predictions", "--help"], &["validate", "merge", "convert", "show", "Examples:"]),
        (&["bench", "--help"], &["Examples:", "--depth"]),
        (&["info", "--help"], &["--json"]),
        (&["completions", "--help"], &["bash"]),
    ] {
        let outcome = cli.run(args);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
        for text in says {
            assert!(outcome.stdout.contains(text), "{args:?}: no {text:?} in\n{}", outcome.stdout);
        }
    }
    let version = cli.run(["--version"]);
    assert_eq!(version.stdout, format!("swebench-cli {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let cli = Cli::new();
    let demo = |more: &[&str]| demo::run_llama(more);
    let cases: Vec<(Vec<String>, &[&str])> = vec![
        (vec![], &["Usage: swebench-cli"]),
        (vec!["run-lama".into()], &["run-llama"]),
        (vec!["run-llama".into()], &["--model-name-or-path <MODEL>", "--dataset-path <DATASET>"]),
        (demo(&["--max-new-token", "3"]), &["--max-new-tokens"]),
        (demo(&["--temperature", "warm"]), &["--temperature", "warm"]),
        (demo(&["--temperature=-1"]), &["error: `temperature` is out of range: expected 0 or more, got -1"]),
        (demo(&["--top-p", "1.5"]), &["`top_p` is out of range"]),
        (demo(&["--dtype", "int4"]), &["error: unknown dtype: expected auto, f32, bf16 or f16, got `int4`"]),
        (demo(&["--quantize", "int4"]), &["error: unknown quantization: expected none or int8, got int4"]),
        (
            demo(&["--device", "tpu"]),
            &["error: unknown device: expected auto, cpu, reference, cuda or cuda:N, got tpu"],
        ),
        (demo(&["--split", "a/b"]), &["`split` is out of range"]),
        (demo(&["--shard-id", "0"]), &["--num-shards"]),
        (demo(&["--shard-id", "4", "--num-shards", "4"]), &["expected shard_id below num_shards (4), got 4"]),
        (demo(&["--shard", "3/4"]), &["`shard`"]),
        (demo(&["--min-len", "9", "--max-len", "9"]), &["`min_len` is out of range"]),
        (demo(&["--batch-size", "0"]), &["`batch_size` is out of range"]),
        (demo(&["--batch-size", "many"]), &["expected `auto` or a number"]),
        (demo(&["-q", "-v"]), &["cannot be used with"]),
        (vec!["bench".into()], &["--model <DIR>", "--config <FILE>"]),
        (
            vec!["extract-diff".into(), "--mode".into(), "modern".into(), demo::data("README.md")],
            &["expected `robust` or `legacy`"],
        ),
        (vec!["completions".into(), "dos".into()], &["possible values"]),
    ];
    for (args, says) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        cli.refuses(&args, 2, says);
    }
}

#[test]
fn underscores_and_hyphens_mean_the_same() {
    let cli = Cli::new();
    let (model, dataset) = (demo::data("demo"), demo::data("swe-bench-lite-mit.parquet"));
    let run = |flags: &[&str]| {
        let outcome = cli.run(flags);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout
    };
    let hyphens = run(&[
        "run-llama",
        "--model-name-or-path",
        &model,
        "--dataset-path",
        &dataset,
        "--output-dir",
        "my_out",
        "--max-new-tokens",
        "1",
        "--max-len",
        "2500",
    ]);
    let underscores = run(&[
        "run-llama",
        "--model_name_or_path",
        &model,
        &format!("--dataset_path={dataset}"),
        "--output_dir=my_out",
        "--max_new_tokens",
        "1",
        "--max_len",
        "2500",
    ]);
    assert_eq!(hyphens, underscores);
    assert!(hyphens.starts_with("my_out/") && hyphens.ends_with("__max-2500.jsonl\n"), "{hyphens}");
}

#[test]
fn messages_for_machines_are_json() {
    let cli = Cli::new();
    let outcome = cli.run([
        "--log-format",
        "json",
        "run-llama",
        "--model-name-or-path",
        "nowhere",
        "--dataset-path",
        "d",
    ]);
    assert_eq!(outcome.code, Some(1));
    let last: serde_json::Value = serde_json::from_str(outcome.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["message"].as_str().unwrap().contains("nowhere"), "{last}");
    assert_eq!(cli.run(["-qq", "bench", "--model", "nowhere"]).stderr, "");
}
