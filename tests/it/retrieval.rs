//! `make-datasets bm25-retrieval` and `eval-retrieval` over git repositories on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::demo;

/// Runs git in `dir`; what it prints.
pub fn git(dir: &Path, args: &[&str], stdin: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(args)
        .current_dir(dir)
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Adds a commit of these files alone to the bare repository `repo` below `dir`; its id.
pub fn commit(dir: &Path, repo: &str, files: &BTreeMap<String, String>) -> String {
    let path = dir.join(repo);
    if !path.exists() {
        fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "--quiet", "--bare", "--initial-branch=main", "."], b"");
    }
    let mut stream = "commit refs/heads/main\ncommitter T <t@example.org> 0 +0000\ndata 0\n".to_owned();
    if path.join("refs/heads/main").exists() {
        stream += "from refs/heads/main^0\ndeleteall\n";
    }
    for (path, content) in files {
        stream += &format!("M 100644 inline {path}\ndata {}\n{content}\n", content.len());
    }
    git(&path, &["fast-import", "--quiet"], stream.as_bytes());
    git(&path, &["rev-parse", "main"], b"")
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
}

fn write_dataset(cli: &Cli, rows: &[Value]) {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(cli.dir().join("dataset.jsonl"), text).unwrap();
}

fn row(id: &str, repo: &str, base_commit: &str, issue: &str) -> Value {
    json!({"instance_id": id, "repo": repo, "base_commit": base_commit, "problem_statement": issue})
}

fn retrieval<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let command = ["make-datasets", "bm25-retrieval", "--dataset-name-or-path", "dataset.jsonl"];
    let flags = ["--splits", "test", "--output-dir", "out"];
    command.into_iter().chain(flags).chain(more.iter().copied()).collect()
}

fn results(cli: &Cli, style: &str) -> BTreeMap<String, Value> {
    let path = cli.dir().join(format!("out/dataset.jsonl/{style}.retrieval.jsonl"));
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let results: BTreeMap<String, Value> =
        lines.iter().map(|line| (line["instance_id"].as_str().unwrap().to_owned(), line.clone())).collect();
    assert_eq!(results.len(), lines.len(), "an instance has two lines:\n{text}");
    results
}

fn docids(result: &Value) -> Vec<&str> {
    result["hits"].as_array().unwrap().iter().map(|hit| hit["docid"].as_str().unwrap()).collect()
}

/// The demo instances, on commits made of the files that their gold patches touch.
fn real_instances(cli: &Cli) -> usize {
    let mut text = String::new();
    let trees = fs::File::open(demo::data("trees.jsonl.gz")).unwrap();
    flate2::read::GzDecoder::new(trees).read_to_string(&mut text).unwrap();
    let mut rows = Vec::new();
    for tree in text.lines() {
        let tree: Value = serde_json::from_str(tree).unwrap();
        let id = tree["instance_id"].as_str().unwrap();
        let (directory, _) = id.rsplit_once('-').unwrap();
        let files = serde_json::from_value(tree["files"].clone()).unwrap();
        let base_commit = commit(&cli.dir().join("mirrors"), &format!("{directory}.git"), &files);
        // The path itself is what the issue asks for.
        let issue = files.keys().next().unwrap();
        rows.push(row(id, &directory.replace("__", "/"), &base_commit, issue));
    }
    write_dataset(cli, &rows);
    rows.len()
}

