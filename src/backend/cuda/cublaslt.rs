//! Products of matrices by NVIDIA's cuBLASLt, which is opened at run time.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::result as driver;
use cudarc::driver::sys::CUstream;

use super::discovery;
use super::launcher::Product;
use crate::backend::DType;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that an algorithm may work in: what NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// The alignment, in bytes, from which on no algorithm wants more.
const LARGEST_ALIGNMENT: u32 = 256;

/// Shapes whose algorithms are kept: a step has four or five, and steps differ in their rows.
const MAX_PLANS: usize = 4096;

/// Says what is missing when the library cannot be opened.
///
/// # Errors
/// `Device`, naming what was looked for.
pub(super) fn check_library() -> Result<()> {
    // SAFETY: only asks the dynamic linker whether the library opens.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Device,
        "no cuBLASLt: neither libcublasLt.so nor libcublasLt.so.13 was found by the dynamic linker",
    )
    .with_hint("install CUDA's cuBLAS, put its directory into LD_LIBRARY_PATH, or use --device cpu"))
}

/// The library on one device, with the algorithms that it chose.
#[derive(Debug)]
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    /// [`WORKSPACE_BYTES`] of device memory, given back on drop.
    workspace: u64,
    plans: Mutex<HashMap<Shape, Plan>>,
}

// SAFETY: the handle may be used from any thread, and plans are behind a lock.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

/// What an algorithm is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    dtype: DType,
    rows: usize,
    in_features: usize,
    out_features: usize,
    strides: [usize; 3],
    /// What divides every address, up to [`LARGEST_ALIGNMENT`]: algorithms differ in what they need.
    alignment: u32,
}

impl CublasLt {
    /// Starts the library in the current context, which is current again when it is dropped.
    ///
    /// # Errors
    /// `Device`, `OutOfMemory`.
    pub(super) fn new() -> Result<Self> {
        // From here on dropping it gives back what it has.
        let mut library = Self { handle: ptr::null_mut(), workspace: 0, plans: Mutex::new(HashMap::new()) };
        library.handle = result::create_handle().map_err(|error| failed("cublasLtCreate", error))?;
        // SAFETY: the memory is not read before it is written.
        library.workspace = unsafe { driver::malloc_sync(WORKSPACE_BYTES) }
            .map_err(|error| discovery::failed("cuMemAlloc", error).context("the workspace of products"))?;
        Ok(library)
    }

    /// Starts a product in `stream`, whose context is current.
    ///
    /// # Safety
    /// As [`super::Launcher::matmul`].
    pub(super) unsafe fn matmul(&self, product: &Product, stream: CUstream) -> Result<()> {
        let Product { dtype, rows, in_features, out_features, .. } = *product;
        let strides = [product.input_stride, product.weight_stride, product.out_stride];
        let addresses = product.input | product.weight | product.out;
        let alignment = 1 << addresses.trailing_zeros().min(LARGEST_ALIGNMENT.trailing_zeros());
        let shape = Shape { dtype, rows, in_features, out_features, strides, alignment };
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if !plans.contains_key(&shape) {
            if plans.len() == MAX_PLANS {
                plans.clear();
            }
            plans.insert(shape, Plan::new(self.handle, &shape)?);
        }
        let plan = &plans[&shape];
        let (alpha, beta) = (1.0_f32, 0.0_f32);
        // Row-major matrices are column-major ones transposed: outᵀ = weight · inputᵀ.
        // SAFETY: the matrices are as the caller promises, the plan was made for them, the workspace lives as long as the device.
        unsafe {
            result::matmul(
                self.handle,
                plan.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                product.weight as *const c_void,
                plan.weight,
                product.input as *const c_void,
                plan.input,
                product.out as *const c_void,
                plan.out,
                product.out as *mut c_void,
                plan.out,
                &raw const plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cast(),
            )
        }
        .map_err(|error| failed("cublasLtMatmul", error).context(format!("{shape:?}")))
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if self.workspace != 0 {
            // SAFETY: allocated by `new`, freed once; waits for the device, so no product still works in it.
            let freed = unsafe { driver::free_sync(self.workspace) };
            freed.unwrap_or_else(|error| log::warn!("{}", discovery::failed("cuMemFree", error)));
        }
        if !self.handle.is_null() {
            // SAFETY: created by `new`, destroyed once, after its plans.
            let destroyed = unsafe { result::destroy_handle(self.handle) };
            destroyed.unwrap_or_else(|error| log::warn!("{}", failed("cublasLtDestroy", error)));
        }
    }
}

