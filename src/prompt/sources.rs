//! Which files of a commit a prompt shows.

use super::edits::edited_files;
use super::{Fidelity, Files};
use crate::error::Result;
use crate::repo::{EntryKind, Snapshot, TreeEntry, decode, is_test};

/// What a prompt shows of a file that is no text.
const BINARY: &str = "[BINARY DATA FILE]";

/// The READMEs in the root, in any spelling; those that are no text or lead out of the commit are none.
///
/// # Errors
/// `NotFound` when the repository lacks an object.
pub fn readmes(snapshot: &mut Snapshot<'_>) -> Result<Files> {
    let is_readme = |entry: &&TreeEntry| {
        entry.path.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"readme"))
            && (entry.kind.is_file() || entry.kind == EntryKind::Link)
    };
    let entries: Vec<TreeEntry> = snapshot.root().iter().filter(is_readme).cloned().collect();
    let mut readmes = Files::new();
    for entry in entries {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let file = match entry.kind {
            EntryKind::Link => match snapshot.find(&entry.path) {
                Ok(file) => file,
                Err(error) => {
                    log::debug!("{}: {error}", path.escape_debug());
                    continue;
                }
            },
            _ => entry,
        };
        if let Some(text) = decode(&snapshot.blob(file.id)?).into_string() {
            readmes.insert(path, text);
        }
    }
    Ok(readmes)
}

/// The files that the gold patch changes, as they are before it.
///
/// # Errors
/// `NotFound` when the commit lacks one of them.
pub fn oracle(snapshot: &mut Snapshot<'_>, patch: &str, fidelity: Fidelity) -> Result<Files> {
    let mut files = Files::new();
    for file in edited_files(patch) {
        let content = match (file.is_new, fidelity) {
            (false, _) => text_of(snapshot, &file.path)?,
            (true, Fidelity::Reference) => String::new(),
            (true, Fidelity::Mended) => continue,
        };
        files.insert(file.shown_path(fidelity).into_owned(), content);
    }
    Ok(files)
}

/// The files at these paths, in this order.
///
/// # Errors
/// `NotFound` when the commit lacks one of them.
pub fn named<'a>(
    snapshot: &mut Snapshot<'_>,
    paths: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<(String, String)>> {
    paths.into_iter().map(|path| Ok((path.to_owned(), text_of(snapshot, path.as_bytes())?))).collect()
}

/// Every Python file of the tree but tests.
///
/// The reference takes an empty file for a binary one.
///
/// # Errors
/// `NotFound` when the repository lacks an object.
pub fn all(snapshot: &mut Snapshot<'_>, tree: &[TreeEntry], fidelity: Fidelity) -> Result<Files> {
    let mut files = Files::new();
    for entry in tree.iter().filter(|entry| entry.kind.is_file() && entry.path.ends_with(b".py")) {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if is_test(&path) {
            continue;
        }
        let content = snapshot.blob(entry.id)?;
        let content = match decode(&content).into_string() {
            Some(text) if !text.is_empty() || fidelity == Fidelity::Mended => text,
            _ => BINARY.to_owned(),
        };
        files.insert(path, content);
    }
    Ok(files)
}

fn text_of(snapshot: &mut Snapshot<'_>, path: &[u8]) -> Result<String> {
    let content = snapshot.file(path)?;
    Ok(decode(&content).into_string().unwrap_or_else(|| BINARY.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelToken;
    use crate::repo::Repository;
    use crate::repo::test_repository::TestRepository;

    fn commit() -> (TestRepository, String) {
        let repository = TestRepository::new();
        let commit = repository.commit_entries(&[
            ("100644", b"README.md", b"# read\r\nme"),
            ("100644", b"Readme.bin", b"\0\0"),
            ("120000", b"README.txt", b"docs/long.txt"),
            ("120000", b"README.passwd", b"/etc/passwd"),
            ("120000", b"readme.up", b"../../../etc/passwd"),
            ("160000", b"readme-sub", "1".repeat(40).as_bytes()),
            ("100644", b"readme.d/x", b"in a directory"),
            ("100644", b"docs/long.txt", b"long"),
            ("100644", b"src/a.py", b"a = 'caf\xe9 cr\xe8me, d\xe9j\xe0 vu'\n"),
            ("100644", b"src/__init__.py", b""),
            ("100644", b"src/data.py", b"\0\x01"),
            ("100644", b"src/caf\xe9.py", b"odd"),
            ("100644", b"tests/test_a.py", b"t"),
            ("120000", b"src/out.py", b"/etc/passwd"),
        ]);
        (repository, commit)
    }

    #[test]
    fn readmes_are_files_of_the_commit() {
        let (repository, commit) = commit();
        let mut reader = Repository::open(repository.path()).unwrap().reader().unwrap();
        let mut snapshot = Snapshot::new(&mut reader, commit.parse().unwrap()).unwrap();
        let found = readmes(&mut snapshot).unwrap();
        let expected = [("README.md", "# read\nme"), ("README.txt", "long")];
        assert_eq!(found, expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into());
    }

    #[test]
    fn all_files_are_python_without_tests() {
        let (repository, commit) = commit();
        let opened = Repository::open(repository.path()).unwrap();
        let commit = commit.parse().unwrap();
        let tree = opened.tree(commit, &CancelToken::new()).unwrap();
        let mut reader = opened.reader().unwrap();
        let mut snapshot = Snapshot::new(&mut reader, commit).unwrap();
        for (fidelity, empty) in [(Fidelity::Mended, ""), (Fidelity::Reference, BINARY)] {
            let found = all(&mut snapshot, &tree, fidelity).unwrap();
            let expected = [
                ("src/__init__.py", empty),
                ("src/a.py", "a = 'café crème, déjà vu'\n"),
                ("src/caf\u{fffd}.py", "odd"),
                ("src/data.py", BINARY),
            ];
            assert_eq!(found, expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into());
        }
    }

    #[test]
    fn a_patch_shows_what_it_changes_and_nothing_outside() {
        let (repository, commit) = commit();
        let mut reader = Repository::open(repository.path()).unwrap().reader().unwrap();
        let mut snapshot = Snapshot::new(&mut reader, commit.parse().unwrap()).unwrap();
        let change = |path: &str| format!("--- {path}\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n");
        let new = "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+b\n";
        let patch = change("a/src/a.py") + new + &change("\"a/src/caf\\351.py\"");
        let paths = |files: Files| files.into_keys().collect::<Vec<_>>();
        let mended = oracle(&mut snapshot, &patch, Fidelity::Mended).unwrap();
        assert_eq!(paths(mended), ["src/a.py", "src/caf\u{fffd}.py"]);
        let reference = oracle(&mut snapshot, &patch, Fidelity::Reference).unwrap();
        assert_eq!(paths(reference), ["/dev/null", "src/a.py", "src/caf\u{fffd}.py"]);
        for path in
            ["a/../../etc/passwd", "/etc/passwd", "a/src/out.py", "a/readme.up", "a/readme-sub", "a/gone.py"]
        {
            let error = oracle(&mut snapshot, &change(path), Fidelity::Mended).unwrap_err();
            assert!(error.to_line().starts_with("cannot read `"), "{path}: {}", error.to_line());
        }
        assert!(named(&mut snapshot, ["../src/a.py"]).is_err());
    }
}
