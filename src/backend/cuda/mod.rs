//! The CUDA backend: kernel parameters, and the images that the build compiled.

pub mod params;
