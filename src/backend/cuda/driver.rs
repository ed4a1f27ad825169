//! A device through NVIDIA's driver.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::buffer::Vector;
use super::cublaslt::{self, CublasLt};
use super::discovery::{self, DeviceInfo, failed};
use super::geometry::{BlockShape, Kernel};
use super::images::IMAGES;
use super::launcher::{Launcher, ParamsRef, Product, Properties, TensorMapShape};
use super::params::TensorMap;
use crate::error::{Error, Result};

/// Shared memory that a block gets without asking the driver for more.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

/// A CUDA device with the kernels that run on it and one stream.
#[derive(Debug)]
pub struct CudaDevice {
    info: DeviceInfo,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    functions: HashMap<Kernel, Function>,
    /// `None` on a device that was opened for kernels alone.
    products: Option<CublasLt>,
}

/// A loaded kernel.
#[derive(Debug, Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Blocks that one multiprocessor holds; 0 where a block asks for more than there is.
    blocks_per_multiprocessor: usize,
}

// SAFETY: the driver's handles may be used from any thread; each call makes the context current on its own.
unsafe impl Send for CudaDevice {}
// SAFETY: as above; calls on one stream from several threads are ordered by the driver.
unsafe impl Sync for CudaDevice {}

impl CudaDevice {
    /// Opens a device and loads the kernels that run on it, but no library for products: for tests and measurements of kernels.
    ///
    /// # Errors
    /// `Device` without a driver, with one that is too old or without this device; `Unsupported` when the build has no kernels for it: all say what
    /// was found and what is needed.
    pub fn open_kernels(ordinal: u32) -> Result<Arc<Self>> {
        let info = discovery::usable_device(ordinal)?;
        discovery::without_panic(move || Self::load(info).map(Arc::new))
    }

    /// A device on which models run, without opening it.
    ///
    /// # Errors
    /// As [`CudaDevice::open_kernels`], and `Device` without cuBLASLt, saying what was looked for.
    pub fn find(ordinal: u32) -> Result<DeviceInfo> {
        let info = discovery::usable_device(ordinal)?;
        cublaslt::check_library()?;
        Ok(info)
    }

    /// Opens a device with all that a model needs.
    ///
    /// # Errors
    /// As [`CudaDevice::find`], and `OutOfMemory`.
    pub fn open(ordinal: u32) -> Result<Arc<Self>> {
        let info = Self::find(ordinal)?;
        discovery::without_panic(move || {
            let mut device = Self::load(info)?;
            device.products = Some(CublasLt::new()?);
            Ok(Arc::new(device))
        })
    }

    /// What the driver says of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The CUDA version that the driver supports, as `(major, minor)`.
    ///
    /// # Errors
    /// `Device`.
    pub fn driver_version(&self) -> Result<(u32, u32)> {
        discovery::driver_version()
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// `Device`, for a launch that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is this device's.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|error| failed("cuStreamSynchronize", error))
    }

    /// Copies inside the device; lengths and types are equal.
    ///
    /// # Errors
    /// `InvalidArgument` when they are not, `Device`.
    pub fn copy(&self, from: &Vector<'_>, to: &Vector<'_>) -> Result<()> {
        if (from.len, from.element) != (to.len, to.element) {
            return Err(Error::invalid_argument("copy inside the device").with_expected(
                format_args!("{} of {}", from.len, from.element),
                format_args!("{} of {}", to.len, to.element),
            ));
        }
        self.enter()?;
        // SAFETY: both lie in buffers, and are equally long.
        unsafe {
            result::memcpy_dtod_async(to.address, from.address, from.len * from.element.size(), self.stream)
        }
        .map_err(|error| failed("cuMemcpyDtoD", error))
    }

