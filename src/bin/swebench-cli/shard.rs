//! The flags that choose a part of the dataset, the same for every run.

use clap::Args;
use serde::Serialize;

/// Which part of the dataset this process works on.
#[derive(Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct ShardArgs {
    /// Work on this part of the dataset, from 0.
    #[arg(long, value_name = "I", requires = "num_shards", help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_id: Option<usize>,
    /// The number of parts.
    #[arg(long, value_name = "N", help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_shards: Option<usize>,
    /// `auto` takes the part from the environment of Slurm, Kubernetes or a launcher.
    #[arg(long, value_name = "auto", conflicts_with = "shard_id", help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
}
