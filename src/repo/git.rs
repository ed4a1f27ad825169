//! The system's git as a child process that nothing but its arguments decides about.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// What of the environment git sees: where programs are, and how the network is reached.
const KEPT_VARIABLES: [&str; 17] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "GIT_EXEC_PATH",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// No configuration but the repository's own, no prompts, no replaced objects, messages in English.
const VARIABLES: [(&str, &str); 10] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", ""),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("LC_ALL", "C"),
];

/// What the repository's own configuration may not say, and when a connection counts as dead. The directory was named by the
/// user, so whose it is does not matter.
const CONFIGURATION: [&str; 11] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.pager=cat",
    "core.autocrlf=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.ext.allow=never",
    "safe.directory=*",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

/// How often a running child's owner is asked whether it still wants it.
const POLL: Duration = Duration::from_millis(20);
/// Of git's messages, this much is kept.
const MAX_STDERR: usize = 64 << 10;
/// What a command may print unless it says otherwise.
const MAX_STDOUT: usize = 1 << 30;

/// A git command to be run.
#[derive(Debug)]
pub struct Git {
    command: Command,
    subcommand: String,
    stdin: Option<Vec<u8>>,
    timeout: Option<Duration>,
    max_stdout: usize,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct GitOutput {
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// The start of standard error, with control characters escaped: servers and repositories may speak in it.
    pub stderr: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
}

impl GitOutput {
    /// Whether git says that it did what was asked.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

impl Git {
    /// `git SUBCOMMAND` outside of any repository.
    pub fn new(subcommand: &str) -> Self {
        Self::prepare(None, subcommand)
    }

    /// `git SUBCOMMAND` in the repository whose git directory this is; none is looked for elsewhere.
    pub fn in_repository(git_dir: &Path, subcommand: &str) -> Self {
        Self::prepare(Some(git_dir), subcommand)
    }

    fn prepare(git_dir: Option<&Path>, subcommand: &str) -> Self {
        let mut command = Command::new("git");
        command.env_clear();
        for name in KEPT_VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(VARIABLES);
        // Transports are for those who ask for one.
        command.env("GIT_ALLOW_PROTOCOL", "");
        for setting in CONFIGURATION {
            command.args(["-c", setting]);
        }
        if let Some(git_dir) = git_dir {
            command.arg("--git-dir").arg(git_dir).current_dir(git_dir);
        }
        command.arg(subcommand);
        Self {
            command,
            subcommand: subcommand.to_owned(),
            stdin: None,
            timeout: None,
            max_stdout: MAX_STDOUT,
        }
    }

    /// Adds an argument of the caller's own. What a user, a file or a network says goes behind `--`, or comes from a type
    /// that cannot look like an option.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds several.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of git's environment, such as `GIT_INDEX_FILE`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in another directory than the repository's.
    #[must_use]
    pub fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What git reads on standard input; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// How long it may take; for ever by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets git speak this protocol, such as `https`, and no other.
    #[must_use]
    pub(super) fn allow_protocol(self, protocol: &str) -> Self {
        self.env("GIT_ALLOW_PROTOCOL", protocol)
    }

    /// Runs the command to its end, whatever that is.
    ///
    /// # Errors
    /// `NotFound` without git, `Cancelled`, `Network` when the time is up, `InvalidData` when it prints too much. The child
    /// and what it started are then gone.
    pub fn run(mut self, cancel: &CancelToken) -> Result<GitOutput> {
        cancel.check()?;
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self.spawn_with(stdin, Stdio::piped())?;
        let outcome = self.finish(&mut child, deadline, cancel);
        if outcome.is_err() {
            stop(&mut child);
        }
        outcome
    }

    /// Runs the command; a failure is an error of this kind that says what git said.
    pub fn run_checked(self, failure: ErrorKind, cancel: &CancelToken) -> Result<Vec<u8>> {
        let subcommand = self.subcommand.clone();
        let output = self.run(cancel)?;
        if output.is_success() {
            return Ok(output.stdout);
        }
        Err(Error::new(failure, format!("git {subcommand} failed: {}", last_lines(&output.stderr))))
    }

    /// Starts the command for a conversation over its standard input and output.
    pub(super) fn spawn(mut self) -> Result<Child> {
        self.spawn_with(Stdio::piped(), Stdio::null())
    }

    fn spawn_with(&mut self, stdin: Stdio, stderr: Stdio) -> Result<Child> {
        // A group of its own: the terminal's Ctrl-C is for the caller, who then stops the whole group.
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        self.command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::not_found("the program `git` is not there")
                .with_hint("install git and put it on the PATH")
                .with_source(error),
            _ => Error::new(ErrorKind::Io, "cannot start git").with_source(error),
        })
    }

