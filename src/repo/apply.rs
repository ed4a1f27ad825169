//! Patches and git: whether it applies one to a commit, tried on an index of its own without any change of the repository, and
//! one put into the files of a checkout.

use std::path::Path;

use tempfile::TempDir;

use super::git::last_lines;
use super::{Git, GitOutput, ObjectId, Repository};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// Puts a patch into the files of a checkout, all of it or nothing; neither its index nor its commits change. What git says when it
/// does not take the patch.
///
/// # Errors
/// `InvalidArgument` for a bare repository, `NotFound` without a repository or git, `Cancelled`.
pub fn apply_to_checkout(checkout: &Path, patch: &str, cancel: &CancelToken) -> Result<Result<(), String>> {
    let repository = Repository::open(checkout)?;
    if !checkout.join(".git").exists() {
        return Err(Error::invalid_argument("the repository has no files that a patch could be put into")
            .with_path(checkout)
            .with_expected("a checkout", "a bare repository"));
    }
    let git = repository.git("apply").args(["--whitespace=nowarn", "-"]).current_dir(checkout);
    Ok(outcome(&git.stdin(patch).run(cancel)?))
}

fn outcome(output: &GitOutput) -> Result<(), String> {
    if output.is_success() { Ok(()) } else { Err(last_lines(&output.stderr)) }
}

/// The files of a commit as git's index, in a directory that goes away; patches are tried on it.
#[derive(Debug)]
pub struct TrialIndex<'r> {
    repository: &'r Repository,
    dir: TempDir,
}

impl<'r> TrialIndex<'r> {
    /// The index of this commit.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks the commit or its trees, `Io` without a temporary directory.
    pub fn new(repository: &'r Repository, commit: ObjectId, cancel: &CancelToken) -> Result<Self> {
        let dir = tempfile::tempdir()
            .map_err(|error| Error::io("create a directory in", std::env::temp_dir(), error))?;
        let objects = dir.path().join("objects");
        std::fs::create_dir(&objects).map_err(|error| Error::io("create", &objects, error))?;
        let trial = Self { repository, dir };
        trial.git("read-tree").arg(commit.to_string()).run_checked(ErrorKind::NotFound, cancel)?;
        Ok(trial)
    }

    /// Whether `git apply` takes the patch; otherwise what it says.
    ///
    /// # Errors
    /// `NotFound` without git, `Cancelled`.
    pub fn applies(&self, patch: &str, cancel: &CancelToken) -> Result<Result<(), String>> {
        self.apply(&["--check"], patch, cancel)
    }

    /// Whether `git apply --3way` takes the patch without a conflict. The index is then the patched one.
    ///
    /// # Errors
    /// As those of [`TrialIndex::applies`].
    pub fn applies_by_merge(&self, patch: &str, cancel: &CancelToken) -> Result<Result<(), String>> {
        self.apply(&["--3way"], patch, cancel)
    }

    /// Where files may be put for other programs to work on.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    fn apply(&self, flags: &[&str], patch: &str, cancel: &CancelToken) -> Result<Result<(), String>> {
        let git = self.git("apply").args(["--cached", "--whitespace=nowarn"]).args(flags).arg("-");
        Ok(outcome(&git.stdin(patch).run(cancel)?))
    }

    /// git with this index; what it writes goes to the temporary directory.
    fn git(&self, subcommand: &str) -> Git {
        self.repository
            .git(subcommand)
            .env("GIT_INDEX_FILE", self.dir.path().join("index"))
            .env("GIT_OBJECT_DIRECTORY", self.dir.path().join("objects"))
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.repository.objects_dir())
    }
}
