//! Every row of the reference's faults, and the forms that diffs take.

use super::*;

const DIFF: &str = "--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";

/// Checks the patch of an answer, and whether the answer was cut off.
#[track_caller]
fn check_cut(answer: &str, expected: &str, truncated: bool) {
    let extraction = extract(answer);
    assert_eq!(extraction.to_text(), expected, "of {answer:?}");
    assert_eq!(extraction.truncated, truncated, "truncated: {answer:?}");
    assert_eq!(extraction.empty.is_none(), !expected.is_empty(), "{extraction:?}");
}

#[track_caller]
fn check(answer: &str, expected: &str) {
    check_cut(answer, expected, false);
}

#[test]
fn a_tag_before_a_raw_diff_is_not_the_patch() {
    check(&format!("<think>\nlook at <b>x</b>\n</think>\n{DIFF}"), DIFF);
    check(&format!("<issue>It crashes</issue>\n{DIFF}"), DIFF);
    check(&format!("<issue>\nIt crashes\n</issue>\n<patch>\n{DIFF}</patch>"), DIFF);
}

#[test]
fn tags_inside_a_diff_are_text() {
    let diff = "--- a/x.html\n+++ b/x.html\n@@ -1,2 +1,2 @@\n <b>x</b>\n-<i>y</i>\n+<i>z</i>\n";
    check(diff, diff);
}

#[test]
fn code_before_a_diff_is_not_the_patch() {
    check(&format!("```python\nprint('--- a/x')\n```\nand then\n{DIFF}"), DIFF);
    check(&format!("```c++\nint x;\n```\n```diff\n{DIFF}```\n"), DIFF);
    check(&format!("```c++\n{DIFF}```\n"), DIFF);
}

#[test]
fn line_endings_blanks_and_missing_ends_do_no_harm() {
    check(&format!("```diff  \n{DIFF}```  \nDone."), DIFF);
    check(&format!("```diff\n{DIFF}```").replace('\n', "\r\n"), DIFF);
    check_cut(&format!("```diff\n{DIFF}"), DIFF, true);
    check_cut(&format!("Sure.\n<patch>\n{DIFF}"), DIFF, true);
    check_cut(&format!("~~~\n{DIFF}"), DIFF, true);
    // The fence follows the last line at once.
    let at_once = DIFF.trim_end();
    check(&format!("```diff\n{at_once}```"), DIFF);
    check(&format!("```diff\n{at_once}```\nThat is all."), DIFF);
    check_cut(&format!("```diff\n{at_once}```\n```\n"), &format!("{at_once}```\n"), false);
    check_cut(DIFF.trim_end(), DIFF, false);
    let cut = "--- a/x.py\n+++ b/x.py\n@@ -1,4 +1,4 @@\n a\n-b\n+c";
    check_cut(cut, &format!("{cut}\n"), true);
}

#[test]
fn a_tag_around_a_fence_is_unwrapped() {
    check(&format!("<patch>\n```diff\n{DIFF}```\n</patch>\n"), DIFF);
    check(&format!("<patch>{DIFF}</patch>"), DIFF);
    check(&format!("<diff>\n{}</diff>", DIFF.trim_end()), DIFF);
    check(&format!("<patch>\n{DIFF} </patch>\nrevised"), DIFF);
}

