//! The lenient parser: one pass over the lines of an answer that finds every diff in it, wherever it stands.
//!
//! Only what stands at the start of a line counts, so that tags, fences and headers inside of a file's lines, which begin
//! with a blank, `+` or `-`, are what they are: text of the file.

use std::borrow::Cow;
use std::mem::take;

use memchr::{memchr, memmem};

use super::diff::{FileDiff, Hunk, Line, LineKind, parse_hunk_header};
use super::path::{git_names, header_name, header_names};

/// Where in an answer something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Between `<patch>` or `<diff>` and its end.
    Tag(&'a str),
    /// In a fence; the text is the first word after it, such as `diff`.
    Fence(&'a str),
    /// In neither.
    Text,
    /// In search/replace blocks.
    SearchReplace,
    /// In a whole file between `[start of …]` and `[end of …]`.
    WholeFile,
    /// In a fence that holds a whole file.
    FencedFile,
}

impl Place<'_> {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tag(_) => "tag",
            Self::Fence(_) => "fence",
            Self::Text => "text",
            Self::SearchReplace => "search_replace",
            Self::WholeFile => "whole_file",
            Self::FencedFile => "fenced_file",
        }
    }
}

/// A diff of one file.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) diff: FileDiff<'a>,
    pub(super) place: Place<'a>,
    /// Counts tags, fences and stretches of text: diffs of one block belong together.
    pub(super) block: usize,
    /// Whether it stands in a train of thought or in a quotation of the task.
    pub(super) aside: bool,
    /// Whether the answer ends in the middle of it.
    pub(super) cut: bool,
}

/// What a pass has found.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    pub(super) sections: Vec<Section<'a>>,
    /// Whether the answer ends inside of a diff, or before the end of a tag or fence that holds one.
    pub(super) cut: bool,
}

/// Ends of text that models write; what follows one is not meant.
const END_TOKENS: [&str; 7] = [
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_turn>",
];

/// Tags around a train of thought, or around parts of the prompt that are repeated.
const ASIDES: [&str; 8] =
    ["think", "thinking", "thought", "reasoning", "analysis", "scratchpad", "issue", "code"];

/// Lines between `diff --git` and `---`.
const EXTENDED: [&str; 11] = [
    "old mode ",
    "new mode ",
    "deleted file mode ",
    "new file mode ",
    "copy from ",
    "copy to ",
    "rename from ",
    "rename to ",
    "similarity index ",
    "dissimilarity index ",
    "index ",
];

/// Finds the diffs in an answer. Time is linear in its length, whatever it holds.
pub(super) fn scan(answer: &str) -> Scan<'_> {
    let mut text = answer;
    while let Some(rest) = END_TOKENS.iter().find_map(|token| text.trim_end().strip_suffix(token)) {
        text = rest;
    }
    let mut scanner = Scanner {
        text,
        position: 0,
        tag: None,
        fence: None,
        aside: None,
        block: 0,
        prose: false,
        file: None,
        ahead: [[0; 2]; 2],
        next_fence: 0,
        found: Scan::default(),
    };
    while let Some(line) = scanner.next_line() {
        scanner.line(line);
    }
    scanner.finish()
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
    /// The open `<patch>` or `<diff>`.
    tag: Option<&'a str>,
    fence: Option<Fence<'a>>,
    aside: Option<&'a str>,
    block: usize,
    /// Whether text of the answer stands between the last diff and here.
    prose: bool,
    file: Option<OpenFile<'a>>,
    /// Where the next `</patch>` and `<patch>` begin a line, and the same of `diff`, as far as that was looked for.
    ahead: [[usize; 2]; 2],
    /// Where the next fence begins a line, likewise.
    next_fence: usize,
    found: Scan<'a>,
}

#[derive(Clone, Copy)]
struct Fence<'a> {
    mark: u8,
    length: usize,
    language: &'a str,
}

struct OpenFile<'a> {
    section: Section<'a>,
    state: State,
    /// Whether the answer's own lines end in CRLF: then those of the file need not.
    crlf: bool,
    /// Lines before and after the change that the header of the open hunk promises and that have not come yet.
    missing: Option<(i64, i64)>,
    /// Whether the open hunk has a change.
    changed: bool,
    /// Lines that belong to the hunk only if it goes on after them.
    pending: Vec<&'a str>,
    /// Whether one of these is not blank.
    pending_text: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// After `diff --git`.
    Header,
    Hunk,
    Binary,
    /// After something else; a hunk may still follow.
    Between,
}

