//! Names in a patch: reading and writing them, and which ones are refused.

use std::borrow::Cow;

use serde::Serialize;

/// Why a patch may not touch a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsafe {
    /// It starts at the root of a file system.
    Absolute,
    /// It has a part `..`, or `.`.
    Parent,
    /// It is inside git's own directory.
    GitDirectory,
    /// It is empty or has a NUL.
    NoName,
    /// A part of it is a symbolic link in the tree.
    SymbolicLink,
}

impl Unsafe {
    /// The reason as a sentence fragment.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Absolute => "the path is absolute",
            Self::Parent => "the path leaves its directory",
            Self::GitDirectory => "the path is inside git's own directory",
            Self::NoName => "the path is no file name",
            Self::SymbolicLink => "the path goes through a symbolic link",
        }
    }
}

/// Whether a path may stand in a patch, judged by its name alone; `/` and `\` both separate, so that a patch that is safe
/// here is safe everywhere.
pub fn check_name(path: &str) -> Result<(), Unsafe> {
    if path.is_empty() || path.contains('\0') || path.ends_with('/') {
        return Err(Unsafe::NoName);
    }
    let bytes = path.as_bytes();
    let has_drive = bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    if path.starts_with(['/', '\\', '~']) || has_drive {
        return Err(Unsafe::Absolute);
    }
    for part in path.split(['/', '\\']) {
        // Names that some file systems take for `.git`: trailing dots and blanks, streams, short names, ignored characters.
        let plain: String = part.chars().filter(|c| c.is_ascii_graphic()).collect();
        let plain = plain.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        match part {
            "" => return Err(Unsafe::NoName),
            "." | ".." => return Err(Unsafe::Parent),
            _ if plain == ".git" || plain == "git~1" => return Err(Unsafe::GitDirectory),
            _ => {}
        }
    }
    Ok(())
}

/// A file's names before and after a change; `None` is `/dev/null`.
pub(super) type Names<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// The names on the lines `---` and `+++`, without the prefixes that git adds; `None` is `/dev/null`.
pub(super) fn header_names<'a>(old: &'a str, new: &'a str) -> Names<'a> {
    without_prefixes(header_name(old), header_name(new))
}

/// The two names of a `diff --git` line, without their prefixes.
///
/// Unquoted names may hold blanks; then the line is split where both halves are the same name, as git does.
pub(super) fn git_names(names: &str) -> Option<Names<'_>> {
    let names = names.trim_end();
    let (old, new) = if names.starts_with('"') {
        let (old, rest) = unquote(names)?;
        (old, header_name(rest.trim_start())?)
    } else {
        let same = names.match_indices(' ').find(|(at, _)| at * 2 + 1 == names.len());
        let (old, new) = same
            .map(|(at, _)| names.split_at(at))
            .or_else(|| names.find(" b/").or_else(|| names.find(" \"")).map(|at| names.split_at(at)))
            .or_else(|| names.split_once(' ').map(|(old, _)| names.split_at(old.len())))?;
        (Cow::Borrowed(old), header_name(new.trim_start())?)
    };
    Some(without_prefixes(Some(old), Some(new)))
}

/// One name as it stands in a header; a date after a tab and blanks at the end are no part of it.
pub(super) fn header_name(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim_start();
    if text.starts_with('"')
        && let Some((name, _)) = unquote(text)
    {
        return Some(name);
    }
    let name = text.split('\t').next().unwrap_or_default().trim_end();
    (name != "/dev/null").then_some(Cow::Borrowed(name))
}

/// Takes `a/` and `b/` off, or the letters that `diff.mnemonicPrefix` puts there; names without any stay as they are.
fn without_prefixes<'a>(old: Option<Cow<'a, str>>, new: Option<Cow<'a, str>>) -> Names<'a> {
    let prefix = |name: &Cow<'_, str>| {
        let bytes = name.as_bytes();
        bytes.len() > 2 && bytes[1] == b'/' && b"abciwo".contains(&bytes[0])
    };
    let strip = |name: Cow<'a, str>| match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[2..]),
        Cow::Owned(name) => Cow::Owned(name[2..].to_owned()),
    };
    match (old, new) {
        (Some(old), Some(new)) => match (prefix(&old), prefix(&new)) {
            // `a/x` on both sides may be a directory's name, unless the other side says otherwise.
            (true, true) if old != new || old.starts_with("b/") || old.starts_with("a/") => {
                (Some(strip(old)), Some(strip(new)))
            }
            (true, false) if old[2..] == new => (Some(strip(old)), Some(new)),
            (false, true) if new[2..] == old => (Some(old), Some(strip(new))),
            _ => (Some(old), Some(new)),
        },
        (Some(old), None) => (Some(if old.starts_with("a/") { strip(old) } else { old }), None),
        (None, Some(new)) => (None, Some(if new.starts_with("b/") { strip(new) } else { new })),
        (None, None) => (None, None),
    }
}