    fn load(info: DeviceInfo) -> Result<Self> {
        let device =
            result::device::get(info.ordinal as i32).map_err(|error| failed("cuDeviceGet", error))?;
        // SAFETY: `device` is the driver's; released on drop.
        let context = unsafe { result::primary_ctx::retain(device) }
            .map_err(|error| failed("cuDevicePrimaryCtxRetain", error))?;
        // From here on dropping it gives back what it has.
        let mut opened = Self {
            info,
            device,
            context,
            stream: result::stream::null(),
            modules: Vec::new(),
            functions: HashMap::new(),
            products: None,
        };
        opened.enter()?;
        opened.stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|error| failed("cuStreamCreate", error))?;
        let is_hopper = opened.info.properties.is_hopper();
        for image in IMAGES.iter().filter(|image| is_hopper || !image.name.ends_with("_sm90")) {
            // SAFETY: a fat binary that nvcc made, which lives as long as the program.
            let module =
                unsafe { result::module::load_data(image.bytes.as_ptr().cast()) }.map_err(|error| {
                    failed("cuModuleLoadData", error).context(format!("kernels {}", image.name))
                })?;
            opened.modules.push(module);
            for kernel in Kernel::all().into_iter().filter(|kernel| kernel.file() == image.name) {
                let function = opened.find_kernel(module, kernel)?;
                opened.functions.insert(kernel, function);
            }
        }
        Ok(opened)
    }

    fn find_kernel(&self, module: sys::CUmodule, kernel: Kernel) -> Result<Function> {
        let name =
            CString::new(kernel.to_string()).map_err(|_| Error::internal("a kernel's name with a NUL"))?;
        // SAFETY: the module is loaded and stays so.
        let handle = unsafe { result::module::get_function(module, name) }
            .map_err(|error| failed("cuModuleGetFunction", error).context(kernel.to_string()))?;
        let BlockShape { threads, shared_bytes: shared } = kernel.block();
        if shared > self.info.properties.max_shared_bytes {
            return Ok(Function { handle, blocks_per_multiprocessor: 0 });
        }
        if shared > DEFAULT_SHARED_BYTES {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
            // SAFETY: the function was found above.
            unsafe { result::function::set_function_attribute(handle, SHARED, shared as i32) }
                .map_err(|error| failed("cuFuncSetAttribute", error).context(kernel.to_string()))?;
        }
        // SAFETY: as above.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(handle, threads as i32, shared as usize)
        }
        .map_err(|error| {
            failed("cuOccupancyMaxActiveBlocksPerMultiprocessor", error).context(kernel.to_string())
        })?;
        Ok(Function { handle, blocks_per_multiprocessor: blocks.unsigned_abs() as usize })
    }

    /// Makes the context current on the calling thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: retained until drop.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("cuCtxSetCurrent", error))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        let warn = |what: &str, done: Result<(), DriverError>| {
            if let Err(error) = done {
                log::warn!("{}", failed(what, error));
            }
        };
        if let Err(error) = self.enter() {
            log::warn!("{error}");
        }
        self.products = None;
        for &module in &self.modules {
            // SAFETY: loaded by `load`; nothing is launched any more.
            warn("cuModuleUnload", unsafe { result::module::unload(module) });
        }
        if !self.stream.is_null() {
            // SAFETY: created by `load`.
            warn("cuStreamDestroy", unsafe { result::stream::destroy(self.stream) });
        }
        // SAFETY: retained once by `load`.
        warn("cuDevicePrimaryCtxRelease", unsafe { result::primary_ctx::release(self.device) });
    }
}

impl Launcher for CudaDevice {
    fn name(&self) -> String {
        format!("cuda:{} ({})", self.info.ordinal, self.info.name)
    }

    fn free_memory(&self) -> Result<u64> {
        self.enter()?;
        let (free, _total) = result::mem_get_info().map_err(|error| failed("cuMemGetInfo", error))?;
        Ok(free as u64)
    }

    fn properties(&self) -> Properties {
        self.info.properties
    }

