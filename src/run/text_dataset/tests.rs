//! Runs over small repositories: what the dataset holds, what is continued, and what hostile repositories come to.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::dataset::{OutputFormat, load as load_dataset};
use crate::prompt::PromptStyle;
use crate::repo::test_repository::TestRepository;

/// A directory of clones with one of `o/r`, and a place for datasets.
struct Fixture {
    dir: TempDir,
    repository: TestRepository,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap(), repository: TestRepository::new() };
        std::fs::create_dir(fixture.path("mirrors")).unwrap();
        std::os::unix::fs::symlink(fixture.repository.path(), fixture.path("mirrors/o__r.git")).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A dataset of one file, which is every split, with one row for each id and patch at this commit of `o/r`.
    fn instances(&self, rows: &[(&str, &str, &str)]) {
        let lines: String = rows
            .iter()
            .map(|(id, commit, patch)| {
                let row = json!({
                    "instance_id": id, "repo": "o/r", "base_commit": commit, "problem_statement": format!("Issue {id}"),
                    "patch": patch, "version": "1.0",
                });
                format!("{row}\n")
            })
            .collect();
        std::fs::write(self.path("instances.jsonl"), lines).unwrap();
    }

    fn config(&self) -> TextDatasetConfig {
        TextDatasetConfig {
            dataset_name_or_path: self.path("instances.jsonl").to_str().unwrap().into(),
            splits: vec!["test".into()],
            output_dir: self.path("out"),
            mirror_dir: Some(self.path("mirrors")),
            prompt_style: PromptStyle::Style2,
            ..TextDatasetConfig::default()
        }
    }
}

fn edit(path: &str) -> String {
    format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n")
}

/// The run's summary, and the errors of instances.
fn run_all(config: &TextDatasetConfig) -> (RunSummary, Vec<(String, String)>) {
    let mut errors = Vec::new();
    let summary = run(config, &CancelToken::new(), &mut |event| {
        if let RunEvent::InstanceFinished { instance_id, error: Some(error) } = event {
            errors.push((instance_id, error));
        }
    });
    errors.sort();
    (summary.unwrap(), errors)
}

/// The instances and texts of a split.
fn texts(path: &Path, split: &str) -> Vec<(String, String)> {
    let spec = DatasetSpec {
        name_or_path: path.to_str().unwrap().into(),
        split: split.into(),
        columns: vec!["text".into()],
        cache_dir: None,
    };
    let dataset = load_dataset(&spec).unwrap();
    dataset.instances.into_iter().map(|instance| (instance.instance_id, instance.text.unwrap())).collect()
}

#[test]
fn failures_are_left_out_and_tried_again() {
    let fixture = Fixture::new();
    let first = fixture.repository.commit(&[("README.md", b"read me"), ("a.py", b"a = 1\n")]);
    fixture.instances(&[
        ("good", &first, &edit("a.py")),
        ("gone file", &first, &edit("gone.py")),
        ("gone commit", &"0".repeat(40), &edit("a.py")),
        ("odd commit", "--upload-pack=touch x", &edit("a.py")),
        ("outside", &first, &edit("../../etc/passwd")),
    ]);
    let config = fixture.config();
    let (summary, errors) = run_all(&config);
    assert_eq!((summary.total, summary.finished, summary.failed), (5, 1, 4));
    for ((id, error), says) in
        errors.iter().zip(["no commit", "no such file", "not a revision", "not a path below"])
    {
        assert!(error.contains(says), "{id}: {error}");
    }
    let written = texts(&summary.output_dir, "test");
    assert_eq!(written.len(), 1);
    assert!(
        written[0]
            .1
            .contains("[start of README.md]\n1 read me\n[end of README.md]\n[start of a.py]\n1 a = 1\n2 \n")
    );
    assert!(written[0].1.ends_with("</patch>\n\n"), "{}", written[0].1);

    // What was missing is there now; what was done is not done again.
    let second = fixture.repository.commit(&[("gone.py", b"g")]);
    fixture.instances(&[("good", &first, &edit("a.py")), ("gone file", &second, &edit("gone.py"))]);
    let (summary, errors) = run_all(&config);
    assert_eq!((summary.already_done, summary.finished, summary.failed), (1, 1, 0), "{errors:?}");
    let ids: Vec<String> = texts(&summary.output_dir, "test").into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["good", "gone file"]);
    let left: Vec<_> = std::fs::read_dir(fixture.path("out")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    let (summary, _) = run_all(&config);
    assert_eq!((summary.total, summary.splits_there), (0, vec!["test".to_owned()]));
}

