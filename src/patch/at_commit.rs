//! A commit as the tree that patches are meant for, and what programs say of them: the one place of this layer with I/O.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::extract;
use super::repair::{Entry, Tree, linked};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::repo::{EntryKind, MAX_FILE_LEN, ObjectId, Reader, Repository, TrialIndex};

/// What has to take a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// `git apply`.
    #[default]
    Git,
    /// What the harness tries in turn: `git apply`, `git apply --3way`, `patch --fuzz=5`.
    Harness,
}

/// Whether a patch applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it does.
    pub applies: bool,
    /// The program that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'static str>,
    /// Why not: the last lines of `git apply`, control characters escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The files of a commit, read when they are asked for.
#[derive(Debug)]
pub struct AtCommit {
    repository: Repository,
    commit: ObjectId,
    entries: BTreeMap<Vec<u8>, (EntryKind, ObjectId)>,
    reader: RefCell<Reader>,
}

impl AtCommit {
    /// The commit that `revision` names in the repository at `path`, bare or not.
    ///
    /// # Errors
    /// `NotFound` when there is no repository or no such commit, `InvalidArgument` for what cannot be a revision.
    pub fn open(path: &Path, revision: &str, cancel: &CancelToken) -> Result<Self> {
        let repository = Repository::open(path)?;
        let commit = repository.resolve(revision, cancel)?;
        Self::new(repository, commit, cancel)
    }

    /// A commit of a repository that is open.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks the commit.
    pub fn new(repository: Repository, commit: ObjectId, cancel: &CancelToken) -> Result<Self> {
        let entries = repository.tree(commit, cancel)?;
        let entries = entries.into_iter().map(|entry| (entry.path, (entry.kind, entry.id))).collect();
        let reader = RefCell::new(repository.reader()?);
        Ok(Self { repository, commit, entries, reader })
    }

    /// Asks whether a patch applies to the commit. An empty one does not.
    ///
    /// # Errors
    /// `NotFound` without git, `Cancelled`, `Io`.
    pub fn check(&self, patch: &str, judge: Judge, cancel: &CancelToken) -> Result<Verdict> {
        let takes = |by| Ok(Verdict { applies: true, by: Some(by), reason: None });
        if patch.trim().is_empty() {
            return Ok(Verdict { applies: false, by: None, reason: Some("the patch is empty".into()) });
        }
        let index = TrialIndex::new(&self.repository, self.commit, cancel)?;
        let reason = match index.applies(patch, cancel)? {
            Ok(()) => return takes("git apply"),
            Err(reason) => reason,
        };
        if judge == Judge::Harness {
            if index.applies_by_merge(patch, cancel)?.is_ok() {
                return takes("git apply --3way");
            }
            if self.patch_applies(patch, index.directory())? {
                return takes("patch --fuzz=5");
            }
        }
        Ok(Verdict { applies: false, by: None, reason: Some(reason) })
    }

    /// Whether GNU patch takes it, on copies of the files that it names.
    fn patch_applies(&self, patch: &str, dir: &Path) -> Result<bool> {
        let found = extract(patch);
        if found.files.is_empty() || !found.refused.is_empty() {
            return Ok(false);
        }
        for found in &found.files {
            if linked(&found.diff, self)?.is_some() {
                return Ok(false);
            }
        }
        let root = dir.join("files");
        let about = |error| Error::io("write to", &root, error);
        std::fs::create_dir(&root).map_err(about)?;
        for name in found.files.iter().filter_map(|found| found.diff.old.as_deref()) {
            if let Entry::File(content) = self.look_up(name)? {
                let file = root.join(name);
                std::fs::create_dir_all(file.parent().unwrap_or(&root)).map_err(about)?;
                std::fs::write(file, content).map_err(about)?;
            }
        }
        // `--unified`: a patch may not be a script for `ed`.
        let mut program = Command::new("patch");
        program.args(["--unified", "--batch", "--forward", "--fuzz=5", "-p1"]).current_dir(&root);
        program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = match program.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                log::warn!("the program `patch` is not there: what the harness does with it was not tried");
                return Ok(false);
            }
            Err(error) => return Err(about(error)),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // It does not read on after a failure; its exit code tells.
            let _ = stdin.write_all(patch.as_bytes());
        }
        Ok(child.wait().map_err(about)?.success())
    }
}