#[test]
fn files_are_joined_and_of_drafts_the_last_whole_one_counts() {
    let other = DIFF.replace("x.py", "y.py");
    let draft = DIFF.replace("+c", "+draft");
    check(&format!("```diff\n{DIFF}```\nand\n```diff\n{other}```\n"), &format!("{DIFF}{other}"));
    check(&format!("<patch>\n{draft}</patch>\nrevised:\n<patch>\n{DIFF}</patch>"), DIFF);
    check(&format!("{draft}\nNo, better:\n\n{DIFF}"), DIFF);
    check(&format!("<think>\n{draft}</think>\n{other}"), &other);
    check(&format!("{draft}</think>\n{DIFF}"), DIFF);
    check_cut(&format!("<think>\n{DIFF}"), DIFF, false);
    let cut = "--- a/x.py\n+++ b/x.py\n@@ -1,4 +1,4 @@\n a\n-b";
    check_cut(&format!("```diff\n{DIFF}```\nOr:\n```diff\n{cut}"), DIFF, true);
    assert_eq!(extract(&format!("```diff\n{draft}```\n```diff\n{DIFF}```")).superseded, 1);
    // Two hunks of one file in one block belong together, and repetitions are one.
    let second = "--- a/x.py\n+++ b/x.py\n@@ -9 +9 @@\n-p\n+q\n";
    let joined = format!("{DIFF}@@ -9 +9 @@\n-p\n+q\n");
    check(&format!("{DIFF}{second}"), &joined);
    check(&format!("{DIFF}{second}{second}{DIFF}"), &joined);
}

#[test]
fn fences_count_only_at_the_start_of_a_line() {
    let diff = "--- a/x.md\n+++ b/x.md\n@@ -1,4 +1,4 @@\n ```\n-b\n+```c\n ```\n \n";
    check(&format!("```diff\n{diff}```\n"), diff);
    let added = "--- /dev/null\n+++ b/x.md\n@@ -0,0 +1,3 @@\n+```\n+<patch>\n+</patch>\n";
    check(&format!("````\n{added}````\n"), added);
    check(&format!("<patch>\n{added}</patch>"), added);
}

#[test]
fn an_answer_without_a_patch_says_why() {
    for (answer, empty) in [
        ("", Empty::NoAnswer),
        (" \n</s>", Empty::NoDiff),
        ("I could not fix it.", Empty::NoDiff),
        ("<patch></patch>", Empty::NoDiff),
        ("```python\nprint()\n```", Empty::NoDiff),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n a\n", Empty::NoChanges),
        ("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", Empty::Refused),
    ] {
        assert_eq!(extract(answer).empty, Some(empty), "{answer:?}");
        assert_eq!(extract(answer).to_text(), "");
    }
}

#[test]
fn every_form_of_change_is_kept() {
    for diff in [
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x b/x\nnew file mode 100755\nindex 0000000..1234567\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n",
        "diff --git a/x b/x\ndeleted file mode 100644\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
        "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
        "diff --git a/x b/y\nsimilarity index 90%\nrename from x\nrename to y\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n",
        "diff --git a/e b/e\nnew file mode 100644\nindex 0000000..e69de29\n",
        "diff --git a/b.bin b/b.bin\nindex 1111111..2222222 100644\nGIT binary patch\nliteral 3\nKcmZQzVqm}k\n\nliteral 2\nJcmZQzU\n\n",
        "diff --git \"a/\\t\" \"b/\\t\"\n--- \"a/\\011\"\n+++ \"b/\\011\"\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/a b\t\n+++ b/a b\t\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@ def f():\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n",
        "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a diff here\n--- a/y\n+++ b/y\n z\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\r\n+b\r\n",
    ] {
        let diff = diff.replace("\"a/\\011\"", "\"a/\\t\"").replace("\"b/\\011\"", "\"b/\\t\"");
        check(&diff, &diff);
        check(&format!("Here:\n\n{diff}\nThat is all.\n- one\n- two\n"), &diff);
        check(&format!("<patch>\n{diff}</patch>\n"), &diff);
        let mut files: Vec<_> = extract(&diff).files.into_iter().map(|found| found.diff).collect();
        assert_eq!(recount(&mut files), []);
        assert_eq!(to_text(&files), diff);
    }
}