#[test]
fn splits_are_added_and_training_rows_held_out() {
    let fixture = Fixture::new();
    let commit = fixture.repository.commit(&[("a.py", b"a")]);
    let ids: Vec<String> = (0..10).map(|id| format!("i-{id}")).collect();
    let patch = edit("a.py");
    let rows: Vec<_> = ids.iter().map(|id| (id.as_str(), commit.as_str(), patch.as_str())).collect();
    fixture.instances(&rows);
    for format in [OutputFormat::SaveToDisk, OutputFormat::Parquet, OutputFormat::Jsonl] {
        let mut config = TextDatasetConfig {
            output_format: format,
            output_dir: fixture.path(&format!("{format:?}")),
            validation_ratio: 0.2,
            ..fixture.config()
        };
        run_all(&config);
        config.splits = vec!["train".into(), "test".into()];
        let (summary, _) = run_all(&config);
        assert_eq!(summary.splits_there, ["test"]);
        let len = |split| texts(&summary.output_dir, split).len();
        assert_eq!((len("train"), len("validation"), len("test")), (8, 2, 10));
    }
}

#[test]
fn retrieved_files_are_packed_in_their_order() {
    let fixture = Fixture::new();
    let large = "x = 1\n".repeat(1000);
    let commit = fixture.repository.commit(&[
        ("a.py", b"a"),
        ("b.py", large.as_bytes()),
        ("c.py", b"c"),
        ("d.py", b"d"),
    ]);
    fixture.instances(&[("i", &commit, ""), ("unknown", &commit, "")]);
    let hits: Vec<Value> =
        ["c.py", "b.py", "a.py", "d.py"].iter().map(|path| json!({"docid": path, "score": 1.5})).collect();
    std::fs::write(fixture.path("hits.jsonl"), json!({"instance_id": "i", "hits": hits}).to_string())
        .unwrap();
    let config = TextDatasetConfig {
        file_source: FileSource::Bm25,
        retrieval_file: Some(fixture.path("hits.jsonl")),
        ..fixture.config()
    };
    let shown = |config: &TextDatasetConfig| {
        let (summary, errors) = run_all(config);
        assert!(errors[0].1.contains("the retrieval file does not have the instance"), "{errors:?}");
        let text = &texts(&summary.output_dir, "test")[0].1;
        let files = ["a.py", "b.py", "c.py", "d.py"].into_iter();
        files.filter(|path| text.contains(&format!("[start of {path}]"))).collect::<String>()
    };
    assert_eq!(shown(&config), "a.pyb.pyc.pyd.py");
    assert_eq!(shown(&TextDatasetConfig { k: Some(2.try_into().unwrap()), ..config.clone() }), "b.pyc.py");
    let limited = TextDatasetConfig {
        max_context_len: Some(1000.try_into().unwrap()),
        tokenizer_name: Some("cl100k".into()),
        ..config.clone()
    };
    assert_eq!(shown(&limited), "a.pyc.pyd.py");
    // Three prompts of the same name but of other hits are not mixed up.
    let other = TextDatasetConfig { retrieval_file: Some(fixture.path("other.jsonl")), ..limited };
    std::fs::copy(fixture.path("hits.jsonl"), fixture.path("other.jsonl")).unwrap();
    let error = run(&other, &CancelToken::new(), &mut drop).unwrap_err();
    assert!(error.to_string().contains("other settings"), "{error}");
}

