//! The C declarations of `include/swebench_infer.h`, in Rust; `tests/capi/declarations.rs` compares the two.

#![allow(non_camel_case_types, missing_docs, reason = "the header documents them, under these names")]

use std::ffi::{c_char, c_void};

pub const SWEBENCH_ABI_VERSION: u32 = 1;

pub const SWEBENCH_OK: i32 = 0;
pub const SWEBENCH_WOULD_BLOCK: i32 = 1;
pub const SWEBENCH_END: i32 = 2;
pub const SWEBENCH_ERROR_INVALID_ARGUMENT: i32 = -1;
pub const SWEBENCH_ERROR_NOT_FOUND: i32 = -2;
pub const SWEBENCH_ERROR_IO: i32 = -3;
pub const SWEBENCH_ERROR_INVALID_DATA: i32 = -4;
pub const SWEBENCH_ERROR_UNSUPPORTED: i32 = -5;
pub const SWEBENCH_ERROR_OUT_OF_MEMORY: i32 = -6;
pub const SWEBENCH_ERROR_DEVICE: i32 = -7;
pub const SWEBENCH_ERROR_NETWORK: i32 = -8;
pub const SWEBENCH_ERROR_CANCELLED: i32 = -9;
pub const SWEBENCH_ERROR_BUSY: i32 = -10;
pub const SWEBENCH_ERROR_INTERNAL: i32 = -11;
pub const SWEBENCH_ERROR_ABI_MISMATCH: i32 = -12;

pub const SWEBENCH_LOG_OFF: i32 = 0;
pub const SWEBENCH_LOG_ERROR: i32 = 1;
pub const SWEBENCH_LOG_WARN: i32 = 2;
pub const SWEBENCH_LOG_INFO: i32 = 3;
pub const SWEBENCH_LOG_DEBUG: i32 = 4;
pub const SWEBENCH_LOG_TRACE: i32 = 5;

pub const SWEBENCH_SPECIAL_TOKENS: u32 = 1;

pub const SWEBENCH_EVENT_TEXT: i32 = 1;
pub const SWEBENCH_EVENT_PROGRESS: i32 = 2;
pub const SWEBENCH_EVENT_SAMPLE: i32 = 3;
pub const SWEBENCH_EVENT_STARTED: i32 = 4;
pub const SWEBENCH_EVENT_INSTANCE: i32 = 5;
pub const SWEBENCH_EVENT_ROW: i32 = 6;
pub const SWEBENCH_EVENT_WARNING: i32 = 7;
pub const SWEBENCH_EVENT_FINISHED: i32 = 8;
pub const SWEBENCH_EVENT_PLANNED: i32 = 9;

#[repr(C)]
pub struct swebench_client {
    _unused: [u8; 0],
}

#[repr(C)]
pub struct swebench_error {
    _unused: [u8; 0],
}

#[repr(C)]
pub struct swebench_model {
    _unused: [u8; 0],
}

#[repr(C)]
pub struct swebench_tokenizer {
    _unused: [u8; 0],
}

#[repr(C)]
pub struct swebench_tokens {
    _unused: [u8; 0],
}

#[repr(C)]
pub struct swebench_job {
    _unused: [u8; 0],
}

