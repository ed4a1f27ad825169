//! The jobs of the command line: datasets in, predictions out, resumable and sharded.

pub mod api;
pub mod bench;
pub mod llama;
pub mod names;
pub mod predictions;
pub mod shard;
mod spill;
