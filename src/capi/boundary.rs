//! The boundary around every exported function: panics become statuses, errors become objects, pointers are checked.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Once;

use super::error::ErrorObject;
use super::status;
use crate::error::{Error, Result};

thread_local! {
    /// How many guarded calls are on this thread's stack.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic of a guarded call happened.
    static LOCATION: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a fallible entry: its status, or that of its error or panic; the error object goes to `error` unless that is NULL.
pub(super) fn enter(error: *mut *mut ErrorObject, body: impl FnOnce() -> Result<i32>) -> i32 {
    match guard(body) {
        Ok(status) => status,
        Err(failure) => report(ErrorObject::new(failure), error),
    }
}

/// Runs an entry that has no way to fail; after a panic the caller gets `fallback`.
pub(super) fn enter_infallible<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    guard(|| Ok(body())).unwrap_or(fallback)
}

/// Hands an error object to the caller and returns its status.
pub(super) fn report(object: ErrorObject, error: *mut *mut ErrorObject) -> i32 {
    let status = object.code();
    if !error.is_null() {
        // SAFETY: not NULL, and by contract then points to a writable `swebench_error *`.
        unsafe { error.write(Box::into_raw(Box::new(object))) };
    }
    status
}

/// Runs `body`; a panic becomes an `Internal` error that says where it happened, and nothing is printed.
pub(super) fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install_hook);
    DEPTH.set(DEPTH.get() + 1);
    // State that a panic leaves half-changed is behind mutexes, and the caller is told to give up the object.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    outcome.unwrap_or_else(|payload| Err(panic_error(&*payload)))
}

/// Keeps panics of guarded calls off the host's stderr; every other panic of the process goes to the hook that was there.
fn install_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
            return previous(info);
        }
        let location = info.location().map_or_else(String::new, ToString::to_string);
        let _ = LOCATION.try_with(|cell| cell.replace(location));
    }));
}

fn panic_error(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    let location = LOCATION.try_with(RefCell::take).unwrap_or_default();
    Error::internal(format!("panic at {location}: {text}"))
        .with_hint("this is a bug in swebench-infer: please report it with this message")
}

/// A checked output parameter: not NULL, written at most once, on success.
pub(super) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// Checks the pointer that the caller passed for `name`.
    ///
    /// # Safety
    /// A pointer that is not NULL must be valid for a write of `T` until the call returns.
    pub(super) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self> {
        NonNull::new(pointer).map(Self).ok_or_else(|| null(name))
    }

    /// Writes the output; what was there is not read.
    pub(super) fn write(self, value: T) {
        // SAFETY: valid for a write by the contract of `new`.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// Gives the caller a new object.
    pub(super) fn write_boxed(self, value: T) {
        self.write(Box::into_raw(Box::new(value)));
    }
}

/// The object behind a handle.
///
/// # Safety
/// A pointer that is not NULL must come from this library, must not have been freed, and must stay alive during `'a`.
pub(super) unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: NULL or valid, by contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Takes an object back from the caller and drops it; NULL is nothing.
///
/// # Safety
/// A pointer that is not NULL must come from [`Out::write_boxed`], must not have been freed and not be in use.
pub(super) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: from `Box::into_raw`, owned by the caller until now, by contract.
        let object = unsafe { Box::from_raw(pointer) };
        enter_infallible((), || drop(object));
    }
}

/// The caller's array of `len` values, possibly empty.
///
/// # Safety
/// A pointer that is not NULL must be valid for reads of `len` values during `'a`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name).with_expected(format_args!("{len} values"), "NULL"));
    }
    let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| isize::try_from(bytes).ok());
    if bytes.is_none() || !pointer.is_aligned() {
        return Err(Error::invalid_argument(format!("`{name}` is not an array of {len} values")));
    }
    // SAFETY: not NULL, aligned, no longer than an object can be, and readable by contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

fn null(name: &str) -> Error {
    Error::invalid_argument(format!("`{name}` is NULL"))
}

/// The status of an entry that succeeded.
pub(super) const OK: Result<i32> = Ok(status::SWEBENCH_OK);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_panic_becomes_an_error_that_says_where() {
        let error = guard::<()>(|| panic!("boom {}", 7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("boom 7"), "{error}");
        assert!(error.message().contains("boundary.rs"), "{error}");
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn a_status_is_returned_with_and_without_room_for_the_error() {
        let fail = || Err(Error::not_found("nothing here"));
        assert_eq!(enter(std::ptr::null_mut(), fail), status::SWEBENCH_ERROR_NOT_FOUND);
        let mut object = std::ptr::null_mut();
        assert_eq!(enter(&raw mut object, fail), status::SWEBENCH_ERROR_NOT_FOUND);
        assert!(!object.is_null());
        // SAFETY: just received from `enter`.
        unsafe { free(object) };
    }

    #[test]
    fn arrays_are_checked() {
        let values = [1u32, 2, 3];
        // SAFETY: either refused before being read, or a live array.
        unsafe {
            assert_eq!(slice(values.as_ptr(), 3, "ids").unwrap(), values);
            assert!(slice::<u32>(std::ptr::null(), 0, "ids").unwrap().is_empty());
            assert!(slice::<u32>(std::ptr::null(), 1, "ids").is_err());
            assert!(slice(values.as_ptr(), usize::MAX, "ids").is_err());
        }
    }
}
