//! Files as prompts show them: whole, or the lines around edits.

use std::fmt::Write;
use std::ops::Range;

use super::edits::{EditedFile, edited_files};
use super::{Fidelity, Files};

/// Lines that are shown before and after an edit.
const CONTEXT: usize = 15;

/// One file with its lines numbered, between its markers.
pub fn file_text(path: &str, content: &str) -> String {
    block(path, content, true)
}

/// All files, one after another.
pub(super) fn code_text(files: &Files, numbered: bool) -> String {
    let blocks: Vec<String> = files.iter().map(|(path, content)| block(path, content, numbered)).collect();
    blocks.join("\n")
}

fn block(path: &str, content: &str, numbered: bool) -> String {
    let mut text = String::with_capacity(content.len() + content.len() / 8 + 2 * path.len() + 32);
    let _ = writeln!(text, "[start of {path}]");
    if numbered {
        write_numbered(&mut text, content.split('\n').enumerate());
    } else {
        text.push_str(content);
    }
    let _ = write!(text, "\n[end of {path}]");
    text
}

/// `NUMBER LINE`, joined by line ends; numbers count from 1.
fn write_numbered<'a>(text: &mut String, lines: impl Iterator<Item = (usize, &'a str)>) {
    for (position, (index, line)) in lines.enumerate() {
        let separator = if position > 0 { "\n" } else { "" };
        let _ = write!(text, "{separator}{} {line}", index + 1);
    }
}

/// The lines of the files around what `patch` changes in them, with `...` where lines are left out.
pub(super) fn edits_text(files: &Files, patch: &str, fidelity: Fidelity) -> String {
    let edited = edited_files(patch);
    let blocks: Vec<String> = files
        .iter()
        .map(|(path, content)| {
            let lines: Vec<&str> = content.split('\n').collect();
            let mut edits = edited.iter().filter(|file| file.shown_path(fidelity) == *path);
            let mut text = format!("[start of {path}]\n");
            match fidelity {
                Fidelity::Mended => write_windows(&mut text, &lines, &merged_windows(edits, lines.len())),
                // A file that a patch names twice has the edits of the second part.
                Fidelity::Reference => write_reference(&mut text, &lines, edits.next_back()),
            }
            text.truncate(text.trim_end_matches('\n').len());
            let _ = write!(text, "\n[end of {path}]");
            text
        })
        .collect();
    blocks.join("\n")
}

