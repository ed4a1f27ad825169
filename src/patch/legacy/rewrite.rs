//! The reference's `extract_minimal_patch` and `repair_patch`.

use std::fmt::Write;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::constant;
use crate::error::{Error, Result};

// Python's `\s` has the four separators U+001C to U+001F besides the white space of the regex crate.
static FILE_START: LazyLock<Regex> =
    LazyLock::new(|| constant(r"(?:diff[\p{L}\p{N}_. /-]+\n)?---[\s\x1c-\x1f]+a/"));
static NEW_NAME: LazyLock<Regex> = LazyLock::new(|| constant(r"\n\+\+\+[\s\x1c-\x1f]+b/"));
static FILE_END: LazyLock<Regex> = LazyLock::new(|| constant("diff |--- a/"));
static FILE_NAMES: LazyLock<Regex> =
    LazyLock::new(|| constant(r"---[\s\x1c-\x1f]+a/.+\n\+\+\+[\s\x1c-\x1f]+b/.+"));
static HUNK_START: LazyLock<Regex> = LazyLock::new(|| {
    constant(r"@@[\s\x1c-\x1f]+-([0-9]+),([0-9]+)[\s\x1c-\x1f]+\+([0-9]+),([0-9]+)[\s\x1c-\x1f]+@@")
});
static HUNK_END: LazyLock<Regex> = LazyLock::new(|| constant("diff |--- a/|@@ -"));

/// The patch with each hunk cut to its changes and one line after them, as `extract_minimal_patch` returns it.
///
/// # Errors
/// `InvalidData` where the reference fails: a file without names, or a line number beyond 128 bits.
pub fn minimal_patch(patch: &str) -> Result<String> {
    rewrite(patch, Rewrite::Minimal)
}

/// The patch with the counts of its hunks made to fit, as `repair_patch` returns it.
///
/// # Errors
/// As those of [`minimal_patch`].
pub fn repair_patch(patch: &str) -> Result<String> {
    rewrite(patch, Rewrite::Repair)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    Minimal,
    Repair,
}

fn rewrite(patch: &str, kind: Rewrite) -> Result<String> {
    let mut written = String::with_capacity(patch.len());
    for file in files(patch.trim_start_matches('\n')) {
        if kind == Rewrite::Repair && file.starts_with("diff") {
            written.push_str(file.split('\n').next().unwrap_or_default());
            written.push('\n');
        }
        let names = FILE_NAMES.find(file).ok_or_else(|| {
            Error::invalid_data("a file of the patch has no names").with_hint("the robust mode leaves it out")
        })?;
        written.push_str(names.as_str());
        written.push('\n');
        let mut delta = 0;
        for (header, content) in hunks(file) {
            let mut old_start = number(&header, 1)?;
            let minimal;
            let content = match kind {
                Rewrite::Repair => content,
                Rewrite::Minimal => {
                    let (lines, skipped) = strip_context(content);
                    old_start += skipped;
                    minimal = lines;
                    &minimal
                }
            };
            let (old_count, new_count) = count_lines(content);
            let new_start = old_start + delta;
            delta += new_count - old_count;
            // Writing into a string cannot fail.
            let _ = write!(written, "@@ -{old_start},{old_count} +{new_start},{new_count} @@{content}");
        }
    }
    Ok(written)
}

/// Every match of `PATCH_PATTERN`: a file's header and all that follows up to the next one.
fn files(patch: &str) -> impl Iterator<Item = &str> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let start = FILE_START.find_at(patch, position)?;
        let names = NEW_NAME.find_at(patch, start.end())?;
        position = FILE_END.find_at(patch, names.end()).map_or(patch.len(), |end| end.start());
        Some(&patch[start.start()..position])
    })
}

/// Every match of `PATCH_HUNK_PATTERN`: a hunk's header and the text after it, of which there is at least a character.
fn hunks(file: &str) -> impl Iterator<Item = (Captures<'_>, &str)> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let header = HUNK_START.captures_at(file, position)?;
        let start = header.get_match().end();
        let first = file[start..].chars().next()?;
        position = HUNK_END.find_at(file, start + first.len_utf8()).map_or(file.len(), |end| end.start());
        Some((header, &file[start..position]))
    })
}

fn number(header: &Captures<'_>, group: usize) -> Result<i128> {
    let digits = header.get(group).map_or("", |digits| digits.as_str());
    digits
        .parse()
        .map_err(|source| Error::invalid_data(format!("no line number: {digits}")).with_source(source))
}

