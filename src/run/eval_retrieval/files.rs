//! The files that a patch changes, and the files that a prompt shows.

use std::collections::BTreeSet;

/// The paths after `--- a/` in the headers of a diff: files that were there before, and that retrieval can find.
///
/// Lines of hunks are counted, so that a removed line `-- a/x`, which the diff shows as `--- a/x`, is no header.
pub(super) fn gold_files(patch: &str) -> BTreeSet<&str> {
    let mut files = BTreeSet::new();
    let (mut old, mut new) = (0_usize, 0_usize);
    for line in patch.lines() {
        if old > 0 || new > 0 {
            match line.bytes().next() {
                Some(b'-') => old = old.saturating_sub(1),
                Some(b'+') => new = new.saturating_sub(1),
                Some(b'\\') => {}
                // Mail programs take the blank of an empty context line away.
                Some(b' ') | None => (old, new) = (old.saturating_sub(1), new.saturating_sub(1)),
                Some(_) => (old, new) = (0, 0),
            }
        } else if let Some(counts) = hunk_counts(line) {
            (old, new) = counts;
        } else if let Some(path) = line.strip_prefix("--- a/") {
            // What follows a tab is a date.
            files.insert(path.split('\t').next().unwrap_or(path).trim_end());
        }
    }
    files
}

/// The line counts of `@@ -start,old +start,new @@`; one that is left out is 1.
fn hunk_counts(line: &str) -> Option<(usize, usize)> {
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let count = |range: &str| range.split_once(',').map_or(Some(1), |(_, count)| count.parse().ok());
    Some((count(old)?, count(new)?))
}

/// The files that a prompt shows between `[start of …]` and `[end of …]`, without the READMEs of the repository's root that
/// lead them: every prompt has those, retrieved or not.
pub(super) fn retrieved_files(text: &str) -> BTreeSet<&str> {
    shown_files(text).into_iter().skip_while(|path| is_root_readme(path)).collect()
}

fn is_root_readme(path: &str) -> bool {
    !path.contains('/') && path.to_ascii_lowercase().starts_with("readme")
}

fn shown_files(text: &str) -> Vec<&str> {
    const START: &str = "[start of ";
    let mut files = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(START) {
        let is_line = start == 0 || rest.as_bytes()[start - 1] == b'\n';
        rest = &rest[start + START.len()..];
        let Some((line, _)) = rest.split_once('\n').filter(|_| is_line) else { continue };
        let Some(path) = line.trim_end_matches('\r').strip_suffix(']') else { continue };
        // From the line's own end on: a file may be empty.
        if let Some(end) = rest[line.len()..].find(&format!("\n[end of {path}]")) {
            files.push(path);
            rest = &rest[line.len() + end..];
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gold_files_are_those_of_headers() {
        #[track_caller]
        fn check(patch: &str, expected: &[&str]) {
            assert_eq!(gold_files(patch).into_iter().collect::<Vec<_>>(), expected, "{patch}");
        }
        let hunk = "@@ -1,2 +1,2 @@\n x\n-a\n+b\n";
        check(&format!("<patch>\n--- a/s/a+b.py\n+++ b/s/a+b.py\n{hunk}</patch>"), &["s/a+b.py"]);
        check(
            &format!("--- a/x y.py\t2020-01-01\n+++ b/x y.py\n{hunk}--- a/z\n+++ b/z\n{hunk}"),
            &["x y.py", "z"],
        );
        check(&format!("--- /dev/null\n+++ b/new.py\n{hunk}"), &[]);
        check("--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1 @@\n--- a/comment\n x\n", &["q.sql"]);
        check(
            "--- a/q\n+++ b/q\n@@ -1 +1 @@ --- a/no\n-a\n\\ No newline at end of file\n+b\n--- a/r\n",
            &["q", "r"],
        );
        check("--- a/q\n+++ b/q\n@@ -1,3 +1,3 @@\n\n-a\n+b\n\n--- a/r\n", &["q", "r"]);
        check("--- a/q\n+++ b/q\n@@ -1,99999999999999999999 +1 @@\n--- a/r\n", &["q", "r"]);
        check("", &[]);
    }

    #[test]
    fn retrieved_files_are_those_that_are_shown_whole() {
        #[track_caller]
        fn check(text: &str, expected: &[&str]) {
            assert_eq!(retrieved_files(text).into_iter().collect::<Vec<_>>(), expected, "{text}");
        }
        let show = |path: &str, content: &str| format!("[start of {path}]\n{content}\n[end of {path}]\n");
        check(&(show("a/b.py", "1 x") + &show("c d+e.py", "1 ")), &["a/b.py", "c d+e.py"]);
        check(&show("empty.py", "").replace("\n\n", "\n"), &["empty.py"]);
        check(&(show("README.md", "1 x") + &show("readme.rst", "y") + &show("a.py", "z")), &["a.py"]);
        check(&(show("docs/readme.py", "1 x") + &show("README.md", "y")), &["README.md", "docs/readme.py"]);
        check("[start of a.py]\n1 x\n[end of b.py]\n", &[]);
        check("see [start of a.py]\n1 x\n[end of a.py]\n", &[]);
        check(&show("a.py", "[start of b.py]\n[end of b.py]"), &["a.py"]);
        check(&("[start of a.py\n".to_owned() + &show("b.py", "x")), &["b.py"]);
    }
}