#[test]
fn every_source_reads_one_commit_and_not_the_disk() {
    let fixture = Fixture::new();
    let commit = fixture.repository.commit_entries(&[
        ("120000", b"README.md", b"/etc/passwd"),
        ("100644", b"a.py", b"caf\xe9 = '\xe9t\xe9 \xe0 la carte'\r\n"),
        ("120000", b"link.py", b"../../../../etc/passwd"),
        ("160000", b"vendor", "1".repeat(40).as_bytes()),
        ("100644", b"b\xff.py", b"\0\0"),
        ("100644", b"tests/c.py", b"secret = 1"),
    ]);
    fixture.instances(&[("i", &commit, &edit("a.py"))]);
    for (source, expected) in [(FileSource::None, 0), (FileSource::Oracle, 1), (FileSource::All, 2)] {
        let config = TextDatasetConfig { file_source: source, ..fixture.config() };
        let (summary, errors) = run_all(&config);
        assert!(errors.is_empty(), "{errors:?}");
        let text = &texts(&summary.output_dir, "test")[0].1;
        assert_eq!(text.matches("[start of ").count(), expected, "{text}");
        assert!(!text.contains("root:") && !text.contains("secret"), "{text}");
        assert_eq!(text.contains("1 café = 'été à la carte'\n2 \n"), expected > 0, "{text}");
        assert_eq!(text.contains("[BINARY DATA FILE]"), expected > 1);
    }
}

#[test]
fn a_new_file_is_shown_as_the_reference_does_on_request() {
    let fixture = Fixture::new();
    let commit = fixture.repository.commit(&[("a.py", b"a")]);
    let patch = edit("a.py") + "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+b\n";
    fixture.instances(&[("i", &commit, &patch)]);
    let config = fixture.config();
    let text = texts(&run_all(&config).0.output_dir, "test").remove(0).1;
    assert!(!text.contains("/dev/null") && !text.contains("new.py"));
    let compat = TextDatasetConfig { compat: true, output_dir: fixture.path("compat"), ..config };
    let text = texts(&run_all(&compat).0.output_dir, "test").remove(0).1;
    assert!(text.contains("[start of /dev/null]\n1 \n[end of /dev/null]\n[start of a.py]"), "{text}");
}

#[test]
fn a_cancelled_run_continues() {
    let fixture = Fixture::new();
    let commit = fixture.repository.commit(&[("a.py", b"a")]);
    let ids: Vec<String> = (0..40).map(|id| format!("i-{id}")).collect();
    let patch = edit("a.py");
    let rows: Vec<_> = ids.iter().map(|id| (id.as_str(), commit.as_str(), patch.as_str())).collect();
    fixture.instances(&rows);
    let config = TextDatasetConfig { workers: Some(1.try_into().unwrap()), ..fixture.config() };
    let cancel = CancelToken::new();
    let mut seen = 0;
    let summary = run(&config, &cancel, &mut |event| {
        seen += usize::from(matches!(event, RunEvent::InstanceFinished { .. }));
        if seen == 3 {
            cancel.cancel();
        }
    })
    .unwrap();
    assert!(summary.interrupted && summary.finished >= 3 && !summary.output_dir.exists());
    if summary.finished < 40 {
        let (after, _) = run_all(&config);
        assert_eq!((after.already_done, after.already_done + after.finished), (summary.finished, 40));
        assert_eq!(texts(&after.output_dir, "test").len(), 40);
    }
}

#[test]
fn a_repository_that_is_gone_is_asked_for_once() {
    let fixture = Fixture::new();
    let commit = fixture.repository.commit(&[("a.py", b"a")]);
    fixture.instances(&[("a", &commit, &edit("a.py")), ("b", &commit, &edit("a.py"))]);
    let config = TextDatasetConfig {
        mirror_dir: None,
        clone_dir: Some(fixture.path("clones")),
        clone_url: Some(format!("file://{}", fixture.path("nowhere").display())),
        ..fixture.config()
    };
    let (summary, errors) = run_all(&config);
    assert_eq!(summary.failed, 2);
    assert!(errors.iter().all(|(_, error)| error.contains("cannot clone")), "{errors:?}");
    let unknown = TextDatasetConfig {
        splits: vec!["test".into()],
        dataset_name_or_path: "nothing.jsonl".into(),
        ..config
    };
    assert_eq!(run(&unknown, &CancelToken::new(), &mut drop).unwrap_err().kind(), ErrorKind::NotFound);
}
