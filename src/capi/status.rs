//! Status codes: what fallible functions return. Numbers are never reused; a retired one stays here as a comment.

use crate::error::ErrorKind;

/// Done; the outputs are written.
pub const SWEBENCH_OK: i32 = 0;
/// Nothing happened before the timeout passed; call again.
pub const SWEBENCH_WOULD_BLOCK: i32 = 1;
/// There is nothing more to come.
pub const SWEBENCH_END: i32 = 2;

/// The caller passed a value that can never be right: NULL, invalid UTF-8, an unknown key, a number out of range.
pub const SWEBENCH_ERROR_INVALID_ARGUMENT: i32 = -1;
/// A file, directory, split, column or model does not exist.
pub const SWEBENCH_ERROR_NOT_FOUND: i32 = -2;
/// The operating system refused to read or write.
pub const SWEBENCH_ERROR_IO: i32 = -3;
/// A file's content is not what its format demands: truncated, corrupt or hostile.
pub const SWEBENCH_ERROR_INVALID_DATA: i32 = -4;
/// Valid, but not something that this library can do.
pub const SWEBENCH_ERROR_UNSUPPORTED: i32 = -5;
/// Memory, on the host or the device, does not suffice.
pub const SWEBENCH_ERROR_OUT_OF_MEMORY: i32 = -6;
/// The device or its driver is missing or failed.
pub const SWEBENCH_ERROR_DEVICE: i32 = -7;
/// The network or a server failed.
pub const SWEBENCH_ERROR_NETWORK: i32 = -8;
/// The work was cancelled by its owner.
pub const SWEBENCH_ERROR_CANCELLED: i32 = -9;
/// The object is in use by another thread or process.
pub const SWEBENCH_ERROR_BUSY: i32 = -10;
/// A bug in this library, including a caught panic. The host is unharmed; please report the message.
pub const SWEBENCH_ERROR_INTERNAL: i32 = -11;
/// The header is newer than the library, so that functions or keys that the caller relies on may be missing.
pub const SWEBENCH_ERROR_ABI_MISMATCH: i32 = -12;

/// The status of an error of this kind.
pub(super) fn of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::InvalidArgument => SWEBENCH_ERROR_INVALID_ARGUMENT,
        ErrorKind::NotFound => SWEBENCH_ERROR_NOT_FOUND,
        ErrorKind::Io => SWEBENCH_ERROR_IO,
        ErrorKind::InvalidData => SWEBENCH_ERROR_INVALID_DATA,
        ErrorKind::Unsupported => SWEBENCH_ERROR_UNSUPPORTED,
        ErrorKind::OutOfMemory => SWEBENCH_ERROR_OUT_OF_MEMORY,
        ErrorKind::Device => SWEBENCH_ERROR_DEVICE,
        ErrorKind::Network => SWEBENCH_ERROR_NETWORK,
        ErrorKind::Cancelled => SWEBENCH_ERROR_CANCELLED,
        ErrorKind::Busy => SWEBENCH_ERROR_BUSY,
        ErrorKind::Internal => SWEBENCH_ERROR_INTERNAL,
    }
}
