//! Where repositories come from: a directory of clones, or a cache that clones each of them once.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::git::{Git, GitOutput, last_lines};
use super::id::ObjectId;
use super::name::RepositoryName;
use super::repository::Repository;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// The protocols that a clone may be made by.
const PROTOCOLS: [&str; 4] = ["https", "http", "git", "file"];

/// The default branch of a clone.
const HEAD: &str = "HEAD";

/// What a clone takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloneFilter {
    /// Every commit with its files: for many commits of one repository.
    #[default]
    Everything,
    /// Every commit, but only the files of those that are asked for.
    FilesOnDemand,
}

/// Where to look for repositories, and how to get those that are not there.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    /// A directory with clones named `owner__name` or `owner__name.git`; when it is given, nothing is cloned.
    pub mirror_dir: Option<PathBuf>,
    /// Where clones are kept; `swebench-infer/repositories` in the user's cache by default.
    pub cache_dir: Option<PathBuf>,
    /// What `owner/name.git` is added to: `https://github.com`, another `https`, `http`, `git` or `file` URL.
    pub base_url: String,
    /// What clones take along.
    pub filter: CloneFilter,
    /// How long one clone or fetch may take.
    pub timeout: Duration,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            mirror_dir: None,
            cache_dir: None,
            base_url: "https://github.com".into(),
            filter: CloneFilter::Everything,
            timeout: Duration::from_secs(3600),
        }
    }
}

/// Opens repositories by their names; shared by any number of threads.
#[derive(Debug)]
pub struct Mirrors {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Directory(PathBuf),
    Cache { directory: PathBuf, remote: Remote },
}

#[derive(Debug)]
struct Remote {
    base_url: String,
    protocol: &'static str,
    filter: CloneFilter,
    timeout: Duration,
}

impl Mirrors {
    /// Checks the configuration; nothing is opened or cloned yet.
    ///
    /// # Errors
    /// `NotFound` when `mirror_dir` is no directory, `InvalidArgument` for a URL that is not one of the allowed kinds and
    /// when no variable says where the cache is.
    pub fn new(config: MirrorConfig) -> Result<Self> {
        if let Some(directory) = config.mirror_dir {
            if !directory.is_dir() {
                return Err(Error::not_found("the directory of clones is not there").with_path(directory));
            }
            return Ok(Self { source: Source::Directory(directory) });
        }
        let remote = Remote::new(config.base_url, config.filter, config.timeout)?;
        let directory = config.cache_dir.map_or_else(default_cache, Ok)?;
        Ok(Self { source: Source::Cache { directory, remote } })
    }

    /// The repository of this name, cloned when the cache lacks it.
    ///
    /// # Errors
    /// `NotFound` when there is no such clone or the host has no such repository, `Network` when it cannot be reached,
    /// `Cancelled`.
    pub fn open(&self, name: &RepositoryName, cancel: &CancelToken) -> Result<Repository> {
        match &self.source {
            Source::Directory(directory) => open_clone(directory, name),
            Source::Cache { directory, remote } => {
                let clone = clone_path(directory, name, remote.filter);
                if !clone.exists() {
                    let _lock = lock(&clone, cancel)?;
                    if !clone.exists() {
                        remote.clone_into(&clone, name, cancel)?;
                    }
                }
                Repository::open(&clone)
            }
        }
    }

    /// The repository of this name and the commit that `revision` names in it, with all files of that commit; what a cached
    /// clone lacks is fetched.
    ///
    /// # Errors
    /// As [`Mirrors::open`] and [`Repository::resolve`].
    pub fn open_at(
        &self,
        name: &RepositoryName,
        revision: &str,
        cancel: &CancelToken,
    ) -> Result<(Repository, ObjectId)> {
        let repository = self.open(name, cancel)?;
        let resolved = repository.resolve(revision, cancel);
        let Source::Cache { directory, remote } = &self.source else {
            let update = format!("update the clone: git -C {} fetch --all", repository.git_dir().display());
            return resolved.map(|commit| (repository, commit)).map_err(|error| match error.kind() {
                ErrorKind::NotFound => error.with_hint(update),
                _ => error,
            });
        };
        let clone = clone_path(directory, name, remote.filter);
        let commit = match resolved {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let _lock = lock(&clone, cancel)?;
                remote.fetch(&repository, revision, cancel)?;
                repository.resolve(revision, cancel)?
            }
            resolved => resolved?,
        };
        remote.complete(&repository, commit, &clone, cancel)?;
        Ok((repository, commit))
    }

    /// The repository of this name and the newest commit of its default branch, with all files of that commit. A cached clone is
    /// brought up to date first; a directory's clone is taken as it is.
    ///
    /// # Errors
    /// As [`Mirrors::open_at`].
    pub fn open_newest(&self, name: &RepositoryName, cancel: &CancelToken) -> Result<(Repository, ObjectId)> {
        if let Source::Cache { directory, remote } = &self.source {
            let clone = clone_path(directory, name, remote.filter);
            let is_old = clone.exists();
            let repository = self.open(name, cancel)?;
            if is_old {
                let _lock = lock(&clone, cancel)?;
                remote.fetch(&repository, HEAD, cancel)?;
            }
        }
        self.open_at(name, HEAD, cancel)
    }
}

