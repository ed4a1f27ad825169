//! `make-datasets`: from clones to prompts that are the reference's, and on to tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::demo::{data, gold_patches, lines, trees};
use crate::repositories::TestRepository;

/// The demo instances in clones made of their trees and READMEs, with their rows in `instances.jsonl`.
struct Demo {
    cli: Cli,
    /// Kept until the end: the clones are links to them.
    _repositories: Vec<TestRepository>,
}

impl Demo {
    fn new() -> Self {
        let cli = Cli::new();
        let mirrors = cli.dir().join("mirrors");
        fs::create_dir(&mirrors).unwrap();
        let (trees, readmes, patches) = (trees(), readmes(), gold_patches());
        let mut repositories: BTreeMap<String, TestRepository> = BTreeMap::new();
        let mut rows = String::new();
        for mut row in dataset_rows(&cli) {
            let id = row["instance_id"].as_str().unwrap().to_owned();
            let name = row["repo"].as_str().unwrap().to_owned();
            let repository = repositories.entry(name).or_insert_with(TestRepository::new);
            let files = trees[&id].iter().chain(&readmes[&id]);
            let files: Vec<(&str, &[u8])> =
                files.map(|(path, content)| (path.as_str(), content.as_bytes())).collect();
            row["base_commit"] = json!(repository.commit(&files));
            row["patch"] = json!(patches[&id]);
            row.as_object_mut().unwrap().remove("text");
            rows.push_str(&format!("{row}\n"));
        }
        for (name, repository) in &repositories {
            let clone = mirrors.join(format!("{}.git", name.replace('/', "__")));
            std::os::unix::fs::symlink(repository.path(), clone).unwrap();
        }
        fs::write(cli.dir().join("instances.jsonl"), rows).unwrap();
        Self { cli, _repositories: repositories.into_values().collect() }
    }

    /// Makes the split `test` with these flags more; the dataset's directory.
    #[track_caller]
    fn create(&self, more: &[&str]) -> PathBuf {
        let flags = [
            "make-datasets",
            "create-text-dataset",
            "--dataset_name_or_path",
            "instances.jsonl",
            "--splits",
            "test",
            "--output_dir",
            "out",
            "--mirror-dir",
            "mirrors",
        ];
        let outcome = self.cli.run(flags.iter().chain(more));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        self.cli.dir().join(outcome.stdout.trim())
    }
}

/// The rows of the demo dataset, by way of the command line itself: JSON Lines are easy to read.
fn dataset_rows(cli: &Cli) -> Vec<Value> {
    let source = data("swe-bench-lite-mit");
    let outcome = cli.run([
        "make-datasets",
        "tokenize-dataset",
        "--dataset-name-or-path",
        &source,
        "--output-dir",
        "rows",
        "--tokenizer-name",
        "cl100k",
        "--output-format",
        "jsonl",
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let mut rows = lines(&cli.dir().join(outcome.stdout.trim()).join("test.jsonl"));
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        row.remove("input_ids");
        row.remove("labels");
    }
    rows
}

/// `instance_id` to the READMEs at the base commit.
fn readmes() -> BTreeMap<String, BTreeMap<String, String>> {
    rows_of_goldens()
        .into_iter()
        .map(|(id, row)| (id, serde_json::from_value(row["readmes"].clone()).unwrap()))
        .collect()
}

fn rows_of_goldens() -> BTreeMap<String, Value> {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(data("prompts.jsonl.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| (row["instance_id"].as_str().unwrap().to_owned(), row)).collect()
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn prompts_from_clones_are_the_references() {
    let demo = Demo::new();
    let goldens = rows_of_goldens();
    for style in ["style-2", "style-3", "full_file_gen", "style-2-edits-only"] {
        let dataset = demo.create(&["--prompt_style", style, "--compat", "--output-format", "jsonl"]);
        assert!(
            dataset.ends_with(format!("out/instances.jsonl__{style}__fs-oracle")),
            "{}",
            dataset.display()
        );
        let rows = lines(&dataset.join("test.jsonl"));
        assert_eq!(rows.len(), 11);
        for row in rows {
            let id = row["instance_id"].as_str().unwrap();
            let prompt = row["text"].as_str().unwrap().strip_suffix("\n\n").unwrap();
            assert_eq!(goldens[id]["sha256"][style], sha256(prompt), "{id} {style}");
        }
    }
}

#[test]
fn a_saved_dataset_is_the_demo_dataset() {
    let demo = Demo::new();
    let dataset = demo.create(&["--prompt_style", "style-2-edits-only", "--compat"]);
    let expected = data("swe-bench-lite-mit");
    let json = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    for file in ["dataset_dict.json", "test/dataset_info.json"] {
        assert_eq!(json(&dataset.join(file)), json(&Path::new(&expected).join(file)), "{file}");
    }
    let keys = |path: &Path| {
        let mut state = json(&path.join("test/state.json"));
        state["_fingerprint"].take();
        state
    };
    assert_eq!(keys(&dataset), keys(Path::new(&expected)));
    // The run of a model takes it as it is.
    let outcome = demo.cli.run([
        "make-datasets",
        "eval-retrieval",
        "--dataset-name-or-path",
        dataset.to_str().unwrap(),
    ]);
    assert_eq!(
        (outcome.code, outcome.stdout.lines().next()),
        (Some(0), Some("Avg Recall: 100.00")),
        "{outcome:?}"
    );
}

#[test]
fn failures_are_exit_code_3_and_wrong_flags_2() {
    let demo = Demo::new();
    let instances = demo.cli.dir().join("instances.jsonl");
    let mut rows = lines(&instances);
    rows[0]["base_commit"] = json!("0".repeat(40));
    rows[1]["repo"] = json!("../../etc");
    fs::write(&instances, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let flags = |more: &[&'static str]| {
        let flags = ["make-datasets", "create-text-dataset", "--dataset-name-or-path", "instances.jsonl"];
        let rest = ["--output-dir", "out", "--mirror-dir", "mirrors", "--splits", "test"];
        [&flags, &rest[..], more].concat()
    };
    let outcome = demo.cli.run(flags(&[]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    for says in ["9 prompts made, 2 failed", "has no commit", "not the name of a repository"] {
        assert!(outcome.stderr.contains(says), "{says}: {}", outcome.stderr);
    }
    demo.cli.refuses(&flags(&["--file-source", "bm25"]), 2, &["`retrieval_file`", "bm25-retrieval"]);
    demo.cli.refuses(&flags(&["--k", "3"]), 2, &["`bm25` alone"]);
    demo.cli.refuses(&flags(&["--prompt-style", "style-9"]), 2, &["style-9", "style-3"]);
}