/// `strip_content`: the lines from the first change to the one after the last, and how many were cut before them.
fn strip_context(content: &str) -> (String, i128) {
    let lines: Vec<&str> = content.split('\n').collect();
    let is_change = |line: &&str| line.starts_with(['-', '+']);
    let first = lines.iter().position(is_change).unwrap_or(lines.len());
    let end = lines.iter().rposition(is_change).map_or(1, |last| last + 2).min(lines.len());
    let mut kept = String::from("\n");
    for (index, line) in lines.get(first..end).unwrap_or_default().iter().enumerate() {
        if index > 0 {
            kept.push('\n');
        }
        kept.push_str(line.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f')));
    }
    kept.push('\n');
    (kept, first as i128 - 1)
}

/// `get_hunk_stats`: the number of lines before and after the change. The first line is the header's.
fn count_lines(content: &str) -> (i128, i128) {
    let lines = content.split_once('\n').map_or(content, |(_, lines)| lines).trim_matches('\n');
    lines.split('\n').fold((0, 0), |(old, new), line| match line.bytes().next() {
        Some(b'-') => (old + 1, new),
        Some(b'+') => (old, new + 1),
        _ => (old + 1, new + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // What the reference returns for each, recorded from version 5.0.2.
    #[test]
    fn follows_the_patterns_in_the_corners() {
        #[track_caller]
        fn check(patch: &str, minimal: &str, repaired: &str) {
            assert_eq!(minimal_patch(patch).unwrap(), minimal, "minimal of {patch:?}");
            assert_eq!(repair_patch(patch).unwrap(), repaired, "repair of {patch:?}");
        }
        check("", "", "");
        check("prose", "", "");
        check(
            "\n\n--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n a\n-b\n+c\n d\n e\n",
            "--- a/x\n+++ b/x\n@@ -2,2 +2,2 @@\n-b\n+c\n d\n",
            "--- a/x\n+++ b/x\n@@ -1,4 +1,4 @@\n a\n-b\n+c\n d\n e\n",
        );
        check(
            "--- a/x\n+++ b/x\n@@ -3,1 +3,1 @@ def f():\n-b\n+c \n d\n@@ -9,2 +9,2 @@\n x\n+y\n",
            "--- a/x\n+++ b/x\n@@ -3,2 +3,2 @@\n-b\n+c\n d\n@@ -10,0 +10,1 @@\n+y\n\n",
            "--- a/x\n+++ b/x\n@@ -3,2 +3,2 @@ def f():\n-b\n+c \n d\n@@ -9,1 +9,2 @@\n x\n+y\n",
        );
        check(
            "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n",
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n\n",
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n",
        );
        check(
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n",
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n\n",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n",
        );
        check(
            "x diff --git a/x b/x\n---\n\n a/x\n+++\tb/x\n@@ -1,1 +1,1 @@\n-b\n+a diff here\n",
            "---\n\n a/x\n+++\tb/x\n@@ -1,1 +1,1 @@\n-b\n+a\n",
            "diff --git a/x b/x\n---\n\n a/x\n+++\tb/x\n@@ -1,1 +1,1 @@\n-b\n+a ",
        );
        check("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-b\n+c\n", "--- a/x\n+++ b/x\n", "--- a/x\n+++ b/x\n");
        check("--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@", "--- a/x\n+++ b/x\n", "--- a/x\n+++ b/x\n");
        check(
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@ -x\n ctx\n",
            "--- a/x\n+++ b/x\n@@ -3,1 +3,1 @@\n\n",
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@ -x\n ctx\n",
        );
        check(
            "--- a/x\n+++ b/x\n@@ -7,1 +7,1 @@\n only\n context\n",
            "--- a/x\n+++ b/x\n@@ -10,1 +10,1 @@\n\n",
            "--- a/x\n+++ b/x\n@@ -7,2 +7,2 @@\n only\n context\n",
        );
        check(
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n",
            "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n",
            "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n",
        );
        check(
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-é\n+ü\u{a0}\x1f\n",
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-é\n+ü\n\n",
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-é\n+ü\u{a0}\x1f\n",
        );
        check(
            "diffé --- a/x\n--- a/x\n+++ b/x\n@@ -007,1 +1,1 @@\n+z",
            "--- a/x\n+++ b/x\n@@ -7,0 +7,1 @@\n+z\n",
            "diffé --- a/x\n--- a/x\n+++ b/x\n@@ -7,0 +7,1 @@\n+z",
        );
    }

    #[test]
    fn a_file_without_names_is_an_error_as_in_the_reference() {
        assert!(minimal_patch("--- a/\n+++ b/\n").is_err());
        assert!(repair_patch("--- a/x\nindex\n+++ b/x\n").is_err());
    }

    #[test]
    fn time_is_linear() {
        let patch = "diff --- a/\n".repeat(50_000);
        assert_eq!(repair_patch(&patch).unwrap(), "");
        let patch = "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@ @@ -1,1 +1,1 @@\n".repeat(20_000);
        assert!(repair_patch(&patch).is_ok());
    }
}
