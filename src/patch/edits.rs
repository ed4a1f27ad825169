//! The other forms in which models answer, turned into diffs with the files that they are about.
//!
//! Search/replace blocks, whole files between `[start of …]` and `[end of …]`, and one file in a fence.

use std::borrow::Cow;

use super::compare::{hunks, whole_hunk};
use super::diff::{FileDiff, Hunk, Line, LineKind};
use super::extract::Found;
use super::path::check_name;
use super::repair::{Entry, Tree};
use super::scan::Place;
use crate::error::Result;

/// A change that is no diff.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit<'a> {
    form: Form,
    /// Words near it that may name the file, the likeliest first.
    names: Vec<&'a str>,
    /// What is replaced; empty for whole files.
    search: String,
    /// What comes in its place.
    replace: String,
    /// Whether the answer ends inside of it.
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    SearchReplace,
    WholeFile,
    FencedFile,
}

/// Finds the changes in an answer that has no diff. Time is linear in its length.
pub(super) fn find(answer: &str) -> Vec<Edit<'_>> {
    // What comes before the end of a train of thought or of the repeated code is not the answer.
    let start = ["</think>", "</code>\n"].iter().filter_map(|end| Some(answer.rfind(end)? + end.len())).max();
    let lines: Vec<&str> = answer[start.unwrap_or_default()..].split_inclusive('\n').collect();
    let blocks = search_replace(&lines);
    if !blocks.is_empty() {
        return blocks;
    }
    let files = whole_files(&lines);
    if files.is_empty() { fenced_files(&lines) } else { files }
}

/// Whether the answer was cut inside of one of them.
pub(super) fn is_cut(edits: &[Edit<'_>]) -> bool {
    edits.iter().any(|edit| edit.cut)
}

/// Whether these are more than fences of code, which may show anything.
pub(super) fn need_a_tree(edits: &[Edit<'_>]) -> bool {
    edits.iter().any(|edit| edit.form != Form::FencedFile)
}

/// `<<<<<<< SEARCH`, lines, `=======`, lines, `>>>>>>> REPLACE`.
fn search_replace<'a>(lines: &[&'a str]) -> Vec<Edit<'a>> {
    let mut edits: Vec<Edit<'a>> = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        if !lines[index].starts_with("<<<<<<<") {
            index += 1;
            continue;
        }
        let mut names = names_before(&lines[..index]);
        if names.is_empty()
            && let Some(last) = edits.last()
        {
            names.clone_from(&last.names);
        }
        let (mut search, mut replace, mut middle, mut cut) = (String::new(), String::new(), false, true);
        index += 1;
        while let Some(line) = lines.get(index) {
            index += 1;
            match line {
                line if !middle && line.starts_with("=======") => middle = true,
                line if middle && line.starts_with(">>>>>>>") => {
                    cut = false;
                    break;
                }
                line if middle => replace.push_str(line),
                line => search.push_str(line),
            }
        }
        edits.push(Edit { form: Form::SearchReplace, names, search, replace, cut });
    }
    edits
}

/// `[start of path]`, lines, `[end of path]`.
fn whole_files<'a>(lines: &[&'a str]) -> Vec<Edit<'a>> {
    let name = |line: &'a str, start: &str| line.trim().strip_prefix(start)?.strip_suffix(']');
    let mut edits = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in lines {
        if let Some(path) = name(line, "[start of ") {
            open = Some((path, String::new()));
        } else if let Some(path) = name(line, "[end of ") {
            if let Some((_, replace)) = open.take() {
                edits.push(Edit {
                    form: Form::WholeFile,
                    names: vec![path],
                    search: String::new(),
                    replace,
                    cut: false,
                });
            }
        } else if let Some((_, content)) = &mut open {
            content.push_str(line);
        }
    }
    if let Some((path, replace)) = open {
        edits.push(Edit {
            form: Form::WholeFile,
            names: vec![path],
            search: String::new(),
            replace,
            cut: true,
        });
    }
    edits
}

/// Fences with a name near them: after the mark, in the first line, or in a line before.
fn fenced_files<'a>(lines: &[&'a str]) -> Vec<Edit<'a>> {
    let mut edits = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let opening = lines[index];
        if !opening.starts_with("```") {
            index += 1;
            continue;
        }
        let begin = index + 1;
        let length = lines[begin..].iter().position(|line| line.trim_end() == "```");
        let end = length.map_or(lines.len(), |length| begin + length);
        let content = &lines[begin..end];
        let mut names = words(opening);
        names.extend(
            content.first().filter(|line| line.starts_with(['#', '/'])).map_or(vec![], |line| words(line)),
        );
        names.extend(names_before(&lines[..index]));
        edits.push(Edit {
            form: Form::FencedFile,
            names,
            search: String::new(),
            replace: content.concat(),
            cut: length.is_none(),
        });
        index = end + 1;
    }
    edits
}

