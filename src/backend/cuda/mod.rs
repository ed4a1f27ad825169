//! CUDA devices: finding one, the kernels' images, one checked function a kernel, and the backend over them.
//!
//! `discovery` asks the driver what there is, `images` holds what the build compiled, `params` the structs that kernels read. A [`Launcher`] runs
//! kernels and owns memory: [`CudaDevice`] through the driver, and in the tests the emulated multiprocessor of `kernels/host`. `geometry` says how each
//! kernel is launched, `schedule` how work is cut into blocks, and `launch` checks shapes and addresses before anything runs.
//!
//! [`CudaBackend`] computes a model over that: `weights` and `kv_pool` hold its memory, `activation` what an operation hands to the next, `step` a
//! step's metadata, which `upload` sends in one copy, `workspace` what kernels work in. Products for many rows are the vendor's (`matmul`, `cublaslt`);
//! `self_check` tries them before a model does.

mod activation;
mod backend;
mod buffer;
mod check;
mod cublaslt;
mod discovery;
mod driver;
pub mod geometry;
pub mod images;
mod indices;
mod kv_pool;
pub mod launch;
mod launcher;
mod matmul;
pub mod params;
pub mod schedule;
mod self_check;
mod sequences;
mod step;
mod upload;
mod weights;
mod workspace;

pub use activation::CudaActivation;
pub use backend::CudaBackend;
pub use buffer::{Buffer, Element, Matrix, Stored, Vector};
pub use discovery::{DeviceInfo, cuda_is_expected, cuda_probe, devices};
pub use driver::{CudaDevice, Timer};
pub use geometry::Kernel;
pub use indices::{Index, Indices};
pub use kv_pool::CudaKvCache;
pub use launcher::{Launcher, ParamsRef, Product, Properties, TensorMapShape};
pub use sequences::DeviceSequences;
pub use step::CudaStep;
pub use weights::{CudaLinear, CudaVector};
