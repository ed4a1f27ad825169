//! The oracle: plain f32 loops on one thread, written to be read.
