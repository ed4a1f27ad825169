//! What a gold patch changes: its files as they are named before it, and the line ranges of its hunks.

use std::borrow::Cow;

use super::Fidelity;

/// A file that a patch changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedFile {
    /// The path before the patch, as bytes; of a file that the patch adds, the path after it.
    pub path: Vec<u8>,
    /// Whether the patch adds it.
    pub is_new: bool,
    /// Which lines are changed.
    pub hunks: Vec<OldRange>,
}

/// Lines of the old file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldRange {
    /// The first line.
    pub start: usize,
    /// How many.
    pub len: usize,
}

impl EditedFile {
    /// The path under which a prompt shows it.
    pub(super) fn shown_path(&self, fidelity: Fidelity) -> Cow<'_, str> {
        match fidelity {
            Fidelity::Reference if self.is_new => Cow::Borrowed("/dev/null"),
            _ => String::from_utf8_lossy(&self.path),
        }
    }
}

/// The files of a unified diff, in its order.
///
/// Headers are looked for between hunks alone, whose lines are counted: a removed line `-- a/x` is no header.
pub fn edited_files(patch: &str) -> Vec<EditedFile> {
    let mut files: Vec<EditedFile> = Vec::new();
    // Whether the last file has got no `---` line yet: `diff --git` alone announces renames, modes and binary files.
    let mut is_announced = false;
    let (mut old, mut new) = (0_usize, 0_usize);
    let mut lines = patch.lines().peekable();
    while let Some(line) = lines.next() {
        if old > 0 || new > 0 {
            match line.bytes().next() {
                Some(b'-') => old = old.saturating_sub(1),
                Some(b'+') => new = new.saturating_sub(1),
                Some(b'\\') => {}
                // Mail programs take the blank of an empty context line away.
                Some(b' ') | None => (old, new) = (old.saturating_sub(1), new.saturating_sub(1)),
                Some(_) => (old, new) = (0, 0),
            }
            continue;
        }
        if let Some(names) = line.strip_prefix("diff --git ") {
            if let Some(path) = name_of_both(names) {
                files.push(EditedFile { path, is_new: false, hunks: Vec::new() });
                is_announced = true;
            }
        } else if let (Some(before), Some(after)) =
            (line.strip_prefix("--- "), lines.peek().and_then(|next| next.strip_prefix("+++ ")))
        {
            let (before, after) = (name_in(before), name_in(after));
            let is_new = before == b"/dev/null";
            let path = if is_new { without_prefix(after, b"b/") } else { without_prefix(before, b"a/") };
            let file = EditedFile { path, is_new, hunks: Vec::new() };
            match files.last_mut().filter(|_| is_announced) {
                Some(announced) => *announced = file,
                None => files.push(file),
            }
            is_announced = false;
        } else if let Some((range, counts)) = hunk_header(line) {
            if let Some(file) = files.last_mut() {
                file.hunks.push(range);
            }
            (old, new) = counts;
        } else if let Some(file) = files.last_mut().filter(|_| is_announced) {
            if let Some(path) = line.strip_prefix("rename from ").or_else(|| line.strip_prefix("copy from "))
            {
                file.path = name_in(path);
            }
            file.is_new |= line.starts_with("new file mode ");
        }
    }
    files
}

/// The name in `a/NAME b/NAME`; `None` when the two differ, and then other lines tell.
fn name_of_both(names: &str) -> Option<Vec<u8>> {
    if names.starts_with('"') {
        let (first, _) = unquote(names)?;
        return Some(without_prefix(first, b"a/"));
    }
    let half = names.len().checked_sub(1)? / 2;
    let (a, b) = (names.get(..half)?, names.get(half + 1..)?);
    let name = a.strip_prefix("a/")?;
    if b.strip_prefix("b/") == Some(name) {
        return Some(name.as_bytes().to_vec());
    }
    // A renamed file: its `rename from` follows, and if not, this is as good as any.
    Some(names.split(" b/").next()?.strip_prefix("a/")?.as_bytes().to_vec())
}

/// A name as a header has it: up to a tab, or in quotes.
fn name_in(header: &str) -> Vec<u8> {
    match unquote(header) {
        Some((name, _)) => name,
        None => header.split('\t').next().unwrap_or(header).trim_end().as_bytes().to_vec(),
    }
}