    fn finish(
        &mut self,
        child: &mut Child,
        deadline: Option<Instant>,
        cancel: &CancelToken,
    ) -> Result<GitOutput> {
        let (sender, pieces) = channel();
        let no_thread =
            |error| Error::new(ErrorKind::Io, "the system gave no thread for git").with_source(error);
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), self.stdin.take()) {
            // A command that does not read all of it says why in its exit code.
            thread("git-stdin", move || drop(pipe.write_all(&bytes))).map_err(no_thread)?;
        }
        if let Some(pipe) = child.stdout.take() {
            forward(pipe, self.max_stdout, sender.clone(), Piece::Stdout).map_err(no_thread)?;
        }
        if let Some(pipe) = child.stderr.take() {
            forward(pipe, MAX_STDERR, sender, Piece::Stderr).map_err(no_thread)?;
        }
        let mut output = GitOutput { stdout: Vec::new(), stderr: String::new(), code: None };
        loop {
            match pieces.recv_timeout(POLL) {
                Ok(Piece::Stdout(Some(bytes))) => output.stdout = bytes,
                Ok(Piece::Stdout(None)) => {
                    return Err(Error::invalid_data(format!("git {} prints too much", self.subcommand))
                        .with_expected(format_args!("at most {} bytes", self.max_stdout), "more"));
                }
                Ok(Piece::Stderr(bytes)) => output.stderr = escaped(&bytes.unwrap_or_default()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.check(deadline, cancel)?,
            }
        }
        output.code = self.wait(child, deadline, cancel)?.code();
        Ok(output)
    }

    /// Waits for a child that has closed its output.
    fn wait(&self, child: &mut Child, deadline: Option<Instant>, cancel: &CancelToken) -> Result<ExitStatus> {
        loop {
            let ended = child.try_wait();
            let ended =
                ended.map_err(|error| Error::new(ErrorKind::Io, "cannot wait for git").with_source(error))?;
            if let Some(status) = ended {
                return Ok(status);
            }
            self.check(deadline, cancel)?;
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn check(&self, deadline: Option<Instant>, cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        match (deadline, self.timeout) {
            (Some(deadline), Some(timeout)) if Instant::now() >= deadline => Err(Error::new(
                ErrorKind::Network,
                format!("git {} did not end within {} s", self.subcommand, timeout.as_secs()),
            )),
            _ => Ok(()),
        }
    }
}

/// The end of a stream.
enum Piece {
    /// `None` when it is longer than allowed.
    Stdout(Option<Vec<u8>>),
    /// `None` when it could not be read.
    Stderr(Option<Vec<u8>>),
}

/// Reads a pipe to its end on a thread and sends what came.
fn forward(
    mut pipe: impl Read + Send + 'static,
    max: usize,
    sender: Sender<Piece>,
    piece: fn(Option<Vec<u8>>) -> Piece,
) -> std::io::Result<()> {
    thread("git-output", move || {
        let mut bytes = Vec::new();
        let read = pipe.by_ref().take(max as u64).read_to_end(&mut bytes);
        let is_whole = read.is_ok() && matches!(pipe.read(&mut [0]), Ok(0));
        let is_stderr = matches!(piece(None), Piece::Stderr(_));
        if is_stderr {
            // Nobody waits for the rest, but git waits until it is read.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        let _ = sender.send(piece((is_whole || is_stderr).then_some(bytes)));
    })
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// Ends the child with all that it started: `git clone` leaves the downloading to its children.
pub(super) fn stop(child: &mut Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill")
        .args(["-s", "KILL", "--", &group])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let _ = child.kill();
    let _ = child.wait();
}

/// Text from outside that is safe on a terminal.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\n' | '\t' => text.push(character),
            // Progress lines end so.
            '\r' => text.push('\n'),
            _ if character.is_control() => text.extend(character.escape_default()),
            _ => text.push(character),
        }
    }
    text
}

/// The lines of a message that say most, on one line.
pub(super) fn last_lines(stderr: &str) -> String {
    const SHOWN: usize = 3;
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match &lines[lines.len().saturating_sub(SHOWN)..] {
        [] => "it did not say why".into(),
        lines => lines.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_input_are_bytes() {
        let id = Git::new("hash-object").arg("--stdin").stdin(*b"a\r\n\xff\0");
        let id = id.run_checked(ErrorKind::Io, &CancelToken::new()).unwrap();
        assert_eq!(id.trim_ascii().len(), 40);
        let large = vec![b'x'; 3 << 20];
        let id = Git::new("hash-object").arg("--stdin").stdin(large).run(&CancelToken::new()).unwrap();
        assert!(id.is_success());
    }

    #[test]
    fn a_failure_says_what_git_said_without_escapes() {
        let error =
            Git::new("no-such\u{1b}[31mcommand").run_checked(ErrorKind::Io, &CancelToken::new()).unwrap_err();
        assert!(error.to_string().contains("is not a git command"), "{error}");
        assert!(
            error.message().contains("\\u{1b}[31m") || !error.message()[20..].contains('\u{1b}'),
            "{error:?}"
        );
        assert_eq!(escaped(b"a\x1b]0;b\x07\rc\xff"), "a\\u{1b}]0;b\\u{7}\nc\u{fffd}");
    }

    #[test]
    fn a_command_that_does_not_end_is_stopped() {
        // `cat-file --batch` waits for input that never comes: its standard input is a pipe that nobody closes.
        let dir = tempfile::tempdir().unwrap();
        Git::new("init").args(["-q", "--bare", "--"]).arg(dir.path()).run(&CancelToken::new()).unwrap();
        let wait = || Git::in_repository(dir.path(), "-c").arg("alias.wait=!sleep 60").arg("wait");
        let start = Instant::now();
        let error = wait().timeout(Duration::from_millis(50)).run(&CancelToken::new()).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");

        let cancel = CancelToken::new();
        let other = cancel.clone();
        let canceller = std::thread::spawn(move || other.cancel());
        let error = wait().run(&cancel).unwrap_err();
        canceller.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[test]
    fn too_much_output_is_refused() {
        let mut git = Git::new("version");
        git.max_stdout = 3;
        let error = git.run(&CancelToken::new()).unwrap_err();
        assert!(error.to_string().contains("prints too much"), "{error}");
    }
}