/// Lines from 0 that are shown, in order and apart from each other.
fn merged_windows<'a>(edits: impl Iterator<Item = &'a EditedFile>, lines: usize) -> Vec<Range<usize>> {
    let mut windows: Vec<Range<usize>> = edits
        .flat_map(|file| &file.hunks)
        .map(|hunk| {
            // An insertion after line N has the old range `N,0`.
            let first = if hunk.len == 0 { hunk.start } else { hunk.start.saturating_sub(1) };
            let end = first.saturating_add(hunk.len).saturating_add(CONTEXT).min(lines);
            first.saturating_sub(CONTEXT).min(end)..end
        })
        .filter(|window| !window.is_empty())
        .collect();
    windows.sort_by_key(|window| window.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for window in windows {
        match merged.last_mut() {
            Some(last) if window.start <= last.end => last.end = last.end.max(window.end),
            _ => merged.push(window),
        }
    }
    merged
}

fn write_windows(text: &mut String, lines: &[&str], windows: &[Range<usize>]) {
    for window in windows {
        if window.start > 0 {
            text.push_str("...\n");
        }
        write_numbered(text, window.clone().map(|index| (index, lines[index])));
        text.push('\n');
    }
    if windows.last().is_some_and(|window| window.end < lines.len()) {
        text.push_str("...\n");
    }
}

/// The reference's windows: from 15 lines before an edit to its length after its first line, where a negative start counts
/// from the file's end as in a Python slice.
fn write_reference(text: &mut String, lines: &[&str], file: Option<&EditedFile>) {
    const CONTEXT: i64 = 15;
    let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
    let bound = |number: usize| i64::try_from(number).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    let index = |position: i64| {
        let position = if position < 0 { (position + count).max(0) } else { position.min(count) };
        usize::try_from(position).unwrap_or_default()
    };
    for hunk in file.map(|file| &file.hunks[..]).unwrap_or_default() {
        let start = bound(hunk.start) - CONTEXT;
        let end = start + bound(hunk.len) + CONTEXT;
        if start > 0 {
            text.push_str("...\n");
        }
        write_numbered(text, (index(start)..index(end)).map(|index| (index, lines[index])));
        text.push('\n');
        if end < count {
            text.push_str("...\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> String {
        (1..=count).map(|line| format!("line {line}\n")).collect()
    }

    /// The numbers of the shown lines of `f`, `0` where some are left out.
    fn shown(content: &str, hunks: &[&str], fidelity: Fidelity) -> Vec<usize> {
        let body = |header: &&str| {
            let old: usize = header.split([' ', ',']).nth(2).unwrap().parse().unwrap();
            format!("@@ {header} @@\n{}+y\n", "-x\n".repeat(old))
        };
        let patch = format!("--- a/f\n+++ b/f\n{}", hunks.iter().map(body).collect::<String>());
        let files = Files::from([("f".to_owned(), content.to_owned())]);
        let text = edits_text(&files, &patch, fidelity);
        let inside = text.strip_prefix("[start of f]").unwrap().strip_suffix("\n[end of f]").unwrap();
        inside
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.split(' ').next().unwrap().parse().unwrap_or(0))
            .collect()
    }

    #[test]
    fn every_edit_has_fifteen_lines_on_both_sides() {
        let with_gaps = |ranges: &[&[usize]]| ranges.concat();
        let range = |from: usize, to: usize| (from..=to).collect::<Vec<_>>();
        let check = |count: usize, hunks: &[&str], expected: &[usize]| {
            assert_eq!(shown(&lines(count), hunks, Fidelity::Mended), expected, "{hunks:?}");
        };
        check(100, &["-40,3 +40,1"], &with_gaps(&[&[0], &range(25, 57), &[0]]));
        // Near the top the reference shows nothing.
        check(100, &["-3,2 +3,1"], &with_gaps(&[&range(1, 19), &[0]]));
        assert_eq!(shown(&lines(100), &["-3,2 +3,1"], Fidelity::Reference), [0]);
        // Near the end; the number after the last line end is the reference's, too.
        check(100, &["-95,2 +95,1"], &with_gaps(&[&[0], &range(80, 101)]));
        // An insertion.
        check(100, &["-40,0 +41,1"], &with_gaps(&[&[0], &range(26, 55), &[0]]));
        check(100, &["-0,0 +1,1"], &with_gaps(&[&range(1, 15), &[0]]));
        // Windows that touch are one, and others are apart.
        check(100, &["-20,1 +20,1", "-51,1 +51,1"], &with_gaps(&[&[0], &range(5, 66), &[0]]));
        check(
            100,
            &["-20,1 +20,1", "-60,1 +60,1"],
            &with_gaps(&[&[0], &range(5, 35), &[0], &range(45, 75), &[0]]),
        );
        // What a patch says about lines that are not there.
        check(10, &["-500,2 +500,1"], &[]);
        check(3, &["-18446744073709551615,0 +1,1"], &[]);
    }

    #[test]
    fn the_references_windows_are_kept_on_request() {
        let range = |from: usize, to: usize| (from..=to).collect::<Vec<_>>();
        let shown = |count, hunks: &[&str]| shown(&lines(count), hunks, Fidelity::Reference);
        // Fifteen before, and one after.
        assert_eq!(shown(100, &["-40,3 +40,1"]), [vec![0], range(26, 43), vec![0]].concat());
        // Python's slice from the end.
        assert_eq!(shown(20, &["-10,6 +10,1"]), [0]);
        assert_eq!(shown(7, &["-10,6 +10,1"]), range(4, 8));
    }

    #[test]
    fn files_are_numbered_with_what_follows_their_last_line_end() {
        assert_eq!(file_text("a.py", "x\ny\n"), "[start of a.py]\n1 x\n2 y\n3 \n[end of a.py]");
        assert_eq!(file_text("a.py", ""), "[start of a.py]\n1 \n[end of a.py]");
        let files = Files::from([("b".into(), "2".into()), ("a".into(), "1".into())]);
        assert_eq!(code_text(&files, false), "[start of a]\n1\n[end of a]\n[start of b]\n2\n[end of b]");
    }
}