fn without_prefix(name: Vec<u8>, prefix: &[u8]) -> Vec<u8> {
    name.strip_prefix(prefix).map(<[u8]>::to_vec).unwrap_or(name)
}

/// The bytes of a name in C's quotes, and what follows it.
fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut bytes = inside.bytes().enumerate();
    let mut name = Vec::new();
    while let Some((position, byte)) = bytes.next() {
        let byte = match byte {
            b'"' => return Some((name, inside.get(position + 1..)?)),
            b'\\' => match bytes.next()?.1 {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'v' => 11,
                first @ b'0'..=b'3' => {
                    let digits = [bytes.next()?.1, bytes.next()?.1];
                    digits.iter().try_fold(first - b'0', |value, digit| {
                        matches!(digit, b'0'..=b'7').then(|| (value << 3) | (digit - b'0'))
                    })?
                }
                other => other,
            },
            other => other,
        };
        name.push(byte);
    }
    None
}

/// The old range and both line counts of `@@ -start,old +start,new @@`; a count that is left out is 1.
fn hunk_header(line: &str) -> Option<(OldRange, (usize, usize))> {
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |range: &str| {
        let (start, len) = range.split_once(',').unwrap_or((range, "1"));
        Some(OldRange { start: start.parse().ok()?, len: len.parse().ok()? })
    };
    let (old, new) = (range(old)?, range(new)?);
    Some((old, (old.len, new.len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_they_are_before_the_patch() {
        #[track_caller]
        fn check(patch: &str, expected: &[(&str, bool, &[(usize, usize)])]) {
            let found = edited_files(patch);
            let found: Vec<_> = found
                .iter()
                .map(|file| {
                    let hunks: Vec<_> = file.hunks.iter().map(|hunk| (hunk.start, hunk.len)).collect();
                    (String::from_utf8_lossy(&file.path).into_owned(), file.is_new, hunks)
                })
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(path, is_new, hunks)| ((*path).to_owned(), *is_new, hunks.to_vec()))
                .collect();
            assert_eq!(found, expected, "{patch}");
        }
        let hunk = "@@ -3,2 +3,2 @@ def f():\n x\n-a\n+b\n";
        check(
            &format!(
                "diff --git a/s/data/x.py b/s/data/x.py\nindex 1..2 100644\n--- a/s/data/x.py\n+++ b/s/data/x.py\n{hunk}"
            ),
            &[("s/data/x.py", false, &[(3, 2)])],
        );
        check(
            &format!("--- a/x y.py\t2020-01-01\n+++ b/x y.py\n{hunk}{hunk}"),
            &[("x y.py", false, &[(3, 2), (3, 2)])],
        );
        check(
            "diff --git a/n.py b/n.py\nnew file mode 100644\n--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+x\n",
            &[("n.py", true, &[(0, 0)])],
        );
        check("diff --git a/e.py b/e.py\nnew file mode 100644\nindex 0..e\n", &[("e.py", true, &[])]);
        check(
            "--- a/o.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n--- \"a/caf\\303\\251\\t.py\"\n+++ \"b/caf\\303\\251\\t.py\"\n@@ -1 +1 @@\n-x\n+y\n",
            &[("o.py", false, &[(1, 1)]), ("café\t.py", false, &[(1, 1)])],
        );
        check(
            "diff --git a/old.py b/new.py\nsimilarity index 100%\nrename from old.py\nrename to new.py\n\
             diff --git a/run b/run\nold mode 100644\nnew mode 100755\n\
             diff --git a/p.png b/p.png\nBinary files a/p.png and b/p.png differ\n",
            &[("old.py", false, &[]), ("run", false, &[]), ("p.png", false, &[])],
        );
        check(
            "--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1 @@\n--- a/comment\n x\n\\ No newline at end of file\n--- a/r\n+++ b/r\n",
            &[("q.sql", false, &[(1, 2)]), ("r", false, &[])],
        );
        check("--- a/lonely\nno header\n@@ -1 +1 @@\n", &[]);
        check("diff --git \"a/unclosed b/x\ndiff --git \ndiff --git é\n", &[]);
    }
}
