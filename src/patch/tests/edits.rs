//! Answers that are no diffs: with the tree they become patches.

use super::*;

const FILE: &str =
    "import os\n\n\ndef area(a, b):\n    return a * a\n\n\ndef volume(a):\n    return a ** 3\n";
const PATCH: &str = "--- a/src/shapes.py\n+++ b/src/shapes.py\n@@ -2,7 +2,7 @@\n \n \n def area(a, b):\n-    return a * a\n+    return a * b\n \n \n def volume(a):\n";

fn report(answer: &str, files: &[(&str, &str)]) -> Report {
    let tree = tree(files);
    process(answer, &Steps { repair: true, tree: Some(&tree), ..Steps::default() }).unwrap()
}

#[track_caller]
fn check(answer: &str, expected: &str, source: &str) {
    let report = report(answer, &[("src/shapes.py", FILE)]);
    assert_eq!(report.patch, expected, "{report:#?}");
    assert_eq!(report.files[0].source, source);
    assert_eq!(report.empty, None);
}

#[test]
fn search_replace_blocks_are_patches() {
    let patch = "--- a/src/shapes.py\n+++ b/src/shapes.py\n@@ -4,5 +4,5 @@\n def area(a, b):\n-    return a * a\n+    return a * b\n \n \n def volume(a):\n";
    let block = "<<<<<<< SEARCH\ndef area(a, b):\n    return a * a\n=======\ndef area(a, b):\n    return a * b\n>>>>>>> REPLACE\n";
    for answer in [
        format!("src/shapes.py\n```python\n{block}```\n"),
        format!("```python\n### src/shapes.py\n{block}```\n"),
        format!("In **`./src/shapes.py`**:\n\n{block}"),
        format!("<think>\nsrc/other.py\n{block}</think>\n\n`src/shapes.py`\n{block}"),
        format!("src/shapes.py\n{}", block.replace("    return", "  return")),
    ] {
        let report = report(&answer, &[("src/shapes.py", FILE)]);
        assert_eq!(report.patch, patch, "{answer}\n{report:#?}");
    }
    // A second block without a name is about the same file, and a block that fits nowhere is left out.
    let second = block.replace("area(a, b)", "volume(a)").replace("a * a", "a ** 3").replace("a * b", "a**3");
    let lost = block.replace("area", "nowhere").replace("a * a", "a @ a");
    let report = report(&format!("src/shapes.py\n{block}{second}{lost}"), &[("src/shapes.py", FILE)]);
    assert_eq!(report.files[0].added, 2);
    assert!(report.changes.iter().any(|change| change.what == What::NotFound), "{report:#?}");
}

#[test]
fn whole_files_are_patches() {
    let new = FILE.replace("a * a", "a * b");
    check(&format!("[start of /src/shapes.py]\n{new}[end of /src/shapes.py]\n"), PATCH, "whole_file");
    check(
        &format!("[start of src/shapes.py]\n{}\n[end of src/shapes.py]", new.trim_end()),
        PATCH,
        "whole_file",
    );
    check(
        &format!(
            "[start of src/new.py]\nx = 1\n[end of src/new.py]\n[start of src/shapes.py]\n{FILE}[end of src/shapes.py]"
        ),
        "--- /dev/null\n+++ b/src/new.py\n@@ -0,0 +1 @@\n+x = 1\n",
        "whole_file",
    );
    let crlf =
        report(&format!("[start of w.py]\n{new}[end of w.py]\n"), &[("w.py", &FILE.replace('\n', "\r\n"))]);
    assert_eq!((crlf.files[0].added, crlf.files[0].removed), (1, 1));
    let cut = report(&format!("[start of src/shapes.py]\n{new}"), &[("src/shapes.py", FILE)]);
    assert!(cut.truncated);
}

#[test]
fn one_file_in_a_fence_is_a_patch() {
    let new = FILE.replace("a * a", "a * b");
    check(&format!("Here is `src/shapes.py`:\n\n```python\n{new}```\n"), PATCH, "fenced_file");
    check(&format!("```python:src/shapes.py\n{new}```\n"), PATCH, "fenced_file");
    // A part of a file is no file.
    let part = report(
        "In src/shapes.py:\n```python\ndef area(a, b):\n    return a * b\n```\n",
        &[("src/shapes.py", FILE)],
    );
    assert_eq!((part.patch.as_str(), part.empty), ("", Some(Empty::DoesNotFit)));
}

#[test]
fn without_a_tree_they_say_what_is_missing() {
    let report =
        process("x.py\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n", &Steps::default()).unwrap();
    assert_eq!((report.empty, report.truncated), (Some(Empty::NeedsRepository), false));
    let report = process("[start of x.py]\na\n", &Steps::default()).unwrap();
    assert_eq!((report.empty, report.truncated), (Some(Empty::NeedsRepository), true));
}

#[test]
fn names_that_lead_out_of_the_tree_are_not_followed() {
    for path in ["../x.py", ".git/hooks/pre-commit", "/etc/../../x.py"] {
        let report = report(&format!("[start of {path}]\na\n[end of {path}]\n"), &[]);
        assert_eq!((report.patch.as_str(), report.empty), ("", Some(Empty::DoesNotFit)), "{path}");
    }
}
