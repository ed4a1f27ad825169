//! The CUDA kernels on the CPU: compiled against `kernels/host` and compared with f64 oracles.
//!
//! `emulator` builds and launches, `params` holds the structs to `params.h`, one module a kernel family holds it to its oracle, and `mutations` checks
//! that the emulation notices what would be a bug on a device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod attention_prefill;
mod elementwise;
mod emulator;
mod hopper;
mod linear_skinny;
mod matrix;
mod mutations;
mod norm;
mod numerics;
mod params;
mod sampling;
