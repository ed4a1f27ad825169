//! Making a patch fit: counts that are right, and, given the tree, hunks where their lines are.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;

use super::diff::{FileDiff, Hunk, Line, LineKind, Range};
use super::extract::Refusal;
use super::locate::{FileLines, Likeness, Placement};
use super::path::Unsafe;
use crate::error::Result;

/// Lines of context that are added where a hunk has none after its changes, and the file goes on: git then takes it for
/// the end of the file.
const ADDED_CONTEXT: usize = 3;

/// What a path is in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file and its content.
    File(Vec<u8>),
    /// A symbolic link.
    Link,
    /// A directory or a submodule.
    Directory,
    /// Nothing.
    Missing,
}

/// The files that a patch is meant for.
pub trait Tree {
    /// What `path`, relative to the root, is in the tree.
    fn look_up(&self, path: &str) -> Result<Entry>;
}

/// What becomes of hunks whose lines are not in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplaced {
    /// They stay as they are, and the patch does not apply.
    Keep,
    /// They are left out.
    Drop,
}

/// Something that repairing a patch changed, or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The file.
    pub path: String,
    /// The hunk, counted from 1 in the patch as it was; 0 for the file as a whole.
    pub hunk: usize,
    /// What was done.
    #[serde(flatten)]
    pub what: What,
}

/// What was done to a hunk or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum What {
    /// The numbers in the header did not fit its lines.
    Recounted,
    /// The lines are elsewhere in the file.
    Moved {
        /// By how many lines, downwards.
        lines: i64,
    },
    /// Context and removed lines differed from the file's in white space and blank lines, and are the file's now.
    Whitespace,
    /// Some context or removed lines were merely like the file's, and are the file's now, or are left out.
    Fuzzy,
    /// Added lines are indented as the lines around them.
    Reindented,
    /// Added lines end as the file's lines do.
    LineEndings,
    /// The file's own lines follow as context.
    ContextAdded,
    /// It begins with context that the hunk before has already, which is left out.
    OverlapRemoved,
    /// The file is not in the tree, and all lines are additions: it is a new file.
    NewFile,
    /// The lines are nowhere in the file, or in several places.
    NotFound,
    /// The lines that they would become are not UTF-8.
    NotText,
    /// The file is not in the tree.
    NoSuchFile,
    /// The file is in the tree already.
    FileExists,
}

/// Makes the numbers of all hunks fit their lines; the starts before the changes are believed.
pub fn recount(files: &mut [FileDiff<'_>]) -> Vec<Change> {
    let mut changes = Vec::new();
    for file in files {
        let before: Vec<_> = file.hunks.iter().map(|hunk| hunk.range).collect();
        renumber(file);
        for (index, (hunk, before)) in file.hunks.iter().zip(before).enumerate() {
            if hunk.range != before {
                changes.push(Change { path: file.path().to_owned(), hunk: index + 1, what: What::Recounted });
            }
        }
    }
    changes
}

/// Makes a patch fit a tree: moves hunks to their lines, takes context and removed lines from the file, recounts.
///
/// Never invents a line: what is added is what the patch adds, up to its indentation and line ending. Diffs that go through a
/// symbolic link are left out and returned as refusals.
///
/// # Errors
/// Those of `tree`.
pub fn repair<'a>(
    files: &mut Vec<FileDiff<'a>>,
    tree: &dyn Tree,
    unplaced: Unplaced,
) -> Result<(Vec<Change>, Vec<Refusal>)> {
    let mut changes = Vec::new();
    let mut refusals = Vec::new();
    let mut kept = Vec::with_capacity(files.len());
    for mut file in files.drain(..) {
        if let Some(path) = linked(&file, tree)? {
            refusals.push(Refusal { path, reason: Unsafe::SymbolicLink });
            continue;
        }
        repair_file(&mut file, tree, unplaced, &mut changes)?;
        if file.has_changes() {
            kept.push(file);
        }
    }
    *files = kept;
    Ok((changes, refusals))
}

