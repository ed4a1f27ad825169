//! An emulated device: the kernels' emulation under a chip's properties, which counts what it holds and fails where a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use swebench_infer::backend::cuda::geometry::BlockShape;
use swebench_infer::backend::cuda::params::TensorMap;
use swebench_infer::backend::cuda::{Kernel, Launcher, ParamsRef, Product, Properties, TensorMapShape};
use swebench_infer::error::{Error, ErrorKind, Result};

use crate::emulator::Library;

/// A chip with few multiprocessors, so that small grids have several waves.
pub struct Chip {
    emulation: Arc<dyn Launcher>,
    compute_capability: (u32, u32),
    /// Pieces of memory that are not given back.
    held: AtomicUsize,
    allocations: AtomicUsize,
    launches: AtomicUsize,
    /// The allocation from which on there is no memory.
    full_at: usize,
    /// The launch from which on the device does not answer.
    lost_at: AtomicUsize,
    /// Whether products of matrices leave the output as it was.
    idle: bool,
}

impl Chip {
    fn new(compute_capability: (u32, u32)) -> Self {
        Self {
            emulation: Arc::clone(Library::kernels().launcher()),
            compute_capability,
            held: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
            launches: AtomicUsize::new(0),
            full_at: usize::MAX,
            lost_at: AtomicUsize::new(usize::MAX),
            idle: false,
        }
    }

    /// With the kernels for Hopper.
    pub fn hopper() -> Arc<Self> {
        Arc::new(Self::new((9, 0)))
    }

    /// With the kernels for all chips.
    pub fn ampere() -> Arc<Self> {
        Arc::new(Self::new((8, 0)))
    }

    /// With memory for so many allocations.
    pub fn full_after(allocations: usize) -> Arc<Self> {
        Arc::new(Self { full_at: allocations, ..Self::new((9, 0)) })
    }

    /// With a library that does nothing.
    pub fn idle() -> Arc<Self> {
        Arc::new(Self { idle: true, ..Self::new((9, 0)) })
    }

    /// Lets the device be lost after so many more launches.
    pub fn lose_after(&self, launches: usize) {
        self.lost_at.store(self.launches() + launches, Ordering::Relaxed);
    }

    /// Pieces of memory that are not given back.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Allocations so far.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Kernels and products so far.
    pub fn launches(&self) -> usize {
        self.launches.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.launches() < self.lost_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Device, "cuLaunchKernel failed: CUDA_ERROR_ECC_UNCORRECTABLE"))
    }

    fn count_launch(&self) -> Result<()> {
        self.check()?;
        self.launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Launcher for Chip {
    fn name(&self) -> String {
        self.emulation.name()
    }

    fn properties(&self) -> Properties {
        Properties { compute_capability: self.compute_capability, ..self.emulation.properties() }
    }

    fn resident_blocks(&self, kernel: Kernel) -> usize {
        self.emulation.resident_blocks(kernel)
    }

    fn free_memory(&self) -> Result<u64> {
        self.emulation.free_memory()
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        if self.allocations.fetch_add(1, Ordering::Relaxed) >= self.full_at {
            return Err(Error::new(ErrorKind::OutOfMemory, format!("{bytes} bytes of device memory")));
        }
        let address = self.emulation.allocate(bytes)?;
        self.held.fetch_add(1, Ordering::Relaxed);
        Ok(address)
    }

    unsafe fn release(&self, address: u64) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: by contract.
        unsafe { self.emulation.release(address) };
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.check()?;
        // SAFETY: by contract.
        unsafe { self.emulation.write(to, bytes) }
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.check()?;
        // SAFETY: by contract.
        unsafe { self.emulation.read(from, bytes) }
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        self.check()?;
        // SAFETY: by contract.
        unsafe { self.emulation.zero(address, bytes) }
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        block: BlockShape,
        grid: [u32; 3],
        params: ParamsRef<'_>,
    ) -> Result<()> {
        self.count_launch()?;
        // SAFETY: by contract.
        unsafe { self.emulation.launch(kernel, block, grid, params) }
    }

    unsafe fn matmul(&self, product: &Product) -> Result<()> {
        self.count_launch()?;
        if self.idle {
            return Ok(());
        }
        // SAFETY: by contract.
        unsafe { self.emulation.matmul(product) }
    }

    fn tensor_map(&self, shape: &TensorMapShape) -> Result<TensorMap> {
        self.emulation.tensor_map(shape)
    }
}
