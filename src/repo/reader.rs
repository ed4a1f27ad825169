//! Objects by their ids, from one `git cat-file --batch` that stays.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout};

use super::git::stop;
use super::id::ObjectId;
use super::repository::Repository;
use super::tree::{TreeEntry, parse_object};
use crate::error::{Error, ErrorKind, Result};

/// The largest listing of one directory.
const MAX_TREE_LEN: u64 = 64 << 20;
/// The longest header of an answer: an id, a type, a length.
const MAX_HEADER_LEN: u64 = 1 << 12;

/// Reads objects of one repository; several readers of one repository work side by side.
#[derive(Debug)]
pub struct Reader {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    git_dir: PathBuf,
    /// After a failure in the middle of an answer nothing that follows can be trusted.
    is_broken: bool,
}

impl Reader {
    pub(super) fn start(repository: &Repository) -> Result<Self> {
        let mut child = repository.git("cat-file").arg("--batch").spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => Ok(Self {
                child,
                requests,
                answers: BufReader::with_capacity(1 << 16, answers),
                git_dir: repository.git_dir().to_path_buf(),
                is_broken: false,
            }),
            _ => {
                stop(&mut child);
                Err(Error::internal("git was started without pipes"))
            }
        }
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks it, `InvalidData` when it is longer than `max_len` bytes.
    pub fn blob(&mut self, id: ObjectId, max_len: u64) -> Result<Vec<u8>> {
        self.object(&id.to_string(), "blob", max_len)
    }

    /// The names in one directory.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks the tree, `InvalidData` for a malformed one.
    pub fn tree(&mut self, id: ObjectId) -> Result<Vec<TreeEntry>> {
        let object = self.object(&id.to_string(), "tree", MAX_TREE_LEN)?;
        parse_object(&object, id.as_bytes().len()).map_err(|error| error.with_path(&self.git_dir))
    }

    /// The names in the root directory of a commit.
    ///
    /// # Errors
    /// `NotFound` when the repository lacks the commit.
    pub fn root(&mut self, commit: ObjectId) -> Result<Vec<TreeEntry>> {
        let object = self.object(&format!("{commit}^{{tree}}"), "tree", MAX_TREE_LEN)?;
        parse_object(&object, commit.as_bytes().len()).map_err(|error| error.with_path(&self.git_dir))
    }

    /// Whether it still answers: after a failure in the middle of an object it does not.
    pub fn is_usable(&self) -> bool {
        !self.is_broken
    }

    /// The content of what `name` names, which has no line end in it.
    fn object(&mut self, name: &str, kind: &str, max_len: u64) -> Result<Vec<u8>> {
        if self.is_broken {
            return Err(self.ended(std::io::ErrorKind::BrokenPipe.into()));
        }
        // Set until the answer was read to its end.
        self.is_broken = true;
        let (found, len) = match self.ask(name).map_err(|error| self.ended(error))? {
            Some(header) => header,
            None => {
                self.is_broken = false;
                return Err(Error::not_found(format!("the repository has no object `{name}`"))
                    .with_path(&self.git_dir)
                    .with_hint("fetch what is missing; a shallow or partial clone lacks objects"));
            }
        };
        if found != kind || len > max_len {
            let skipped = std::io::copy(&mut self.answers.by_ref().take(len + 1), &mut std::io::sink());
            self.is_broken = !matches!(skipped, Ok(skipped) if skipped == len + 1);
            return Err(match found == kind {
                true => Error::invalid_data(format!("the {kind} {name} is too large"))
                    .with_expected(format_args!("at most {max_len} bytes"), len),
                false => Error::not_found(format!("`{name}` is no {kind}")).with_expected(kind, found),
            });
        }
        let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
        let read = self.answers.by_ref().take(len).read_to_end(&mut content).and_then(|read| {
            let mut newline = [0];
            self.answers.read_exact(&mut newline)?;
            if read as u64 == len && newline == *b"\n" {
                Ok(())
            } else {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
        });
        read.map_err(|error| self.ended(error))?;
        self.is_broken = false;
        Ok(content)
    }

    /// Type and length of an object; `None` when it is missing.
    fn ask(&mut self, name: &str) -> std::io::Result<Option<(String, u64)>> {
        self.requests.write_all(format!("{name}\n").as_bytes())?;
        let mut header = Vec::new();
        self.answers.by_ref().take(MAX_HEADER_LEN).read_until(b'\n', &mut header)?;
        let header = String::from_utf8_lossy(&header);
        let Some(header) = header.strip_suffix('\n') else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        if header.ends_with(" missing") || header.ends_with(" ambiguous") {
            return Ok(None);
        }
        let mut words = header.split(' ').skip(1);
        match (words.next(), words.next().and_then(|len| len.parse().ok())) {
            (Some(kind), Some(len)) => Ok(Some((kind.to_owned(), len))),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }

    fn ended(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::InvalidData, "git stopped in the middle of an object")
            .with_path(&self.git_dir)
            .with_hint("check the repository with git fsck")
            .with_source(error)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It only reads: nothing is lost with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_repository::TestRepository;
    use super::*;
    use crate::cancel::CancelToken;

    #[test]
    fn objects_are_read_and_refusals_do_not_disturb() {
        let repository = TestRepository::new();
        let large = vec![b'\n'; 200_000];
        let commit = repository.commit(&[("a", b"a\n\0\xff"), ("dir/b", b""), ("large", &large)]);
        let opened = Repository::open(repository.path()).unwrap();
        let mut reader = opened.reader().unwrap();
        let root = reader.root(commit.parse().unwrap()).unwrap();
        let names: Vec<_> = root.iter().map(|entry| &entry.path[..]).collect();
        assert_eq!(names, [&b"a"[..], b"dir", b"large"]);
        let missing: ObjectId = "3".repeat(40).parse().unwrap();
        for _ in 0..2 {
            assert_eq!(reader.blob(root[0].id, 4).unwrap(), b"a\n\0\xff");
            assert_eq!(reader.blob(root[0].id, 3).unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(reader.blob(root[2].id, 199_999).unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(reader.blob(root[2].id, 200_000).unwrap(), large);
            assert_eq!(reader.blob(root[1].id, 100).unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(reader.blob(missing, 100).unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(reader.root(missing).unwrap_err().kind(), ErrorKind::NotFound);
            let directory = reader.tree(root[1].id).unwrap();
            assert_eq!(
                (&directory[0].path[..], reader.blob(directory[0].id, 0).unwrap()),
                (&b"b"[..], vec![])
            );
        }
    }

    #[test]
    fn a_corrupt_object_is_an_error_and_stays_one() {
        let repository = TestRepository::new();
        let commit = repository.commit(&[("a", b"content of a file")]);
        repository.unpack();
        let opened = Repository::open(repository.path()).unwrap();
        let id = opened.tree(commit.parse().unwrap(), &CancelToken::new()).unwrap()[0].id;
        let hex = id.to_string();
        let file = repository.path().join("objects").join(&hex[..2]).join(&hex[2..]);
        let mut bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        bytes.truncate(bytes.len() / 2);
        std::fs::write(&file, bytes).unwrap();
        let mut reader = opened.reader().unwrap();
        assert!(reader.is_usable() && reader.blob(id, 1 << 20).is_err() && !reader.is_usable());
        assert!(opened.reader().unwrap().root(commit.parse().unwrap()).is_ok());
    }
}
