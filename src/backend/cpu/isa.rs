//! Instruction sets of the CPU kernels: which there are, which this machine has.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "x86_64")]
use super::simd::amx;
use crate::error::{Error, Result};

/// An instruction set that the kernels are compiled for, ordered from the most general to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust that the compiler vectorises for the target's baseline.
    Portable,
    /// `Portable` with AMX's tiles in software: what is tested of [`Isa::Amx`] on machines without it.
    #[cfg(test)]
    PortableTiles,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with the bf16 dot product.
    Avx512Bf16,
    /// `Avx512Bf16` with the tiles of AMX for bf16 and bytes, when they pass a test at the first use.
    Amx,
}

impl Isa {
    const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(test)]
        Self::PortableTiles,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// The fastest instruction set of this machine.
    pub fn detect() -> Self {
        Self::ALL.iter().copied().rfind(|isa| isa.is_supported()).unwrap_or(Self::Portable)
    }

    /// All instruction sets of this machine, slowest first.
    pub fn supported() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|isa| isa.is_supported()).collect()
    }

    /// Names of the instruction sets of this machine, for messages.
    pub(super) fn supported_names() -> String {
        let names: Vec<_> = Self::supported().into_iter().map(Self::name).collect();
        format!("one of {}", names.join(", "))
    }

    /// Whether this machine has it.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(test)]
            Self::PortableTiles => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Self::Avx512.is_supported() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Bf16.is_supported() && amx::unit().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Whether matrices are multiplied on tiles.
    pub(super) fn has_tiles(self) -> bool {
        match self {
            #[cfg(test)]
            Self::PortableTiles => true,
            _ => self == Self::Amx,
        }
    }

    /// The name in messages and options, such as `avx512-bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(test)]
            Self::PortableTiles => "portable-tiles",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name() == text).ok_or_else(|| {
            Error::invalid_argument("unknown instruction set").with_expected(Self::supported_names(), text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_the_best_is_supported() {
        for &isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        assert!("sse9".parse::<Isa>().is_err());
        assert_eq!(Isa::supported().last(), Some(&Isa::detect()));
        assert!(Isa::supported().contains(&Isa::Portable));
    }
}