impl<'a> Scanner<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.position..];
        if rest.is_empty() {
            return None;
        }
        let length = memchr(b'\n', rest.as_bytes());
        self.position += length.map_or(rest.len(), |length| length + 1);
        Some(&rest[..length.unwrap_or(rest.len())])
    }

    /// What follows the line that was read last.
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn line(&mut self, line: &'a str) {
        let consumed = match self.file.as_ref().map(|file| file.state) {
            Some(State::Hunk) => self.hunk_line(line),
            Some(State::Header) => self.header_line(line),
            Some(State::Binary) => self.binary_line(line),
            Some(State::Between) | None => false,
        };
        if !consumed {
            self.outside(line);
        }
    }

    /// A line that is in no hunk and in no header.
    fn outside(&mut self, line: &'a str) {
        let plain = trim_cr(line);
        match plain.as_bytes().first() {
            None => {}
            Some(b'd') if plain.starts_with("diff --git ") => self.open_git(line),
            Some(b'-') if plain.starts_with("--- ") && self.open_plain(line) => {}
            Some(b'+') if plain.starts_with("+++ ") && self.rest().starts_with("@@ -") => {
                self.open(&plain[4..], &plain[4..], line);
            }
            Some(b'@') if self.open_hunk(plain) => {}
            Some(mark @ (b'`' | b'~')) if self.fence(*mark, plain) => {}
            Some(b'<') if self.tag(plain) => {}
            Some(_) => self.prose(plain),
        }
    }

    fn prose(&mut self, line: &str) {
        if line.ends_with('>') && line.len() < 4096 {
            self.end_aside(line);
        }
        self.prose |= self.tag.is_none() && self.fence.is_none();
        if let Some(file) = &mut self.file
            && file.state == State::Header
        {
            file.state = State::Between;
        }
    }

    /// `diff --git a/x b/x`.
    fn open_git(&mut self, line: &'a str) {
        self.close_file();
        let plain = trim_cr(line);
        let (old, new) = git_names(&plain["diff --git ".len()..]).unwrap_or_default();
        self.open_file(old, new, line, State::Header);
    }

    /// `--- a/x`, when `+++ b/x` or a hunk follows.
    fn open_plain(&mut self, line: &'a str) -> bool {
        let old = &trim_cr(line)[4..];
        if self.rest().starts_with("+++ ") {
            let new = self.next_line().map_or("", trim_cr);
            self.open(old, new.get(4..).unwrap_or_default(), line);
        } else if self.rest().starts_with("@@ -") {
            self.open(old, old, line);
        } else {
            return false;
        }
        true
    }

    fn open(&mut self, old: &'a str, new: &'a str, line: &'a str) {
        self.close_file();
        let (old, new) = header_names(old, new);
        self.open_file(old, new, line, State::Between);
    }

    fn open_file(
        &mut self,
        old: Option<Cow<'a, str>>,
        new: Option<Cow<'a, str>>,
        line: &'a str,
        state: State,
    ) {
        if take(&mut self.prose) {
            self.block += 1;
        }
        let place = match (self.tag, self.fence) {
            (Some(tag), _) => Place::Tag(tag),
            (None, Some(fence)) => Place::Fence(fence.language),
            (None, None) => Place::Text,
        };
        let diff = FileDiff {
            old,
            new,
            git_header: state == State::Header,
            extended: Vec::new(),
            hunks: Vec::new(),
            binary: Vec::new(),
        };
        self.file = Some(OpenFile {
            section: Section { diff, place, block: self.block, aside: self.aside.is_some(), cut: false },
            state,
            crlf: line.ends_with('\r'),
            missing: None,
            changed: false,
            pending: Vec::new(),
            pending_text: false,
        });
    }

    fn header_line(&mut self, line: &'a str) -> bool {
        let plain = trim_cr(line);
        let next = self.rest();
        let Some(file) = &mut self.file else { return false };
        let diff = &mut file.section.diff;
        if EXTENDED.iter().any(|start| plain.starts_with(start)) {
            let plain = plain.trim_end();
            if let Some(name) = plain.strip_prefix("rename from ").or(plain.strip_prefix("copy from ")) {
                diff.old = header_name(name);
            }
            if let Some(name) = plain.strip_prefix("rename to ").or(plain.strip_prefix("copy to ")) {
                diff.new = header_name(name);
            }
            if plain.starts_with("new file mode ") {
                diff.old = None;
            }
            if plain.starts_with("deleted file mode ") {
                diff.new = None;
            }
            diff.extended.push(Cow::Borrowed(plain));
            true
        } else if plain.starts_with("--- ") && next.starts_with("+++ ") {
            let new = self.next_line().map_or("", trim_cr);
            if let Some(file) = &mut self.file {
                let (old, new) = header_names(&plain[4..], new.get(4..).unwrap_or_default());
                (file.section.diff.old, file.section.diff.new) = (old, new);
                file.state = State::Between;
            }
            true
        } else if plain == "GIT binary patch" || plain.starts_with("Binary files ") {
            diff.binary.push(plain);
            file.state = State::Binary;
            true
        } else {
            plain.is_empty()
        }
    }

    /// A line of a binary change: `literal 12`, `delta 3`, or base 85.
    fn binary_line(&mut self, line: &'a str) -> bool {
        let plain = trim_cr(line);
        let Some(file) = &mut self.file else { return false };
        let belongs = plain.is_empty()
            || plain.starts_with("literal ")
            || plain.starts_with("delta ")
            || (plain.as_bytes()[0].is_ascii_alphabetic() && plain.len() < 80 && !plain.contains(' '));
        if belongs {
            file.section.diff.binary.push(plain);
        } else {
            file.state = State::Between;
        }
        belongs
    }

    /// `@@ … @@` in a file.
    fn open_hunk(&mut self, line: &'a str) -> bool {
        let Some(file) = &mut self.file else { return false };
        let Some((range, section)) = parse_hunk_header(line) else { return false };
        file.end_hunk();
        file.section.diff.hunks.push(Hunk { header: line.into(), range, section, lines: Vec::new() });
        file.state = State::Hunk;
        file.missing = range.map(|range| (range.old_count.into(), range.new_count.into()));
        file.changed = false;
        true
    }

    /// A line of the open hunk, or the end of it.
    fn hunk_line(&mut self, line: &'a str) -> bool {
        let rest = self.rest();
        let tag = self.tag;
        let Some(file) = &mut self.file else { return false };
        let line = if file.crlf { trim_cr(line) } else { line };
        let kind = match line.as_bytes().first() {
            Some(b' ') => LineKind::Context,
            Some(b'+') => LineKind::Added,
            Some(b'-') if !file.ends_at_dashes(line, rest) => LineKind::Removed,
            Some(b'\\') if line.starts_with("\\ ") => {
                if let Some(last) = file.section.diff.hunks.last_mut().and_then(|hunk| hunk.lines.last_mut())
                {
                    last.no_newline = true;
                }
                return true;
            }
            None | Some(b'\r') if line.len() < 2 && !file.is_complete() => {
                file.pending.push(line);
                return true;
            }
            Some(first) if file.wants_more() && !starts_something(*first, line) => {
                file.pending.push(line);
                file.pending_text = true;
                return true;
            }
            _ => {
                file.end_hunk();
                return false;
            }
        };
        if line.ends_with('>')
            && let Some(before) = tag.and_then(|tag| before_closing(line, tag))
        {
            // The tag ends on the last line of its diff, perhaps after a blank that is nobody's.
            let alone = before.trim().is_empty();
            let more = if alone { file.wants_more() } else { file.wants_more_after(kind) };
            if !more && !self.closes_later() {
                return self.close_tag_after((!alone).then(|| (kind, &before[1..])));
            }
        }
        if line.ends_with("```")
            && self.fence.is_some_and(|fence| fence.mark == b'`')
            && self.file.as_ref().is_some_and(|file| !file.wants_more_after(kind))
            && !self.fence_follows()
        {
            // So does a fence, after the last line that the header promises.
            let text = line[1..].trim_end_matches('`');
            let consumed = self.file.as_mut().is_some_and(|file| file.push(kind, text));
            self.close_fence();
            return consumed;
        }
        let Some(file) = &mut self.file else { return false };
        file.push(kind, &line[1..])
    }

    /// Ends the hunk, with one more line perhaps, and the tag around it.
    fn close_tag_after(&mut self, last: Option<(LineKind, &'a str)>) -> bool {
        let consumed = match (&mut self.file, last) {
            (Some(file), Some((kind, text))) => file.push(kind, text),
            _ => true,
        };
        self.close_tag();
        consumed
    }

    /// Whether the open tag ends at the start of a later line, before another one opens.
    fn closes_later(&mut self) -> bool {
        let Some(tag) = self.tag else { return false };
        let ahead = &mut self.ahead[usize::from(tag == "diff")];
        // What was found once is looked for again only when it is behind: all in all each line is searched once.
        let from = self.position.saturating_sub(1);
        for (place, start) in ahead.iter_mut().zip(["\n</", "\n<"]) {
            if *place < from {
                let found = memmem::find(&self.text.as_bytes()[from..], format!("{start}{tag}>").as_bytes());
                *place = found.map_or(usize::MAX, |at| from + at);
            }
        }
        ahead[0] < ahead[1]
    }

    /// Whether a later line begins with a fence.
    fn fence_follows(&mut self) -> bool {
        let from = self.position.saturating_sub(1);
        if self.next_fence < from {
            let found = memmem::find(&self.text.as_bytes()[from..], b"\n```");
            self.next_fence = found.map_or(usize::MAX, |at| from + at);
        }
        self.next_fence != usize::MAX
    }

    /// A fence at the start of a line: the end of the one that is open, or a new one.
    fn fence(&mut self, mark: u8, line: &'a str) -> bool {
        let length = line.bytes().take_while(|byte| *byte == mark).count();
        if length < 3 {
            return false;
        }
        let info = line[length..].trim();
        match self.fence {
            Some(open) if open.mark != mark || length < open.length => return false,
            // An opening fence where a closing one was forgotten.
            Some(_) if !info.is_empty() => self.open_fence(mark, length, info),
            Some(_) => self.close_fence(),
            // What an opening fence says after its mark has no mark in it.
            None if info.contains('`') => return false,
            None => self.open_fence(mark, length, info),
        }
        true
    }

    fn open_fence(&mut self, mark: u8, length: usize, info: &'a str) {
        self.close_file();
        self.block += 1;
        self.prose = false;
        let language = info.split_whitespace().next().unwrap_or_default();
        self.fence = Some(Fence { mark, length, language });
    }

    fn close_fence(&mut self) {
        self.close_file();
        self.block += 1;
        self.fence = None;
    }

    /// A tag at the start of a line.
    fn tag(&mut self, line: &'a str) -> bool {
        if END_TOKENS.iter().any(|token| line.starts_with(token)) {
            // Nothing after it counts.
            self.position = self.text.len();
            self.close_file();
            self.fence = None;
            self.tag = None;
            return true;
        }
        // Names are short: a line of a million `<` costs one look at its start.
        let head = line.as_bytes().get(..line.len().min(40)).unwrap_or_default();
        let Some(end) = memchr(b'>', head) else { return false };
        let (name, rest) = (&line[1..end], &line[end + 1..]);
        if let Some(name) = name.strip_prefix('/') {
            if self.tag == Some(name) {
                self.close_tag();
                return true;
            }
            return self.end_aside(&line[..=end]);
        }
        if matches!(name, "patch" | "diff") {
            self.close_file();
            self.block += 1;
            self.prose = false;
            self.tag = Some(name);
            self.fence = None;
            self.outside(rest);
            return true;
        }
        if let Some(name) = ASIDES.iter().find(|aside| **aside == name) {
            self.close_file();
            if !rest.trim_end().ends_with(&format!("</{name}>")) {
                self.aside = Some(name);
            }
            return true;
        }
        false
    }

    fn close_tag(&mut self) {
        self.close_file();
        self.block += 1;
        self.tag = None;
        self.fence = None;
    }

    /// Ends the aside whose closing tag ends `line`.
    ///
    /// Some templates open it in the prompt: then all that came before was one.
    fn end_aside(&mut self, line: &str) -> bool {
        let closes = |name: &str| before_closing(line, name).is_some();
        match self.aside {
            Some(name) if closes(name) => {}
            None if closes("think") => {
                self.close_file();
                self.found.sections.iter_mut().for_each(|section| section.aside = true);
            }
            _ => return false,
        }
        self.close_file();
        self.aside = None;
        self.fence = None;
        true
    }

    fn close_file(&mut self) {
        if let Some(mut file) = self.file.take() {
            file.end_hunk();
            while file.section.diff.binary.last().is_some_and(|line| line.is_empty()) {
                file.section.diff.binary.pop();
            }
            file.section.diff.hunks.retain(|hunk| !hunk.lines.is_empty());
            self.found.sections.push(file.section);
        }
    }

    fn finish(mut self) -> Scan<'a> {
        let inside = self.tag.is_some() || self.fence.is_some();
        let block = self.block;
        if let Some(file) = &mut self.file {
            let ends_in_a_line = !self.text.ends_with('\n');
            file.section.cut = file.state == State::Hunk && ends_in_a_line && file.wants_more();
        }
        self.close_file();
        let last = self.found.sections.last();
        self.found.cut = last.is_some_and(|section| section.cut || (inside && section.block == block));
        self.found
    }
}