/// The name of the file, if it or a directory above it is a symbolic link.
pub(super) fn linked(file: &FileDiff<'_>, tree: &dyn Tree) -> Result<Option<String>> {
    for name in [&file.old, &file.new].into_iter().flatten() {
        let ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        for end in ends {
            match tree.look_up(&name[..end])? {
                Entry::Link => return Ok(Some(name.to_string())),
                // Nothing is below what is not there.
                Entry::Missing => break,
                Entry::File(_) | Entry::Directory => {}
            }
        }
    }
    Ok(None)
}

fn repair_file(
    file: &mut FileDiff<'_>,
    tree: &dyn Tree,
    unplaced: Unplaced,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let path = file.path().to_owned();
    let mut note = |hunk: usize, what: What| changes.push(Change { path: path.clone(), hunk, what });
    let content = match &file.old {
        Some(old) => tree.look_up(old)?,
        None => {
            if tree.look_up(&path)? != Entry::Missing {
                note(0, What::FileExists);
            }
            Entry::Missing
        }
    };
    let before: Vec<_> = file.hunks.iter().map(|hunk| hunk.range).collect();
    // The hunks' numbers in the patch as it was, in the order in which they are now.
    let mut order: Vec<usize> = (0..file.hunks.len()).collect();
    match content {
        Entry::File(content) => {
            let placed = place_hunks(file, &content, &mut note);
            let declared =
                |index: &usize| before[*index].map_or(usize::MAX, |range| range.old_start as usize);
            order.sort_by_key(|index| placed[*index].unwrap_or_else(|| declared(index)));
            order.retain(|index| unplaced == Unplaced::Keep || placed[*index].is_some());
            let mut hunks: Vec<Option<Hunk<'_>>> = file.hunks.drain(..).map(Some).collect();
            file.hunks = order.iter().filter_map(|index| hunks[*index].take()).collect();
            drop_overlaps(&mut file.hunks, &order, &mut note);
            // Of a hunk of blank lines, or of context that stands in the one before, nothing may be left.
            let mut left = file.hunks.iter().map(|hunk| !hunk.lines.is_empty());
            order.retain(|_| left.next().unwrap_or(false));
            file.hunks.retain(|hunk| !hunk.lines.is_empty());
        }
        _ if file.old.is_some() => {
            let only_adds = |hunk: &Hunk<'_>| hunk.lines.iter().all(|line| line.kind == LineKind::Added);
            if file.old == file.new && !file.hunks.is_empty() && file.hunks.iter().all(only_adds) {
                file.old = None;
                note(0, What::NewFile);
            } else {
                note(0, What::NoSuchFile);
            }
        }
        _ => {}
    }
    renumber(file);
    for (hunk, index) in file.hunks.iter().zip(order) {
        let counts = |range: Range| (range.old_count, range.new_count);
        if before[index].map(counts) != hunk.range.map(counts) {
            note(index + 1, What::Recounted);
        }
    }
    Ok(())
}

/// Places each hunk in the file, and says where: the first old line, from 0; `None` where it fits nowhere.
fn place_hunks(
    file: &mut FileDiff<'_>,
    content: &[u8],
    note: &mut impl FnMut(usize, What),
) -> Vec<Option<usize>> {
    let mut lines = FileLines::new(content);
    let mut drift = 0_i64;
    let mut starts = Vec::with_capacity(file.hunks.len());
    for (index, hunk) in file.hunks.iter_mut().enumerate() {
        let number = index + 1;
        // A count of zero puts the start on the line before.
        let declared = hunk.range.map(|range| {
            (range.old_start as usize)
                .saturating_sub(usize::from(range.old_count > 0 || range.old_start == 0))
        });
        let expected = declared.map(|line| line.saturating_add_signed(drift as isize));
        let insertion = hunk.lines.iter().all(|line| line.kind == LineKind::Added);
        let start = match lines.find(hunk, expected) {
            Some(placement) => {
                if let Some(declared) = declared {
                    let moved = placement.start as i64 - declared as i64;
                    if moved != 0 {
                        note(number, What::Moved { lines: moved });
                        drift = moved;
                    }
                }
                let (likeness, start) = (placement.likeness, placement.start);
                match likeness {
                    Likeness::Exact => {}
                    Likeness::Whitespace => note(number, What::Whitespace),
                    Likeness::Fuzzy => note(number, What::Fuzzy),
                }
                if rebuild(hunk, &placement, &lines, &mut |what| note(number, what)).is_none() {
                    note(number, What::NotText);
                    starts.push(None);
                    continue;
                }
                start
            }
            None if insertion && declared.is_some_and(|line| line <= lines.lines.len()) => {
                declared.unwrap_or_default()
            }
            None => {
                note(number, What::NotFound);
                starts.push(None);
                continue;
            }
        };
        if adapt_line_endings(hunk, &lines) {
            note(number, What::LineEndings);
        }
        if add_context(hunk, start, &lines) {
            note(number, What::ContextAdded);
        }
        let (old_count, new_count) = hunk.counts();
        let first = start as u32 + u32::from(old_count > 0);
        hunk.set_range(Range { old_start: first, old_count, new_start: first, new_count });
        starts.push(Some(start));
    }
    starts
}