#[repr(C)]
pub struct swebench_event {
    _unused: [u8; 0],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct swebench_str {
    pub ptr: *const c_char,
    pub len: usize,
}

#[repr(C)]
#[derive(Debug)]
pub struct swebench_buf {
    pub ptr: *mut c_char,
    pub len: usize,
    pub reserved: usize,
}

pub type swebench_log_callback =
    Option<unsafe extern "C" fn(level: i32, target: swebench_str, message: swebench_str, user: *mut c_void)>;

pub type swebench_text_callback =
    Option<unsafe extern "C" fn(text: swebench_str, index: u32, user: *mut c_void) -> i32>;

unsafe extern "C" {
    pub fn swebench_init(abi_version: u32, error: *mut *mut swebench_error) -> i32;

    pub fn swebench_version() -> *const c_char;

    pub fn swebench_capabilities(out: *mut swebench_buf, error: *mut *mut swebench_error) -> i32;

    pub fn swebench_shutdown(timeout_ms: u32, error: *mut *mut swebench_error) -> i32;

    pub fn swebench_cstr(text: *const c_char) -> swebench_str;

    pub fn swebench_buf_free(buf: *mut swebench_buf);

    pub fn swebench_error_code(error: *const swebench_error) -> i32;

    pub fn swebench_error_message(error: *const swebench_error) -> swebench_str;

    pub fn swebench_error_json(error: *const swebench_error) -> swebench_str;

    pub fn swebench_error_free(error: *mut swebench_error);

    pub fn swebench_log_set(
        level: i32,
        callback: swebench_log_callback,
        user: *mut c_void,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_config_schema(
        kind: swebench_str,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_config_validate(
        kind: swebench_str,
        config_json: swebench_str,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_model_load(
        config_json: swebench_str,
        out: *mut *mut swebench_model,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_model_info(
        model: *const swebench_model,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_model_tokenizer(
        model: *const swebench_model,
        out: *mut *mut swebench_tokenizer,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_model_free(model: *mut swebench_model);

    pub fn swebench_tokenizer_open(
        path: swebench_str,
        out: *mut *mut swebench_tokenizer,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_tokenizer_info(
        tokenizer: *const swebench_tokenizer,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_tokenizer_encode(
        tokenizer: *const swebench_tokenizer,
        text: swebench_str,
        flags: u32,
        out: *mut *mut swebench_tokens,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_tokenizer_count(
        tokenizer: *const swebench_tokenizer,
        text: swebench_str,
        flags: u32,
        out: *mut usize,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_tokenizer_decode(
        tokenizer: *const swebench_tokenizer,
        token_ids: *const u32,
        len: usize,
        flags: u32,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_tokenizer_free(tokenizer: *mut swebench_tokenizer);

    pub fn swebench_tokens_data(tokens: *const swebench_tokens, len: *mut usize) -> *const u32;

    pub fn swebench_tokens_free(tokens: *mut swebench_tokens);

    pub fn swebench_generate_start(
        model: *const swebench_model,
        request_json: swebench_str,
        token_ids: *const u32,
        num_token_ids: usize,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_generate(
        model: *const swebench_model,
        request_json: swebench_str,
        token_ids: *const u32,
        num_token_ids: usize,
        on_text: swebench_text_callback,
        user: *mut c_void,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_client_open(
        config_json: swebench_str,
        key: swebench_str,
        out: *mut *mut swebench_client,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_client_complete_start(
        client: *const swebench_client,
        request_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_client_complete(
        client: *const swebench_client,
        request_json: swebench_str,
        on_text: swebench_text_callback,
        user: *mut c_void,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_client_free(client: *mut swebench_client);

    pub fn swebench_job_next(
        job: *mut swebench_job,
        timeout_ms: i64,
        out: *mut *mut swebench_event,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_job_cancel(job: *const swebench_job);

    pub fn swebench_job_free(job: *mut swebench_job);

    pub fn swebench_event_kind(event: *const swebench_event) -> i32;

    pub fn swebench_event_index(event: *const swebench_event) -> u32;

    pub fn swebench_event_text(event: *const swebench_event) -> swebench_str;

    pub fn swebench_event_token_ids(event: *const swebench_event, len: *mut usize) -> *const u32;

    pub fn swebench_event_json(event: *const swebench_event) -> swebench_str;

    pub fn swebench_event_free(event: *mut swebench_event);

    pub fn swebench_run_llama_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;
    pub fn swebench_run_api_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_run_live_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_run_bm25_retrieval_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_run_text_dataset_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_run_tokenize_dataset_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_run_eval_retrieval_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_bench_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_predictions_start(
        config_json: swebench_str,
        out: *mut *mut swebench_job,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_extract_diff(
        response: swebench_str,
        mode: swebench_str,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_repair_patch(
        patch: swebench_str,
        mode: swebench_str,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_minimal_patch(
        patch: swebench_str,
        mode: swebench_str,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;

    pub fn swebench_diff(
        answer: swebench_str,
        config_json: swebench_str,
        out: *mut swebench_buf,
        error: *mut *mut swebench_error,
    ) -> i32;
}
