//! Answers that mean harm, or that no model should write.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::patch::goldens;

#[test]
fn dangerous_paths_are_refused_and_named() {
    let answer = "--- a/ok.py\n+++ b/ok.py\n@@ -1 +1 @@\n-a\n+b\n\
                  diff --git a/../x b/../x\n--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n\
                  --- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+rm\n\
                  --- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n\
                  diff --git a/x b/y\nrename from ok.py\nrename to ../../y\n";
    let extraction = extract(answer);
    assert_eq!(extraction.to_text(), "--- a/ok.py\n+++ b/ok.py\n@@ -1 +1 @@\n-a\n+b\n");
    let refused: Vec<_> =
        extraction.refused.iter().map(|refusal| (refusal.path.as_str(), refusal.reason)).collect();
    assert_eq!(
        refused,
        [
            ("../x", Unsafe::Parent),
            (".git/hooks/pre-commit", Unsafe::GitDirectory),
            ("/etc/passwd", Unsafe::Absolute),
            ("../../y", Unsafe::Parent)
        ]
    );
}

#[test]
fn nothing_goes_through_a_link() {
    struct Linked;
    impl Tree for Linked {
        fn look_up(&self, path: &str) -> crate::error::Result<Entry> {
            Ok(match path {
                "link" | "dir/link.py" => Entry::Link,
                "dir" => Entry::Directory,
                _ => Entry::Missing,
            })
        }
    }
    for path in ["link/x.py", "link", "dir/link.py"] {
        let answer = format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+a\n");
        let mut files: Vec<_> = extract(&answer).files.into_iter().map(|found| found.diff).collect();
        let (_, refused) = repair(&mut files, &Linked, Unplaced::Keep).unwrap();
        assert!(files.is_empty());
        assert_eq!(refused, [Refusal { path: path.into(), reason: Unsafe::SymbolicLink }]);
    }
}

#[test]
fn time_is_linear_whatever_the_answer_holds() {
    let times = |text: &str, count: usize| text.repeat(count);
    let answers = [
        times("<a>", 700_000),
        times("<patch>\n", 250_000),
        times("```\n", 500_000),
        times("```diff\n", 250_000),
        times("</think>\n", 200_000) + &times("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n</think>\n", 40_000),
        times("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", 50_000),
        times("--- a/x\n+++ b/x\n", 100_000),
        times("diff --git ", 200_000),
        times("@@ -1,9999999 +1,9999999 @@\nx\n", 70_000),
        format!("--- a/x\n+++ b/x\n@@ -1,999999 +1,999999 @@\n{}", times("x\n", 1_000_000)),
        format!("--- a/x\n+++ b/x\n@@ -1,999999 +1,999999 @@\n{}", times("x\n+y\n\n", 300_000)),
        times("</s>", 500_000),
        times("<<<<<<< SEARCH\nx\n", 60_000),
        times("x\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n", 10_000),
        times("[start of x]\n", 60_000),
        times("[start of x]\nb\n[end of x]\n", 500),
        format!("[start of x]\n{}[end of x]\n", times("b\na\n", 20_000)),
        times("-", 2_000_000),
        times("--- a/", 300_000),
        times("<patch>\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b</patch>\n", 40_000),
    ];
    for answer in answers {
        let mut files: Vec<_> = extract(&answer).files.into_iter().map(|found| found.diff).collect();
        let tree = tree(&[("x", &"a\n".repeat(10_000))]);
        repair(&mut files, &tree, Unplaced::Keep).unwrap();
        minimize(&mut files);
        process(&answer, &Steps { repair: true, tree: Some(&tree), ..Steps::default() }).unwrap();
    }
}

type Files = HashMap<String, Vec<u8>>;

