//! What every kernel test needs: 16-bit types, random inputs, and the tolerance.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::Params;

use crate::emulator::{Launch, Library};

/// A storage type of the kernels.
pub trait Element: Copy + PartialEq + std::fmt::Debug + 'static {
    /// As entry names say it.
    const NAME: &'static str;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    /// As it lies in memory.
    fn to_bytes(self) -> Vec<u8>;
}

macro_rules! element {
    ($type:ty, $name:literal) => {
        impl Element for $type {
            const NAME: &'static str = $name;
            fn from_f64(value: f64) -> Self {
                Self::from_f32(value as f32)
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn to_bytes(self) -> Vec<u8> {
                self.to_ne_bytes().into()
            }
        }
    };
}

element!(bf16, "bf16");
element!(f16, "f16");

impl Element for f32 {
    const NAME: &'static str = "f32";
    fn from_f64(value: f64) -> Self {
        value as Self
    }
    fn to_f64(self) -> f64 {
        self.into()
    }
    fn to_bytes(self) -> Vec<u8> {
        self.to_ne_bytes().into()
    }
}

/// A small generator of uniform numbers in [-1, 1): the same on every machine.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 30) as f64 - 1.0
    }

    /// `len` of them as `T`.
    pub fn values<T: Element>(&mut self, len: usize) -> Vec<T> {
        (0..len).map(|_| T::from_f64(self.next())).collect()
    }
}

/// Every way a kernel is run in: several orders of warps, asynchronous copies late and at once.
pub const RUNS: [(u64, bool); 4] = [(1, false), (1, true), (2, false), (3, true)];

/// Launches a kernel in all of [`RUNS`] and returns its output, which has to be the same bits each time.
///
/// `output` returns what the launch wrote and puts the buffers back as they were before.
pub fn run_all<P: Params, T: PartialEq>(
    library: &Library,
    kernel: &str,
    params: &P,
    grid: [u32; 3],
    mut output: impl FnMut() -> T,
) -> Result<T, String> {
    let mut first = None;
    for (seed, lazy) in RUNS {
        library.launch(kernel, params, Launch { grid, seed, lazy })?;
        let out = output();
        match &first {
            None => first = Some(out),
            Some(first) if *first != out => {
                return Err(format!("{kernel}: seed {seed}, lazy {lazy}: other bits than the first run"));
            }
            Some(_) => {}
        }
    }
    first.ok_or_else(|| "no runs".into())
}

/// FlashAttention's rule: the largest error against the oracle is at most twice that of a plain computation in the kernel's types, plus `slack`.
pub fn check_error<T: Element>(
    what: &str,
    got: &[T],
    oracle: &[f64],
    plain: &[f64],
    slack: f64,
) -> Result<(), String> {
    let plain_error = oracle.iter().zip(plain).map(|(o, p)| (o - p).abs()).fold(0.0, f64::max);
    let limit = 2.0 * plain_error + slack;
    assert_eq!(got.len(), oracle.len());
    for (i, (got, oracle)) in got.iter().zip(oracle).enumerate() {
        let error = (got.to_f64() - oracle).abs();
        if error > limit || error.is_nan() {
            return Err(format!(
                "{what}: element {i} is {:?}, expected {oracle}: error {error:.3e} > {limit:.3e}",
                got
            ));
        }
    }
    Ok(())
}

/// An E4M3 number's value.
pub fn e4m3_to_f64(code: u8) -> f64 {
    let magnitude = u32::from(code & 0x7f);
    // The bits of an f32 with another bias; without an exponent, units of 2^-9.
    let value = if magnitude < 8 {
        magnitude as f32 / 512.0
    } else {
        f32::from_bits((magnitude << 20) + (120 << 23))
    };
    f64::from(if code & 0x80 == 0 { value } else { -value })
}

/// The E4M3 number nearest to `value`, ties to even, the largest one for what is larger.
pub fn e4m3_from_f64(value: f64) -> u8 {
    let distance = |code: u8| ((e4m3_to_f64(code) - value.abs()).abs(), code & 1);
    let below = (0..7).rev().fold(0_u8, |code, bit| {
        let next = code | 1 << bit;
        if next < 0x7f && e4m3_to_f64(next) <= value.abs() { next } else { code }
    });
    let nearest = if distance(below) <= distance((below + 1).min(0x7e)) { below } else { below + 1 };
    nearest | if value.is_sign_negative() { 0x80 } else { 0 }
}