#[test]
fn instances_of_real_repositories_get_their_hits_once() {
    let cli = Cli::new();
    let total = real_instances(&cli);
    for style in ["file_name_and_contents", "file_name_and_documentation", "file_name_and_docs_jedi"] {
        let flags = retrieval(&["--mirror_dir", "mirrors", "--document_encoding_style", style]);
        let outcome = cli.run(&flags);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let file = format!("out/dataset.jsonl/{style}.retrieval.jsonl");
        assert_eq!(outcome.stdout, format!("{file}\n"));
        let first = results(&cli, style);
        assert_eq!(first.len(), total);
        let dataset = fs::read_to_string(cli.dir().join("dataset.jsonl")).unwrap();
        for row in dataset.lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            let result = &first[row["instance_id"].as_str().unwrap()];
            assert_eq!(docids(result)[0], row["problem_statement"], "{result}");
            assert!(result["hits"][0]["score"].as_f64().unwrap() > 0.0 && result.get("error").is_none());
        }
        let before = fs::read(cli.dir().join(&file)).unwrap();
        let again = cli.run(&flags);
        assert!(again.code == Some(0) && again.stderr.contains(&format!("{total} done before")), "{again:?}");
        assert_eq!(fs::read(cli.dir().join(&file)).unwrap(), before);
    }
    let indexes = cli.dir().join("out/dataset.jsonl/file_name_and_contents_indexes");
    assert_eq!(fs::read_dir(&indexes).unwrap().count(), 3);

    // A kill in the middle of a line, and a cache that went bad.
    let file = cli.dir().join("out/dataset.jsonl/file_name_and_contents.retrieval.jsonl");
    let expected = results(&cli, "file_name_and_contents");
    let text = fs::read(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    for entry in fs::read_dir(&indexes).unwrap() {
        let mut bytes = fs::read(entry.as_ref().unwrap().path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(entry.unwrap().path(), bytes).unwrap();
    }
    let outcome = cli.run(retrieval(&["--mirror-dir", "mirrors", "--leave_indexes", "False"]));
    assert!(outcome.code == Some(0) && outcome.stderr.contains("torn"), "{outcome:?}");
    assert_eq!(results(&cli, "file_name_and_contents"), expected);
    assert!(!indexes.exists());
}

#[test]
fn an_instance_that_fails_says_why_and_is_tried_again() {
    let cli = Cli::new();
    let mirrors = cli.dir().join("mirrors");
    let known = commit(&mirrors, "o__known.git", &files(&[("parser.py", "lexer"), ("tests/a.py", "lexer")]));
    let missing = "0".repeat(40);
    write_dataset(
        &cli,
        &[
            row("good", "o/known", &known, "the lexer fails"),
            row("empty-issue", "o/known", &known, ""),
            row("no-commit", "o/known", &missing, "lexer"),
            row("option", "o/known", "--upload-pack=touch proof", "lexer"),
            row("no-repository", "o/later", &known, "lexer"),
            row("outside", "../o/known", &known, "lexer"),
        ],
    );
    let outcome = cli.run(retrieval(&["--mirror-dir", "mirrors"]));
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let results_now = results(&cli, "file_name_and_contents");
    assert_eq!(docids(&results_now["good"]), ["parser.py"]);
    assert_eq!(
        (docids(&results_now["empty-issue"]).len(), results_now["empty-issue"].get("error")),
        (0, None)
    );
    for (id, says) in [
        ("no-commit", "fetch"),
        ("option", "not a revision"),
        ("no-repository", "git clone --bare"),
        ("outside", "repository"),
    ] {
        let error = results_now[id]["error"].as_str().unwrap();
        assert!(error.contains(says) && docids(&results_now[id]).is_empty(), "{id}: {error}");
    }
    assert!(!cli.dir().join("proof").exists() && !mirrors.join("o__known.git/proof").exists());

    assert_eq!(
        commit(&mirrors, "o__later.git", &files(&[("parser.py", "lexer"), ("tests/a.py", "lexer")])),
        known
    );
    let outcome = cli.run(retrieval(&["--mirror-dir", "mirrors"]));
    assert!(
        outcome.code == Some(3) && outcome.stderr.contains("1 finished, 3 failed, 2 done before"),
        "{outcome:?}"
    );
    assert_eq!(docids(&results(&cli, "file_name_and_contents")["no-repository"]), ["parser.py"]);
}

#[test]
fn repositories_are_cloned_once_and_other_languages_are_searched() {
    let cli = Cli::new();
    let host = cli.dir().join("host");
    let first = commit(&host, "o/r.git", &files(&[("src/lexer.rs", "fn lex() {}"), ("a.py", "lexer")]));
    write_dataset(&cli, &[row("a", "o/r", &first, "lexer.rs lex")]);
    let url = format!("file://{}", host.display());
    let flags = ["--clone-url", &url, "--clone-dir", "clones", "--extensions", ".rs", ".c"];
    let outcome = cli.run(retrieval(&flags));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(docids(&results(&cli, "file_name_and_contents")["a"]), ["src/lexer.rs"]);
    // A commit that is newer than the clone is fetched.
    let second = commit(&host, "o/r.git", &files(&[("lib.c", "lex"), ("lib.h", "lex")]));
    write_dataset(&cli, &[row("a", "o/r", &first, "x"), row("b", "o/r", &second, "lex")]);
    let outcome = cli.run(retrieval(&flags));
    assert!(
        outcome.code == Some(0) && outcome.stderr.contains("1 finished, 0 failed, 1 done before"),
        "{outcome:?}"
    );
    assert_eq!(docids(&results(&cli, "file_name_and_contents")["b"]), ["lib.c"]);
}

#[test]
fn an_interrupt_ends_a_clone_that_hangs() {
    let cli = Cli::new();
    write_dataset(&cli, &[row("a", "o/r", "main", "x")]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}", listener.local_addr().unwrap());
    let child = cli.spawn(retrieval(&["--clone-url", &url, "--clone-dir", "clones"]));
    let _connection = listener.accept().unwrap();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(results(&cli, "file_name_and_contents").len(), 0);
}

#[test]
fn what_can_never_be_right_is_refused() {
    let cli = Cli::new();
    write_dataset(&cli, &[row("a", "o/r", "main", "x")]);
    for (flags, code, says) in [
        (&["--document-encoding-style", "whole"][..], 2, "document_encoding_style"),
        (&["--leave-indexes", "maybe"], 2, "--leave-indexes"),
        (&["--shard-id", "4", "--num-shards", "4"], 2, "num_shards (4)"),
        (&["--mirror-dir", "m", "--clone-url", "https://x"], 2, "`mirror_dir` excludes"),
        (&["--mirror-dir", "nowhere"], 1, "nowhere"),
        (&["--clone-url", "ext::sh"], 1, "cloned from"),
    ] {
        cli.refuses(&retrieval(flags), code, &[says]);
    }
    fs::write(cli.dir().join("dataset.jsonl"), "{\"instance_id\": \"a\", \"repo\": \"o/r\"}\n").unwrap();
    cli.refuses(&retrieval(&[]), 1, &["a column `base_commit`"]);
}

#[test]
fn recall_is_that_of_the_prompts() {
    let cli = Cli::new();
    let patch = "<patch>\n--- a/a+b.py\n+++ b/a+b.py\n@@ -1,2 +1 @@\n--- a/comment\n x\n</patch>";
    let text = |path: &str| {
        format!("[start of README.md]\n1 x\n[end of README.md]\n[start of {path}]\n1 a\n[end of {path}]\n")
    };
    write_dataset(
        &cli,
        &[
            json!({"instance_id": "a", "text": text("a+b.py"), "patch": patch}),
            json!({"instance_id": "b", "text": text("c.py"), "patch": patch}),
            json!({"instance_id": "c", "text": "", "patch": ""}),
        ],
    );
    let outcome = cli.run(["make-datasets", "eval-retrieval", "--dataset_name_or_path", "dataset.jsonl"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stdout, "Avg Recall: 50.00\nAll Recall: 50.00\nAny Recall: 50.00\n");
    assert!(outcome.stderr.contains("c has no gold files"), "{}", outcome.stderr);
    cli.refuses(&["make-datasets", "eval-retrieval", "--dataset-name-or-path", "nowhere"], 1, &["nowhere"]);
}
