//! The CUDA kernels on the CPU, compiled against `kernels/host` and compared with f64 oracles; on a device when `SWEBENCH_KERNEL_DEVICE` names one.
//!
//! `compile` builds, `emulator` launches, `params` holds the structs to `params.h` and `geometry` the launches to the entries. One module a kernel family
//! holds it to its oracle, `launch` runs them as the backend does. `emulation` exercises each of the emulation's parts, and `mutations` checks that it
//! notices what would be a bug on a device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod attention_decode;
mod attention_prefill;
mod attention_prefill_sm90;
mod compile;
mod elementwise;
mod emulation;
mod emulator;
mod geometry;
mod hopper;
mod launch;
mod linear_skinny;
mod matrix;
mod mutations;
mod norm;
mod numerics;
mod params;
mod rotary;
mod sampling;