impl<'a> OpenFile<'a> {
    /// Whether the header of the hunk promises lines that have not come.
    fn wants_more(&self) -> bool {
        self.missing.is_some_and(|(old, new)| old >= 0 && new >= 0 && old + new > 0)
    }

    fn wants_more_after(&self, kind: LineKind) -> bool {
        self.missing.is_some_and(|(old, new)| {
            let (old, new) = (old - i64::from(kind.is_old()), new - i64::from(kind.is_new()));
            old >= 0 && new >= 0 && old + new > 0
        })
    }

    /// Whether the hunk has what its header promises; one without a change cannot be what was meant.
    fn is_complete(&self) -> bool {
        self.missing == Some((0, 0)) && self.changed
    }

    /// Whether a line that starts with `-` ends the hunk: the header of the next file, or a mail's signature.
    fn ends_at_dashes(&self, line: &str, rest: &str) -> bool {
        if !line.starts_with("--") {
            return false;
        }
        let is_header = line.starts_with("--- ") && rest.starts_with("+++ ") && {
            // A hunk may remove `-- a` and add `++ b`, the last two lines that are missing.
            let after = memchr(b'\n', rest.as_bytes()).map_or("", |end| &rest[end + 1..]);
            !self.wants_more() || (after.starts_with("@@ -") && self.missing != Some((1, 1)))
        };
        is_header || (self.is_complete() && matches!(trim_cr(line), "--" | "-- "))
    }

