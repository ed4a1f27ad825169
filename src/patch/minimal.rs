//! The smallest patch that git still applies: each hunk cut to its changes and one line of context after them.

use super::diff::{FileDiff, LineKind, Range};

/// Cuts the context of all hunks and recounts them.
///
/// One line after the last change stays: without it git takes the changes for the end of the file. Where none follows, one
/// before the first change stays if nothing else says where additions go.
pub fn minimize(files: &mut [FileDiff<'_>]) {
    for hunk in files.iter_mut().flat_map(|file| &mut file.hunks) {
        let is_change = |line: &super::diff::Line<'_>| line.kind != LineKind::Context;
        let (Some(first), Some(last)) =
            (hunk.lines.iter().position(is_change), hunk.lines.iter().rposition(is_change))
        else {
            continue;
        };
        let end = (last + 2).min(hunk.lines.len());
        let has_anchor = hunk.lines[first..end].iter().any(|line| line.kind.is_old());
        let begin = if has_anchor { first } else { first.saturating_sub(1) };
        hunk.lines.truncate(end);
        hunk.lines.drain(..begin);
        let (old_count, new_count) = hunk.counts();
        if let Some(range) = hunk.range {
            let start = |start: u32, count: u32, declared: u32| {
                let first = start + u32::from(declared == 0) + begin as u32;
                first.saturating_sub(u32::from(count == 0))
            };
            hunk.set_range(Range {
                old_start: start(range.old_start, old_count, range.old_count),
                old_count,
                new_start: start(range.new_start, new_count, range.new_count),
                new_count,
            });
        }
    }
}
