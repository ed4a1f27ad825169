//! `run-live`: issues of a GitHub on loopback, repositories on the disk, a service on loopback and the demo model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cli::{Cli, Outcome};
use crate::demo::{data, gold_patches, lines, trees};
use crate::retrieval::{commit, git};
use crate::server::{Answer, Request, Server};

const INSTANCE: &str = "sqlfluff__sqlfluff-1625";
const TOKEN: &str = "gh-secret-token";
const PRICES: &str =
    r#"{"m": {"input_cost_per_token": 1e-5, "output_cost_per_token": 1e-5, "max_input_tokens": 100000}}"#;

/// A GitHub with what `answer` gives for paths such as `sqlfluff/sqlfluff/issues/1`.
fn github(answer: impl Fn(usize, &str, &Request) -> Answer + Send + Sync + 'static) -> Server {
    Server::by_request(move |number, request| {
        let path = request.path.strip_prefix("/api/v3/repos/").unwrap().to_owned();
        answer(number, &path, request)
    })
}

fn issue(title: &str, body: &Value) -> Answer {
    (200, "", json!({"title": title, "body": body}).to_string())
}

/// A service that answers with this text.
fn chat(text: String) -> Server {
    Server::start(move |_, _| {
        let answer = json!({
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
        });
        (200, "", answer.to_string())
    })
}

/// The repository of the instance below `remotes`, as a host serves it; the commit.
fn serve_repository(cli: &Cli) -> String {
    let mut files = trees().remove(INSTANCE).unwrap();
    files.insert("src/other.py".into(), "def other():\n    return 'aliases of joins'\n".into());
    files.insert("src/huge.py".into(), "aliases = 'join'\n".repeat(20_000));
    let remotes = cli.dir().join("remotes");
    let head = commit(&remotes, "sqlfluff/sqlfluff.git", &files);
    let remote = remotes.join("sqlfluff/sqlfluff.git");
    for key in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
        git(&remote, &["config", key, "true"], b"");
    }
    head
}

/// The command with these flags, a key, a price and a token.
fn command(cli: &Cli, github: &Server, numbers: &[&str], more: &[&str]) -> Command {
    fs::write(cli.dir().join("prices.json"), PRICES).unwrap();
    let (api, clone) = (format!("{}/api/v3", github.url), format!("file://{}/remotes", cli.dir().display()));
    let urls = numbers.iter().map(|number| format!("{}/sqlfluff/sqlfluff/issues/{number}", github.url));
    let mut flags = vec!["run-live".to_owned(), "--issue_url".into()];
    flags.extend(urls);
    flags.extend(["--github-api-url", &api].map(str::to_owned));
    if !more.contains(&"--local-repo") {
        flags.extend(["--clone-url", &clone].map(str::to_owned));
    }
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let mut command = cli.command(flags);
    command.env("TEST_API_KEY", "sk-test").env("GITHUB_TOKEN", TOKEN).env("NO_PROXY", "127.0.0.1");
    command
}

