//! What belongs to the library as a whole.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;
use std::time::Duration;

use super::sys::{self, swebench_str};
use super::{Result, borrow, call, call_for_text, lend};

/// Greets the library; call it before anything else.
pub fn init() -> Result<()> {
    // SAFETY: the output lives during the call.
    call(|error| unsafe { sys::swebench_init(sys::SWEBENCH_ABI_VERSION, error) }).map(drop)
}

/// The library's version.
pub fn version() -> &'static str {
    // SAFETY: static and NUL-terminated, by the header's promise.
    unsafe { CStr::from_ptr(sys::swebench_version()) }.to_str().unwrap_or_default()
}

/// What the library can do on this machine, as JSON.
pub fn capabilities() -> Result<String> {
    // SAFETY: the outputs live during the call.
    call_for_text(|out, error| unsafe { sys::swebench_capabilities(out, error) })
}

/// Cancels all jobs and waits for their threads; `false` when `timeout` passed first.
pub fn shutdown(timeout: Duration) -> Result<bool> {
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: the output lives during the call.
    call(|error| unsafe { sys::swebench_shutdown(timeout_ms, error) })
        .map(|status| status == sys::SWEBENCH_OK)
}

/// The JSON Schema of a kind of configuration.
pub fn config_schema(kind: &str) -> Result<String> {
    // SAFETY: text and outputs live during the call.
    call_for_text(|out, error| unsafe { sys::swebench_config_schema(lend(kind), out, error) })
}

/// A configuration with every default filled in.
pub fn config_validate(kind: &str, config_json: &str) -> Result<String> {
    // SAFETY: texts and outputs live during the call.
    call_for_text(|out, error| unsafe {
        sys::swebench_config_validate(lend(kind), lend(config_json), out, error)
    })
}

/// The diff in a model's answer.
pub fn extract_diff(response: &str, mode: &str) -> Result<String> {
    // SAFETY: texts and outputs live during the call.
    call_for_text(|out, error| unsafe { sys::swebench_extract_diff(lend(response), lend(mode), out, error) })
}

/// Takes an answer or a patch through the steps of a configuration of kind "diff"; the result is a report, JSON too.
pub fn diff(answer: &str, config_json: &str) -> Result<String> {
    // SAFETY: texts and outputs live during the call.
    call_for_text(|out, error| unsafe { sys::swebench_diff(lend(answer), lend(config_json), out, error) })
}

/// A patch with counts that fit its hunks.
pub fn repair_patch(patch: &str, mode: &str) -> Result<String> {
    // SAFETY: texts and outputs live during the call.
    call_for_text(|out, error| unsafe { sys::swebench_repair_patch(lend(patch), lend(mode), out, error) })
}

/// A patch with no context but one line after each change.
pub fn minimal_patch(patch: &str, mode: &str) -> Result<String> {
    // SAFETY: texts and outputs live during the call.
    call_for_text(|out, error| unsafe { sys::swebench_minimal_patch(lend(patch), lend(mode), out, error) })
}

/// The importance of a log line, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// Failures.
    Error = sys::SWEBENCH_LOG_ERROR,
    /// What the user should know.
    Warn = sys::SWEBENCH_LOG_WARN,
    /// Steps of the work.
    Info = sys::SWEBENCH_LOG_INFO,
    /// Details for finding out why.
    Debug = sys::SWEBENCH_LOG_DEBUG,
    /// Everything.
    Trace = sys::SWEBENCH_LOG_TRACE,
}

type Logger = Box<dyn Fn(Level, &str, &str) + Send + Sync>;

/// Sends log lines up to `level` (level, target, message) to `logger`, for the rest of the process.
///
/// Only the first logger is kept; later calls change the level.
pub fn set_logger(level: Level, logger: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> Result<()> {
    static LOGGER: OnceLock<Logger> = OnceLock::new();

    unsafe extern "C" fn forward(
        level: i32,
        target: swebench_str,
        message: swebench_str,
        _user: *mut c_void,
    ) {
        let level = match level {
            sys::SWEBENCH_LOG_ERROR => Level::Error,
            sys::SWEBENCH_LOG_WARN => Level::Warn,
            sys::SWEBENCH_LOG_INFO => Level::Info,
            sys::SWEBENCH_LOG_DEBUG => Level::Debug,
            _ => Level::Trace,
        };
        if let Some(logger) = LOGGER.get() {
            // SAFETY: both texts live during this call.
            unsafe { logger(level, borrow(target), borrow(message)) }
        }
    }

    LOGGER.get_or_init(|| Box::new(logger));
    // SAFETY: callback and logger live as long as the process, and any thread may call them.
    call(|error| unsafe { sys::swebench_log_set(level as i32, Some(forward), std::ptr::null_mut(), error) })
        .map(drop)
}
