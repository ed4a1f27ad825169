//! The library's error: a kind to match on, a message with what was expected and found, a hint, and the cause.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of every fallible function of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for code that has to decide what to do next.
///
/// Each kind is one status code of the C ABI (`capi/status.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller passed a value that can never be right.
    InvalidArgument,
    /// A file, directory, split, column or model does not exist.
    NotFound,
    /// The operating system refused to read or write.
    Io,
    /// A file's content is not what its format demands: truncated, corrupt or hostile.
    InvalidData,
    /// Valid, but not something that this library can do.
    Unsupported,
    /// Memory, on the host or the device, does not suffice.
    OutOfMemory,
    /// The device or its driver is missing or failed.
    Device,
    /// The network or a server failed.
    Network,
    /// The work was cancelled by its owner.
    Cancelled,
    /// The object is in use by another thread or process.
    Busy,
    /// A bug in this library, including a caught panic.
    Internal,
}

impl ErrorKind {
    /// The kind's name as it appears in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::Io => "io",
            Self::InvalidData => "invalid_data",
            Self::Unsupported => "unsupported",
            Self::OutOfMemory => "out_of_memory",
            Self::Device => "device",
            Self::Network => "network",
            Self::Cancelled => "cancelled",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

/// What a server said when it refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReply {
    /// The HTTP status.
    pub status: u16,
    /// The provider's word for the reason.
    pub code: Option<String>,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
}

type Source = Box<dyn StdError + Send + Sync + 'static>;

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    expected: Option<String>,
    got: Option<String>,
    hint: Option<String>,
    reply: Option<ServerReply>,
    source: Option<Source>,
}

/// An error with its kind, message, path, expectation, hint and cause.
///
/// `Display` prints one line, `path: message: expected X, got Y`; the hint and the causes are apart, so that a user
/// interface can lay them out ([`Error::hint`], [`std::error::Error::source`]).
pub struct Error(Box<Inner>);

impl Error {
    /// A new error of this kind; the message is a sentence fragment in lower case without a final stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            expected: None,
            got: None,
            hint: None,
            reply: None,
            source: None,
        }))
    }

    /// An [`ErrorKind::InvalidArgument`] error.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// An [`ErrorKind::NotFound`] error.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// An [`ErrorKind::InvalidData`] error.
    pub fn invalid_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidData, message)
    }

    /// An [`ErrorKind::Unsupported`] error.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// An [`ErrorKind::Internal`] error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The operating system's error on `path`; a missing file becomes [`ErrorKind::NotFound`].
    pub fn io(action: &str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {action}")).with_path(path).with_source(source)
    }

    /// Adds the file or directory that the error is about.
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// Adds what was expected and what was found instead.
    pub fn with_expected(mut self, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        self.0.expected = Some(expected.to_string());
        self.0.got = Some(got.to_string());
        self
    }

    /// Adds advice: what the user can do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds what a server said.
    pub fn with_reply(mut self, reply: ServerReply) -> Self {
        self.0.reply = Some(reply);
        self
    }

    /// Adds the cause.
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this error in what was being done; kind, hint and a server's reply are kept.
    pub fn context(self, message: impl Into<String>) -> Self {
        let mut outer = Self::new(self.0.kind, message);
        outer.0.hint.clone_from(&self.0.hint);
        outer.0.reply.clone_from(&self.0.reply);
        outer.with_source(self)
    }

    /// What to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without path, expectation and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file or directory that the error is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Advice, when there is any.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What a server said, when the error is its refusal.
    pub fn reply(&self) -> Option<&ServerReply> {
        self.0.reply.as_ref()
    }

    /// What was expected, when that was stated.
    pub fn expected(&self) -> Option<&str> {
        self.0.expected.as_deref()
    }

    /// What was found instead.
    pub fn got(&self) -> Option<&str> {
        self.0.got.as_deref()
    }

    /// Every line of the cause chain below this error, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        causes
    }

    /// The error and its causes on one line, as a log or a prediction's `error` field wants it.
    pub fn to_line(&self) -> String {
        let mut line = self.to_string();
        for cause in self.causes() {
            line.push_str(": ");
            line.push_str(&cause);
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.0.message)?;
        if let (Some(expected), Some(got)) = (&self.0.expected, &self.0.got) {
            write!(f, ": expected {expected}, got {got}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_path_expectation_and_causes() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::invalid_data("tensor `w` has the wrong shape")
            .with_path("/m/model.safetensors")
            .with_expected("[2, 3]", "[3, 2]")
            .with_hint("convert the checkpoint again")
            .with_source(io)
            .context("cannot load the model");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(error.hint(), Some("convert the checkpoint again"));
        assert_eq!(
            error.to_line(),
            "cannot load the model: /m/model.safetensors: tensor `w` has the wrong shape: \
             expected [2, 3], got [3, 2]: disk on fire"
        );
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let error = Error::io("open", "/nowhere", std::io::ErrorKind::NotFound.into());
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
