//! Compiles kernels with the system's C++ compiler and launches them on the emulated multiprocessor.

use std::collections::hash_map::DefaultHasher;
use std::ffi::{CStr, CString, c_char, c_void};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, slice, thread};

use libloading::Symbol;
use swebench_infer::backend::cuda::params::Params;

/// Compiled kernels.
pub struct Library(libloading::Library);

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

/// Memory that kernels may touch; an access past its end fails the launch.
pub struct Buffer<'a, T> {
    library: &'a Library,
    data: *mut T,
    len: usize,
}

impl Library {
    /// All kernels of the repository.
    pub fn kernels() -> &'static Self {
        static KERNELS: OnceLock<Library> = OnceLock::new();
        KERNELS.get_or_init(|| {
            let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
            let mut kernels: Vec<_> =
                files.filter(|path| path.extension().is_some_and(|end| end == "cu")).collect();
            kernels.sort();
            Self::build(&kernels).unwrap()
        })
    }

    /// Compiles `source` as a kernel file; errors are the compiler's.
    pub fn from_source(source: &str) -> Result<Self, String> {
        let path = scratch().join(format!("{:016x}.cu", hash(&source)));
        fs::write(&path, source).unwrap();
        Self::build(&[path])
    }

    fn build(kernels: &[PathBuf]) -> Result<Self, String> {
        static HOST: OnceLock<Vec<PathBuf>> = OnceLock::new();
        let host = HOST.get_or_init(|| {
            let files = ["machine.cpp", "launch.cpp", "hopper.cpp"];
            compile_all(&files.map(|file| folder().join("host").join(file))).unwrap()
        });
        let mut objects = host.clone();
        objects.extend(compile_all(kernels)?);
        let library = scratch().join(format!("libkernels_{:016x}.so", hash(&objects)));
        if !library.exists() {
            let partial = partial(&library);
            run(compiler().args(["-shared", "-pthread", "-o"]).arg(&partial).args(&objects))?;
            fs::rename(partial, &library).unwrap();
        }
        // SAFETY: the library was compiled above from this repository; its constructors only register kernels.
        Ok(Self(unsafe { libloading::Library::new(library) }.unwrap()))
    }

    /// Runs a kernel over the whole grid.
    pub fn launch<P: Params>(&self, kernel: &str, params: &P, launch: Launch) -> Result<(), String> {
        let entry = self.entry(kernel).ok_or_else(|| format!("{kernel}: no such kernel"))?;
        let name = CString::new(kernel).unwrap();
        let mut error = vec![0_u8; 2048];
        let request = HostLaunch {
            kernel: name.as_ptr(),
            params: (&raw const *params).cast(),
            params_size: size_of::<P>(),
            grid: launch.grid,
            threads: entry.threads,
            shared_bytes: entry.shared_bytes,
            lazy_copies: launch.lazy.into(),
            seed: launch.seed,
            host_threads: 0,
            reserved: 0,
            error: error.as_mut_ptr().cast(),
            error_capacity: error.len(),
        };
        // SAFETY: the symbol has this type in host/launch.h.
        let function: Symbol<'_, unsafe extern "C" fn(&HostLaunch) -> i32> =
            unsafe { self.0.get(b"kernels_host_launch") }.unwrap();
        // SAFETY: all pointers outlive the call, and the kernel's accesses are checked.
        match unsafe { function(&request) } {
            0 => Ok(()),
            _ => Err(CStr::from_bytes_until_nul(&error).unwrap().to_str().unwrap().to_owned()),
        }
    }

    /// What a kernel was compiled for.
    pub fn entry(&self, kernel: &str) -> Option<Entry> {
        // SAFETY: the symbol has this type in host/launch.h.
        let function: Symbol<'_, unsafe extern "C" fn(usize, *mut Entry) -> i32> =
            unsafe { self.0.get(b"kernels_host_entry") }.unwrap();
        (0..)
            .map_while(|index| {
                let mut entry = Entry { name: c"".as_ptr(), params_size: 0, threads: 0, shared_bytes: 0 };
                // SAFETY: `entry` is valid for writes.
                (unsafe { function(index, &mut entry) } == 1).then_some(entry)
            })
            // SAFETY: names are string literals of the library.
            .find(|entry| unsafe { CStr::from_ptr(entry.name) }.to_str() == Ok(kernel))
    }

    /// A copy of `values` that kernels may touch.
    pub fn buffer<T: Copy>(&self, values: &[T]) -> Buffer<'_, T> {
        // SAFETY: the symbol has this type in host/launch.h.
        let function: Symbol<'_, unsafe extern "C" fn(usize) -> *mut c_void> =
            unsafe { self.0.get(b"kernels_host_allocate") }.unwrap();
        // SAFETY: takes any size.
        let data: *mut T = unsafe { function(size_of_val(values).max(1)) }.cast();
        assert!(!data.is_null(), "no memory");
        // SAFETY: `data` is fresh, page-aligned and as long as `values`.
        unsafe { data.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Buffer { library: self, data, len: values.len() }
    }

    /// Encodes a tensor map as `cuTensorMapEncodeTiled` does; `Err` is the number of the argument that breaks its rules.
    pub fn tensor_map(
        &self,
        address: u64,
        sizes: &[u64],
        strides: &[u64],
        tile: &[u32],
        swizzle_128: bool,
    ) -> Result<swebench_infer::backend::cuda::params::TensorMap, i32> {
        type Encode =
            unsafe extern "C" fn(*mut c_void, u64, u32, *const u64, *const u64, *const u32, u32) -> i32;
        let mut map = swebench_infer::backend::cuda::params::TensorMap::default();
        // SAFETY: the symbol has this type in host/launch.h.
        let function: Symbol<'_, Encode> = unsafe { self.0.get(b"kernels_host_encode_tensor_map") }.unwrap();
        assert!(sizes.len() == tile.len() && strides.len() + 1 == sizes.len());
        // SAFETY: the arrays have `rank` elements, `strides` one less.
        let status = unsafe {
            function(
                (&raw mut map).cast(),
                address,
                sizes.len() as u32,
                sizes.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                swizzle_128.into(),
            )
        };
        if status == 0 { Ok(map) } else { Err(status) }
    }
}

