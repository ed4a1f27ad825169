//! Which CUDA devices there are and whether the kernels run on them, without a panic on machines that have no driver or an old one.

use std::panic::{UnwindSafe, catch_unwind};

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use super::images;
use super::launcher::Properties;
use crate::error::{Error, ErrorKind, Result};

/// A CUDA device as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The driver's number of it: the `N` of `cuda:N`.
    pub ordinal: u32,
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// What launches depend on.
    pub properties: Properties,
}

/// Number of CUDA devices that the driver shows.
///
/// # Errors
/// `Device`, naming what was looked for, when there is no driver or it refuses to start.
pub fn cuda_probe() -> Result<usize> {
    without_panic(|| {
        find_driver()?;
        match result::init() {
            Ok(()) => {}
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(0),
            Err(error) => return Err(failed("cuInit", error)),
        }
        let count = result::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
        Ok(usize::try_from(count).unwrap_or(0))
    })
}

/// Whether this machine looks as if it had a CUDA device that can or could be used: a driver that does not say that there is none.
pub fn cuda_is_expected() -> bool {
    find_driver().is_ok() && !matches!(cuda_probe(), Ok(0))
}

/// The devices that the driver shows.
///
/// # Errors
/// As [`cuda_probe`].
pub fn devices() -> Result<Vec<DeviceInfo>> {
    let count = cuda_probe()?;
    without_panic(|| (0..count as u32).map(describe).collect())
}

/// A device that the kernels run on.
///
/// # Errors
/// `Device` without a driver, with one that is too old or without this device; `Unsupported` when the build has no kernels for it: all say what was
/// found and what is needed.
pub fn usable_device(ordinal: u32) -> Result<DeviceInfo> {
    let devices = devices()?;
    let (count, hint) = (devices.len(), "CUDA_VISIBLE_DEVICES limits which devices a process sees");
    let Some(info) = devices.into_iter().nth(ordinal as usize) else {
        let error = Error::new(ErrorKind::Device, format!("no CUDA device {ordinal}"));
        let expected = if count == 0 { "a device".into() } else { format!("a number below {count}") };
        return Err(error.with_expected(expected, format_args!("{count} devices")).with_hint(hint));
    };
    without_panic(move || {
        check_device(&info, driver_version()?)?;
        Ok(info)
    })
}

/// The CUDA version that the driver supports, as `(major, minor)`.
pub(super) fn driver_version() -> Result<(u32, u32)> {
    let mut version = 0;
    // SAFETY: the driver is open, and `version` is valid for writes.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|error| failed("cuDriverGetVersion", error))?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

/// Says what is missing for the embedded kernels to run on `device`.
fn check_device(device: &DeviceInfo, driver: (u32, u32)) -> Result<()> {
    if !images::built() {
        return Err(Error::unsupported("this build has no CUDA kernels: nvcc was not found").with_hint(
            "install nvcc (kernels/install_nvcc.sh), set CUDA_HOME and build again, or use --device cpu",
        ));
    }
    check_driver(driver, images::TOOLKIT)?;
    let (major, minor) = device.properties.compute_capability;
    if !images::ARCHITECTURES.iter().any(|name| runs_on(name, (major, minor))) {
        return Err(Error::unsupported(format!(
            "the kernels do not run on {} (cuda:{})",
            device.name, device.ordinal
        ))
        .with_expected(
            format_args!("a chip for {}", images::ARCHITECTURES.join(", ")),
            format_args!("compute capability {major}.{minor}"),
        )
        .with_hint("build with SWEBENCH_CUDA_ARCHS naming the chip, or use --device cpu"));
    }
    Ok(())
}

/// A driver runs code of its own major release and of older ones.
fn check_driver(driver: (u32, u32), toolkit: (u32, u32)) -> Result<()> {
    if driver.0 >= toolkit.0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Device, "the NVIDIA driver is too old for the kernels")
        .with_expected(
            format_args!("CUDA {}.0 or later", toolkit.0),
            format_args!("CUDA {}.{}", driver.0, driver.1),
        )
        .with_hint("update the driver, build with an older nvcc, or use --device cpu"))
}

