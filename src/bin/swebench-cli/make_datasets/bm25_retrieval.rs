//! `make-datasets bm25-retrieval`: the files that issues are about.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use serde::Serialize;

use super::repositories::RepositoryArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::run_llama::exit;
use crate::shard::ShardArgs;
use crate::swebench::Job;
use crate::talk::Talk;

const EXAMPLES: &str = "\
Examples:
  # From clones in ./mirrors/owner__name.git; without --mirror-dir each repository is cloned once
  swebench-cli make-datasets bm25-retrieval --dataset-name-or-path SWE-bench/SWE-bench_Lite --splits dev test \\
      --mirror-dir ./mirrors --output-dir ./retrieval

  # Docstrings alone; Rust and C
  swebench-cli make-datasets bm25-retrieval --splits test --document-encoding-style file_name_and_documentation
  swebench-cli make-datasets bm25-retrieval --dataset-name-or-path ./rust-issues --splits test --extensions .rs .c .h

The same command continues an interrupted run and tries failed instances again. The path of the results is the one line on stdout.";

/// Find the files that issues are about: BM25 as Lucene has it, without Java.
///
/// Files are read from git objects, without a checkout. The flags are the keys of the configuration `bm25-retrieval`; what is
/// left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bm25RetrievalArgs {
    /// Path or hub name of a dataset of instances [default: SWE-bench/SWE-bench]
    #[arg(long, value_name = "DATASET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_name_or_path: Option<String>,
    /// The dataset's splits [default: train test]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "SPLIT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    splits: Vec<String>,
    /// file_name_and_contents, file_name_and_documentation or file_name_and_docs_jedi [default: file_name_and_contents]
    #[arg(long, value_name = "STYLE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    document_encoding_style: Option<String>,
    /// The ends of the names of files to search, tests apart [default: .py]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "END")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<String>,
    /// Where results go [default: ./retreival_results]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dir: Option<PathBuf>,
    /// Whether the terms of files stay for the next run [default: true]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[serde(skip_serializing_if = "Option::is_none")]
    leave_indexes: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    #[serde(flatten)]
    repositories: RepositoryArgs,
    /// Hub cache directory [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &Bm25RetrievalArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::bm25_retrieval(&config).map_err(Failure::of_configuration)?;
    let summary = Progress::new(talk, "opening repositories", "left out").follow(job)?;
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let text = format!(
        "{} finished, {} failed, {} done before, in {:.1} s",
        count("finished"),
        count("failed"),
        count("already_done"),
        summary["seconds"].as_f64().unwrap_or(0.0),
    );
    talk.news(&text, &summary);
    match exit(&summary) {
        Exit::Interrupted => {
            talk.news("interrupted: what is finished is kept, and the same command continues", &summary);
        }
        Exit::SomeFailed => talk.news("the same command tries the failed instances again", &summary),
        _ => {}
    }
    if let Some(file) = summary["output_file"].as_str().filter(|file| !file.is_empty()) {
        output::line(file)?;
    }
    Ok(exit(&summary))
}
