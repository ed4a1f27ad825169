//! Finding the lines of a hunk in a file: exactly, then without regard to white space, then by a unique likeness.

use std::collections::HashMap;
use std::ops::Range;

use super::diff::{Hunk, LineKind};

/// How alike the lines of a hunk and those of the file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Likeness {
    /// Equal.
    Exact,
    /// Equal but for white space and blank lines.
    Whitespace,
    /// Most are equal, and no other place is nearly as good.
    Fuzzy,
}

/// Where the lines of a hunk are in the file.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) likeness: Likeness,
    /// Per line of the hunk, its line in the file, from 0; `None` for added lines and for context that the file lacks.
    pub(super) lines: Vec<Option<usize>>,
    /// The file's line before which the hunk begins.
    pub(super) start: usize,
}

/// A file's lines, prepared for searching.
pub(super) struct FileLines<'a> {
    /// Lines without their newlines.
    pub(super) lines: Vec<&'a [u8]>,
    /// Whether the last line has a newline.
    pub(super) ends_in_newline: bool,
    exact: Interned<'a>,
    /// The lines that are not blank, by number.
    significant: Vec<usize>,
    /// These without their white space.
    loose: Interned<'a>,
    /// Line comparisons that may still be made for this file: what keeps hostile patches from taking for ever.
    budget: u64,
}

/// Lines as numbers: equal lines have equal numbers.
struct Interned<'a> {
    numbers: HashMap<std::borrow::Cow<'a, [u8]>, u32>,
    lines: Vec<u32>,
}

/// No line of the file.
const ABSENT: u32 = u32::MAX;

impl<'a> Interned<'a> {
    fn new(lines: impl Iterator<Item = std::borrow::Cow<'a, [u8]>>) -> Self {
        let mut numbers = HashMap::new();
        let lines = lines
            .map(|line| {
                let next = numbers.len() as u32;
                *numbers.entry(line).or_insert(next)
            })
            .collect();
        Self { numbers, lines }
    }

    fn number(&self, line: &[u8]) -> u32 {
        self.numbers.get(line).copied().unwrap_or(ABSENT)
    }
}

impl<'a> FileLines<'a> {
    const BUDGET: u64 = 100_000_000;

    pub(super) fn new(content: &'a [u8]) -> Self {
        let ends_in_newline = content.is_empty() || content.ends_with(b"\n");
        let body = content.strip_suffix(b"\n").unwrap_or(content);
        let lines: Vec<&[u8]> =
            if content.is_empty() { Vec::new() } else { body.split(|byte| *byte == b'\n').collect() };
        let significant: Vec<usize> =
            (0..lines.len()).filter(|index| !lines[*index].trim_ascii().is_empty()).collect();
        let loose = Interned::new(significant.iter().map(|index| without_blanks(lines[*index]).into()));
        let exact = Interned::new(lines.iter().map(|line| (*line).into()));
        Self { lines, ends_in_newline, exact, significant, loose, budget: Self::BUDGET }
    }

    /// Finds the old lines of `hunk`, nearest to line `expected` (from 0) where several places fit equally.
    ///
    /// Without an expectation a place has to be the only one.
    pub(super) fn find(&mut self, hunk: &Hunk<'_>, expected: Option<usize>) -> Option<Placement> {
        let old: Vec<usize> =
            (0..hunk.lines.len()).filter(|index| hunk.lines[*index].kind.is_old()).collect();
        if old.is_empty() {
            return None;
        }
        self.find_exact(hunk, &old, expected)
            .or_else(|| self.find_loose(hunk, &old, expected))
            .or_else(|| self.find_without_outer_context(hunk, &old))
            .or_else(|| self.find_like(hunk, &old))
    }

    fn find_exact(&mut self, hunk: &Hunk<'_>, old: &[usize], expected: Option<usize>) -> Option<Placement> {
        let pattern: Vec<u32> =
            old.iter().map(|index| self.exact.number(hunk.lines[*index].text.as_bytes())).collect();
        self.spend(self.lines.len())?;
        let start = nearest(&occurrences(&pattern, &self.exact.lines), expected)?;
        let mut lines = vec![None; hunk.lines.len()];
        for (offset, index) in old.iter().enumerate() {
            lines[*index] = Some(start + offset);
        }
        Some(Placement { likeness: Likeness::Exact, lines, start })
    }

    fn find_loose(&mut self, hunk: &Hunk<'_>, old: &[usize], expected: Option<usize>) -> Option<Placement> {
        let (wanted, pattern) = self.significant_lines(hunk, old);
        let expected = expected.map(|line| self.significant.partition_point(|index| *index < line));
        self.spend(self.significant.len())?;
        let start = nearest(&occurrences(&pattern, &self.loose.lines), expected)?;
        self.align(hunk, &wanted, start, Likeness::Whitespace)
    }