impl<T: Copy> Buffer<'_, T> {
    /// Its device address.
    pub fn address(&self) -> u64 {
        self.data as u64
    }

    /// Overwrites it.
    pub fn fill(&self, values: &[T]) {
        assert_eq!(values.len(), self.len);
        // SAFETY: as long as `values`, and no kernel is running.
        unsafe { self.data.copy_from_nonoverlapping(values.as_ptr(), self.len) };
    }

    /// What kernels left in it.
    pub fn to_vec(&self) -> Vec<T> {
        // SAFETY: `buffer` filled `len` elements, and no kernel is running.
        unsafe { slice::from_raw_parts(self.data, self.len) }.to_vec()
    }
}

impl<T> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the symbol has this type in host/launch.h.
        let function: Symbol<'_, unsafe extern "C" fn(*mut c_void)> =
            unsafe { self.library.0.get(b"kernels_host_release") }.unwrap();
        // SAFETY: allocated by `buffer`, released once.
        unsafe { function(self.data.cast()) };
    }
}

/// `kernels/`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    fs::create_dir_all(&path).unwrap();
    path
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn headers_hash() -> u64 {
    let mut files: Vec<_> = [folder(), folder().join("host")]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|end| end == "h" || end == "cuh"))
        .collect();
    files.sort();
    hash(&files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>())
}

/// A name of this process and thread, so that test processes that build the same file do not see each other's halves.
fn partial(path: &Path) -> PathBuf {
    path.with_extension(format!("{}-{:x}", std::process::id(), hash(&thread::current().id())))
}

fn compiler() -> Command {
    Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()))
}

/// Objects of `sources`, compiled by as many processes as there are processors.
fn compile_all(sources: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let headers = headers_hash();
    let next = AtomicUsize::new(0);
    let work = || {
        let indices = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let indices = indices.take_while(|&index| index < sources.len());
        indices
            .map(|index| Ok((index, compile(&sources[index], headers)?)))
            .collect::<Result<Vec<_>, String>>()
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let parts = thread::scope(|scope| {
        let running: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
    })?;
    let mut objects = parts.concat();
    objects.sort();
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

/// An unchanged source gives the same object, so that a second run of the tests compiles nothing.
///
/// `SWEBENCH_KERNEL_CXXFLAGS` adds flags: CI compiles with the undefined-behaviour and address sanitizers.
fn compile(source: &Path, headers: u64) -> Result<PathBuf, String> {
    let extra = env::var("SWEBENCH_KERNEL_CXXFLAGS").unwrap_or_default();
    let key = hash(&(fs::read(source).unwrap(), headers, &extra, env::var_os("CXX")));
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let object = scratch().join(format!("{stem}-{key:016x}.o"));
    if !object.exists() {
        let partial = partial(&object);
        // No fused multiply-adds but those written as such: results are the same on every machine.
        let flags = [
            "-std=c++20",
            "-O2",
            "-fPIC",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-ffp-contract=off",
        ];
        let mut command = compiler();
        command.args(flags).args(extra.split_whitespace()).args(["-x", "c++", "-c"]).arg(source);
        run(command.arg("-I").arg(folder()).arg("-o").arg(&partial))?;
        fs::rename(partial, &object).unwrap();
    }
    Ok(object)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
