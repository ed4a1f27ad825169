//! Tests of `swebench-cli` as a user runs it, each in a directory of its own.
//!
//! - `usage`: help, both spellings of flags, wrong flags and values; exit code 2
//! - `refusals`: paths, splits, columns and devices that are not there; exit code 1
//! - `tools`: `info`, `completions`, `extract-diff`, `bench`
//! - `make_datasets`: prompts from clones are the reference's, byte for byte
//! - `predictions`: files validated, merged, converted and shown; the page in headless Chromium
//! - `run_llama`: the demo model returns patches that `git apply` takes
//! - `dry_run`: what a run against a service would send and cost
//! - `misconfigured`: services, keys, proxies and files that are not what they should be
//! - `run_api`: runs against servers on loopback: protocols, refusals, costs, kills
//! - `run_api_batch`: the same through providers' batches, killed between any two steps
//! - `run_api_providers`: what each provider's URLs, headers and options put into a request
//! - `run_live`: issues of a GitHub on loopback to patches in a checkout, and all that may be wrong with them
//! - `retrieval`: BM25 over git repositories on the disk, failures, clones; recall
//! - `resume`: killed and interrupted runs continue, and no prediction is lost or doubled

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod batch_server;
mod cli;
mod demo;
mod dry_run;
mod make_datasets;
mod misconfigured;
mod predictions;
mod refusals;
#[path = "../../src/repo/test_repository.rs"]
#[allow(dead_code, reason = "the unit tests use all of it")]
mod repositories;
mod resume;
mod retrieval;
mod run_api;
mod run_api_batch;
mod run_api_providers;
mod run_live;
mod run_llama;
mod server;
mod tools;
mod usage;
