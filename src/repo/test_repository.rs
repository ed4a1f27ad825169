//! Small repositories for tests, made by `git fast-import` and `git hash-object` in a directory that goes away.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A bare repository with the branch `main`.
pub(crate) struct TestRepository {
    dir: tempfile::TempDir,
}

impl TestRepository {
    pub(crate) fn new() -> Self {
        let repository = Self { dir: tempfile::tempdir().unwrap() };
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."], b"");
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The commit that `main` is at.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "main"], b"")
    }

    /// Adds a commit that sets these files; its id.
    pub(crate) fn commit(&self, files: &[(&str, &[u8])]) -> String {
        let entries: Vec<_> =
            files.iter().map(|(path, content)| ("100644", path.as_bytes(), *content)).collect();
        self.commit_entries(&entries)
    }

    /// Adds a commit that sets entries with these modes; the content of a submodule is its commit's id.
    pub(crate) fn commit_entries(&self, entries: &[(&str, &[u8], &[u8])]) -> String {
        let mut stream = b"commit refs/heads/main\ncommitter T <t@example.org> 0 +0000\ndata 0\n".to_vec();
        if self.path().join("refs/heads/main").exists() {
            stream.extend(b"from refs/heads/main^0\n");
        }
        for (mode, path, content) in entries {
            let path: String = path.iter().map(|byte| format!("\\{byte:03o}")).collect();
            if *mode == "160000" {
                let id = std::str::from_utf8(content).unwrap();
                stream.extend(format!("M {mode} {id} \"{path}\"\n").bytes());
            } else {
                stream.extend(format!("M {mode} inline \"{path}\"\ndata {}\n", content.len()).bytes());
                stream.extend(*content);
                stream.push(b'\n');
            }
        }
        self.git(&["fast-import", "--quiet", "--force"], &stream);
        self.head()
    }

    /// Adds a blob; its id.
    pub(crate) fn blob(&self, content: &[u8]) -> String {
        self.git(&["hash-object", "-w", "--stdin"], content)
    }

    /// Adds a tree with names that git itself would refuse; its id.
    pub(crate) fn raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut object = Vec::new();
        for (mode, name, id) in entries {
            object.extend(mode.bytes().chain([b' ']).chain(name.iter().copied()).chain([0]));
            let digits = id.as_bytes().chunks(2);
            object.extend(
                digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()),
            );
        }
        self.git(&["hash-object", "-w", "--stdin", "--literally", "-t", "tree"], &object)
    }

    /// Adds a commit of this tree; its id.
    pub(crate) fn commit_tree(&self, tree: &str) -> String {
        self.git(&["commit-tree", "-m", "x", tree], b"")
    }

    /// Turns packs into loose objects.
    pub(crate) fn unpack(&self) {
        for pack in std::fs::read_dir(self.path().join("objects/pack")).unwrap() {
            let pack = pack.unwrap().path();
            let outside = self.path().join("outside.pack");
            std::fs::rename(&pack, &outside).unwrap();
            if pack.extension().is_some_and(|extension| extension == "pack") {
                self.git(&["unpack-objects", "-q"], &std::fs::read(&outside).unwrap());
            }
        }
    }

    /// Runs git in the repository; what it prints.
    pub(crate) fn git(&self, args: &[&str], stdin: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(["-c", "init.defaultBranch=main", "-c", "user.name=T", "-c", "user.email=t@example.org"])
            .args(args)
            .current_dir(self.path())
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {args:?} failed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
