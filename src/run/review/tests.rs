//! Files in each layout, good and bad.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;

const PATCH: &str = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";

fn record(id: &str, patch: &str) -> Value {
    json!({"instance_id": id, "model_name_or_path": "m", "full_output": patch, "model_patch": patch})
}

/// A directory with these files of JSON Lines.
fn files(contents: &[(&str, String)]) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = contents.iter().map(|(name, content)| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    });
    let paths = paths.collect();
    (dir, paths)
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

fn act(action: Action, files: &[PathBuf], output: Option<&Path>) -> Result<Outcome> {
    let config = PredictionsConfig {
        action,
        files: files.to_vec(),
        output: output.map(Path::to_path_buf),
        ..PredictionsConfig::default()
    };
    config.validate()?;
    run(&config, &CancelToken::new())
}

#[test]
fn every_problem_is_found_and_counted() {
    let mut failed = record("f", "");
    failed["error"] = json!("no luck");
    let mut usage = record("u", PATCH);
    usage["usage"] = json!({"prompt_tokens": 10, "completion_tokens": 3});
    usage["cost"] = json!(0.5);
    usage["finish_reason"] = json!("length");
    let content = lines(&[
        record("a", PATCH),
        failed,
        usage,
        record("e", " \n"),
        record("p", "prose"),
        record("a", "x"),
    ]) + "{\"instance_id\": \"torn\n\n[1]\n{\"model_patch\": \"\"}\n{\"instance_id\": \"n\", \"model_patch\": 7}\n";
    let (_dir, paths) = files(&[("run.jsonl", content)]);
    let outcome = act(Action::Validate, &paths, None).unwrap();
    let totals = &outcome.totals;
    assert_eq!(
        (totals.records, totals.failed, totals.empty, totals.no_diff, totals.unchecked),
        (7, 1, 2, 2, 2)
    );
    assert_eq!((totals.prompt_tokens, totals.completion_tokens, totals.cost), (10, 3, Some(0.5)));
    assert_eq!(totals.finish_reasons["length"], 1);
    let problems: Vec<(Option<usize>, &str)> =
        outcome.problems.iter().map(|problem| (problem.position, problem.what.as_str())).collect();
    assert!(problems[0].1.starts_with("no JSON: "), "{problems:?}");
    assert_eq!(
        problems[1..],
        [
            (Some(9), "no JSON object"),
            (Some(10), "no `instance_id`"),
            (Some(11), "no `model_name_or_path`"),
            (Some(11), "`model_patch` is no text"),
            (None, "2 records of one instance"),
        ]
    );
    let lacking: Vec<_> =
        outcome.instances.iter().map(|one| (one.instance_id.as_str(), one.status)).collect();
    assert_eq!(
        lacking,
        [("f", "failed"), ("e", "empty"), ("p", "no_diff"), ("a", "no_diff"), ("n", "empty")]
    );
}

#[test]
fn layouts_are_converted_into_each_other_without_a_loss() {
    let mut more = record("b", "é\u{2028}");
    more["extra"] = json!({"kept": [1.5, null]});
    let (dir, paths) = files(&[("run.jsonl", lines(&[record("a", PATCH), more.clone()]))]);
    let list = dir.path().join("list.json");
    act(Action::Convert, &paths, Some(&list)).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(&list).unwrap()).unwrap();
    assert_eq!(written, json!([record("a", PATCH), more]));
    let dict = dir.path().join("dict.json");
    let config = PredictionsConfig {
        action: Action::Convert,
        files: vec![list],
        output: Some(dict.clone()),
        layout: Some(Layout::Dict),
        ..PredictionsConfig::default()
    };
    run(&config, &CancelToken::new()).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(&dict).unwrap()).unwrap();
    assert_eq!(written["b"], more);
    let back = dir.path().join("deep/back.jsonl");
    act(Action::Convert, &[dict], Some(&back)).unwrap();
    let text = std::fs::read_to_string(&back).unwrap();
    assert!(text.is_ascii());
    assert_eq!(
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(),
        [record("a", PATCH), more]
    );
}

#[test]
fn merging_keeps_one_record_an_instance() {
    let mut failed = record("b", "");
    failed["error"] = json!("no luck");
    let (dir, paths) = files(&[
        ("0.jsonl", lines(&[record("a", PATCH), failed.clone()])),
        ("1.jsonl", lines(&[record("b", PATCH), record("a", PATCH), failed])),
        ("2.jsonl", lines(&[record("a", "other")])),
    ]);
    let output = dir.path().join("all.jsonl");
    let merged = act(Action::Merge, &paths[..2], Some(&output)).unwrap().merged.unwrap();
    assert_eq!(merged, Merged { repeated: 1, failures_dropped: 2, conflicts: vec![] });
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 2);

    let error = act(Action::Merge, &paths, Some(&output)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("1 instances have different predictions, such as a"), "{error}");
    for (rule, expected) in [(Conflict::First, PATCH), (Conflict::Last, "other")] {
        let config = PredictionsConfig {
            action: Action::Merge,
            files: paths.clone(),
            output: Some(output.clone()),
            on_conflict: rule,
            ..PredictionsConfig::default()
        };
        assert_eq!(run(&config, &CancelToken::new()).unwrap().merged.unwrap().conflicts, ["a"]);
        let text = std::fs::read_to_string(&output).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["model_patch"], expected);
    }
}

#[test]
fn nothing_is_lost_by_accident() {
    let (dir, paths) =
        files(&[("run.jsonl", lines(&[record("a", PATCH)]) + "{torn"), ("x.json", "7".into())]);
    let output = dir.path().join("out.jsonl");
    let error = act(Action::Convert, &paths[..1], Some(&output)).unwrap_err();
    assert!(error.hint().unwrap().contains("skip_unreadable"), "{error}");
    assert!(!output.exists());
    assert_eq!(act(Action::Validate, &paths[1..], None).unwrap_err().kind(), ErrorKind::InvalidData);
    for (action, files, says) in [
        (Action::Validate, &paths[..0], "`files` is empty"),
        (Action::Convert, &paths[..], "takes one file"),
        (Action::Merge, &paths[..], "`output` is missing"),
    ] {
        let error = act(action, files, None).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn the_page_holds_all_instances_and_no_markup_of_theirs() {
    let (dir, paths) =
        files(&[("run.jsonl", lines(&[record("a", "</script><b>&</b>"), record("b", PATCH)]))]);
    let output = dir.path().join("page.html");
    act(Action::Show, &paths, Some(&output)).unwrap();
    let page = std::fs::read_to_string(&output).unwrap();
    assert_eq!(page.matches("</script>").count(), 2);
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["instances"][0]["patch"], "</script><b>&</b>");
    assert_eq!(data["instances"][1]["files"], json!(["x.py"]));
}
