//! Log lines: off until a callback is set.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Once, PoisonError, RwLock};

use ::log::{Level, LevelFilter, Log, Metadata, Record};

use super::boundary::{OK, enter};
use super::error::ErrorObject;
use super::text::Str;
use crate::error::{Error, ErrorKind, Result};

/// No lines.
pub const SWEBENCH_LOG_OFF: i32 = 0;
/// Failures.
pub const SWEBENCH_LOG_ERROR: i32 = 1;
/// What the user should know.
pub const SWEBENCH_LOG_WARN: i32 = 2;
/// Steps of the work.
pub const SWEBENCH_LOG_INFO: i32 = 3;
/// Details for finding out why.
pub const SWEBENCH_LOG_DEBUG: i32 = 4;
/// Everything.
pub const SWEBENCH_LOG_TRACE: i32 = 5;

/// Receives one log line: its level, the part of the library that it comes from, and the text without a newline.
///
/// Called on any thread of the library or the caller's, by several at once. The texts are borrowed for the call. It must
/// not call swebench_log_set() or swebench_shutdown(); lines that its own calls cause are dropped.
pub type LogCallback = Option<unsafe extern "C" fn(level: i32, target: Str, message: Str, user: *mut c_void)>;

struct Sink {
    level: LevelFilter,
    callback: unsafe extern "C" fn(i32, Str, Str, *mut c_void),
    user: *mut c_void,
}

// SAFETY: the caller promises in `swebench_log_set` that callback and user data may be used from any thread.
unsafe impl Send for Sink {}
// SAFETY: likewise, by several threads at once.
unsafe impl Sync for Sink {}

/// Readers are callbacks in flight, so that a writer waits for them.
static SINK: RwLock<Option<Sink>> = RwLock::new(None);

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Dependencies log, too; their lines are not written for our users.
        metadata.target().starts_with("swebench_infer") && metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || IN_CALLBACK.get() {
            return;
        }
        let message = record.args().to_string();
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sink) = sink.as_ref().filter(|sink| record.level() <= sink.level) else { return };
        IN_CALLBACK.set(true);
        // SAFETY: callback and user data are valid until `swebench_log_set` replaces them, which waits for this lock.
        unsafe {
            (sink.callback)(number(record.level()), Str::new(record.target()), Str::new(&message), sink.user)
        };
        IN_CALLBACK.set(false);
    }

    fn flush(&self) {}
}

fn number(level: Level) -> i32 {
    match level {
        Level::Error => SWEBENCH_LOG_ERROR,
        Level::Warn => SWEBENCH_LOG_WARN,
        Level::Info => SWEBENCH_LOG_INFO,
        Level::Debug => SWEBENCH_LOG_DEBUG,
        Level::Trace => SWEBENCH_LOG_TRACE,
    }
}

fn filter(level: i32) -> Result<LevelFilter> {
    Ok(match level {
        SWEBENCH_LOG_OFF => LevelFilter::Off,
        SWEBENCH_LOG_ERROR => LevelFilter::Error,
        SWEBENCH_LOG_WARN => LevelFilter::Warn,
        SWEBENCH_LOG_INFO => LevelFilter::Info,
        SWEBENCH_LOG_DEBUG => LevelFilter::Debug,
        SWEBENCH_LOG_TRACE => LevelFilter::Trace,
        _ => {
            return Err(Error::invalid_argument("unknown log level")
                .with_expected("SWEBENCH_LOG_OFF (0) to SWEBENCH_LOG_TRACE (5)", level));
        }
    })
}

/// Sends log lines up to `level` (SWEBENCH_LOG_*) to `callback`, or to nobody when `callback` is NULL.
///
/// One callback serves the whole process; setting another one replaces it. The call waits for callbacks in flight, so
/// that the old callback's user data may be freed afterwards. Secrets are never logged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_log_set(
    level: i32,
    callback: LogCallback,
    user: *mut c_void,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        let level = filter(level)?;
        refuse_in_callback()?;
        match callback {
            None => clear(),
            Some(callback) => {
                install()?;
                *SINK.write().unwrap_or_else(PoisonError::into_inner) = Some(Sink { level, callback, user });
                ::log::set_max_level(level);
            }
        }
        OK
    })
}

/// Makes this library's logger the process's, once.
fn install() -> Result<()> {
    static INSTALL: Once = Once::new();
    static LOGGER: Logger = Logger;
    let mut refused = false;
    INSTALL.call_once(|| refused = ::log::set_logger(&LOGGER).is_err());
    if refused {
        // Only a Rust program that links the rlib can get here; its own logger receives our lines already.
        return Err(Error::new(ErrorKind::Busy, "this program has a logger of its own"));
    }
    Ok(())
}

/// Removes the callback after those in flight have returned.
pub(super) fn clear() {
    ::log::set_max_level(LevelFilter::Off);
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Waiting for the callback in which we are would never end.
pub(super) fn refuse_in_callback() -> Result<()> {
    if IN_CALLBACK.get() {
        return Err(Error::new(ErrorKind::Busy, "this function cannot be called from the log callback"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_round_trip_and_others_are_refused() {
        for level in Level::iter() {
            assert_eq!(filter(number(level)).unwrap(), level.to_level_filter());
        }
        assert!(filter(-1).is_err());
        assert!(filter(6).is_err());
    }
}
