//! Hunks find their lines in the tree.

use super::*;

const FILE: &str = "def one():\n    a = 1\n    return a\n\n\ndef two():\n    b = 2\n    return b\n\n\ndef three():\n    c = 3\n    return c\n";

fn numbered(count: usize) -> String {
    (1..=count).map(|line| format!("line {line}\n")).collect()
}

/// The hunks that are left of those given, and what was done.
#[track_caller]
fn check(file: &str, hunks: &str, expected: &str, done: &[What]) {
    let header = "--- a/x.py\n+++ b/x.py\n";
    let (patch, changes) = repaired(&format!("{header}{hunks}"), &tree(&[("x.py", file)]));
    assert_eq!(patch, format!("{header}{expected}"), "{changes:?}");
    assert_eq!(changes.into_iter().map(|change| change.what).collect::<Vec<_>>(), done);
}

#[test]
fn what_fits_is_left_alone() {
    let hunk = "@@ -5,7 +5,7 @@ def one():\n \n def two():\n     b = 2\n-    return b\n+    return -b\n \n \n def three():\n";
    check(FILE, hunk, hunk, &[]);
}

#[test]
fn hunks_move_to_their_lines() {
    check(
        FILE,
        "@@ -1,3 +1,3 @@\n def two():\n-    b = 2\n+    b = 3\n     return b\n",
        "@@ -6,3 +6,3 @@\n def two():\n-    b = 2\n+    b = 3\n     return b\n",
        &[What::Moved { lines: 5 }],
    );
    check(
        FILE,
        "@@\n-    b = 2\n+    b = 3\n     return b\n",
        "@@ -7,2 +7,2 @@\n-    b = 2\n+    b = 3\n     return b\n",
        &[What::Recounted],
    );
    // The nearest of several places, and no place where none is told.
    check(
        &"x\ny\n".repeat(9),
        "@@ -8,2 +8,2 @@\n-x\n+z\n y\n",
        "@@ -7,2 +7,2 @@\n-x\n+z\n y\n",
        &[What::Moved { lines: -1 }],
    );
    check(
        &"x\ny\n".repeat(9),
        "@@\n-x\n+z\n y\n",
        "@@ -2,2 +2,2 @@\n-x\n+z\n y\n",
        &[What::NotFound, What::Recounted],
    );
}

#[test]
fn hunks_come_in_the_order_of_their_lines_and_share_none() {
    check(
        FILE,
        "@@ -11,3 +11,3 @@\n def three():\n-    c = 3\n+    c = 4\n     return c\n@@ -1,3 +1,3 @@\n def one():\n-    a = 1\n+    a = 2\n     return a\n",
        "@@ -1,3 +1,3 @@\n def one():\n-    a = 1\n+    a = 2\n     return a\n@@ -11,3 +11,3 @@\n def three():\n-    c = 3\n+    c = 4\n     return c\n",
        &[],
    );
    check(
        FILE,
        "@@ -1,3 +1,3 @@\n def one():\n-    a = 1\n+    a = 2\n     return a\n@@ -3,4 +3,4 @@\n     return a\n \n \n-def two():\n+def zwei():\n     b = 2\n",
        "@@ -1,3 +1,3 @@\n def one():\n-    a = 1\n+    a = 2\n     return a\n@@ -4,4 +4,4 @@\n \n \n-def two():\n+def zwei():\n     b = 2\n",
        &[What::OverlapRemoved],
    );
    // Nothing is left of the second.
    check(
        FILE,
        "@@ -1,3 +1,3 @@\n def one():\n-    a = 1\n+    a = 2\n     return a\n@@ -3,1 +3,1 @@\n     return a\n",
        "@@ -1,3 +1,3 @@\n def one():\n-    a = 1\n+    a = 2\n     return a\n",
        &[What::OverlapRemoved],
    );
}