#[test]
fn headers_are_completed() {
    check("--- x.py\n+++ x.py\n@@ -1 +1 @@\n-a\n+b\n", "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n");
    check("--- a/x.py\n@@ -1 +1 @@\n-a\n+b\n", "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n");
    check(
        "--- a/x.py  \n+++ b/x.py\t2024-01-01\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
    );
    check(
        "diff --git a/x.py b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
    );
    check(
        "diff --git a/x.py b/x.py\n--- /dev/null\n+++ b/x.py\n@@ -0,0 +1 @@\n+b\n",
        "diff --git a/x.py b/x.py\nnew file mode 100644\n--- /dev/null\n+++ b/x.py\n@@ -0,0 +1 @@\n+b\n",
    );
}

#[test]
fn text_after_a_hunk_is_no_part_of_it() {
    for after in
        ["\nDone.\n", "\n- a list\n- of reasons\n", "</s>garbage", "-- \n2.39.5\n", "Done.\n", "\n\n\n"]
    {
        check(&format!("{DIFF}{after}"), DIFF);
    }
    // Blank lines that have lost their blank, and lines that a header promises.
    let diff = "--- a/x\n+++ b/x\n@@ -1,5 +1,5 @@\n a\n\n-b\n+c\n\n\n";
    check(diff, &diff.replace("\n\n", "\n \n").replace("\n\n", "\n \n"));
    let diff = "--- a/x\n+++ b/x\n@@ -1,4 +1,4 @@\n a\nno blank before\n-b\n+c\n d\n";
    check(diff, &diff.replace("\nno", "\n no"));
}

#[test]
fn recounting_mends_only_what_is_wrong() {
    #[track_caller]
    fn check(hunks: &str, expected: &str) {
        let patch = format!("--- a/x\n+++ b/x\n{hunks}");
        let mut files: Vec<_> = extract(&patch).files.into_iter().map(|found| found.diff).collect();
        recount(&mut files);
        assert_eq!(to_text(&files), format!("--- a/x\n+++ b/x\n{expected}"));
    }
    check("@@ -3,1 +9,1 @@ f\n a\n-b\n+c\n+d\n e\n", "@@ -3,3 +3,4 @@ f\n a\n-b\n+c\n+d\n e\n");
    check(
        "@@ -1 +1,2 @@\n-a\n+b\n+c\n@@ -9 +9 @@\n-a\n+b\n",
        "@@ -1 +1,2 @@\n-a\n+b\n+c\n@@ -9 +10 @@\n-a\n+b\n",
    );
    check(
        "@@ -5,0 +6 @@\n+a\n@@ -9,2 +9 @@\n-b\n-c\n+d\n",
        "@@ -5,0 +6 @@\n+a\n@@ -9,2 +10 @@\n-b\n-c\n+d\n",
    );
    check("@@ def f():\n-a\n+b\n", "@@ -2 +2 @@ def f():\n-a\n+b\n");
    check(
        "@@ -1,3 +1,3 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n",
        "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n",
    );
}

#[test]
fn minimal_keeps_one_line_after_the_changes() {
    #[track_caller]
    fn check(hunk: &str, expected: &str) {
        let patch = format!("--- a/x\n+++ b/x\n{hunk}");
        let mut files: Vec<_> = extract(&patch).files.into_iter().map(|found| found.diff).collect();
        minimize(&mut files);
        assert_eq!(to_text(&files), format!("--- a/x\n+++ b/x\n{expected}"));
    }
    check("@@ -3,4 +3,4 @@ f\n a\n-b  \n+c  \n d  \n e\n", "@@ -4,2 +4,2 @@ f\n-b  \n+c  \n d  \n");
    check("@@ -3,2 +3,3 @@\n a\n b\n+c\n", "@@ -4 +4,2 @@\n b\n+c\n");
    check("@@ -1,2 +1 @@\n-a\n b\n", "@@ -1,2 +1 @@\n-a\n b\n");
    check("@@ -3,5 +3,5 @@\n a\n-b\n+c\n d\n-e\n+f\n g\n", "@@ -4,4 +4,4 @@\n-b\n+c\n d\n-e\n+f\n g\n");
    check("@@ -0,0 +1 @@\n+a\n", "@@ -0,0 +1 @@\n+a\n");
}
