//! One repository on the disk, bare or not.

use std::path::{Path, PathBuf};

use super::git::Git;
use super::id::ObjectId;
use super::reader::Reader;
use super::tree::{TreeEntry, parse_listing};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// A repository whose objects can be read; cheap to clone, shared by any number of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    git_dir: PathBuf,
}

impl Repository {
    /// Opens the repository at `path`: a bare one, or a working tree with its `.git`.
    ///
    /// # Errors
    /// `NotFound` when there is none at this very place: no directory above is looked at.
    pub fn open(path: &Path) -> Result<Self> {
        let inside = path.join(".git");
        let git_dir = if inside.exists() { inside } else { path.to_path_buf() };
        // A `.git` that is a file names the directory; git itself finds out whether that is one.
        let is_git_dir = git_dir.join("HEAD").exists() && git_dir.join("objects").is_dir();
        if !is_git_dir && !git_dir.is_file() {
            return Err(Error::not_found("there is no git repository here").with_path(path));
        }
        let git_dir = std::path::absolute(&git_dir).map_err(|error| Error::io("resolve", &git_dir, error))?;
        if git_dir.is_file() {
            return Self::follow(&git_dir);
        }
        Ok(Self { git_dir })
    }

    /// The directory that a `.git` file names, as worktrees and submodules have one.
    fn follow(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| Error::io("read", file, error))?;
        let named = text.strip_prefix("gitdir:").map(str::trim).unwrap_or_default();
        let git_dir = file.parent().unwrap_or(file).join(named);
        if named.is_empty() || !git_dir.join("HEAD").exists() {
            return Err(Error::not_found("there is no git repository here").with_path(file));
        }
        Ok(Self { git_dir })
    }

    /// The git directory.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Where the repository's objects are; a worktree's are in the repository that it belongs to.
    pub fn objects_dir(&self) -> PathBuf {
        let common = std::fs::read_to_string(self.git_dir.join("commondir"));
        let common = common.map_or_else(|_| self.git_dir.clone(), |dir| self.git_dir.join(dir.trim_end()));
        common.join("objects")
    }

    /// A git command in this repository.
    pub fn git(&self, subcommand: &str) -> Git {
        Git::in_repository(&self.git_dir, subcommand)
    }

    /// The commit that a revision names: an id, the start of one, a branch, a tag, `HEAD~3`.
    ///
    /// # Errors
    /// `InvalidArgument` for text that cannot be a revision, `NotFound` when there is no such commit.
    pub fn resolve(&self, revision: &str, cancel: &CancelToken) -> Result<ObjectId> {
        check_revision(revision)?;
        let output = self
            .git("rev-parse")
            .args(["--verify", "--quiet", "--end-of-options"])
            .arg(format!("{revision}^{{commit}}"))
            .run(cancel)?;
        let id = output.is_success().then(|| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
        id.flatten().ok_or_else(|| {
            Error::not_found(format!("the repository has no commit `{}`", revision.escape_debug()))
                .with_path(&self.git_dir)
                .with_hint("fetch it, or use a clone that is newer and has all branches")
        })
    }

    /// Every file, link and submodule of a commit, in git's order.
    ///
    /// # Errors
    /// `NotFound` when the commit is not there, `InvalidData` for a corrupt repository.
    pub fn tree(&self, commit: ObjectId, cancel: &CancelToken) -> Result<Vec<TreeEntry>> {
        let listing = self
            .git("ls-tree")
            .args(["-r", "-z", "-l", "--full-tree", "--end-of-options"])
            .arg(commit.to_string())
            .run_checked(ErrorKind::NotFound, cancel)
            .map_err(|error| {
                error.with_path(&self.git_dir).context(format!("cannot list commit {commit}"))
            })?;
        parse_listing(&listing).map_err(|error| error.with_path(&self.git_dir))
    }

    /// A reader of objects, with a process of its own.
    ///
    /// # Errors
    /// `NotFound` without git, `Io` when the system gives no process.
    pub fn reader(&self) -> Result<Reader> {
        Reader::start(self)
    }
}