#[test]
fn white_space_and_blank_lines_are_the_files() {
    check(
        FILE,
        "@@ -6,4 +6,4 @@\n def two(): \n-    b  =  2\n+    b = 3\n     return b\n \n",
        "@@ -6,4 +6,4 @@\n def two():\n-    b = 2\n+    b = 3\n     return b\n \n",
        &[What::Whitespace],
    );
    check(
        FILE,
        "@@ -7,4 +7,4 @@\n return b\n-def three():\n+def drei():\n     c = 3\n",
        "@@ -8,5 +8,5 @@\n     return b\n \n \n-def three():\n+def drei():\n     c = 3\n",
        &[What::Moved { lines: 1 }, What::Whitespace, What::Recounted],
    );
    check(
        FILE,
        "@@ -6,3 +6,4 @@\n-  b = 2\n+  b = 3\n+  if b:\n+    pass\n   return b\n",
        "@@ -7,2 +7,4 @@\n-    b = 2\n+    b = 3\n+    if b:\n+      pass\n     return b\n",
        &[What::Moved { lines: 1 }, What::Whitespace, What::Reindented, What::Recounted],
    );
}

#[test]
fn line_endings_are_the_files() {
    let crlf = FILE.replace('\n', "\r\n");
    check(
        &crlf,
        "@@ -6,3 +6,3 @@\n def two():\n-    b = 2\n+    b = 3\n     return b\n",
        "@@ -6,3 +6,3 @@\n def two():\r\n-    b = 2\r\n+    b = 3\r\n     return b\r\n",
        &[What::Whitespace, What::LineEndings],
    );
    check(
        FILE,
        "@@ -6,3 +6,3 @@\n def two():\r\n-    b = 2\r\n+    b = 3\r\n     return b\r\n",
        "@@ -6,3 +6,3 @@\n def two():\n-    b = 2\n+    b = 3\n     return b\n",
        &[What::Whitespace, What::LineEndings],
    );
    check(
        "a\nb",
        "@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
        "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n",
        &[],
    );
}

#[test]
fn likeness_is_enough_only_where_it_is_unique() {
    check(
        FILE,
        "@@ -5,6 +5,6 @@\n def two(self):\n     b = 2\n-    return b\n+    return -b\n \n \n def three():\n",
        "@@ -7,5 +7,5 @@\n     b = 2\n-    return b\n+    return -b\n \n \n def three():\n",
        &[What::Moved { lines: 2 }, What::Fuzzy, What::Recounted],
    );
    check(
        FILE,
        "@@ -7,5 +7,5 @@\n-    b = 2\n+    b = 3\n     return c\n \n \n-def three():\n+def drei():\n     c = 3\n",
        "@@ -7,6 +7,6 @@\n-    b = 2\n+    b = 3\n     return b\n \n \n-def three():\n+def drei():\n     c = 3\n",
        &[What::Fuzzy, What::Recounted],
    );
    let hunk = "@@ -5,3 +5,3 @@\n def nowhere():\n-    x = 2\n+    x = 3\n     yield x\n";
    check(FILE, hunk, hunk, &[What::NotFound]);
    let hunk = "@@ -2,3 +2,3 @@\n q\n-line 1\n+x\n q\n";
    check(&"line 1\nw\n".repeat(5), hunk, hunk, &[What::NotFound]);
}

#[test]
fn context_follows_where_the_file_goes_on() {
    check(
        &numbered(9),
        "@@ -4,2 +4,2 @@\n line 4\n-line 5\n+x\n",
        "@@ -4,5 +4,5 @@\n line 4\n-line 5\n+x\n line 6\n line 7\n line 8\n",
        &[What::ContextAdded, What::Recounted],
    );
    check(
        &numbered(9),
        "@@ -4,0 +5 @@\n+x\n",
        "@@ -5,3 +5,4 @@\n+x\n line 5\n line 6\n line 7\n",
        &[What::ContextAdded, What::Recounted],
    );
}

#[test]
fn files_that_are_not_there_are_new_or_named() {
    let empty = tree(&[]);
    let (patch, changes) = repaired("--- a/n.py\n+++ b/n.py\n@@ -0,0 +1,2 @@\n+a\n+b\n", &empty);
    assert_eq!(patch, "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1,2 @@\n+a\n+b\n");
    assert_eq!(changes[0].what, What::NewFile);
    let (_, changes) = repaired("--- a/n.py\n+++ b/n.py\n@@ -1 +1 @@\n-a\n+b\n", &empty);
    assert_eq!(changes[0].what, What::NoSuchFile);
    let there = tree(&[("n.py", "a\n")]);
    let (_, changes) = repaired("--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+a\n", &there);
    assert_eq!(changes[0].what, What::FileExists);
}
