//! Tests of `swebench-cli` as a user runs it, each in a directory of its own.
//!
//! - `usage`: help, both spellings of flags, wrong flags and values; exit code 2
//! - `refusals`: paths, splits, columns and devices that are not there; exit code 1
//! - `tools`: `info`, `completions`, `extract-diff`, `bench`
//! - `run_llama`: the demo model returns patches that `git apply` takes
//! - `run_api`: runs against servers on loopback: protocols, refusals, costs, kills
//! - `run_api_batch`: the same through providers' batches, killed between any two steps
//! - `run_api_providers`: what each provider's URLs, headers and options put into a request
//! - `resume`: killed and interrupted runs continue, and no prediction is lost or doubled

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod batch_server;
mod cli;
mod demo;
mod refusals;
mod resume;
mod run_api;
mod run_api_batch;
mod run_api_providers;
mod run_llama;
mod server;
mod tools;
mod usage;
