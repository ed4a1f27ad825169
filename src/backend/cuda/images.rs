//! The kernels' device images that the build compiled, and what they were compiled for.

use std::fmt;

/// A kernel file's code for all architectures: the driver takes the chip's own code from it, or compiles the PTX.
#[derive(Clone, Copy)]
pub struct Image {
    /// The kernel file without its extension.
    pub name: &'static str,
    /// A fat binary, aligned as the driver reads it.
    pub bytes: &'static [u8],
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.bytes.len())
    }
}

/// Gives embedded bytes the alignment that the driver reads with.
#[allow(dead_code, reason = "a build without nvcc embeds nothing")]
#[repr(C, align(64))]
struct Aligned<B>(B);

include!(concat!(env!("OUT_DIR"), "/cuda_images.rs"));

/// Whether the build found nvcc.
pub fn built() -> bool {
    !IMAGES.is_empty()
}
