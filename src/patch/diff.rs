//! A patch in memory: files, hunks and lines, and how they are written.

use std::borrow::Cow;

use super::path::quoted;

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff<'a> {
    /// The file before, relative to the tree; `None` is `/dev/null`.
    pub old: Option<Cow<'a, str>>,
    /// The file after.
    pub new: Option<Cow<'a, str>>,
    /// Whether a `diff --git` line opens it.
    pub git_header: bool,
    /// Lines between `diff --git` and `---`: modes, renames, the index.
    pub extended: Vec<Cow<'a, str>>,
    /// Changes of a text file.
    pub hunks: Vec<Hunk<'a>>,
    /// Lines of a binary change, as written.
    pub binary: Vec<&'a str>,
}

/// A run of lines with its changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hunk<'a> {
    /// The line that opens it, `@@ … @@` and what follows.
    pub header: Cow<'a, str>,
    /// The numbers in the header; `None` where it has none.
    pub range: Option<Range>,
    /// What follows the second `@@`.
    pub section: &'a str,
    /// Context and changes.
    pub lines: Vec<Line<'a>>,
}

/// The numbers of a hunk's header. Lines count from 1; a count of 0 puts the start one line before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// First line before the change.
    pub old_start: u32,
    /// Lines before the change.
    pub old_count: u32,
    /// First line after the change.
    pub new_start: u32,
    /// Lines after the change.
    pub new_count: u32,
}

/// A line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line<'a> {
    /// Its first character.
    pub kind: LineKind,
    /// The rest, without the newline.
    pub text: Cow<'a, str>,
    /// Whether `\ No newline at end of file` follows.
    pub no_newline: bool,
}

/// What a hunk does with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineKind {
    /// It stays.
    Context,
    /// It goes.
    Removed,
    /// It is new.
    Added,
}

impl LineKind {
    /// Whether the file has the line before the change.
    pub fn is_old(self) -> bool {
        self != Self::Added
    }

    /// Whether the file has the line after the change.
    pub fn is_new(self) -> bool {
        self != Self::Removed
    }

    fn sign(self) -> char {
        match self {
            Self::Context => ' ',
            Self::Removed => '-',
            Self::Added => '+',
        }
    }
}

impl<'a> Line<'a> {
    /// A line that ends in a newline.
    pub fn new(kind: LineKind, text: impl Into<Cow<'a, str>>) -> Self {
        Self { kind, text: text.into(), no_newline: false }
    }

    /// The line with a text of its own.
    pub fn into_owned(self) -> Line<'static> {
        Line { text: Cow::Owned(self.text.into_owned()), ..self }
    }
}

impl Hunk<'_> {
    /// The number of lines before and after the change.
    pub fn counts(&self) -> (u32, u32) {
        let count = |of: fn(LineKind) -> bool| {
            u32::try_from(self.lines.iter().filter(|line| of(line.kind)).count()).unwrap_or(u32::MAX)
        };
        (count(LineKind::is_old), count(LineKind::is_new))
    }

    /// Whether it changes anything.
    pub fn has_changes(&self) -> bool {
        self.lines.iter().any(|line| line.kind != LineKind::Context)
    }

    /// Makes `range` its range; the header is written anew only when it says something else.
    pub fn set_range(&mut self, range: Range) {
        if self.range == Some(range) {
            return;
        }
        let side = |start, count| match count {
            1 => format!("{start}"),
            _ => format!("{start},{count}"),
        };
        let old = side(range.old_start, range.old_count);
        let new = side(range.new_start, range.new_count);
        self.header = format!("@@ -{old} +{new} @@{}", self.section).into();
        self.range = Some(range);
    }
}