/// Takes the old lines of a placed hunk from the file; `None`, and the hunk as it was, when one of these is no UTF-8.
fn rebuild(
    hunk: &mut Hunk<'_>,
    placement: &Placement,
    file: &FileLines<'_>,
    note: &mut dyn FnMut(What),
) -> Option<()> {
    let mut rebuilt: Vec<Line<'_>> = Vec::with_capacity(hunk.lines.len());
    let old_line = |kind: LineKind, line: usize| {
        let no_newline = line + 1 == file.lines.len() && !file.ends_in_newline;
        let text = String::from_utf8(file.lines[line].to_vec()).ok()?;
        Some(Line { kind, text: Cow::Owned(text), no_newline })
    };
    let mut next = placement.start;
    for (line, place) in hunk.lines.iter().zip(&placement.lines) {
        match place {
            Some(place) => {
                for skipped in next..*place {
                    rebuilt.push(old_line(LineKind::Context, skipped)?);
                }
                let mut old = old_line(line.kind, *place)?;
                if old.text == line.text {
                    old.text.clone_from(&line.text);
                }
                rebuilt.push(old);
                next = place + 1;
            }
            None if line.kind == LineKind::Added => rebuilt.push(line.clone()),
            None => {}
        }
    }
    let pairs = hunk.lines.iter().zip(&placement.lines).filter_map(|(line, place)| {
        let old = std::str::from_utf8(file.lines[(*place)?]).ok()?;
        (!old.trim().is_empty()).then_some((line.text.as_ref(), old))
    });
    let indents = Indents::new(pairs);
    if indents.as_ref().is_some_and(|indents| indents.apply(&mut rebuilt)) {
        note(What::Reindented);
    }
    drop(indents);
    hunk.lines = rebuilt.into_iter().map(Line::into_owned).collect();
    Some(())
}

/// Makes added lines end as the file's lines do, if those all end alike.
fn adapt_line_endings(hunk: &mut Hunk<'_>, file: &FileLines<'_>) -> bool {
    let with_cr = file.lines.iter().filter(|line| line.ends_with(b"\r")).count();
    let mut changed = false;
    for line in hunk.lines.iter_mut().filter(|line| line.kind == LineKind::Added) {
        if with_cr == file.lines.len() && with_cr > 0 && !line.text.ends_with('\r') {
            line.text.to_mut().push('\r');
            changed = true;
        } else if with_cr == 0 && !file.lines.is_empty() && line.text.ends_with('\r') {
            line.text.to_mut().pop();
            changed = true;
        }
    }
    changed
}

/// What the patch's indentations are in the file.
struct Indents<'p>(HashMap<&'p str, &'p str>);