/// Refuses what would be an option, or more than one word of a git command's input.
fn check_revision(revision: &str) -> Result<()> {
    if !revision.is_empty() && !revision.starts_with('-') && !revision.contains(char::is_control) {
        return Ok(());
    }
    Err(Error::invalid_argument("not a revision")
        .with_expected("a commit's id, a branch or a tag", format_args!("`{}`", revision.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::super::test_repository::TestRepository;
    use super::super::tree::EntryKind;
    use super::*;

    #[test]
    fn commits_are_found_and_nothing_else() {
        let repository = TestRepository::new();
        let first = repository.commit(&[("a.py", b"a")]);
        let second = repository.commit(&[("b.py", b"b")]);
        let opened = Repository::open(repository.path()).unwrap();
        let cancel = CancelToken::new();
        for (revision, expected) in [
            ("HEAD", &second),
            ("main", &second),
            ("HEAD~1", &first),
            (&first[..12], &first),
            (&first, &first),
        ] {
            assert_eq!(opened.resolve(revision, &cancel).unwrap().to_string(), *expected, "{revision}");
        }
        let missing = "0".repeat(40);
        for (revision, kind) in [
            ("", ErrorKind::InvalidArgument),
            ("--upload-pack=touch x", ErrorKind::InvalidArgument),
            ("main\nHEAD", ErrorKind::InvalidArgument),
            ("nowhere", ErrorKind::NotFound),
            ("HEAD:a.py", ErrorKind::NotFound),
            (&missing, ErrorKind::NotFound),
        ] {
            let error = opened.resolve(revision, &cancel).unwrap_err();
            assert_eq!(error.kind(), kind, "{revision}: {error}");
        }
        assert_eq!(opened.tree(missing.parse().unwrap(), &cancel).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn trees_are_listed_whole() {
        let repository = TestRepository::new();
        let submodule = "1".repeat(40);
        let commit = repository.commit_entries(&[
            ("100644", b"a.py", b"12"),
            ("100755", b"bin/run", b""),
            ("120000", b"link", b"/etc/passwd"),
            ("100644", b"caf\xe9\n\t\"x", b"1"),
            ("160000", b"vendor", submodule.as_bytes()),
        ]);
        let opened = Repository::open(repository.path()).unwrap();
        let tree = opened.tree(commit.parse().unwrap(), &CancelToken::new()).unwrap();
        let found: Vec<_> = tree.iter().map(|entry| (&entry.path[..], entry.kind, entry.len)).collect();
        assert_eq!(
            found,
            [
                (&b"a.py"[..], EntryKind::File, Some(2)),
                (b"bin/run", EntryKind::Executable, Some(0)),
                (b"caf\xe9\n\t\"x", EntryKind::File, Some(1)),
                (b"link", EntryKind::Link, Some(11)),
                (b"vendor", EntryKind::Submodule, None),
            ]
        );
    }

    #[test]
    fn a_repository_is_where_it_is_said_to_be() {
        let repository = TestRepository::new();
        repository.commit(&[("a.py", b"a")]);
        std::fs::create_dir(repository.path().join("inside")).unwrap();
        let error = Repository::open(&repository.path().join("inside")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);

        let worktree = tempfile::tempdir().unwrap();
        let place = worktree.path().join("tree");
        let added = Repository::open(repository.path()).unwrap().git("worktree");
        let added =
            added.args(["add", "--quiet", "--detach", "--"]).arg(&place).run(&CancelToken::new()).unwrap();
        assert!(added.is_success(), "{}", added.stderr);
        assert!(place.join(".git").is_file());
        let opened = Repository::open(&place).unwrap();
        assert_eq!(opened.resolve("main", &CancelToken::new()).unwrap().to_string(), repository.head());
    }

    #[test]
    fn what_a_repository_says_about_programs_is_not_done() {
        let repository = TestRepository::new();
        let commit = repository.commit(&[("a.py", b"a")]);
        let proof = repository.path().join("proof");
        let program = format!("touch {}", proof.display());
        let config = format!(
            "[core]\n\tfsmonitor = {program}\n\tpager = {program}\n\tsshCommand = {program}\n\talternateRefsCommand = {program}\n\
             [extensions]\n\tpartialClone = origin\n[remote \"origin\"]\n\tpromisor = true\n\turl = ext::{program}\n"
        );
        let file = repository.path().join("config");
        let old = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            &file,
            old.replace("repositoryformatversion = 0", "repositoryformatversion = 1") + &config,
        )
        .unwrap();

        let opened = Repository::open(repository.path()).unwrap();
        let cancel = CancelToken::new();
        let commit = opened.resolve(&commit, &cancel).unwrap();
        let entry = &opened.tree(commit, &cancel).unwrap()[0];
        let mut reader = opened.reader().unwrap();
        assert_eq!(reader.blob(entry.id, 100).unwrap(), b"a");
        // An object that is missing would be asked for from the promisor.
        assert!(reader.blob("2".repeat(40).parse().unwrap(), 100).is_err());
        assert!(!proof.exists());
    }
}