fn run(cli: &Cli, github: &Server, numbers: &[&str], more: &[&str]) -> Outcome {
    let output = command(cli, github, numbers, more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn service<'a>(chat: &'a Server, more: &[&'a str]) -> Vec<&'a str> {
    let flags = [
        "--model_name",
        "m",
        "--base-url",
        &chat.url,
        "--key-env",
        "TEST_API_KEY",
        "--prices",
        "prices.json",
    ];
    flags.into_iter().chain(more.iter().copied()).collect()
}

fn records(cli: &Cli, outcome: &Outcome) -> BTreeMap<String, Value> {
    let lines = lines(&cli.dir().join(outcome.stdout.trim_end()));
    let count = lines.len();
    let records: BTreeMap<String, Value> =
        lines.into_iter().map(|line| (line["instance_id"].as_str().unwrap().to_owned(), line)).collect();
    assert_eq!(records.len(), count, "an issue has two lines");
    records
}

/// A checkout of the served repository.
fn check_out(cli: &Cli, name: &str) -> String {
    git(cli.dir(), &["clone", "--quiet", "remotes/sqlfluff/sqlfluff.git", name], b"");
    name.to_owned()
}

fn content(cli: &Cli, checkout: &str) -> String {
    let path = trees().remove(INSTANCE).unwrap().into_keys().next().unwrap();
    fs::read_to_string(cli.dir().join(checkout).join(path)).unwrap()
}

#[test]
fn an_issue_becomes_a_patch_in_the_checkout() {
    let cli = Cli::new();
    let head = serve_repository(&cli);
    let gold = gold_patches()[INSTANCE].clone();
    // Models count the lines of hunks wrong and talk around their patches.
    let (before, after) = gold.split_once("@@ -").unwrap();
    let answer = format!("Here it is.\n<patch>\n{before}@@ -9{after}</patch>\nGood luck.");
    let github = github(|number, path, request| {
        assert!(request.head.contains(&format!("authorization: bearer {TOKEN}")), "{}", request.head);
        match (number, path, request.query.as_str()) {
            (0, ..) => (429, "retry-after: 0\r\n", json!({"message": "rate limit"}).to_string()),
            (_, "sqlfluff/sqlfluff/issues/7", _) => {
                issue("L031 on \u{1b}[2Jaliases", &"No join, no rule.".into())
            }
            (_, "sqlfluff/sqlfluff/issues/7/comments", query) => {
                let page = query.rsplit_once("&page=").unwrap().1;
                let count = if page == "1" { 100 } else { 1 };
                (200, "", json!(vec![json!({"body": format!("comment of page {page}")}); count]).to_string())
            }
            _ => (404, "", "{}".into()),
        }
    });
    let chat = chat(answer);
    let flags = service(&chat, &["--include-comments"]);

    let outcome = run(&cli, &github, &["7"], &flags);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stdout, "./live_outputs/m__style-3__file_name_and_contents__mcc-16000.jsonl\n");
    for says in [
        "src/sqlfluff/rules/L031.py",
        "no room",
        "1000 prompt and 100 new tokens, $0.0110",
        "the patch applies",
    ] {
        assert!(outcome.stderr.contains(says), "no {says:?} in\n{}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains('\u{1b}') && !outcome.stderr.contains(TOKEN), "{outcome:?}");
    let record = records(&cli, &outcome).remove("sqlfluff__sqlfluff-7").unwrap();
    assert_eq!(record["model_name_or_path"], "m");
    assert_eq!(record["base_commit"], head.as_str());
    assert_eq!(record["check"]["applies"], true, "{record}");
    assert!(record.get("error").is_none());
    let found = record["retrieved"].as_array().unwrap();
    let huge = found.iter().find(|file| file["path"] == "src/huge.py").unwrap();
    assert_eq!(huge["shown"], false);
    let prompt = chat.requests()[0]["messages"].to_string();
    for part in [
        "No join, no rule.",
        "comment of page 1",
        "comment of page 2",
        "[start of src/sqlfluff/rules/L031.py]",
    ] {
        assert!(prompt.contains(part), "no {part:?}");
    }
    assert!(!prompt.contains("src/huge.py"));
    assert!(chat.seen().iter().all(|request| !request.head.contains(TOKEN)));

    // What is done is not asked for again, but put into a checkout.
    let (ours, expected) = (check_out(&cli, "ours"), check_out(&cli, "expected"));
    git(&cli.dir().join(&expected), &["apply", "-"], gold.as_bytes());
    let apply = service(&chat, &["--local-repo", &ours, "--apply"]);
    let again = run(&cli, &github, &["7"], &apply);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.contains("1 done before") && again.stderr.contains("in the files of the checkout"));
    assert_eq!(chat.requests().len(), 1);
    assert_eq!(content(&cli, &ours), content(&cli, &expected));

    // A second time it does not go in, and nothing changes.
    let twice = run(&cli, &github, &["7"], &apply);
    assert!(twice.code == Some(3) && twice.stderr.contains("not put into the checkout"), "{twice:?}");
    assert_eq!(content(&cli, &ours), content(&cli, &expected));

    // Straight from the issue into the checkout.
    let fresh = check_out(&cli, "fresh");
    let straight = run(
        &cli,
        &github,
        &["7"],
        &service(&chat, &["--local-repo", &fresh, "--apply", "--output-dir", "o"]),
    );
    assert_eq!(straight.code, Some(0), "{straight:?}");
    assert_eq!(content(&cli, &fresh), content(&cli, &expected));
}

#[test]
fn what_is_wrong_with_an_issue_is_in_its_record() {
    let cli = Cli::new();
    serve_repository(&cli);
    let github = github(|_, path, _| match path.rsplit_once('/').unwrap().1 {
        "1" => (404, "", json!({"message": "Not Found"}).to_string()),
        "2" => (410, "", json!({"message": "This issue was deleted"}).to_string()),
        "3" => (200, "", json!({"title": "t", "body": "b", "pull_request": {"url": "u"}}).to_string()),
        "4" => issue("  ", &Value::Null),
        "5" => issue("long", &"x".repeat(40 << 20).into()),
        "6" => (200, "", "<html>not an interface</html>".into()),
        "7" => (403, "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 99999999999\r\n", "{}".into()),
        "8" => (301, "location: http://example.org/elsewhere\r\n", "{}".into()),
        _ => issue("Only a title", &Value::Null),
    });
    let chat = chat("I do not know.".into());
    let outcome = run(&cli, &github, &["1", "2", "3", "4", "5", "6", "7", "8", "9"], &service(&chat, &[]));
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let records = records(&cli, &outcome);
    for (number, says) in [
        (1, "is not there"),
        (2, "was deleted"),
        (3, "is a pull request"),
        (4, "is empty"),
        (5, "longer than 16 MiB"),
        (6, "not what GitHub's interface gives"),
        (7, "wants to be left alone"),
        (8, "redirects to nowhere"),
    ] {
        let record = &records[&format!("sqlfluff__sqlfluff-{number}")];
        assert!(record["error"].as_str().unwrap().contains(says), "{record}");
    }
    let record = &records["sqlfluff__sqlfluff-9"];
    assert!(record.get("error").is_none() && record["model_patch"] == "", "{record}");
    assert_eq!(record["check"]["applies"], false);
    // Only what failed is tried again.
    let again = run(&cli, &github, &["9", "4"], &service(&chat, &[]));
    assert!(again.code == Some(3) && again.stderr.contains("1 done before"), "{again:?}");
    assert_eq!(chat.requests().len(), 1);
}

#[test]
fn repositories_and_commits_that_are_not_there_are_told() {
    let cli = Cli::new();
    serve_repository(&cli);
    let github = github(|_, _, _| issue("title", &"body".into()));
    let chat = chat(String::new());
    let missing = "0".repeat(40);
    for (more, says) in [
        (&["--base-commit", &missing][..], "no commit"),
        (&["--base-commit=--upload-pack=touch x"], "not a revision"),
        (&["--clone-url", "file:///nowhere"], "cannot clone"),
    ] {
        let mut command = command(&cli, &github, &["1"], &service(&chat, &["--output-dir", "bad"]));
        if more[0] == "--clone-url" {
            let root = ["--root-dir", "other"];
            command = cli.command(["run-live", "--issue-url", &format!("{}/o/n/issues/1", github.url)]);
            command.args(["--github-api-url", &format!("{}/api/v3", github.url)]).args(root);
            command.args(service(&chat, &["--output-dir", "bad"])).env("TEST_API_KEY", "k");
        }
        let output = command.args(more).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(3) && stderr.contains(says), "{more:?}: {stderr}");
    }
    assert!(chat.requests().is_empty() && !Path::new("x").exists());
}

#[test]
fn a_local_model_is_asked() {
    let cli = Cli::new();
    serve_repository(&cli);
    let github = github(|_, _, _| issue("Rule L031", &"incorrectly triggers".into()));
    let demo = data("demo");
    let flags =
        ["--model-name", &demo, "--device", "cpu", "--max-tokens", "8", "--max-context-length", "1000"];
    let outcome = run(&cli, &github, &["3"], &flags);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let record = records(&cli, &outcome).remove("sqlfluff__sqlfluff-3").unwrap();
    assert_eq!(record["usage"]["completion_tokens"], 8, "{record}");
    assert_eq!(record["finish_reason"], "length");
    assert!(record["check"]["reason"].is_string());
}

#[test]
fn flags_that_cannot_be_meant_are_refused() {
    let cli = Cli::new();
    let url = "https://github.com/o/n/issues/1";
    for (flags, says) in [
        (&["--issue-url", "https://github.com/o/n/pull/1"][..], "pull request"),
        (&["--issue-url", "https://github.com/a/o/n/issues/1"], "not the URL of an issue"),
        (&["--issue-url", "https://example.org/o/n/issues/1"], "--github-api-url https://example.org/api/v3"),
        (&["--issue-url", url, "--apply"], "`apply` needs `local_repo`"),
        (&["--issue-url", url, "--prompt-style", "style-2-edits-only"], "`prompt_style` is out of range"),
    ] {
        let all: Vec<&str> = ["run-live", "--model-name", "gpt-4o"].iter().chain(flags).copied().collect();
        cli.refuses(&all, 2, &[says]);
    }
}