impl Remote {
    fn new(base_url: String, filter: CloneFilter, timeout: Duration) -> Result<Self> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        let wrong = |expected: &str| {
            // Whoever writes a secret into a URL does not want to read it in a log.
            let shown = if base_url.contains('@') { "one with credentials" } else { base_url.as_str() };
            Error::invalid_argument("the URL that repositories are cloned from is wrong")
                .with_expected(expected, shown.escape_debug())
        };
        let Some((scheme, rest)) = base_url.split_once("://") else {
            return Err(wrong("an https, http, git or file URL"));
        };
        let Some(protocol) = PROTOCOLS.into_iter().find(|protocol| *protocol == scheme) else {
            return Err(wrong("an https, http, git or file URL"));
        };
        if rest.contains('@') {
            return Err(wrong("a URL without credentials").with_hint(
                "put them into ~/.netrc, where git finds them and no log and no clone shows them",
            ));
        }
        if rest.is_empty() || rest.starts_with('-') || base_url.contains(|c: char| c.is_control() || c == ' ')
        {
            return Err(wrong("a URL"));
        }
        Ok(Self { base_url, protocol, filter, timeout })
    }

    fn url(&self, name: &RepositoryName) -> String {
        format!("{}/{name}.git", self.base_url)
    }

    /// Clones aside, then renames: a clone that is there is whole.
    fn clone_into(&self, clone: &Path, name: &RepositoryName, cancel: &CancelToken) -> Result<()> {
        let partial = clone.with_extension("partial");
        if partial.exists() {
            // What a killed process left; the lock says that nobody works on it.
            std::fs::remove_dir_all(&partial).map_err(|error| Error::io("remove", &partial, error))?;
        }
        let url = self.url(name);
        log::info!("cloning {url} into {}", clone.display());
        let mut git = Git::new("clone").args(["--bare", "--quiet", "--no-hardlinks", "--template="]);
        if self.filter == CloneFilter::FilesOnDemand {
            git = git.arg("--filter=blob:none");
        }
        let git = git.arg("--").arg(&url).arg(&partial);
        let outcome = self.talk(git, cancel).and_then(|output| match output.is_success() {
            true => std::fs::rename(&partial, clone).map_err(|error| Error::io("rename", &partial, error)),
            false => Err(refusal(&output)),
        });
        outcome.map_err(|error| {
            let _ = std::fs::remove_dir_all(&partial);
            error.context(format!("cannot clone {url}"))
        })
    }

    /// Fetches the commit by its id where that is one and the host allows it, else every branch and tag.
    fn fetch(&self, repository: &Repository, revision: &str, cancel: &CancelToken) -> Result<()> {
        log::info!("{}: fetching `{}`", repository.git_dir().display(), revision.escape_debug());
        let fetch =
            || repository.git("fetch").args(["--quiet", "--no-write-fetch-head", "--no-recurse-submodules"]);
        if ObjectId::is_id(revision) && self.talk(fetch().args(["origin", revision]), cancel)?.is_success() {
            return Ok(());
        }
        let all = fetch().args(["origin", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]);
        let output = self.talk(all, cancel)?;
        if output.is_success() { Ok(()) } else { Err(refusal(&output).context("cannot update the clone")) }
    }

    /// Fetches what a clone without files lacks of a commit.
    fn complete(
        &self,
        repository: &Repository,
        commit: ObjectId,
        clone: &Path,
        cancel: &CancelToken,
    ) -> Result<()> {
        if self.filter == CloneFilter::Everything {
            return Ok(());
        }
        let _lock = lock(clone, cancel)?;
        self.fetch_files(repository, commit, cancel)
    }

    /// Fetches the files of a commit that the clone lacks, all in one go.
    fn fetch_files(&self, repository: &Repository, commit: ObjectId, cancel: &CancelToken) -> Result<()> {
        let objects = repository
            .git("rev-list")
            .args(["--objects", "--missing=print", "--no-object-names", "--end-of-options"])
            .arg(format!("{commit}^{{tree}}"))
            .run_checked(ErrorKind::InvalidData, cancel)?;
        let missing: Vec<u8> = objects
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"?"))
            .flatten()
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let git = repository
            .git("-c")
            .args([
                "fetch.negotiationAlgorithm=noop",
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
            ])
            .args(["--no-recurse-submodules", "--filter=blob:none", "--stdin", "origin"])
            .stdin(missing);
        let output = self.talk(git, cancel)?;
        if output.is_success() {
            Ok(())
        } else {
            Err(refusal(&output).context("cannot fetch the commit's files"))
        }
    }

    /// Runs a command that may use the network.
    fn talk(&self, git: Git, cancel: &CancelToken) -> Result<GitOutput> {
        git.allow_protocol(self.protocol).timeout(self.timeout).run(cancel)
    }
}

