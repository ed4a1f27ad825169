//! Diffs: finding the patch in a model's answer. Pure functions.

use super::boundary::{OK, Out, enter};
use super::buf::Buf;
use super::error::ErrorObject;
use super::text::Str;
use crate::error::Error;
use crate::patch::legacy;

/// Finds the diff in a model's answer.
///
/// `mode` is "legacy": byte for byte what the reference implementation's `extract_diff` returns, faults included. The
/// result is empty when nothing was found. Free `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_extract_diff(
    response: Str,
    mode: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: texts and output are valid by contract.
        let (response, mode, out) =
            unsafe { (response.get("response")?, mode.get("mode")?, Out::new(out, "out")?) };
        if mode != "legacy" {
            return Err(Error::invalid_argument("unknown mode").with_expected("legacy", mode));
        }
        out.write(Buf::new(legacy::extract_diff(response)));
        OK
    })
}