/// Descriptions of one shape's matrices, and the algorithm for it.
#[derive(Debug)]
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    input: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, shape: &Shape) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        let element = match shape.dtype {
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
            DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
            DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        };
        // From here on dropping it gives back what it has.
        let mut plan = Self {
            operation: ptr::null_mut(),
            weight: ptr::null_mut(),
            input: ptr::null_mut(),
            out: ptr::null_mut(),
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        plan.operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )
        .map_err(|error| failed("cublasLtMatmulDescCreate", error))?;
        // CUBLAS_OP_T of cublas_api.h.
        let transposed = 1_i32;
        // SAFETY: the attribute is one value of this type.
        unsafe {
            result::set_matmul_desc_attribute(
                plan.operation,
                CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of::<i32>(),
            )
        }
        .map_err(|error| failed("cublasLtMatmulDescSetAttribute", error))?;
        let layout = |rows: usize, cols: usize, stride: usize| {
            result::create_matrix_layout(element, rows as u64, cols as u64, stride as i64)
                .map_err(|error| failed("cublasLtMatrixLayoutCreate", error))
        };
        let [input_stride, weight_stride, out_stride] = shape.strides;
        plan.weight = layout(shape.in_features, shape.out_features, weight_stride)?;
        plan.input = layout(shape.in_features, shape.rows, input_stride)?;
        plan.out = layout(shape.out_features, shape.rows, out_stride)?;
        plan.algorithm =
            plan.choose(handle, shape.alignment).map_err(|error| error.context(format!("{shape:?}")))?;
        Ok(plan)
    }

    /// The algorithm that the library expects to be fastest.
    fn choose(&self, handle: sys::cublasLtHandle_t, alignment: u32) -> Result<sys::cublasLtMatmulAlgo_t> {
        use sys::cublasLtMatmulPreferenceAttributes_t::{
            CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        };
        let preference =
            result::create_matmul_pref().map_err(|error| failed("cublasLtMatmulPreferenceCreate", error))?;
        let workspace_bytes = WORKSPACE_BYTES;
        let workspace = (&raw const workspace_bytes).cast::<c_void>();
        let aligned = (&raw const alignment).cast::<c_void>();
        let attributes = [
            (CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace, size_of::<usize>()),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned, size_of::<u32>()),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned, size_of::<u32>()),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned, size_of::<u32>()),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned, size_of::<u32>()),
        ];
        // SAFETY: each attribute is one number of this size; descriptions and preference are alive, and the latter is destroyed once.
        let chosen = unsafe {
            let chosen = attributes
                .into_iter()
                .try_for_each(|(attribute, value, size)| {
                    result::set_matmul_pref_attribute(preference, attribute, value, size)
                })
                .and_then(|()| {
                    result::get_matmul_algo_heuristic(
                        handle,
                        self.operation,
                        self.weight,
                        self.input,
                        self.out,
                        self.out,
                        preference,
                    )
                });
            result::destroy_matmul_pref(preference).and(chosen)
        };
        Ok(chosen.map_err(|error| failed("cublasLtMatmulAlgoGetHeuristic", error))?.algo)
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        for layout in [self.weight, self.input, self.out] {
            if !layout.is_null() {
                // SAFETY: created by `new`, destroyed once.
                let _ = unsafe { result::destroy_matrix_layout(layout) };
            }
        }
        if !self.operation.is_null() {
            // SAFETY: as above.
            let _ = unsafe { result::destroy_matmul_desc(self.operation) };
        }
    }
}

/// A library call's failure.
fn failed(call: &str, error: CublasError) -> Error {
    let kind = match error.0 {
        sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => ErrorKind::OutOfMemory,
        sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED
        | sys::cublasStatus_t::CUBLAS_STATUS_ARCH_MISMATCH => ErrorKind::Unsupported,
        _ => ErrorKind::Device,
    };
    Error::new(kind, format!("{call} failed: {error}"))
}
