//! BM25 retrieval as Lucene has it with Anserini's settings, over the files of a repository's commits.
//!
//! A document is a file's path and what a [`DocumentEncoding`] takes of its content. Its terms come from `analyzer`; they are kept as
//! hashes with counts, by blob, in memory and on the disk ([`TermCache`]), so that the next commit of a repository costs only
//! what changed in it ([`Corpus`]). An [`Index`] is one commit's documents; a [`Query`] ranks them.

mod analyzer;
mod bm25;
mod corpus;
mod documents;
mod index;
mod porter;
mod python_depth;
mod python_docs;
mod python_names;
mod term_cache;
mod terms;
#[cfg(test)]
mod tests;
mod tree;
mod words;

pub use corpus::Corpus;
pub use documents::{DocumentEncoding, FileFilter};
pub use index::{Hit, Index, Query};
pub use term_cache::TermCache;
pub use terms::Terms;

/// How many files the reference asks for.
pub const HITS: usize = 20;
