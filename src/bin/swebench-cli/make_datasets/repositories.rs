//! The flags that say where repositories are, the same for every dataset made from them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// Where repositories are, and how many instances read them at once.
#[derive(Debug, Args, Serialize)]
#[group(skip)]
pub(super) struct RepositoryArgs {
    /// A directory of clones named owner__name or owner__name.git; nothing is cloned then.
    #[arg(long, value_name = "DIR", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror_dir: Option<PathBuf>,
    /// Where clones are kept [default: swebench-infer/repositories in the user's cache]
    #[arg(long, value_name = "DIR", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    clone_dir: Option<PathBuf>,
    /// What repositories' names are added to for cloning [default: https://github.com]
    #[arg(long, value_name = "URL", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    clone_url: Option<String>,
    /// Instances that are worked on at once [default: the number of processors]
    #[arg(long, value_name = "N", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<usize>,
}