impl FileDiff<'_> {
    /// The file that it is about: its name after the change, or before where there is none after.
    pub fn path(&self) -> &str {
        self.new.as_deref().or(self.old.as_deref()).unwrap_or_default()
    }

    /// Whether it changes a line, a name, a mode or the existence of a file.
    pub fn has_changes(&self) -> bool {
        let of_metadata = |line: &Cow<'_, str>| {
            ["new ", "old ", "deleted ", "rename ", "copy "].iter().any(|start| line.starts_with(start))
        };
        self.hunks.iter().any(Hunk::has_changes)
            || !self.binary.is_empty()
            || self.extended.iter().any(of_metadata)
    }

    /// Lines that it adds.
    pub fn num_added(&self) -> usize {
        self.num_lines(LineKind::Added)
    }

    /// Lines that it removes.
    pub fn num_removed(&self) -> usize {
        self.num_lines(LineKind::Removed)
    }

    fn num_lines(&self, kind: LineKind) -> usize {
        self.hunks.iter().flat_map(|hunk| &hunk.lines).filter(|line| line.kind == kind).count()
    }

    /// Appends it as git reads it: names with their prefixes, and every line with its newline.
    pub fn write_to(&self, out: &mut String) {
        let old = self.old.as_deref().or(self.new.as_deref()).unwrap_or_default();
        if self.git_header {
            out.push_str("diff --git ");
            out.push_str(&quoted("a/", old));
            out.push(' ');
            out.push_str(&quoted("b/", self.path()));
            out.push('\n');
            let says = |start: &str| self.extended.iter().any(|line| line.starts_with(start));
            // git takes `/dev/null` for a file's name unless a line says that the file is new or deleted.
            if self.old.is_none() && !says("new file mode") {
                out.push_str("new file mode 100644\n");
            }
            if self.new.is_none() && !says("deleted file mode") {
                out.push_str("deleted file mode 100644\n");
            }
            self.extended.iter().for_each(|line| push_line(out, line));
        }
        if !self.hunks.is_empty() {
            for (start, prefix, path) in [("--- ", "a/", &self.old), ("+++ ", "b/", &self.new)] {
                out.push_str(start);
                match path {
                    Some(path) => {
                        out.push_str(&quoted(prefix, path));
                        // As git does it: programs that split names from dates at blanks see the end.
                        out.push_str(if path.contains(' ') { "\t\n" } else { "\n" });
                    }
                    None => out.push_str("/dev/null\n"),
                }
            }
        }
        for hunk in &self.hunks {
            push_line(out, &hunk.header);
            for line in &hunk.lines {
                out.push(line.kind.sign());
                push_line(out, &line.text);
                if line.no_newline {
                    out.push_str("\\ No newline at end of file\n");
                }
            }
        }
        self.binary.iter().for_each(|line| push_line(out, line));
        if self.binary.len() > 1 {
            // A blank line ends a binary change.
            out.push('\n');
        }
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// The patch as text; it ends in exactly one newline, or is empty.
pub fn to_text<'a, 'b: 'a>(files: impl IntoIterator<Item = &'a FileDiff<'b>>) -> String {
    let mut text = String::new();
    for file in files {
        file.write_to(&mut text);
    }
    text
}

/// Reads the line that opens a hunk: its numbers, where it has any, and what follows them.
///
/// Counts may be missing, and blanks may be anywhere between the parts.
pub(super) fn parse_hunk_header(line: &str) -> Option<(Option<Range>, &str)> {
    let rest = line.strip_prefix("@@").filter(|rest| !rest.starts_with('@'))?;
    let Some((numbers, section)) = rest.split_once("@@") else { return Some((parse_range(rest), rest)) };
    match parse_range(numbers) {
        Some(range) => Some((Some(range), section)),
        None => Some((None, if section.is_empty() { numbers.trim_end() } else { section })),
    }
}

/// `-1,2 +3,4`; a count that is missing is 1.
fn parse_range(text: &str) -> Option<Range> {
    let (old, new) = text.trim().strip_prefix('-')?.split_once('+')?;
    let side = |side: &str| -> Option<(u32, u32)> {
        let side = side.trim();
        let (start, count) = side.split_once(',').unwrap_or((side, "1"));
        // A patch with such numbers is no patch; smaller ones can be added without a care.
        let number = |digits: &str| digits.trim().parse().ok().filter(|number| *number < 1 << 30);
        Some((number(start)?, number(count)?))
    };
    let ((old_start, old_count), (new_start, new_count)) = (side(old)?, side(new)?);
    Some(Range { old_start, old_count, new_start, new_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_leniently() {
        #[track_caller]
        fn check(line: &str, range: Option<[u32; 4]>, section: &str) {
            let range = range.map(|[old_start, old_count, new_start, new_count]| Range {
                old_start,
                old_count,
                new_start,
                new_count,
            });
            assert_eq!(parse_hunk_header(line), Some((range, section)), "{line}");
        }
        check("@@ -1,2 +3,4 @@", Some([1, 2, 3, 4]), "");
        check("@@ -1,2 +3,4 @@ def f():", Some([1, 2, 3, 4]), " def f():");
        check("@@ -1 +1 @@", Some([1, 1, 1, 1]), "");
        check("@@-1,2+3 , 4@@x", Some([1, 2, 3, 4]), "x");
        check("@@ -0,0 +1 @@", Some([0, 0, 1, 1]), "");
        check("@@", None, "");
        check("@@ ... @@", None, " ...");
        check("@@ def f():", None, " def f():");
        check("@@ -99999999999999999999,1 +1 @@ f", None, " f");
        assert_eq!(parse_hunk_header("@@@ -1 -1 +1 @@@"), None);
        assert_eq!(parse_hunk_header("@ -1 +1 @"), None);
    }

    #[test]
    fn a_header_changes_only_with_its_numbers() {
        let range = Range { old_start: 1, old_count: 1, new_start: 1, new_count: 1 };
        let mut hunk =
            Hunk { header: "@@ -1,1 +1 @@ f".into(), range: Some(range), section: " f", lines: vec![] };
        hunk.set_range(range);
        assert_eq!(hunk.header, "@@ -1,1 +1 @@ f");
        hunk.set_range(Range { new_count: 0, new_start: 0, ..range });
        assert_eq!(hunk.header, "@@ -1 +0,0 @@ f");
    }
}