/// Words that may be paths in the last lines before a block, nearest line first.
fn names_before<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let near = lines.iter().rev().take(8).filter(|line| !line.trim().is_empty());
    near.take(3).take_while(|line| !line.starts_with(">>>>>>>")).flat_map(|line| words(line)).collect()
}

/// The words of a line that look like paths, without what surrounds them.
fn words(line: &str) -> Vec<&str> {
    line.get(..line.len().min(1000))
        .unwrap_or_default()
        .split(|c: char| {
            c.is_whitespace() || matches!(c, '`' | '*' | '#' | '"' | '\'' | '(' | ')' | ',' | ':' | '=')
        })
        .map(|word| word.trim_end_matches('.').trim_start_matches("./"))
        .filter(|word| word.contains(['.', '/']) && word.len() > 2)
        .collect()
}

/// Turns the changes into diffs of the tree's files; those that fit no file are left out.
///
/// # Errors
/// Those of `tree`.
pub(super) fn to_diffs(edits: &[Edit<'_>], tree: &dyn Tree) -> Result<Vec<Found<'static>>> {
    let mut found: Vec<Found<'static>> = Vec::new();
    for edit in edits {
        let Some((path, content)) = file_of(edit, tree)? else { continue };
        let (hunks, place) = match edit.form {
            Form::SearchReplace if content.is_some() => {
                (vec![whole_hunk(&edit.search, &edit.replace)], Place::SearchReplace)
            }
            Form::SearchReplace => (vec![all_added(&edit.replace)], Place::SearchReplace),
            Form::WholeFile | Form::FencedFile => {
                let place = if edit.form == Form::WholeFile { Place::WholeFile } else { Place::FencedFile };
                match &content {
                    Some(content) => match std::str::from_utf8(content) {
                        Ok(old) => (rewritten(old, &edit.replace, edit.form), place),
                        Err(_) => continue,
                    },
                    None => (vec![all_added(&edit.replace)], place),
                }
            }
        };
        let old = content.map(|_| Cow::Owned(path.clone()));
        match found.iter_mut().find(|found| found.diff.path() == path) {
            Some(known) => known.diff.hunks.extend(hunks),
            None => {
                let new = Some(Cow::Owned(path));
                let (extended, binary) = (Vec::new(), Vec::new());
                found.push(Found {
                    diff: FileDiff { old, new, git_header: false, extended, hunks, binary },
                    place,
                });
            }
        }
    }
    found.retain(|found| found.diff.has_changes());
    Ok(found)
}

/// The file that an edit is about, with its content, or with none when it is new.
fn file_of(edit: &Edit<'_>, tree: &dyn Tree) -> Result<Option<(String, Option<Vec<u8>>)>> {
    let names = || {
        // The format's own example has its paths start with a slash.
        edit.names.iter().map(|name| name.trim_start_matches('/')).filter(|name| check_name(name).is_ok())
    };
    for name in names() {
        if let Entry::File(content) = tree.look_up(name)? {
            return Ok(Some((name.to_owned(), Some(content))));
        }
    }
    let may_be_new = match edit.form {
        Form::SearchReplace => edit.search.trim().is_empty(),
        Form::WholeFile => true,
        Form::FencedFile => false,
    };
    match names().next() {
        Some(name) if may_be_new && tree.look_up(name)? == Entry::Missing => {
            Ok(Some((name.to_owned(), None)))
        }
        _ => Ok(None),
    }
}

/// The hunks that turn a file into its new text, which has the file's line endings and ends as it did.
///
/// A fence that keeps less than half of the file's lines shows a part of it, and no hunk can be made of that.
fn rewritten(old: &str, new: &str, form: Form) -> Vec<Hunk<'static>> {
    let mut new = match old.contains("\r\n") && !new.contains('\r') {
        true => Cow::Owned(new.replace('\n', "\r\n")),
        false => Cow::Borrowed(new),
    };
    if !old.is_empty() && old.ends_with('\n') != new.ends_with('\n') {
        let text = new.to_mut();
        if old.ends_with('\n') {
            text.push('\n');
        } else {
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
        }
    }
    let hunks = hunks(old, &new);
    let removed: usize =
        hunks.iter().flat_map(|hunk| &hunk.lines).filter(|line| line.kind == LineKind::Removed).count();
    if form == Form::FencedFile && removed * 2 > old.lines().count() { Vec::new() } else { hunks }
}

fn all_added(text: &str) -> Hunk<'static> {
    let lines = text.lines().map(|line| Line::new(LineKind::Added, line.to_owned())).collect();
    let mut hunk = Hunk { header: "".into(), range: None, section: "", lines };
    let (_, new_count) = hunk.counts();
    hunk.set_range(super::diff::Range { old_start: 0, old_count: 0, new_start: 1, new_count });
    hunk
}
