//! Launches kernels on the emulated multiprocessor, or the library's own on a device.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::{env, fs, slice};

use half::{bf16, f16};
use libloading::Symbol;
use swebench_infer::backend::cuda::geometry::BlockShape;
use swebench_infer::backend::cuda::params::{Params, TensorMap};
use swebench_infer::backend::cuda::{
    CudaDevice, Kernel, Launcher, ParamsRef, Product, Properties, TensorMapShape,
};
use swebench_infer::backend::{DType, Device};
use swebench_infer::error::{Error, ErrorKind};

pub use crate::compile::folder;
use crate::compile::{compile_all, hash, kernel_files, link, scratch};

/// Kernels where they run: on the emulated multiprocessor or, for the repository's own when [`DEVICE_VARIABLE`] names one, on a device.
pub struct Library {
    launcher: Arc<dyn Launcher>,
    emulation: Option<Arc<Emulation>>,
}

/// Names the device that [`Library::kernels`] runs on, such as `cuda:0`.
const DEVICE_VARIABLE: &str = "SWEBENCH_KERNEL_DEVICE";

/// A compiled library of the emulation.
pub struct Emulation {
    library: libloading::Library,
}

thread_local! {
    /// Seed and lateness of copies in which launches that do not say so are run: each test's own.
    static ORDER: Cell<(u64, bool)> = const { Cell::new((0, false)) };
}

/// Where and how a kernel is launched.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    pub grid: [u32; 3],
    /// Order of blocks, warps and late copies.
    pub seed: u64,
    /// Whether asynchronous copies happen as late as allowed, or at once.
    pub lazy: bool,
}

/// What an entry was compiled for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    name: *const c_char,
    pub params_size: usize,
    pub threads: u32,
    pub shared_bytes: u32,
}

#[repr(C)]
struct HostLaunch {
    kernel: *const c_char,
    params: *const c_void,
    params_size: usize,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    lazy_copies: u32,
    seed: u64,
    host_threads: u32,
    reserved: u32,
    error: *mut c_char,
    error_capacity: usize,
}

impl Library {
    /// All kernels of the repository.
    pub fn kernels() -> &'static Self {
        static KERNELS: OnceLock<Library> = OnceLock::new();
        KERNELS.get_or_init(|| match env::var(DEVICE_VARIABLE) {
            Ok(name) => Self::on_device(&name),
            Err(_) => Self::build(&kernel_files(), &[]).unwrap(),
        })
    }

    /// Compiles `source` as a kernel file; errors are the compiler's.
    pub fn from_source(source: &str) -> Result<Self, String> {
        Self::with_flags(source, &[])
    }

    /// The same with flags for the kernel and for the emulation.
    pub fn with_flags(source: &str, flags: &[&str]) -> Result<Self, String> {
        let path = scratch().join(format!("{:016x}.cu", hash(&source)));
        fs::write(&path, source).unwrap();
        Self::build(&[path], flags)
    }

    fn on_device(name: &str) -> Self {
        let Ok(Device::Cuda(ordinal)) = name.parse() else {
            panic!("{DEVICE_VARIABLE} names {name}, not a CUDA device")
        };
        let device = CudaDevice::open_kernels(ordinal)
            .unwrap_or_else(|error| panic!("{DEVICE_VARIABLE}={name}: {error}"));
        Self { launcher: device, emulation: None }
    }

    fn build(kernels: &[PathBuf], flags: &[&str]) -> Result<Self, String> {
        let host = ["machine.cpp", "launch.cpp", "hopper.cpp"].map(|file| folder().join("host").join(file));
        let objects = compile_all(&[&host[..], kernels].concat(), flags)?;
        let library = link(&objects)?;
        // SAFETY: the library was compiled above from this repository; its constructors only register kernels.
        let library = unsafe { libloading::Library::new(library) }.unwrap();
        let emulation = Arc::new(Emulation { library });
        Ok(Self { launcher: emulation.clone(), emulation: Some(emulation) })
    }

    /// What launch functions and buffers take.
    pub fn launcher(&self) -> &Arc<dyn Launcher> {
        &self.launcher
    }

    /// Whether a kernel runs here: the emulation has what all of them need, a device may not.
    pub fn runs(&self, kernel: Kernel) -> bool {
        let properties = self.launcher.properties();
        let is_for_hopper = matches!(kernel, Kernel::AttentionPrefillSm90 { .. });
        kernel.block().shared_bytes <= properties.max_shared_bytes
            && (!is_for_hopper || properties.is_hopper())
    }

    /// Sets the order of blocks, warps and copies in which this thread's launch functions run kernels from here on; a device has its own.
    pub fn set_order(seed: u64, lazy: bool) {
        ORDER.set((seed, lazy));
    }

    /// Runs a kernel over the whole grid.
    pub fn launch<P: Params>(&self, kernel: &str, params: &P, launch: Launch) -> Result<(), String> {
        let named = Kernel::named(kernel);
        let Some(emulation) = &self.emulation else {
            let kernel = named.ok_or_else(|| format!("{kernel}: no such kernel"))?;
            // SAFETY: the tests' buffers are as long as the parameters say; compute-sanitizer checks that on the device.
            let launched =
                unsafe { self.launcher.launch(kernel, kernel.block(), launch.grid, ParamsRef::new(params)) };
            return launched.map_err(|error| error.to_string());
        };
        let block = match named {
            Some(kernel) => kernel.block(),
            None => {
                let entry = self.entry(kernel).ok_or_else(|| format!("{kernel}: no such kernel"))?;
                BlockShape { threads: entry.threads, shared_bytes: entry.shared_bytes }
            }
        };
        emulation.launch(kernel, block, launch, ParamsRef::new(params))
    }

    /// What a kernel was compiled for in the emulation.
    pub fn entry(&self, kernel: &str) -> Option<Entry> {
        self.entries().into_iter().find(|entry| entry.name() == kernel)
    }

    /// All entries of the emulation.
    pub fn entries(&self) -> Vec<Entry> {
        let emulation = self.emulation.as_ref().expect("entries of the emulation");
        let function: Symbol<'_, unsafe extern "C" fn(usize, *mut Entry) -> i32> =
            emulation.symbol(b"kernels_host_entry");
        (0..)
            .map_while(|index| {
                let mut entry = Entry { name: c"".as_ptr(), params_size: 0, threads: 0, shared_bytes: 0 };
                // SAFETY: `entry` is valid for writes.
                (unsafe { function(index, &mut entry) } == 1).then_some(entry)
            })
            .collect()
    }

    /// A copy of `values` that kernels may touch.
    pub fn buffer<T: Copy>(&self, values: &[T]) -> Buffer<'_, T> {
        let address = self.launcher.allocate(size_of_val(values).max(1)).unwrap();
        let buffer = Buffer { library: self, address, len: values.len(), element: PhantomData };
        buffer.fill(values);
        buffer
    }

    /// Encodes a tensor map as `cuTensorMapEncodeTiled` does.
    pub fn tensor_map(
        &self,
        address: u64,
        sizes: &[u64],
        strides: &[u64],
        tile: &[u32],
        swizzle_128: bool,
    ) -> Result<TensorMap, Error> {
        self.launcher.tensor_map(&TensorMapShape {
            address,
            sizes: sizes.into(),
            strides: strides.into(),
            tile: tile.into(),
            swizzle_128,
        })
    }
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &str {
        // SAFETY: names are string literals of the library.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap()
    }
}

