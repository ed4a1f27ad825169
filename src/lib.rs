//! Inference for SWE-bench: Llama-family models on the CPU and on CUDA devices, behind a stable C ABI.
//!
//! Modules in reading order, top layer last; imports only go down (`tests/layers.rs` enforces it).

pub mod client;
pub mod error;
pub mod hub;

pub mod backend;
pub mod model;
pub mod tokenizer;

pub mod engine;

pub mod dataset;
pub mod patch;
pub mod prompt;
pub mod repo;
pub mod retrieval;

pub mod run;

pub mod capi;

mod cancel;

pub use cancel::CancelToken;
pub use error::{Error, ErrorKind, Result};
