//! Whole models through the CUDA backend's launch code, block tables and workspaces, over the kernels that `tests/kernels` emulates.
//!
//! `chip` stands for a device: the emulation under the properties of a chip, which fails when a test says so. `goldens` compares every architecture with
//! transformers, `shapes` random models with the reference, `engine` whole generations with the CPU; `failures` takes memory and the device away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod chip;
#[path = "../kernels/compile.rs"]
#[allow(dead_code, reason = "shared with the kernels' own tests")]
mod compile;
#[path = "../kernels/emulator.rs"]
#[allow(dead_code, reason = "shared with the kernels' own tests")]
mod emulator;
mod engine;
mod failures;
mod goldens;
#[path = "../model/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of models on the CPU")]
mod harness;
mod shapes;
