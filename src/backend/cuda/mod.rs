//! CUDA devices: finding one, the kernels' images, and one checked function a kernel.
//!
//! `discovery` asks the driver what there is, `images` holds what the build compiled, `params` the structs that kernels read. A [`Launcher`] runs
//! kernels and owns memory: [`CudaDevice`] through the driver, and in the tests the emulated multiprocessor of `kernels/host`. `geometry` says how each
//! kernel is launched, `schedule` how work is cut into blocks, and `launch` checks shapes and addresses before anything runs.

mod buffer;
mod check;
mod discovery;
mod driver;
pub mod geometry;
pub mod images;
mod indices;
pub mod launch;
mod launcher;
pub mod params;
pub mod schedule;
mod sequences;

pub use buffer::{Buffer, Element, Matrix, Stored, Vector};
pub use discovery::{DeviceInfo, cuda_probe, devices};
pub use driver::{CudaDevice, Timer};
pub use geometry::Kernel;
pub use indices::{Index, Indices};
pub use launcher::{Launcher, ParamsRef, Properties, TensorMapShape};
pub use sequences::DeviceSequences;
