//! Text of models and datasets on a terminal: nothing in it is a command to the terminal.

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// The text on one line; control characters, and those that turn the direction of writing, are escaped.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_safe(c) { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    shown
}

fn is_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A patch with its lines in colours, or without any.
pub(crate) fn diff(patch: &str, colours: bool) -> String {
    let mut shown = String::with_capacity(patch.len());
    let mut in_hunk = false;
    for line in patch.lines() {
        let line: String = line.split('\t').map(plain).collect::<Vec<_>>().join("\t");
        if line.starts_with("diff --git ") || (!in_hunk && line.starts_with("--- ")) {
            in_hunk = false;
        }
        let colour = match line.as_bytes().first() {
            Some(b'@') => {
                in_hunk = true;
                CYAN
            }
            _ if !in_hunk => BOLD,
            Some(b'+') => GREEN,
            Some(b'-') => RED,
            _ => "",
        };
        if colours && !colour.is_empty() {
            shown.push_str(&format!("{colour}{line}{RESET}\n"));
        } else {
            shown.push_str(&line);
            shown.push('\n');
        }
    }
    shown
}

/// Rows with aligned columns; all but the first are to the right where they are numbers.
pub(crate) fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let is_number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '$');
            line.push_str(&if is_number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\x07\r\u{9b}31m"), "a\\u{1b}[2Jb\\u{7}\\u{d}\\u{9b}31m");
        assert_eq!(plain("é 😀 \u{202e}x"), "é 😀 \\u{202e}x");
        let shown = diff("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\x1b[0m\n+\tb\n", false);
        assert_eq!(shown, "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\\u{1b}[0m\n+\tb\n");
        let coloured = diff("--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a\n+b\n c\n", true);
        assert!(coloured.contains("\x1b[1m--- a/x\x1b[0m\n") && coloured.contains("\x1b[31m--- a\x1b[0m\n"));
        assert!(coloured.ends_with("\x1b[32m+b\x1b[0m\n c\n"));
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["id", "n"], ["long", "7"], ["x", "123"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(rows.to_vec()), "id    n\nlong    7\nx     123\n");
    }
}