    /// Leaves out lines of context at the hunk's ends, as few as possible; the place has to be the only one.
    fn find_without_outer_context(&mut self, hunk: &Hunk<'_>, old: &[usize]) -> Option<Placement> {
        const MOST: usize = 6;
        let (wanted, pattern) = self.significant_lines(hunk, old);
        let is_change = |index: &usize| hunk.lines[*index].kind == LineKind::Removed;
        // Context between changes stays; what may go is before the first change and after the last.
        let first_change = hunk.lines.iter().position(|line| line.kind != LineKind::Context)?;
        let last_change = hunk.lines.iter().rposition(|line| line.kind != LineKind::Context)?;
        let leading = wanted.iter().take_while(|index| **index < first_change).count().min(MOST);
        let trailing = wanted.iter().rev().take_while(|index| **index > last_change).count().min(MOST);
        let mut cuts: Vec<(usize, usize)> = (0..=leading)
            .flat_map(|before| (0..=trailing).map(move |after| (before, after)))
            .filter(|(before, after)| before + after > 0)
            .collect();
        cuts.sort_by_key(|(before, after)| before + after);
        for (before, after) in cuts {
            let kept = before..wanted.len() - after;
            // One line of context says too little.
            if kept.len() < 2 && !wanted[kept.clone()].iter().any(is_change) {
                continue;
            }
            self.spend(self.significant.len())?;
            if let [start] = occurrences(&pattern[kept.clone()], &self.loose.lines)[..] {
                return self.align(hunk, &wanted[kept], start, Likeness::Fuzzy);
            }
        }
        None
    }

    /// The place where most lines are equal and all others alike, when there is no second one nearly as good.
    fn find_like(&mut self, hunk: &Hunk<'_>, old: &[usize]) -> Option<Placement> {
        let (wanted, pattern) = self.significant_lines(hunk, old);
        if wanted.len() < 3 || wanted.len() > self.significant.len() {
            return None;
        }
        let mut places: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, number) in self.loose.lines.iter().enumerate() {
            places.entry(*number).or_default().push(index);
        }
        let mut equal = vec![0_usize; self.significant.len()];
        for (offset, number) in pattern.iter().enumerate() {
            let places = places.get(number).map(Vec::as_slice).unwrap_or_default();
            self.spend(places.len())?;
            places.iter().filter(|place| **place >= offset).for_each(|place| equal[place - offset] += 1);
        }
        let fits = self.significant.len() - wanted.len() + 1;
        let mut starts: Vec<usize> = (0..fits).filter(|start| equal[*start] * 2 >= wanted.len()).collect();
        starts.sort_by_key(|start| std::cmp::Reverse(equal[*start]));
        starts.truncate(8);
        let mut best: Vec<(usize, f64)> = Vec::new();
        for start in starts {
            let mut total = 0.0;
            for (offset, index) in wanted.iter().enumerate() {
                let line = &hunk.lines[*index];
                let alike = if pattern[offset] == self.loose.lines[start + offset] {
                    1.0
                } else {
                    likeness(line.text.as_bytes(), self.lines[self.significant[start + offset]])
                };
                // What is removed has to be recognised.
                total +=
                    if line.kind == LineKind::Removed && alike < 0.6 { f64::NEG_INFINITY } else { alike };
            }
            best.push((start, total / wanted.len() as f64));
        }
        best.sort_by(|left, right| right.1.total_cmp(&left.1));
        match best[..] {
            [(start, score), ref others @ ..]
                if score >= 0.75 && others.first().is_none_or(|(_, other)| *other < score - 0.1) =>
            {
                self.align(hunk, &wanted, start, Likeness::Fuzzy)
            }
            _ => None,
        }
    }

    /// The old lines that are not blank: their places in the hunk, and their numbers in the file.
    fn significant_lines(&self, hunk: &Hunk<'_>, old: &[usize]) -> (Vec<usize>, Vec<u32>) {
        let wanted: Vec<usize> =
            old.iter().copied().filter(|index| !hunk.lines[*index].text.trim().is_empty()).collect();
        let number = |index: &usize| self.loose.number(&without_blanks(hunk.lines[*index].text.as_bytes()));
        let pattern = wanted.iter().map(number).collect();
        (wanted, pattern)
    }

    /// Pairs the hunk's lines with the file's, given that those of `wanted` are the significant ones from `start` on.
    ///
    /// Blank lines pair with blank lines beside them; `None` when a blank line is to be removed that is not there.
    fn align(
        &self,
        hunk: &Hunk<'_>,
        wanted: &[usize],
        start: usize,
        likeness: Likeness,
    ) -> Option<Placement> {
        let mut lines = vec![None; hunk.lines.len()];
        for (offset, index) in wanted.iter().enumerate() {
            lines[*index] = Some(self.significant[start + offset]);
        }
        let (first, last) = (*wanted.first()?, *wanted.last()?);
        let is_free =
            |index: usize| hunk.lines[index].kind.is_old() && hunk.lines[index].text.trim().is_empty();
        // Before the first pair, backwards.
        let mut before = self.significant[start];
        for index in (0..first).rev().filter(|index| is_free(*index)) {
            if before > 0 && self.is_blank(before - 1) {
                before -= 1;
                lines[index] = Some(before);
            }
        }
        let mut next = before;
        for index in first..hunk.lines.len() {
            match lines[index] {
                Some(line) => next = line + 1,
                None if is_free(index)
                    && self.is_blank(next)
                    && (index < last || next < self.lines.len()) =>
                {
                    lines[index] = Some(next);
                    next += 1;
                }
                None => {}
            }
        }
        let removes_nothing = |(index, line): (usize, &Option<usize>)| {
            line.is_none() && hunk.lines[index].kind == LineKind::Removed
        };
        if lines.iter().enumerate().any(removes_nothing) {
            return None;
        }
        Some(Placement { likeness, lines, start: before })
    }

    fn is_blank(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| line.trim_ascii().is_empty())
    }

    fn spend(&mut self, comparisons: usize) -> Option<()> {
        self.budget = self.budget.checked_sub(comparisons as u64 + 1)?;
        Some(())
    }
}

