//! The program under test, in a temporary directory, with what it printed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A directory in which commands run.
pub struct Cli {
    dir: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command, not started, without the machine's environment that would change what it does.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swebench-cli"));
        command.args(args).current_dir(self.dir()).env("HF_HOME", self.dir()).env("HF_HUB_OFFLINE", "1");
        for name in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "RANK", "HF_TOKEN", "HF_ENDPOINT"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the command with nothing on standard input.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Starts the command with its standard error to be read.
    pub fn spawn(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a command that must fail with this exit code, and say these things on stderr and nothing on stdout.
    #[track_caller]
    pub fn refuses(&self, args: &[&str], code: i32, says: &[&str]) {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
        for text in says {
            assert!(outcome.stderr.contains(text), "{args:?}: no {text:?} in\n{}", outcome.stderr);
        }
        assert!(!outcome.stderr.contains("panicked"), "{args:?}: {}", outcome.stderr);
    }
}
