//! The difference between two texts as hunks, as git writes them.

use imara_diff::{Algorithm, Diff, InternedInput, Token};

use super::diff::{Hunk, Line, LineKind, Range};

/// Lines of context around a change.
const CONTEXT: u32 = 3;

/// The hunks that turn `old` into `new`, with three lines of context.
pub(super) fn hunks(old: &str, new: &str) -> Vec<Hunk<'static>> {
    let input = InternedInput::new(old, new);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let changes: Vec<imara_diff::Hunk> = diff.hunks().collect();
    let num_old = input.before.len() as u32;
    let lines = |kind: LineKind, side: &[Token], from: u32, to: u32| -> Vec<Line<'static>> {
        let of_token = |token: &Token| {
            let text: &str = input.interner[*token];
            let ended = text.strip_suffix('\n');
            Line { kind, text: ended.unwrap_or(text).to_owned().into(), no_newline: ended.is_none() }
        };
        side[from as usize..to as usize].iter().map(of_token).collect()
    };
    // Changes whose context would touch are one hunk.
    let near = |left: &imara_diff::Hunk, right: &imara_diff::Hunk| {
        right.before.start - left.before.end <= 2 * CONTEXT
    };
    let mut hunks = Vec::new();
    for group in changes.chunk_by(near) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let old_start = first.before.start.saturating_sub(CONTEXT);
        let old_end = (last.before.end + CONTEXT).min(num_old);
        let mut body = Vec::new();
        let mut position = old_start;
        for change in group {
            body.extend(lines(LineKind::Context, &input.before, position, change.before.start));
            body.extend(lines(LineKind::Removed, &input.before, change.before.start, change.before.end));
            body.extend(lines(LineKind::Added, &input.after, change.after.start, change.after.end));
            position = change.before.end;
        }
        body.extend(lines(LineKind::Context, &input.before, position, old_end));
        let mut hunk = Hunk { header: "".into(), range: None, section: "", lines: body };
        let (old_count, new_count) = hunk.counts();
        let new_start = first.after.start - (first.before.start - old_start);
        hunk.set_range(Range {
            old_start: old_start + u32::from(old_count > 0),
            old_count,
            new_start: new_start + u32::from(new_count > 0),
            new_count,
        });
        hunks.push(hunk);
    }
    hunks
}

/// One hunk that turns `old` into `new`, all of `old` in it; it has no numbers yet.
pub(super) fn whole_hunk(old: &str, new: &str) -> Hunk<'static> {
    let input = InternedInput::new(old, new);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let line = |kind: LineKind, token: &Token| {
        let text: &str = input.interner[*token];
        Line::new(kind, text.strip_suffix('\n').unwrap_or(text).to_owned())
    };
    let (mut lines, mut position) = (Vec::new(), 0);
    for change in diff.hunks() {
        let (before, after) = (&input.before, &input.after);
        lines.extend(
            before[position..change.before.start as usize].iter().map(|t| line(LineKind::Context, t)),
        );
        let removed = &before[change.before.start as usize..change.before.end as usize];
        lines.extend(removed.iter().map(|token| line(LineKind::Removed, token)));
        let added = &after[change.after.start as usize..change.after.end as usize];
        lines.extend(added.iter().map(|token| line(LineKind::Added, token)));
        position = change.before.end as usize;
    }
    lines.extend(input.before[position..].iter().map(|token| line(LineKind::Context, token)));
    Hunk { header: "@@ @@".into(), range: None, section: "", lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_are_those_of_git() {
        #[track_caller]
        fn check(old: &str, new: &str, expected: &[&str]) {
            let headers: Vec<String> = hunks(old, new).iter().map(|hunk| hunk.header.to_string()).collect();
            assert_eq!(headers, expected);
        }
        check("a\n", "a\n", &[]);
        check("", "a\n", &["@@ -0,0 +1 @@"]);
        check("a\n", "", &["@@ -1 +0,0 @@"]);
        check("a\nb\n", "a\nc\n", &["@@ -1,2 +1,2 @@"]);
        check("a\nb", "a\nb\n", &["@@ -1,2 +1,2 @@"]);
        let old: String = (0..30).map(|line| format!("{line}\n")).collect();
        let new = old.replace("\n5\n", "\nx\ny\n").replace("\n12\n", "\n").replace("\n25\n", "\nz\n");
        check(&old, &new, &["@@ -3,14 +3,14 @@", "@@ -23,7 +23,7 @@"]);
    }

    #[test]
    fn one_hunk_may_hold_everything() {
        let hunk = whole_hunk("a\nb\nc", "a\nx\nc");
        assert_eq!(hunk.counts(), (3, 3));
        assert!(hunk.lines.iter().all(|line| !line.no_newline));
    }
}