fn without_blanks(line: &[u8]) -> Vec<u8> {
    line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

/// Where `pattern` occurs in `text`, in linear time (Knuth, Morris, Pratt).
fn occurrences(pattern: &[u32], text: &[u32]) -> Vec<usize> {
    if pattern.is_empty() || pattern.len() > text.len() || pattern.contains(&ABSENT) {
        return Vec::new();
    }
    // For each prefix, the length of its longest proper prefix that is a suffix, too.
    let mut borders = vec![0; pattern.len()];
    let extend = |borders: &[usize], mut length: usize, next: u32| {
        while length > 0 && (length == pattern.len() || pattern[length] != next) {
            length = borders[length - 1];
        }
        length + usize::from(pattern[length] == next)
    };
    for index in 1..pattern.len() {
        borders[index] = extend(&borders, borders[index - 1], pattern[index]);
    }
    let mut found = Vec::new();
    let mut length = 0;
    for (index, number) in text.iter().enumerate() {
        length = extend(&borders, length, *number);
        if length == pattern.len() {
            found.push(index + 1 - length);
        }
    }
    found
}

/// The one place, or that nearest to what was expected.
fn nearest(places: &[usize], expected: Option<usize>) -> Option<usize> {
    match (places, expected) {
        ([place], _) => Some(*place),
        (_, Some(expected)) => places.iter().copied().min_by_key(|place| place.abs_diff(expected)),
        _ => None,
    }
}

/// The share of two lines that is equal at their starts and ends, white space aside.
fn likeness(left: &[u8], right: &[u8]) -> f64 {
    let (left, right) = (without_blanks(left), without_blanks(right));
    let longest = left.len().max(right.len());
    let shortest = left.len().min(right.len());
    let start = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    let rest: Range<usize> = 0..shortest - start;
    let end = rest.take_while(|back| left[left.len() - 1 - back] == right[right.len() - 1 - back]).count();
    if longest == 0 { 1.0 } else { (start + end) as f64 / longest as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_found() {
        #[track_caller]
        fn check(pattern: &[u32], text: &[u32], expected: &[usize]) {
            assert_eq!(occurrences(pattern, text), expected);
        }
        check(&[1, 2], &[1, 2, 1, 1, 2], &[0, 3]);
        check(&[1, 1], &[1, 1, 1, 2, 1, 1], &[0, 1, 4]);
        check(&[1, 2, 1, 3], &[1, 2, 1, 2, 1, 3], &[2]);
        check(&[5], &[1, 2], &[]);
        check(&[], &[1], &[]);
        check(&[ABSENT], &[1], &[]);
        check(&[1, 2], &[1], &[]);
    }

    #[test]
    fn a_repetitive_file_and_hunk_take_linear_time() {
        let text = vec![1; 200_000];
        assert_eq!(occurrences(&vec![1; 100_000], &text).len(), 100_001);
        let mut pattern = vec![1; 100_000];
        pattern[50_000] = 2;
        assert_eq!(occurrences(&pattern, &text).len(), 0);
    }

    #[test]
    fn likeness_counts_both_ends() {
        assert_eq!(likeness(b"  return x", b"return x"), 1.0);
        assert_eq!(likeness(b"", b" "), 1.0);
        assert_eq!(likeness(b"abcd", b"wxyz"), 0.0);
        assert!(likeness(b"foo(a, b)", b"foo(a, c, b)") > 0.7);
        assert_eq!(likeness(b"aa", b"aaaa"), 0.5);
    }
}