/// Reads a name in double quotes with C's escapes; returns what follows it, too. Bytes that are no UTF-8 have no name here.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    let mut rest = inner.as_bytes();
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => break,
            b'\\' => {
                let (&escape, tail) = rest.split_first()?;
                rest = tail;
                bytes.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'0'..=b'3' => {
                        let digits = rest.get(..2)?;
                        rest = &rest[2..];
                        digits.iter().try_fold(escape - b'0', |value, digit| {
                            matches!(digit, b'0'..=b'7').then(|| value * 8 + (digit - b'0'))
                        })?
                    }
                    b'"' | b'\\' => escape,
                    _ => return None,
                });
            }
            other => bytes.push(other),
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    Some((Cow::Owned(name), &inner[inner.len() - rest.len()..]))
}

/// A name as git writes it in a header: in quotes when it has a quote, a backslash or a control character.
pub(super) fn quoted<'a>(prefix: &str, path: &str) -> Cow<'a, str> {
    if !path.bytes().any(|byte| byte < b' ' || byte == 0x7f || byte == b'"' || byte == b'\\') {
        return format!("{prefix}{path}").into();
    }
    let mut text = format!("\"{prefix}");
    for c in path.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c < ' ' || c == '\x7f' => text.push_str(&format!("\\{:03o}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_names_are_refused() {
        for (path, expected) in [
            ("src/x.py", Ok(())),
            (".github/workflows/ci.yml", Ok(())),
            (".gitignore", Ok(())),
            ("a..b/c", Ok(())),
            ("", Err(Unsafe::NoName)),
            ("a//b", Err(Unsafe::NoName)),
            ("a/", Err(Unsafe::NoName)),
            ("a\0b", Err(Unsafe::NoName)),
            ("/etc/passwd", Err(Unsafe::Absolute)),
            ("C:\\x", Err(Unsafe::Absolute)),
            ("\\\\host\\x", Err(Unsafe::Absolute)),
            ("~/.bashrc", Err(Unsafe::Absolute)),
            ("../x", Err(Unsafe::Parent)),
            ("a/../../x", Err(Unsafe::Parent)),
            ("a\\..\\x", Err(Unsafe::Parent)),
            ("./x", Err(Unsafe::Parent)),
            (".git/hooks/pre-commit", Err(Unsafe::GitDirectory)),
            ("sub/.GIT/config", Err(Unsafe::GitDirectory)),
            (".git. /x", Err(Unsafe::GitDirectory)),
            (".git::$INDEX_ALLOCATION/x", Err(Unsafe::GitDirectory)),
            (".g\u{200c}it/config", Err(Unsafe::GitDirectory)),
            ("GIT~1/config", Err(Unsafe::GitDirectory)),
        ] {
            assert_eq!(check_name(path), expected, "{path:?}");
        }
    }

    #[test]
    fn names_lose_their_prefixes() {
        #[track_caller]
        fn check(old: &str, new: &str, expected: (Option<&str>, Option<&str>)) {
            let (old, new) = header_names(old, new);
            assert_eq!((old.as_deref(), new.as_deref()), expected);
        }
        check("a/x.py", "b/x.py", (Some("x.py"), Some("x.py")));
        check("a/x.py \t2024-01-01", "b/x.py  ", (Some("x.py"), Some("x.py")));
        check("x.py", "x.py", (Some("x.py"), Some("x.py")));
        check("a/x.py", "a/x.py", (Some("x.py"), Some("x.py")));
        check("a/x.py", "x.py", (Some("x.py"), Some("x.py")));
        check("x.py", "b/x.py", (Some("x.py"), Some("x.py")));
        check("i/x.py", "w/x.py", (Some("x.py"), Some("x.py")));
        check("w/x.py", "w/x.py", (Some("w/x.py"), Some("w/x.py")));
        check("/dev/null", "b/x.py", (None, Some("x.py")));
        check("a/x.py", "/dev/null", (Some("x.py"), None));
        check("/dev/null", "x.py", (None, Some("x.py")));
        check("a/a b.py", "b/a b.py", (Some("a b.py"), Some("a b.py")));
        check(
            r#""a/\303\251 \"q\".py""#,
            r#""b/\303\251 \"q\".py""#,
            (Some("é \"q\".py"), Some("é \"q\".py")),
        );
        check(r#""a/open"#, r#""b/\777""#, (Some(r#""a/open"#), Some(r#""b/\777""#)));
    }

    #[test]
    fn both_names_of_a_git_line_are_found() {
        #[track_caller]
        fn check(line: &str, old: &str, new: &str) {
            let (found_old, found_new) = git_names(line).unwrap();
            assert_eq!((found_old.as_deref(), found_new.as_deref()), (Some(old), Some(new)), "{line}");
        }
        check("a/x b/x", "x", "x");
        check("a/a b/c b/a b/c", "a b/c", "a b/c");
        check("a/old name b/new", "old name", "new");
        check("x x", "x", "x");
        check(r#""a/\t" "b/\t""#, "\t", "\t");
        check(r#"a/x "b/\\""#, "x", "\\");
        assert!(git_names("").is_none());
        assert!(git_names("\"a/x").is_none());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for name in ["x.py", "a b", "q\"uote", "back\\slash", "tab\t", "\u{1}", "é"] {
            let written = quoted("a/", name);
            assert_eq!(header_name(&written).as_deref(), Some(format!("a/{name}").as_str()), "{written}");
        }
    }
}