/// The error for what a host or the way to it refused.
fn refusal(output: &GitOutput) -> Error {
    let said = output.stderr.to_ascii_lowercase();
    let is_gone = ["not found", "does not exist", "does not appear to be a git", "could not read username"]
        .iter()
        .any(|phrase| said.contains(phrase));
    let message = last_lines(&output.stderr);
    if is_gone {
        Error::not_found(message).with_hint(
            "the repository is gone, renamed or private; put a clone of it into a directory as owner__name and name that \
             directory with --mirror-dir",
        )
    } else {
        Error::new(ErrorKind::Network, message)
            .with_hint("the same command tries again; --mirror-dir uses clones without any network")
    }
}

fn clone_path(directory: &Path, name: &RepositoryName, filter: CloneFilter) -> PathBuf {
    // Clones without files are apart: a run that needs all files would fetch them one by one.
    let kind = if filter == CloneFilter::FilesOnDemand { "-on-demand" } else { "" };
    directory.join(format!("{}{kind}.git", name.directory()))
}

fn open_clone(directory: &Path, name: &RepositoryName) -> Result<Repository> {
    let plain = directory.join(name.directory());
    let bare = directory.join(format!("{}.git", name.directory()));
    let found = [&plain, &bare].into_iter().find(|path| path.exists());
    match found {
        Some(path) => Repository::open(path),
        None => Err(Error::not_found(format!("the directory of clones has none of {name}"))
            .with_path(directory)
            .with_expected(format_args!("`{0}` or `{0}.git`", name.directory()), "neither")
            .with_hint(format!("git clone --bare https://github.com/{name}.git {}", bare.display()))),
    }
}

/// Holds the lock of a clone, which ends with the file; waits while another process or thread has it.
fn lock(clone: &Path, cancel: &CancelToken) -> Result<File> {
    if let Some(directory) = clone.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::io("create the cache", directory, error))?;
    }
    let path = clone.with_extension("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| Error::io("open the lock", &path, error))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                cancel.check()?;
                std::thread::sleep(LOCK_POLL);
            }
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                log::warn!(
                    "{}: the file system has no locks; let no second run use this cache",
                    path.display()
                );
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
        }
    }
}