impl Tree for AtCommit {
    fn look_up(&self, path: &str) -> Result<Entry> {
        let path = path.as_bytes();
        match self.entries.get(path) {
            Some((EntryKind::Link, _)) => Ok(Entry::Link),
            Some((EntryKind::File | EntryKind::Executable, id)) => {
                Ok(Entry::File(self.reader.borrow_mut().blob(*id, MAX_FILE_LEN)?))
            }
            Some((EntryKind::Submodule | EntryKind::Directory, _)) => Ok(Entry::Directory),
            None => {
                let below = [path, b"/"].concat();
                let next = self.entries.range(below.clone()..).next();
                let is_directory = next.is_some_and(|(name, _)| name.starts_with(&below));
                Ok(if is_directory { Entry::Directory } else { Entry::Missing })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Steps, What, process};
    use super::*;
    use crate::error::ErrorKind;
    use crate::repo::test_repository::TestRepository;

    const FILE: &[u8] = b"one\ntwo\nthree\nfour\nfive\nsix\nseven\n";

    fn repository() -> TestRepository {
        let repository = TestRepository::new();
        repository.commit_entries(&[
            ("100644", b"dir/x.py", FILE),
            ("120000", b"link", b"/etc"),
            ("120000", b"up", b".."),
        ]);
        repository
    }

    #[test]
    fn verdicts_are_those_of_git_on_a_bare_repository() {
        let repository = repository();
        let cancel = CancelToken::new();
        let tree = AtCommit::open(repository.path(), "main", &cancel).unwrap();
        let objects = || repository.git(&["count-objects", "-v"], b"");
        let before = objects();
        #[track_caller]
        fn check(tree: &AtCommit, patch: &str, judge: Judge, by: Option<&str>, reason: &str) {
            let verdict = tree.check(patch, judge, &CancelToken::new()).unwrap();
            assert_eq!((verdict.applies, verdict.by), (by.is_some(), by), "{verdict:?}");
            assert!(verdict.reason.unwrap_or_default().contains(reason));
        }
        let header = "--- a/dir/x.py\n+++ b/dir/x.py\n";
        let good = format!("{header}@@ -2,2 +2,2 @@\n-two\n+2\n three\n");
        check(&tree, &good, Judge::Git, Some("git apply"), "");
        let fuzzy = format!("{header}@@ -1,4 +1,4 @@\n wrong\n two\n-three\n+3\n fuor\n");
        check(&tree, &fuzzy, Judge::Git, None, "patch does not apply");
        check(&tree, &fuzzy, Judge::Harness, Some("patch --fuzz=5"), "");
        let wrong = format!("{header}@@ -1,2 +1,2 @@\n-nowhere\n+3\n nothing\n");
        check(&tree, &wrong, Judge::Harness, None, "patch does not apply");
        check(&tree, "", Judge::Harness, None, "empty");
        check(&tree, "prose", Judge::Harness, None, "No valid patches");
        for path in ["link/passwd", "up/x", "../x", ".git/config", "dir/../../x"] {
            let patch = format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+a\n");
            check(&tree, &patch, Judge::Harness, None, "");
        }
        let by_ed = "--- a/dir/x.py\n+++ b/dir/x.py\n1c\n!touch proof\n.\n";
        check(&tree, by_ed, Judge::Harness, None, "");
        assert_eq!(objects(), before);
    }

    #[test]
    fn a_patch_is_made_to_fit_a_commit() {
        let repository = repository();
        let cancel = CancelToken::new();
        let tree = AtCommit::open(repository.path(), "HEAD", &cancel).unwrap();
        let answer = "--- a/dir/x.py\n+++ b/dir/x.py\n@@ -1,2 +1,2 @@\n four \n-five\n+5\n\
                      --- /dev/null\n+++ b/link/x\n@@ -0,0 +1 @@\n+a\n";
        let steps = Steps { repair: true, tree: Some(&tree), ..Steps::default() };
        let report = process(answer, &steps).unwrap();
        assert!(tree.check(&report.patch, Judge::Git, &cancel).unwrap().applies, "{report:#?}");
        assert_eq!(report.refused[0].path, "link/x");
        assert_eq!(report.changes[0].what, What::Moved { lines: 3 });
        assert_eq!(tree.look_up("dir").unwrap(), Entry::Directory);
        assert_eq!(tree.look_up("dir/x").unwrap(), Entry::Missing);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let repository = repository();
        let cancel = CancelToken::new();
        let error = AtCommit::open(repository.path(), "nowhere", &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = AtCommit::open(repository.path(), "--upload-pack=x", &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