    /// Adds a line, and those that waited for it; `false` when it is no part of the hunk after all.
    fn push(&mut self, kind: LineKind, text: &'a str) -> bool {
        if !self.pending.is_empty() {
            let waiting = self.pending.len() as i64;
            let room = self.missing.is_some_and(|(old, new)| old >= waiting && new >= waiting);
            if self.pending_text && !room {
                self.end_hunk();
                return false;
            }
            self.take_pending(usize::MAX);
        }
        self.push_line(kind, text);
        true
    }

    fn push_line(&mut self, kind: LineKind, text: &'a str) {
        if let Some((old, new)) = &mut self.missing {
            *old -= i64::from(kind.is_old());
            *new -= i64::from(kind.is_new());
        }
        self.changed |= kind != LineKind::Context;
        if let Some(hunk) = self.section.diff.hunks.last_mut() {
            hunk.lines.push(Line::new(kind, text));
        }
    }

    /// Makes the first `count` waiting lines context: blank lines and lines that have lost the blank before them.
    fn take_pending(&mut self, count: usize) {
        let pending = take(&mut self.pending);
        self.pending_text = false;
        for line in pending.into_iter().take(count) {
            self.push_line(LineKind::Context, line);
        }
    }

    /// Ends the open hunk; blank lines at its end belong to it when its header says so.
    fn end_hunk(&mut self) {
        if self.state != State::Hunk {
            return;
        }
        let blank = self.pending.iter().take_while(|line| line.trim().is_empty()).count() as i64;
        let count = self.missing.filter(|(old, new)| old == new && (1..=blank).contains(old));
        self.take_pending(count.map_or(0, |(old, _)| old as usize));
        self.state = State::Between;
    }
}

/// Whether a line in a hunk that is no line of a file opens or ends something.
fn starts_something(first: u8, line: &str) -> bool {
    match first {
        b'@' => line.starts_with("@@"),
        b'd' => line.starts_with("diff "),
        b'I' => line.starts_with("Index: "),
        b'`' => line.starts_with("```"),
        b'~' => line.starts_with("~~~"),
        b'-' => true,
        b'<' => {
            let name = line[1..].trim_start_matches('/');
            let end = name.find(['>', ' ']).unwrap_or(name.len()).min(16);
            let name = name.get(..end).unwrap_or_default();
            END_TOKENS.iter().any(|token| line.starts_with(token))
                || ASIDES.contains(&name)
                || matches!(name, "patch" | "diff")
        }
        _ => false,
    }
}

/// What is before `</name>` at the end of a line.
fn before_closing<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_suffix('>')?.strip_suffix(name)?.strip_suffix("</")
}

fn trim_cr(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
}
