//! How the program ends.

use std::process::ExitCode;

use crate::swebench::{self, sys};

/// The exit codes that the help lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done,
    /// It failed.
    Failed,
    /// The command line asks for something that cannot be.
    WrongUsage,
    /// It finished, but some instances failed.
    SomeFailed,
    /// The user interrupted it.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::WrongUsage => 2,
            Self::SomeFailed => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not go on.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
    exit: Exit,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, exit: Exit::Failed }
    }

    /// The failure of a call that judges what the user typed: an argument that can never be right is wrong usage.
    pub(crate) fn of_configuration(error: swebench::Error) -> Self {
        let wrong = error.code() == sys::SWEBENCH_ERROR_INVALID_ARGUMENT;
        Self { exit: if wrong { Exit::WrongUsage } else { Exit::Failed }, ..error.into() }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<swebench::Error> for Failure {
    fn from(error: swebench::Error) -> Self {
        let details: serde_json::Value = serde_json::from_str(error.json()).unwrap_or_default();
        let text = |key: &str| details[key].as_str().map(str::to_owned);
        let causes = details["causes"].as_array().into_iter().flatten();
        Self {
            message: text("line").unwrap_or_else(|| error.to_string()),
            causes: causes.filter_map(|cause| cause.as_str()).map(str::to_owned).collect(),
            hint: text("hint"),
            exit: Exit::Failed,
        }
    }
}