impl Emulation {
    /// A function of `host/launch.h`, of the type that is written there.
    fn symbol<F>(&self, name: &[u8]) -> Symbol<'_, F> {
        // SAFETY: the callers name the types of host/launch.h.
        unsafe { self.library.get(name) }.unwrap()
    }

    fn launch(
        &self,
        kernel: &str,
        block: BlockShape,
        launch: Launch,
        params: ParamsRef<'_>,
    ) -> Result<(), String> {
        let name = CString::new(kernel).unwrap();
        let mut error = vec![0_u8; 2048];
        let request = HostLaunch {
            kernel: name.as_ptr(),
            params: params.pointer(),
            params_size: params.size(),
            grid: launch.grid,
            threads: block.threads,
            shared_bytes: block.shared_bytes,
            lazy_copies: launch.lazy.into(),
            seed: launch.seed,
            host_threads: 0,
            reserved: 0,
            error: error.as_mut_ptr().cast(),
            error_capacity: error.len(),
        };
        let function: Symbol<'_, unsafe extern "C" fn(&HostLaunch) -> i32> =
            self.symbol(b"kernels_host_launch");
        // SAFETY: all pointers outlive the call, and the kernel's accesses are checked.
        match unsafe { function(&request) } {
            0 => Ok(()),
            _ => Err(CStr::from_bytes_until_nul(&error).unwrap().to_str().unwrap().to_owned()),
        }
    }
}

/// `out = input · weightᵀ` by plain loops, summed in f32 and rounded once.
///
/// # Safety
/// All rows of the three matrices are there, of elements of type `T`, and the output overlaps neither of the others.
unsafe fn matmul<T: Copy>(product: &Product, widen: impl Fn(T) -> f32, round: impl Fn(f32) -> T) {
    let row = |address: u64, index: usize, stride: usize, len: usize| {
        // SAFETY: by contract.
        unsafe { slice::from_raw_parts((address as *const T).add(index * stride), len) }
    };
    let values = |row: &[T]| row.iter().map(|&value| widen(value)).collect::<Vec<_>>();
    let Product { rows, in_features, out_features, .. } = *product;
    let inputs: Vec<_> =
        (0..rows).map(|i| values(row(product.input, i, product.input_stride, in_features))).collect();
    for feature in 0..out_features {
        let weight = values(row(product.weight, feature, product.weight_stride, in_features));
        for (index, input) in inputs.iter().enumerate() {
            let sum = input.iter().zip(&weight).map(|(a, b)| a * b).sum();
            // SAFETY: by contract.
            unsafe {
                (product.out as *mut T).add(index * product.out_stride + feature).write(round(sum));
            }
        }
    }
}

