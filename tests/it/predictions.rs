//! Files of predictions through the command line, and the page in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::Cli;

const PATCH: &str = "--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n-one\n+1  # \"<b>\"\n two\n";
const HOSTILE: &str =
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;";

fn record(id: &str, patch: &str) -> Value {
    json!({
        "instance_id": id, "model_name_or_path": "m", "full_output": format!("So:\n{patch}"), "model_patch": patch,
        "finish_reason": "stop", "usage": {"prompt_tokens": 1200, "completion_tokens": 34}, "cost": 0.012,
    })
}

fn write(file: &Path, records: &[Value]) {
    fs::write(file, records.iter().map(|record| format!("{record}\n")).collect::<String>()).unwrap();
}

/// A clone of `owner/name` in `mirrors`, and a dataset whose instances are at its commit.
fn repository(dir: &Path, ids: &[&str]) {
    let clone = dir.join("mirrors/owner__name");
    fs::create_dir_all(&clone).unwrap();
    fs::write(clone.join("x.py"), "one\ntwo\nthree\n").unwrap();
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let output = Command::new("git").args(identity).args(args).current_dir(&clone).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "x.py"]);
    git(&["commit", "--quiet", "--message=x"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let rows: Vec<_> = ids
        .iter()
        .map(|id| json!({"instance_id": id, "repo": "owner/name", "base_commit": commit, "text": "prompt"}))
        .collect();
    write(&dir.join("dataset.jsonl"), &rows);
}

#[test]
fn predictions_are_validated_against_their_repositories() {
    let cli = Cli::new();
    repository(cli.dir(), &["good", "bad", "empty", "missing"]);
    let records = [record("good", PATCH), record("bad", &PATCH.replace("-one", "-uno")), record("empty", "")];
    write(&cli.dir().join("run.jsonl"), &records);
    let place = ["--dataset", "dataset.jsonl", "--mirror-dir", "mirrors"];
    let outcome = cli.run(["predictions", "validate", "run.jsonl"].iter().chain(&place));
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stdout.contains("bad: does not apply: error: patch failed: x.py:1"), "{outcome:?}");
    assert!(
        outcome.stdout.ends_with("3 records: 1 apply, 1 do not apply, 1 empty, 1 missing, $0.0360\n"),
        "{outcome:?}"
    );
    write(&cli.dir().join("twice.jsonl"), &[record("good", PATCH), record("good", PATCH)]);
    let twice = cli.run(["predictions", "validate", "twice.jsonl"].iter().chain(&place));
    assert_eq!(twice.code, Some(1), "{twice:?}");
    assert!(twice.stderr.contains("twice.jsonl (good): 2 records of one instance"), "{twice:?}");
    write(&cli.dir().join("good.jsonl"), &[record("good", PATCH)]);
    assert_eq!(cli.run(["predictions", "validate", "good.jsonl"].iter().chain(&place)).code, Some(0));
}

#[test]
fn shards_are_merged_and_files_converted() {
    let cli = Cli::new();
    write(&cli.dir().join("0.jsonl"), &[record("a", PATCH)]);
    write(&cli.dir().join("1.jsonl"), &[record("b", PATCH), record("a", PATCH)]);
    let merged = cli.run(["predictions", "merge", "0.jsonl", "1.jsonl", "--output", "all.jsonl"]);
    assert_eq!((merged.code, &*merged.stdout), (Some(0), "all.jsonl\n"), "{merged:?}");
    assert!(merged.stderr.contains("2 records: 1 repeated, 0 failures dropped, 0 conflicts"), "{merged:?}");
    let converted = cli.run(["predictions", "convert", "all.jsonl", "-o", "all.json", "--layout", "dict"]);
    assert_eq!(converted.code, Some(0), "{converted:?}");
    let dict: Value = serde_json::from_slice(&fs::read(cli.dir().join("all.json")).unwrap()).unwrap();
    assert_eq!(dict, json!({"a": record("a", PATCH), "b": record("b", PATCH)}));
    write(&cli.dir().join("2.jsonl"), &[record("a", "other")]);
    let merge = ["predictions", "merge", "0.jsonl", "2.jsonl", "--output", "all.jsonl"];
    cli.refuses(&merge, 1, &["different predictions, such as a", "--on-conflict"]);
    cli.refuses(&["predictions", "merge", "0.jsonl"], 2, &["--output <FILE>"]);
    cli.refuses(&["predictions", "validate", "nowhere.jsonl"], 1, &["nowhere.jsonl"]);
}

