//! Messages, on standard error: for people, or one JSON object a line.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};

use crate::args::LogFormat;
use crate::exit::Failure;
use crate::swebench::{self, Level};

/// Says things to the user, above the progress bar when there is one.
pub(crate) struct Talk {
    format: LogFormat,
    level: Option<Level>,
    bar: ProgressBar,
}

impl Talk {
    pub(crate) fn new(format: LogFormat, level: Option<Level>) -> Self {
        let shows_bar = format == LogFormat::Text && level >= Some(Level::Warn) && stderr().is_terminal();
        let target = if shows_bar { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { format, level, bar: ProgressBar::with_draw_target(None, target) }
    }

    /// Shows the library's log lines from now on.
    pub(crate) fn receive_log_lines(talk: &Arc<Self>) -> Result<(), Failure> {
        let Some(level) = talk.level else { return Ok(()) };
        let talk = Arc::clone(talk);
        swebench::set_logger(level, move |level, target, message| {
            let name = name(level);
            match talk.format {
                LogFormat::Text => talk.line(&format!("{name}: {message}")),
                LogFormat::Json => talk.json(&json!({"level": name, "target": target, "message": message})),
            }
        })?;
        Ok(())
    }

    /// The progress bar; hidden unless stderr is a terminal and messages are for people.
    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Whether a terminal shows the bar, so that lines of progress are not needed.
    pub(crate) fn shows_bar(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Something that the user wants to know, as an event with a name and values.
    pub(crate) fn say(&self, level: Level, text: &str, event: &Value) {
        if self.level < Some(level) {
            return;
        }
        match (self.format, level) {
            (LogFormat::Json, _) => {
                self.json(&json!({"level": name(level), "message": text, "event": event}))
            }
            (LogFormat::Text, Level::Info) => self.line(text),
            (LogFormat::Text, _) => self.line(&format!("{}: {text}", name(level))),
        }
    }

    /// News of the work: shown unless the user asked for less, without a prefix.
    pub(crate) fn news(&self, text: &str, event: &Value) {
        if self.level < Some(Level::Warn) {
            return;
        }
        match self.format {
            LogFormat::Json => self.json(&json!({"level": "info", "message": text, "event": event})),
            LogFormat::Text => self.line(text),
        }
    }

    /// Why the command could not go on.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.level.is_none() {
            return;
        }
        let Failure { message, causes, hint, .. } = failure;
        if self.format == LogFormat::Json {
            return self.json(&json!({"level": "error", "message": message, "causes": causes, "hint": hint}));
        }
        self.line(&format!("error: {message}"));
        causes.iter().for_each(|cause| self.line(&format!("  caused by: {cause}")));
        if let Some(hint) = hint {
            self.line(&format!("hint: {hint}"));
        }
    }

    fn json(&self, value: &Value) {
        self.line(&value.to_string());
    }

    fn line(&self, text: &str) {
        // When nobody reads stderr there is nobody to tell.
        self.bar.suspend(|| drop(writeln!(stderr().lock(), "{text}")));
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}