/// Recorded answers on trees that are here.
fn recorded() -> &'static [(String, Files)] {
    static RECORDED: LazyLock<Vec<(String, Files)>> = LazyLock::new(|| {
        let trees: HashMap<String, Files> = goldens::trees()
            .map(|record| {
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                let files = record["files"].as_object().unwrap().iter();
                let files = files.map(|(path, content)| (path.clone(), text(content).into_bytes())).collect();
                (text(&record["instance_id"]), files)
            })
            .collect();
        let answers = goldens::responses().filter_map(|record| {
            let tree = trees.get(record["instance_id"].as_str()?)?;
            Some((record["response"].as_str()?.to_owned(), tree.clone()))
        });
        answers.filter(|(_, tree)| tree.values().all(|content| content.len() < 30_000)).collect()
    });
    &RECORDED
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Real answers with lines dropped, doubled, swapped, cut and mixed up.
    #[test]
    fn damaged_answers_add_only_lines_that_they_have(
        which in 0..1000_usize,
        damages in prop::collection::vec((0..6_u8, 0..10_000_usize), 0..8),
    ) {
        let (answer, tree) = &recorded()[which % recorded().len()];
        let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        for (kind, place) in damages {
            let index = place % lines.len().max(1);
            let other = (place * 7 + 3) % lines.len().max(1);
            let Some(line) = lines.get(index).cloned() else { break };
            match kind {
                0 => drop(lines.remove(index)),
                1 => lines.insert(index, line),
                2 => lines.swap(index, other),
                3 => lines[index] = line.chars().take(place % 7).collect(),
                4 => lines[index] = line.trim().to_owned(),
                _ => lines[index] = line.replace(' ', "  "),
            }
        }
        let damaged = lines.join("\n");
        let report = process(&damaged, &Steps { repair: true, tree: Some(tree), ..Steps::default() }).unwrap();
        let found = extract(&report.patch);
        prop_assert_eq!(found.to_text(), &*report.patch);
        for line in found.files.iter().flat_map(|found| &found.diff.hunks).flat_map(|hunk| &hunk.lines) {
            if line.kind == LineKind::Added {
                prop_assert!(damaged.contains(line.text.trim()), "{:?}", line.text);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Pieces of diffs, tags and fences in any order.
    #[test]
    fn nothing_panics_and_results_are_stable(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "--- a/x\n", "+++ b/x\n", "--- /dev/null\n", "+++ /dev/null\n", "diff --git a/x b/x\n", "@@ -1 +1 @@\n",
                "@@ -1,3 +1,3 @@ f\n", "@@ -0,0 +1,2 @@\n", "@@\n", " a\n", "-a\n", "+b\n", "\n", " \n", "\\ No newline at end of file\n",
                "```diff\n", "```\n", "<patch>\n", "</patch>\n", "<think>\n", "</think>\n", "</s>", "é\r\n", "\r\n", "rename from x\n",
                "rename to y\n", "GIT binary patch\n", "literal 1\n", "+c", "x", "new file mode 100644\n", "-- \n", "--- a/x\r\n",
            ]),
            0..40,
        ),
    ) {
        let answer = pieces.concat();
        let extraction = extract(&answer);
        let text = extraction.to_text();
        prop_assert_eq!(extraction.empty.is_some(), text.is_empty());
        prop_assert!(text.is_empty() || text.ends_with('\n'));
        // Every line that is added or removed is a line of the answer.
        for line in text.lines().filter(|line| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")) {
            prop_assert!(answer.contains(line), "{:?} in {:?}", line, answer);
        }
        let mut files: Vec<_> = extraction.files.into_iter().map(|found| found.diff).collect();
        let mut again = files.clone();
        recount(&mut again);
        let recounted = to_text(&again);
        prop_assert_eq!(recount(&mut again), vec![]);
        prop_assert_eq!(&recounted, &to_text(&again));
        let tree = tree(&[("x", "a\n\nb\na\n\nb")]);
        let (changes, _) = repair(&mut files, &tree, Unplaced::Keep).unwrap();
        let once = to_text(&files);
        repair(&mut files, &tree, Unplaced::Keep).unwrap();
        // A hunk without numbers gets some, which may be of use the second time.
        if changes.iter().all(|change| change.what != What::NotFound) {
            prop_assert_eq!(once, to_text(&files));
        }
        minimize(&mut files);
    }
}
