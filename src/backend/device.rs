//! Which device a model runs on, and whether CUDA is there.

use std::fmt;
use std::panic::catch_unwind;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A device as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA when there is a device that this build supports, else the CPU.
    #[default]
    Auto,
    /// The CPU with the best instruction set found.
    Cpu,
    /// Plain f32 loops on one thread: the oracle of the tests.
    Reference,
    /// A CUDA device by its number.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::invalid_argument("unknown device")
                .with_expected("auto, cpu, reference, cuda or cuda:N", text)
        };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "reference" => Ok(Self::Reference),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                index.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Reference => f.write_str("reference"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Number of CUDA devices that the driver shows.
///
/// # Errors
/// `Device`, naming what was looked for, when there is no driver or it refuses to start.
pub fn cuda_probe() -> Result<usize> {
    let device_error = |message: String| Error::new(ErrorKind::Device, message);
    // cudarc panics on a missing library or symbol, so nothing of it is called before the library is known to be there.
    let probe = catch_unwind(|| {
        // SAFETY: only asks the dynamic linker whether the driver library opens.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(device_error(
                "no CUDA driver: libcuda.so was not found by the dynamic linker".into(),
            )
            .with_hint("install the NVIDIA driver, or use --device cpu"));
        }
        cudarc::driver::result::init().map_err(|error| device_error(format!("cuInit failed: {error}")))?;
        let count = cudarc::driver::result::device::get_count()
            .map_err(|error| device_error(format!("cuDeviceGetCount failed: {error}")))?;
        Ok(usize::try_from(count).unwrap_or(0))
    });
    probe.unwrap_or_else(|_| {
        Err(device_error("the CUDA driver lacks a function that this library needs".into()))
    })
}
