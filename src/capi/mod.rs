//! The C ABI: every exported function, the types behind its handles, and the boundary that no panic crosses.
//!
//! One file per C type. `build.rs` has cbindgen write `include/swebench_infer.h` from here; the comments below are the
//! header's documentation, so they are written for a C programmer.

#![expect(
    clippy::missing_safety_doc,
    reason = "what pointers have to be is one contract for all functions, which opens the header (cbindgen.toml)"
)]

mod boundary;
mod buf;
mod client;
mod config;
mod diff;
mod error;
mod event;
mod generate;
mod handle;
mod job;
mod library;
mod log;
mod model;
mod queue;
mod run;
mod status;
mod text;
mod tokenizer;

pub use buf::{Buf, swebench_buf_free};
pub use client::{
    Client, swebench_client_complete, swebench_client_complete_start, swebench_client_free,
    swebench_client_open,
};
pub use config::{swebench_config_schema, swebench_config_validate};
pub use diff::{swebench_diff, swebench_extract_diff, swebench_minimal_patch, swebench_repair_patch};
pub use error::{
    ErrorObject, swebench_error_code, swebench_error_free, swebench_error_json, swebench_error_message,
};
pub use event::{
    Event, swebench_event_free, swebench_event_index, swebench_event_json, swebench_event_kind,
    swebench_event_text, swebench_event_token_ids,
};
pub use generate::{TextCallback, swebench_generate, swebench_generate_start};
pub use job::{Job, swebench_job_cancel, swebench_job_free, swebench_job_next};
pub use library::{
    SWEBENCH_ABI_VERSION, swebench_capabilities, swebench_init, swebench_shutdown, swebench_version,
};
pub use log::{LogCallback, swebench_log_set};
pub use model::{
    Model, swebench_model_free, swebench_model_info, swebench_model_load, swebench_model_tokenizer,
};
pub use run::{
    swebench_bench_start, swebench_predictions_start, swebench_run_api_start,
    swebench_run_bm25_retrieval_start, swebench_run_eval_retrieval_start, swebench_run_live_start,
    swebench_run_llama_start, swebench_run_text_dataset_start, swebench_run_tokenize_dataset_start,
};
pub use text::{Str, swebench_cstr};
pub use tokenizer::{
    Tokenizer, Tokens, swebench_tokenizer_count, swebench_tokenizer_decode, swebench_tokenizer_encode,
    swebench_tokenizer_free, swebench_tokenizer_info, swebench_tokenizer_open, swebench_tokens_data,
    swebench_tokens_free,
};
