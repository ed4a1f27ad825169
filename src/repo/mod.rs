//! Git repositories as they are on the disk: commits, trees and files read from objects, without a checkout.
//!
//! Everything goes through the system's git, run so that neither configuration, hooks, the environment nor the content of
//! a repository decides what is executed. A repository is data: nothing of it is written anywhere.

mod apply;
mod git;
mod id;
mod mirrors;
mod name;
mod reader;
mod repository;
mod snapshot;
mod test_paths;
#[cfg(test)]
pub(crate) mod test_repository;
mod text;
mod tree;

pub use apply::{TrialIndex, apply_to_checkout};
pub use git::{Git, GitOutput};
pub use id::ObjectId;
pub use mirrors::{CloneFilter, MirrorConfig, Mirrors};
pub use name::RepositoryName;
pub use reader::Reader;
pub use repository::Repository;
pub use snapshot::Snapshot;
pub use test_paths::is_test;
pub use text::{Text, decode};
pub use tree::{EntryKind, TreeEntry};

/// The largest file that is read; source code is smaller, and what is larger is data.
pub const MAX_FILE_LEN: u64 = 32 << 20;