#[test]
fn a_terminal_shows_a_run_and_obeys_none_of_it() {
    let cli = Cli::new();
    write(
        &cli.dir().join("run.jsonl"),
        &[record("a", PATCH), record("b\x1b[2J", &PATCH.replace("two", "\x1b]0;x\x07"))],
    );
    let table = cli.run(["predictions", "show", "run.jsonl"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(
        table.stdout.contains("a           not checked  stop        1200   34  $0.0120  +1 -1\n"),
        "{}",
        table.stdout
    );
    let one = cli.run(["predictions", "show", "run.jsonl", "--instance-id", "b\x1b[2J"]);
    assert!(one.stdout.contains("-one\n+1  # \"<b>\"\n \\u{1b}]0;x\\u{7}\n"), "{}", one.stdout);
    assert!(!format!("{table:?}{one:?}").contains("\\x1b") && !one.stdout.contains('\x1b'));
    cli.refuses(&["predictions", "show", "run.jsonl", "--instance-id", "c"], 1, &["no prediction"]);
}

/// A browser without a window; `None`, unless `SWEBENCH_REQUIRE_BROWSER` is set, where there is none.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|file| file.is_file());
    assert!(found.is_some() || std::env::var_os("SWEBENCH_REQUIRE_BROWSER").is_none(), "there is no browser");
    found
}

/// The document after its scripts, and `more` at its end, have run.
fn document(browser: &Path, page: &Path, more: &str) -> String {
    let text = fs::read_to_string(page).unwrap();
    let driven = page.with_extension("driven.html");
    fs::write(&driven, text.replace("</body>", &format!("<script>{more}</script></body>"))).unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", page.with_extension("profile").display()));
    let output = command.arg(format!("file://{}", driven.display())).stderr(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "a test that could not run has to say so")]
fn the_page_works_in_a_browser_and_runs_nothing_of_a_run() {
    let Some(browser) = browser() else { return println!("SKIPPED: no browser") };
    let cli = Cli::new();
    repository(cli.dir(), &["good", HOSTILE, "bad", "missing"]);
    let mut hostile = record(HOSTILE, &PATCH.replace("1  #", HOSTILE));
    hostile["finish_reason"] = HOSTILE.into();
    hostile["model_name_or_path"] = HOSTILE.into();
    let mut failed = record("failed", "");
    failed["error"] = HOSTILE.into();
    let bad = record("bad", &PATCH.replace("-one", "-uno"));
    write(&cli.dir().join("run.jsonl"), &[record("good", PATCH), hostile, bad, failed]);
    let flags = ["--html", "page.html", "--dataset", "dataset.jsonl", "--mirror-dir", "mirrors"];
    let outcome = cli.run(["predictions", "show", "run.jsonl"].iter().chain(&flags));
    assert_eq!((outcome.code, &*outcome.stdout), (Some(0), "page.html\n"), "{outcome:?}");

    let drive = r##"
        const texts = selector => [...document.querySelectorAll(selector)].map(element => element.textContent);
        const report = {title: document.title, ids: texts(".row .id"), states: texts(".row .state"), tiles: texts(".tile")};
        document.querySelectorAll(".row .head").forEach(head => head.click());
        document.querySelectorAll(".tabs button:last-child").forEach(tab => tab.click());
        report.answers = texts("pre.plain");
        document.querySelectorAll(".tabs button:first-child").forEach(tab => tab.click());
        report.lines = texts(".row:nth-child(2) pre div");
        report.kinds = [...document.querySelectorAll(".row:nth-child(2) pre div")].map(line => line.className);
        report.strings = texts(".row:nth-child(2) .s, .row:nth-child(2) .c");
        report.reasons = texts(".reason");
        report.foreign = document.querySelectorAll("img, b > b, main script").length;
        document.querySelector("#filters [data-status=does_not_apply]").click();
        report.filtered = texts(".row .id");
        document.querySelector("#filters button").click();
        const search = document.getElementById("search");
        search.value = "UNO x.py"; search.oninput();
        report.found = texts(".row .id"); report.count = texts("#count");
        search.value = ""; document.getElementById("order").value = "instance_id"; document.getElementById("order").onchange();
        report.ordered = texts(".row .id");
        const out = document.createElement("output"); out.id = "report"; out.textContent = encodeURIComponent(JSON.stringify(report));
        document.body.append(out);
    "##;
    let dom = document(&browser, &cli.dir().join("page.html"), drive);
    let report = dom.split("<output id=\"report\">").nth(1).unwrap_or_else(|| panic!("no report in\n{dom}"));
    let report = report.split("</output>").next().unwrap();
    let report: Value = serde_json::from_slice(&percent_decoded(report)).unwrap();
    assert_eq!(report["title"], "Predictions");
    assert_eq!(report["ids"], json!(["good", HOSTILE, "bad", "failed"]));
    assert_eq!(report["states"], json!(["applies", "applies", "does not apply", "failed"]));
    assert_eq!(report["tiles"][0], "4records");
    assert!(report["tiles"].as_array().unwrap().contains(&json!("1missing")), "{report:#}");
    assert_eq!(report["answers"][1], format!("So:\n{}", PATCH.replace("1  #", HOSTILE)));
    assert_eq!(report["lines"], json!(PATCH.trim_end().lines().collect::<Vec<_>>()));
    assert_eq!(report["kinds"], json!(["meta", "meta", "hunk", "del", "add", ""]));
    assert_eq!(report["strings"], json!(["# \"<b>\""]));
    assert_eq!(report["reasons"][1], HOSTILE);
    assert!(report["reasons"][0].as_str().unwrap().contains("patch failed: x.py:1"), "{report:#}");
    assert_eq!(report["foreign"], 0);
    assert_eq!(report["filtered"], json!(["bad"]));
    assert_eq!((&report["found"], &report["count"][0]), (&json!(["bad"]), &json!("1 of 4")));
    assert_eq!(report["ordered"], json!([HOSTILE, "bad", "failed", "good"]));
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            decoded.push(byte);
        }
    }
    decoded
}