fn default_cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("swebench-infer/repositories")).ok_or_else(|| {
        Error::invalid_argument("there is no place for clones")
            .with_expected("XDG_CACHE_HOME or HOME", "neither")
            .with_hint("name a directory for them")
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_repository::TestRepository;
    use super::*;

    /// A host that is a directory: `o/name.git` is where the URL says.
    fn host(names: &[&str]) -> (tempfile::TempDir, Vec<TestRepository>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("o")).unwrap();
        let repositories = names.iter().map(|name| {
            let repository = TestRepository::new();
            repository.commit(&[("README.md", b"read me"), ("a.py", b"a")]);
            repository.git(&["config", "uploadpack.allowFilter", "true"], b"");
            repository.git(&["config", "uploadpack.allowAnySHA1InWant", "true"], b"");
            std::os::unix::fs::symlink(repository.path(), dir.path().join(format!("o/{name}.git"))).unwrap();
            repository
        });
        let repositories = repositories.collect();
        (dir, repositories)
    }

    fn mirrors(host: &Path, cache: &Path, filter: CloneFilter) -> Mirrors {
        Mirrors::new(MirrorConfig {
            cache_dir: Some(cache.to_path_buf()),
            base_url: format!("file://{}", host.display()),
            filter,
            ..MirrorConfig::default()
        })
        .unwrap()
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn a_repository_is_cloned_once_and_brought_up_to_date() {
        let (host, repositories) = host(&["r"]);
        let cache = tempfile::tempdir().unwrap();
        let mirrors = mirrors(host.path(), cache.path(), CloneFilter::Everything);
        let cancel = CancelToken::new();
        let opened: Vec<Repository> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| mirrors.open(&name("o/r"), &cancel).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(opened.iter().all(|repository| *repository == opened[0]));
        assert!(cache.path().join("o__r.git").is_dir());
        assert!(!cache.path().join("o__r.partial").exists());

        let newer = repositories[0].commit(&[("b.py", b"b")]);
        let (repository, commit) = mirrors.open_at(&name("o/r"), &newer, &cancel).unwrap();
        assert_eq!((commit.to_string(), repository.tree(commit, &cancel).unwrap().len()), (newer, 3));
        repositories[0].git(&["branch", "feature"], b"");
        assert!(mirrors.open_at(&name("o/r"), "feature", &cancel).is_ok());
        let error = mirrors.open_at(&name("o/r"), &"0".repeat(40), &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.to_line());
        let error = mirrors.open_at(&name("o/r"), "--upload-pack=touch x", &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn files_come_on_demand() {
        let (host, repositories) = host(&["r"]);
        let first = repositories[0].head();
        repositories[0].commit(&[("a.py", b"changed")]);
        let cache = tempfile::tempdir().unwrap();
        let mirrors = mirrors(host.path(), cache.path(), CloneFilter::FilesOnDemand);
        let cancel = CancelToken::new();
        let (repository, commit) = mirrors.open_at(&name("o/r"), "main", &cancel).unwrap();
        let tree = repository.tree(commit, &cancel).unwrap();
        let mut reader = repository.reader().unwrap();
        assert_eq!(reader.blob(tree[1].id, 100).unwrap(), b"changed");
        // The files of the other commit are not here, and nothing fetches them behind the caller's back.
        let old: ObjectId =
            repositories[0].git(&["rev-parse", &format!("{first}:a.py")], b"").parse().unwrap();
        assert!(repository.reader().unwrap().blob(old, 100).is_err());
        mirrors.open_at(&name("o/r"), &first, &cancel).unwrap();
        assert_eq!(repository.reader().unwrap().blob(old, 100).unwrap(), b"a");
    }

    #[test]
    fn a_repository_that_is_gone_says_what_to_do_and_leaves_nothing() {
        let (host, _repositories) = host(&[]);
        let cache = tempfile::tempdir().unwrap();
        let mirrors = mirrors(host.path(), cache.path(), CloneFilter::Everything);
        let error = mirrors.open(&name("o/gone"), &CancelToken::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.to_line());
        assert!(error.hint().unwrap().contains("--mirror-dir"), "{error:?}");
        assert!(!cache.path().join("o__gone.git").exists() && !cache.path().join("o__gone.partial").exists());
    }

    #[test]
    fn a_cancelled_clone_leaves_nothing_and_waits_for_nobody() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cache = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::new(MirrorConfig {
            cache_dir: Some(cache.path().to_path_buf()),
            base_url: format!("git://{}", listener.local_addr().unwrap()),
            ..MirrorConfig::default()
        })
        .unwrap();
        let cancel = CancelToken::new();
        let error = std::thread::scope(|scope| {
            let clone = scope.spawn(|| mirrors.open(&name("o/r"), &cancel));
            // The server takes the connection and never answers.
            let _connection = listener.accept().unwrap();
            cancel.cancel();
            clone.join().unwrap().unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
        assert!(!cache.path().join("o__r.partial").exists());
    }

    #[test]
    fn clones_in_a_directory_are_used_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let repository = TestRepository::new();
        let commit = repository.commit(&[("a.py", b"a")]);
        std::os::unix::fs::symlink(repository.path(), dir.path().join("o__r.git")).unwrap();
        let config = MirrorConfig { mirror_dir: Some(dir.path().to_path_buf()), ..MirrorConfig::default() };
        let mirrors = Mirrors::new(config).unwrap();
        let cancel = CancelToken::new();
        assert_eq!(mirrors.open_at(&name("o/r"), "main", &cancel).unwrap().1.to_string(), commit);
        let error = mirrors.open(&name("o/other"), &cancel).unwrap_err();
        assert!(
            error.hint().unwrap().starts_with("git clone --bare https://github.com/o/other.git"),
            "{error:?}"
        );
        let error = mirrors.open_at(&name("o/r"), &"0".repeat(40), &cancel).unwrap_err();
        assert!(error.hint().unwrap().contains("fetch"), "{error:?}");
        let nowhere = MirrorConfig { mirror_dir: Some(dir.path().join("x")), ..MirrorConfig::default() };
        assert_eq!(Mirrors::new(nowhere).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn only_known_protocols_and_no_credentials() {
        for url in [
            "ext::sh -c touch% x",
            "ssh://host/a",
            "https://",
            "https://-x",
            "git@github.com:o",
            "/srv/git",
            "https://user:secret@github.com",
            "https://a b",
        ] {
            let config = MirrorConfig { base_url: url.into(), ..MirrorConfig::default() };
            let error = Mirrors::new(config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
            assert!(!error.to_line().contains("secret"), "{error}");
        }
        assert!(Mirrors::new(MirrorConfig::default()).is_ok() || std::env::var_os("HOME").is_none());
    }
}
