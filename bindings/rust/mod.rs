//! A safe wrapper around the C ABI: handles that free themselves, errors as `Result`, jobs as iterators of events.
//!
//! It uses `include/swebench_infer.h` and nothing else of the library, so it works against the shared library and, as
//! in `swebench-cli`, against the one that is linked in. Keep it in a module of your program: `mod swebench;`.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "a program uses the parts that it needs")]

mod client;
mod error;
mod job;
mod library;
mod model;
pub mod sys;
mod tokenizer;

pub use client::Client;
pub use error::{Error, Result};
pub use job::{Event, Job, JobHandle};
pub use library::{
    Level, capabilities, config_schema, config_validate, diff, extract_diff, init, minimal_patch,
    repair_patch, set_logger, shutdown, version,
};
pub use model::Model;
pub use tokenizer::Tokenizer;

use std::ptr;
use std::slice;

use sys::{swebench_buf, swebench_error, swebench_str};

/// Lends a text to the library for one call.
fn lend(text: &str) -> swebench_str {
    swebench_str { ptr: text.as_ptr().cast(), len: text.len() }
}

/// Copies a text that the library lends.
///
/// # Safety
/// What the text was borrowed from must still be alive.
unsafe fn copy(text: swebench_str) -> String {
    // SAFETY: alive by contract.
    unsafe { borrow(text) }.to_owned()
}

/// The text that the library lends, which is UTF-8 by the header's promise.
///
/// # Safety
/// What the text was borrowed from must stay alive during `'a`.
unsafe fn borrow<'a>(text: swebench_str) -> &'a str {
    if text.len == 0 {
        return "";
    }
    // SAFETY: a live array of that length, by contract and the header's promise.
    let bytes = unsafe { slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The ids at a pointer that the library lends.
///
/// # Safety
/// What they were borrowed from must stay alive during `'a`.
unsafe fn borrow_ids<'a>(ids: *const u32, len: usize) -> &'a [u32] {
    // SAFETY: a live array of that length, by contract and the header's promise.
    if len == 0 { &[] } else { unsafe { slice::from_raw_parts(ids, len) } }
}

/// Makes a call that reports an error by its last parameter; any status that is no error is returned.
fn call(function: impl FnOnce(*mut *mut swebench_error) -> i32) -> Result<i32> {
    let mut error = ptr::null_mut();
    match function(&raw mut error) {
        status if status < 0 => Err(Error::take(status, error)),
        status => Ok(status),
    }
}

/// Makes a call that gives a buffer.
fn call_for_text(
    function: impl FnOnce(*mut swebench_buf, *mut *mut swebench_error) -> i32,
) -> Result<String> {
    let mut buf = swebench_buf { ptr: ptr::null_mut(), len: 0, reserved: 0 };
    call(|error| function(&raw mut buf, error))?;
    // SAFETY: written by the library, which succeeded, and alive until freed below.
    let text = unsafe { copy(swebench_str { ptr: buf.ptr, len: buf.len }) };
    // SAFETY: from the library, freed once.
    unsafe { sys::swebench_buf_free(&raw mut buf) };
    Ok(text)
}

/// Makes a call that gives an object.
fn call_for_object<T>(function: impl FnOnce(*mut *mut T, *mut *mut swebench_error) -> i32) -> Result<*mut T> {
    let mut object = ptr::null_mut();
    call(|error| function(&raw mut object, error))?;
    Ok(object)
}