    fn resident_blocks(&self, kernel: Kernel) -> usize {
        let of_one = self.functions.get(&kernel).map_or(0, |function| function.blocks_per_multiprocessor);
        (of_one * self.info.properties.multiprocessors as usize).max(1)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        // SAFETY: the memory is not read before it is written.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| {
            let free = result::mem_get_info().map_or(0, |(free, _total)| free);
            failed("cuMemAlloc", error)
                .with_expected(format_args!("{bytes} bytes of device memory"), format_args!("{free} free"))
        })
    }

    unsafe fn release(&self, address: u64) {
        // Waits for the device, so nothing still uses the memory.
        // SAFETY: by contract from `allocate` and not used any more.
        let done = self
            .enter()
            .and_then(|()| unsafe { result::free_sync(address).map_err(|error| failed("cuMemFree", error)) });
        if let Err(error) = done {
            log::warn!("{error}");
        }
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: by contract inside an allocation. Copies from pageable memory have left `bytes` when the call returns.
        unsafe { result::memcpy_htod_async(to, bytes, self.stream) }
            .map_err(|error| failed("cuMemcpyHtoD", error))
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: by contract inside an allocation; waited for before `bytes` is used.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) }
            .map_err(|error| failed("cuMemcpyDtoH", error))?;
        self.synchronize()
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: by contract inside an allocation.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream) }
            .map_err(|error| failed("cuMemsetD8", error))
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        block: BlockShape,
        grid: [u32; 3],
        params: ParamsRef<'_>,
    ) -> Result<()> {
        let Properties { max_shared_bytes, compute_capability: (major, minor), .. } = self.info.properties;
        if block.shared_bytes > max_shared_bytes {
            return Err(Error::unsupported(format!("{kernel} does not run on {}", self.info.name))
                .with_expected(
                    format_args!("{} bytes of shared memory a block", block.shared_bytes),
                    max_shared_bytes,
                ));
        }
        let function = self.functions.get(&kernel).ok_or_else(|| {
            Error::unsupported(format!("{kernel} was not compiled for compute capability {major}.{minor}"))
                .with_hint("build with SWEBENCH_CUDA_ARCHS naming the chip")
        })?;
        self.enter()?;
        let mut arguments = [params.pointer().cast_mut()];
        // SAFETY: the driver copies the parameters, which are the kernel's by contract, before the call returns.
        unsafe {
            result::launch_kernel(
                function.handle,
                (grid[0], grid[1], grid[2]),
                (block.threads, 1, 1),
                block.shared_bytes,
                self.stream,
                &mut arguments,
            )
        }
        .map_err(|error| {
            failed("cuLaunchKernel", error).context(format!(
                "{kernel}, grid {grid:?}, {} threads, {} bytes",
                block.threads, block.shared_bytes
            ))
        })
    }

    unsafe fn matmul(&self, product: &Product) -> Result<()> {
        let products = self
            .products
            .as_ref()
            .ok_or_else(|| Error::internal("a product on a device that was opened for kernels alone"))?;
        self.enter()?;
        // SAFETY: by contract; the context is current and the stream its own.
        unsafe { products.matmul(product, self.stream) }
    }

    fn tensor_map(&self, shape: &TensorMapShape) -> Result<TensorMap> {
        use sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
        use sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE;
        use sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
        use sys::CUtensorMapSwizzle_enum::{CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_SWIZZLE_NONE};
        let rank = shape.sizes.len();
        if shape.tile.len() != rank || shape.strides.len() + 1 != rank || rank > 5 {
            return Err(refused(shape));
        }
        self.enter()?;
        let mut map = TensorMap::default();
        let steps = [1_u32; 5];
        // SAFETY: all arrays have `rank` elements, `strides` one less; the map is 64-byte aligned and 128 bytes long.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                // Both types are copied as they are.
                sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                rank as u32,
                shape.address as *mut c_void,
                shape.sizes.as_ptr(),
                shape.strides.as_ptr(),
                shape.tile.as_ptr(),
                steps.as_ptr(),
                CU_TENSOR_MAP_INTERLEAVE_NONE,
                if shape.swizzle_128 { CU_TENSOR_MAP_SWIZZLE_128B } else { CU_TENSOR_MAP_SWIZZLE_NONE },
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|error| refused(shape).with_source(failed("cuTensorMapEncodeTiled", error)))?;
        Ok(map)
    }
}

fn refused(shape: &TensorMapShape) -> Error {
    Error::invalid_argument("the driver takes no tensor map of this shape").with_expected(
        "up to 5 dimensions, strides of 16-byte multiples, boxes of at most 256",
        format_args!("{shape:?}"),
    )
}

/// Measures how long a device works, by events in its stream.
#[derive(Debug)]
pub struct Timer {
    device: Arc<CudaDevice>,
    start: sys::CUevent,
    end: sys::CUevent,
}

impl Timer {
    /// A timer of `device`.
    ///
    /// # Errors
    /// `Device`.
    pub fn new(device: &Arc<CudaDevice>) -> Result<Self> {
        device.enter()?;
        let event = || {
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(|error| failed("cuEventCreate", error))
        };
        Ok(Self { device: Arc::clone(device), start: event()?, end: event()? })
    }

    /// Seconds that the device takes for what `work` launches.
    ///
    /// # Errors
    /// `work`'s, and `Device`.
    pub fn seconds(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let record = |event| {
            self.device.enter()?;
            // SAFETY: event and stream are this device's.
            unsafe { result::event::record(event, self.device.stream) }
                .map_err(|error| failed("cuEventRecord", error))
        };
        record(self.start)?;
        work()?;
        record(self.end)?;
        // SAFETY: both events were recorded.
        let milliseconds = unsafe {
            result::event::synchronize(self.end).map_err(|error| failed("cuEventSynchronize", error))?;
            result::event::elapsed(self.start, self.end)
        };
        milliseconds.map(|ms| f64::from(ms) / 1e3).map_err(|error| failed("cuEventElapsedTime", error))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        for event in [self.start, self.end] {
            // SAFETY: created by `new`, destroyed once.
            if let Err(error) = unsafe { result::event::destroy(event) } {
                log::warn!("{}", failed("cuEventDestroy", error));
            }
        }
    }
}
