//! The jobs of the command line: datasets in, predictions out, resumable and sharded.

pub mod api;
pub mod bench;
pub mod bm25_retrieval;
pub mod eval_retrieval;
pub mod live;
pub mod llama;
pub mod names;
mod permutation;
pub mod predictions;
pub mod review;
pub mod shard;
mod spill;
mod split;
pub mod text_dataset;
mod text_tokenizer;
pub mod tokenize_dataset;
