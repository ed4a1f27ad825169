//! The [`Launcher`] contract: memory and kernels of a device, or of its emulation.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

use super::geometry::{BlockShape, Kernel};
use super::params::{Params, TensorMap};
use crate::backend::DType;
use crate::error::Result;

/// What launches depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Properties {
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may ask for.
    pub max_shared_bytes: u32,
    /// Bytes of L2 cache.
    pub l2_bytes: usize,
}

impl Properties {
    /// Whether the kernels for Hopper run: they use instructions that other chips, later ones too, do not have.
    pub fn is_hopper(&self) -> bool {
        self.compute_capability == (9, 0)
    }
}

/// A kernel's parameters, borrowed.
#[derive(Clone, Copy)]
pub struct ParamsRef<'a> {
    pointer: *const c_void,
    size: usize,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> ParamsRef<'a> {
    /// Of a struct of `params.h`.
    pub fn new<P: Params>(params: &'a P) -> Self {
        Self { pointer: (&raw const *params).cast(), size: size_of::<P>(), borrowed: PhantomData }
    }

    /// Its address, aligned as the struct is.
    pub fn pointer(&self) -> *const c_void {
        self.pointer
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl fmt::Debug for ParamsRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of parameters", self.size)
    }
}

/// A dense tensor of 2-byte elements and the box that one copy brings from it, innermost dimension first: `cuTensorMapEncodeTiled`'s arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMapShape {
    /// Device address of the first element, 16-byte aligned.
    pub address: u64,
    /// Elements in each dimension.
    pub sizes: Vec<u64>,
    /// Bytes from one index to the next, of dimensions 1 and up; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of the box in each dimension, at most 256.
    pub tile: Vec<u32>,
    /// Whether rows of 128 bytes exchange their 16-byte columns, as `wgmma` reads them.
    pub swizzle_128: bool,
}

/// A product of matrices in a 2-byte type: `out [rows, out_features] = input [rows, in_features] · weightᵀ`, summed in f32 and rounded once.
///
/// `weight` is `[out_features, in_features]`. Addresses are the device's, strides count elements from one row to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    /// Of all three.
    pub dtype: DType,
    /// Rows of input and output.
    pub rows: usize,
    /// Columns of input and weight.
    pub in_features: usize,
    /// Rows of the weight, columns of the output.
    pub out_features: usize,
    /// 16-byte aligned.
    pub input: u64,
    /// 16-byte aligned.
    pub weight: u64,
    /// 16-byte aligned.
    pub out: u64,
    /// Of the input.
    pub input_stride: usize,
    /// Of the weight.
    pub weight_stride: usize,
    /// Of the output.
    pub out_stride: usize,
}

/// Where kernels run: a device through its driver, or the emulated multiprocessor of the tests.
///
/// Work is done in the order of the calls; launches need not have finished when they return, and `read` waits for them.
pub trait Launcher: Send + Sync {
    /// Its number and name, such as `cuda:0 (NVIDIA H200)`.
    fn name(&self) -> String;

    /// What launches depend on.
    fn properties(&self) -> Properties;

    /// Bytes that can still be allocated.
    ///
    /// # Errors
    /// `Device`.
    fn free_memory(&self) -> Result<u64>;

    /// Blocks of a kernel that run at one time, by their registers, threads and shared memory; at least one.
    fn resident_blocks(&self, kernel: Kernel) -> usize;

    /// Memory for `bytes` bytes (at least one), 256-byte aligned, its contents undefined.
    ///
    /// # Errors
    /// `OutOfMemory`, stating the bytes asked for.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back once all work before has been done.
    ///
    /// # Safety
    /// `address` came from `allocate` and is not used afterwards.
    unsafe fn release(&self, address: u64);

    /// Copies to the device; `bytes` may be reused on return.
    ///
    /// # Safety
    /// All of `[to, to + bytes.len())` lies in memory from `allocate`.
    ///
    /// # Errors
    /// `Device`, also for failures of earlier launches.
    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Waits for all work before and copies from the device.
    ///
    /// # Safety
    /// All of `[from, from + bytes.len())` lies in memory from `allocate`.
    ///
    /// # Errors
    /// `Device`, also for failures of earlier launches.
    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Fills with zeros, in order with launches.
    ///
    /// # Safety
    /// All of `[address, address + bytes)` lies in memory from `allocate`.
    ///
    /// # Errors
    /// `Device`.
    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()>;

    /// Starts a kernel on a grid of blocks.
    ///
    /// # Safety
    /// The parameters are those of the kernel, and all that it reads and writes through them lies in memory from `allocate`.
    ///
    /// # Errors
    /// `Unsupported` for a kernel that is not in this build or not for this device, `Device`.
    unsafe fn launch(
        &self,
        kernel: Kernel,
        block: BlockShape,
        grid: [u32; 3],
        params: ParamsRef<'_>,
    ) -> Result<()>;

    /// Starts a product of matrices.
    ///
    /// # Safety
    /// All rows of the three matrices lie in memory from `allocate`, and the output overlaps neither of the others.
    ///
    /// # Errors
    /// `Unsupported` for a shape that no algorithm takes, `Device`.
    unsafe fn matmul(&self, product: &Product) -> Result<()>;

    /// Encodes a tensor map.
    ///
    /// # Errors
    /// `InvalidArgument` with the shape, when it breaks the driver's rules.
    fn tensor_map(&self, shape: &TensorMapShape) -> Result<TensorMap>;
}
