//! The jobs of the command line: datasets in, predictions out, resumable and sharded.

pub mod api;
pub mod bench;
pub mod bm25_retrieval;
pub mod eval_retrieval;
pub mod llama;
mod load;
pub mod names;
pub mod predictions;
pub mod shard;