impl<'p> Indents<'p> {
    /// Learns from pairs of lines; `None` when all are equal, or when one indentation stands for two.
    fn new(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Option<Self> {
        let mut known = HashMap::new();
        for (ours, theirs) in pairs {
            if *known.entry(indent(ours)).or_insert(indent(theirs)) != indent(theirs) {
                return None;
            }
        }
        known.iter().any(|(ours, theirs)| ours != theirs).then_some(Self(known))
    }

    /// Indents the added lines as the file would, all of them or none.
    fn apply(&self, lines: &mut [Line<'_>]) -> bool {
        let is_added = |line: &&mut Line<'_>| line.kind == LineKind::Added && !line.text.trim().is_empty();
        let indented: Option<Vec<String>> =
            lines.iter_mut().filter(is_added).map(|line| self.indented(&line.text)).collect();
        let Some(indented) = indented else { return false };
        let mut changed = false;
        for (line, text) in lines.iter_mut().filter(is_added).zip(indented) {
            changed |= line.text != text;
            line.text = Cow::Owned(text);
        }
        changed
    }

    /// The line with the file's indentation: that of the nearest known one, and the difference to it.
    fn indented(&self, line: &str) -> Option<String> {
        let ours = indent(line);
        let text = &line[ours.len()..];
        let nearest =
            self.0.iter().filter(|(known, _)| ours.starts_with(**known)).max_by_key(|(known, _)| known.len());
        if let Some((known, theirs)) = nearest {
            return Some(format!("{theirs}{}{text}", &ours[known.len()..]));
        }
        let (known, theirs) = self
            .0
            .iter()
            .filter(|(known, _)| known.starts_with(ours))
            .min_by_key(|(known, _)| known.len())?;
        let less = theirs.strip_suffix(&known[ours.len()..])?;
        Some(format!("{less}{text}"))
    }
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// Gives a hunk that ends in a change the file's next lines as context, where there are any.
fn add_context(hunk: &mut Hunk<'_>, start: usize, file: &FileLines<'_>) -> bool {
    if hunk.lines.last().is_some_and(|line| line.kind == LineKind::Context) {
        return false;
    }
    let (old_count, _) = hunk.counts();
    let end = start + old_count as usize;
    let following = file.lines.get(end..).unwrap_or_default();
    let mut added = false;
    for (index, text) in following.iter().take(ADDED_CONTEXT).enumerate() {
        let Ok(text) = std::str::from_utf8(text) else { break };
        let no_newline = end + index + 1 == file.lines.len() && !file.ends_in_newline;
        hunk.lines.push(Line { kind: LineKind::Context, text: Cow::Owned(text.to_owned()), no_newline });
        added = true;
    }
    added
}

/// Context that two hunks share stays with the first: git refuses to match a line twice.
fn drop_overlaps(hunks: &mut [Hunk<'_>], order: &[usize], note: &mut impl FnMut(usize, What)) {
    for index in 1..hunks.len() {
        let (before, after) = hunks.split_at_mut(index);
        let (previous, hunk) = (&mut before[index - 1], &mut after[0]);
        let (Some(last), Some(range)) = (previous.range, hunk.range) else { continue };
        let overlap = (last.old_start + last.old_count).saturating_sub(range.old_start) as usize;
        let context = hunk.lines.iter().take_while(|line| line.kind == LineKind::Context).count();
        if overlap == 0 || last.old_count == 0 || overlap > context {
            continue;
        }
        hunk.lines.drain(..overlap);
        let (old_count, new_count) = hunk.counts();
        let old_start = range.old_start + overlap as u32;
        hunk.set_range(Range { old_start, old_count, new_start: old_start, new_count });
        note(order[index] + 1, What::OverlapRemoved);
    }
}

/// Gives each hunk the counts of its lines, and the start after the change that follows from the hunks before it.
fn renumber(file: &mut FileDiff<'_>) {
    let is_new = file.old.is_none();
    let mut delta = 0_i64;
    let mut end = 1;
    for hunk in &mut file.hunks {
        let (old_count, new_count) = hunk.counts();
        // A hunk without numbers comes after the one before. git looks for its lines in the whole file unless they are
        // said to be the first ones.
        let old_start = match hunk.range {
            _ if is_new => 0,
            Some(range) if range.old_count == 0 && old_count > 0 => range.old_start + 1,
            Some(range) if range.old_count > 0 && old_count == 0 => range.old_start.saturating_sub(1),
            Some(range) => range.old_start,
            None => end + 1,
        };
        let first = i64::from(old_start) + i64::from(old_count == 0);
        let new_start = first + delta - i64::from(new_count == 0);
        let new_start = u32::try_from(new_start.max(0)).unwrap_or(u32::MAX);
        hunk.set_range(Range { old_start, old_count, new_start, new_count });
        delta += i64::from(new_count) - i64::from(old_count);
        end = old_start.saturating_add(old_count);
    }
}