impl Launcher for Emulation {
    fn name(&self) -> String {
        "cuda-emulated".into()
    }

    fn free_memory(&self) -> Result<u64, Error> {
        Ok(1 << 30)
    }

    unsafe fn matmul(&self, product: &Product) -> Result<(), Error> {
        // SAFETY: by contract.
        unsafe {
            match product.dtype {
                DType::BF16 => matmul(product, bf16::to_f32, bf16::from_f32),
                DType::F16 => matmul(product, f16::to_f32, f16::from_f32),
                DType::F32 => matmul(product, |value: f32| value, |value| value),
            }
        }
        Ok(())
    }

    /// A Hopper chip with few multiprocessors, so that small grids have several waves.
    fn properties(&self) -> Properties {
        Properties {
            compute_capability: (9, 0),
            multiprocessors: 4,
            max_shared_bytes: 232_448,
            l2_bytes: 1 << 20,
        }
    }

    fn resident_blocks(&self, _: Kernel) -> usize {
        2 * self.properties().multiprocessors as usize
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let function: Symbol<'_, unsafe extern "C" fn(usize) -> *mut c_void> =
            self.symbol(b"kernels_host_allocate");
        // SAFETY: takes any size.
        let memory = unsafe { function(bytes) };
        if memory.is_null() {
            return Err(Error::new(ErrorKind::OutOfMemory, format!("{bytes} bytes")));
        }
        Ok(memory as u64)
    }

    unsafe fn release(&self, address: u64) {
        let function: Symbol<'_, unsafe extern "C" fn(*mut c_void)> = self.symbol(b"kernels_host_release");
        // SAFETY: by contract from `allocate`, released once.
        unsafe { function(address as *mut c_void) };
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: by contract inside an allocation, and no kernel is running.
        unsafe { (to as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        // SAFETY: by contract inside an allocation, and no kernel is running.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from as *const u8, bytes.len()) };
        Ok(())
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), Error> {
        // SAFETY: by contract inside an allocation, and no kernel is running.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        block: BlockShape,
        grid: [u32; 3],
        params: ParamsRef<'_>,
    ) -> Result<(), Error> {
        let (seed, lazy) = ORDER.get();
        let launched = self.launch(&kernel.to_string(), block, Launch { grid, seed, lazy }, params);
        launched.map_err(|message| Error::new(ErrorKind::Device, message))
    }

    fn tensor_map(&self, shape: &TensorMapShape) -> Result<TensorMap, Error> {
        type Encode =
            unsafe extern "C" fn(*mut c_void, u64, u32, *const u64, *const u64, *const u32, u32) -> i32;
        let TensorMapShape { address, sizes, strides, tile, swizzle_128 } = shape;
        assert!(sizes.len() == tile.len() && strides.len() + 1 == sizes.len());
        let mut map = TensorMap::default();
        let function: Symbol<'_, Encode> = self.symbol(b"kernels_host_encode_tensor_map");
        // SAFETY: the arrays have `rank` elements, `strides` one less.
        let status = unsafe {
            function(
                (&raw mut map).cast(),
                *address,
                sizes.len() as u32,
                sizes.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                (*swizzle_128).into(),
            )
        };
        match status {
            0 => Ok(map),
            argument => Err(Error::invalid_argument(format!("tensor map: argument {argument} of {shape:?}"))),
        }
    }
}

/// Memory that kernels may touch; in the emulation an access past its end fails the launch.
pub struct Buffer<'a, T> {
    library: &'a Library,
    address: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Copy> Buffer<'_, T> {
    /// Its device address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Overwrites it.
    pub fn fill(&self, values: &[T]) {
        assert_eq!(values.len(), self.len);
        // SAFETY: the bytes of plain numbers.
        let bytes = unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        // SAFETY: as long as `values`.
        unsafe { self.library.launcher.write(self.address, bytes) }.unwrap();
    }

    /// What kernels left in it.
    pub fn to_vec(&self) -> Vec<T> {
        let mut values: Vec<T> = Vec::with_capacity(self.len);
        let bytes: *mut u8 = values.as_mut_ptr().cast();
        // SAFETY: the vector has room for `len` plain numbers, and all are written.
        unsafe {
            bytes.write_bytes(0, self.len * size_of::<T>());
            let bytes = slice::from_raw_parts_mut(bytes, self.len * size_of::<T>());
            self.library.launcher.read(self.address, bytes).unwrap();
            values.set_len(self.len);
        }
        values
    }
}

impl<T> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `buffer`, released once.
        unsafe { self.library.launcher.release(self.address) };
    }
}
