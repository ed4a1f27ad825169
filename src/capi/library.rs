//! The library: handshake, version, capabilities, shutdown.

use std::ffi::c_char;
use std::time::{Duration, Instant};

use serde_json::json;

use super::boundary::{OK, Out, enter, enter_infallible, report};
use super::buf::Buf;
use super::error::ErrorObject;
use super::{job, log, status};
use crate::backend::cpu::Isa;
use crate::backend::cuda::{self, CudaDevice, images};
use crate::error::{Error, Result};

/// The version of this header; pass it to swebench_init(). It grows with a release that adds functions, event kinds or JSON
/// keys to those of the release before; 1 is the first release's.
pub const SWEBENCH_ABI_VERSION: u32 = 1;

/// The version with the NUL that C needs; checked against the crate's below.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// Greets the library: call it first with SWEBENCH_ABI_VERSION, once or more often, from any thread.
///
/// Returns SWEBENCH_ERROR_ABI_MISMATCH when the header is newer than the library. After swebench_shutdown() it allows
/// jobs again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_init(abi_version: u32, error: *mut *mut ErrorObject) -> i32 {
    enter_infallible(status::SWEBENCH_ERROR_INTERNAL, || match check_abi(abi_version) {
        Ok(()) => {
            job::open();
            status::SWEBENCH_OK
        }
        Err(mismatch) => {
            let code = status::SWEBENCH_ERROR_ABI_MISMATCH;
            report(ErrorObject::with_code(code, "abi_mismatch", &mismatch), error)
        }
    })
}

fn check_abi(abi_version: u32) -> Result<()> {
    if (1..=SWEBENCH_ABI_VERSION).contains(&abi_version) {
        return Ok(());
    }
    let version = env!("CARGO_PKG_VERSION");
    Err(Error::unsupported(format!(
        "the program was built with a header that swebench-infer {version} does not know"
    ))
    .with_expected(format_args!("ABI version 1 to {SWEBENCH_ABI_VERSION}"), abi_version)
    .with_hint("install the library that the header came with, or a newer one"))
}

/// The library's version, such as "0.1.0": NUL-terminated, static, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn swebench_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

/// What this library can do on this machine, as a JSON object.
///
/// Keys: `version`, `abi_version`, `backends` (the CPU with its instruction set, and CUDA with the number of devices, and the
/// first one's name or the reason why models do not run on it), `cuda_kernels` (what they were compiled for, empty for a
/// library built without nvcc), `formats` (of models, tokenizers, datasets). Opens the CUDA driver when there is one.
/// Free `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_capabilities(out: *mut Buf, error: *mut *mut ErrorObject) -> i32 {
    enter(error, || {
        // SAFETY: the output is valid by contract.
        let out = unsafe { Out::new(out, "out")? };
        let devices = cuda::cuda_probe().unwrap_or_default();
        let cuda = match CudaDevice::find(0) {
            Ok(device) => {
                json!({"name": "cuda", "devices": devices, "available": true, "device": device.name})
            }
            Err(reason) => json!({
                "name": "cuda", "devices": devices, "available": false,
                "reason": reason.to_line(), "hint": reason.hint(),
            }),
        };
        let capabilities = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "abi_version": SWEBENCH_ABI_VERSION,
            "backends": [
                {"name": "cpu", "isa": Isa::detect().name(), "threads": threads(), "available": true},
                {"name": "reference", "available": true},
                cuda,
            ],
            "cuda_kernels": images::ARCHITECTURES,
            "formats": {
                "models": ["safetensors", "pytorch_model.bin"],
                "adapters": ["adapter_model.safetensors", "adapter_model.bin"],
                "tokenizers": ["tokenizer.json", "tokenizer.model"],
                "datasets": ["hub", "save_to_disk", "parquet", "jsonl", "json"],
                "dtypes": ["bf16", "f16", "f32"],
            },
        });
        out.write(Buf::new(format!("{capabilities:#}")));
        OK
    })
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Cancels every job, waits up to `timeout_ms` milliseconds for their threads, and clears the log callback.
///
/// Returns SWEBENCH_OK when no thread works for a job any more: then the library may be unloaded once all objects are
/// freed. Returns SWEBENCH_WOULD_BLOCK when the time did not suffice: call again. Objects stay valid and have to be freed
/// as ever; jobs cannot be started before the next swebench_init(). Not to be called from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_shutdown(timeout_ms: u32, error: *mut *mut ErrorObject) -> i32 {
    enter(error, || {
        log::refuse_in_callback()?;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        if !job::close(deadline) {
            return Ok(status::SWEBENCH_WOULD_BLOCK);
        }
        log::clear();
        OK
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_that_are_too_new_are_refused() {
        assert!(check_abi(SWEBENCH_ABI_VERSION).is_ok());
        for version in [0, SWEBENCH_ABI_VERSION + 1, u32::MAX] {
            let error = check_abi(version).unwrap_err();
            assert!(error.to_string().ends_with(&format!("got {version}")), "{error}");
        }
    }

    #[test]
    fn the_version_is_terminated() {
        assert_eq!(VERSION.strip_suffix('\0'), Some(env!("CARGO_PKG_VERSION")));
    }
}