/// Whether code for `architecture` (`sm_80`, `sm_90a`, `compute_80`) runs on a chip: code on later chips of its generation, code with an `a` on its own
/// chip alone, PTX on every later one.
fn runs_on(architecture: &str, chip: (u32, u32)) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().map(|number| (number / 10, number % 10));
    if let Some(ptx) = architecture.strip_prefix("compute_") {
        return number(ptx).is_some_and(|oldest| chip >= oldest);
    }
    let code = architecture.strip_prefix("sm_").unwrap_or(architecture);
    match code.strip_suffix('a') {
        Some(exact) => number(exact) == Some(chip),
        None => number(code).is_some_and(|(major, minor)| chip.0 == major && chip.1 >= minor),
    }
}

/// Runs what calls the driver: cudarc panics on a missing library or symbol.
pub(super) fn without_panic<T>(work: impl FnOnce() -> Result<T> + UnwindSafe) -> Result<T> {
    catch_unwind(work).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Device, "the CUDA driver lacks a function that this library needs")
            .with_hint("update the NVIDIA driver, or use --device cpu"))
    })
}

/// A driver call's failure.
pub(super) fn failed(call: &str, error: result::DriverError) -> Error {
    let kind = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    let name = error.error_name().ok().and_then(|name| name.to_str().ok()).unwrap_or("an unknown error");
    let meaning = error.error_string().ok().and_then(|text| text.to_str().ok()).unwrap_or_default();
    Error::new(kind, format!("{call} failed: {name} ({meaning})"))
}

/// Nothing else of cudarc is called before the library is known to be there.
fn find_driver() -> Result<()> {
    // SAFETY: only asks the dynamic linker whether the driver library opens.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Device, "no CUDA driver: libcuda.so was not found by the dynamic linker")
        .with_hint("install the NVIDIA driver, or use --device cpu"))
}

fn describe(ordinal: u32) -> Result<DeviceInfo> {
    let device = result::device::get(ordinal as i32).map_err(|error| failed("cuDeviceGet", error))?;
    let attribute = |which: Attribute| {
        // SAFETY: `device` is the driver's.
        let value = unsafe { result::device::get_attribute(device, which) };
        value.map(i32::unsigned_abs).map_err(|error| failed("cuDeviceGetAttribute", error))
    };
    Ok(DeviceInfo {
        ordinal,
        name: result::device::get_name(device).map_err(|error| failed("cuDeviceGetName", error))?,
        // SAFETY: `device` is the driver's.
        memory_bytes: unsafe { result::device::total_mem(device) }
            .map_err(|error| failed("cuDeviceTotalMem", error))?,
        properties: Properties {
            compute_capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            max_shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_where_it_was_compiled_for() {
        for (architecture, chip, runs) in [
            ("sm_80", (8, 0), true),
            ("sm_80", (8, 9), true),
            ("sm_86", (8, 0), false),
            ("sm_80", (9, 0), false),
            ("sm_90a", (9, 0), true),
            ("sm_90a", (10, 0), false),
            ("compute_80", (12, 0), true),
            ("compute_80", (7, 5), false),
            ("compute_90a", (9, 0), false),
        ] {
            assert_eq!(runs_on(architecture, chip), runs, "{architecture} on {chip:?}");
        }
    }

    #[test]
    fn an_old_driver_is_named_with_what_is_needed() {
        assert!(check_driver((13, 0), (13, 0)).is_ok());
        assert!(check_driver((13, 0), (12, 8)).is_ok());
        let line = check_driver((12, 4), (13, 0)).unwrap_err().to_line();
        assert!(line.contains("12.4") && line.contains("13.0"), "{line}");
    }

    #[test]
    fn a_missing_driver_or_device_is_an_error_and_no_panic() {
        match devices() {
            Ok(devices) => assert!(devices.iter().all(|device| device.properties.multiprocessors > 0)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Device, "{error}"),
        }
        let panicked = without_panic::<()>(|| panic!("as cudarc does without a symbol"));
        assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Device);
    }
}
