//! Models against Hugging Face transformers: logits and greedy tokens of every architecture and option, on every backend.
//!
//! `tests/data/goldens/README.md` says what the cases are and how they are made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod adapters;
mod demo;
mod goldens;
mod harness;
mod perplexity;
mod refusals;
