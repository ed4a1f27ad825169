//! `make-datasets tokenize-dataset`: token ids and labels for a dataset of prompts.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::run_llama::exit;
use crate::swebench::Job;
use crate::talk::Talk;

const EXAMPLES: &str = "\
Examples:
  swebench-cli make-datasets tokenize-dataset --dataset-name-or-path ./datasets/SWE-bench__style-3__fs-oracle \\
      --tokenizer-name llama --output-dir ./datasets

The path of the dataset is the one line on stdout.";

/// Add token ids and labels to a dataset of prompts.
///
/// In every split but `test` the ids are those of prompt and patch, and the labels hide the prompt. The flags are the keys of the
/// configuration `tokenize-dataset`; what is left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenizeDatasetArgs {
    /// Path or hub name of a dataset with prompts and patches.
    #[arg(long, value_name = "DATASET")]
    dataset_name_or_path: String,
    /// The splits to tokenize [default: all]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "SPLIT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    splits: Vec<String>,
    /// Where the dataset goes, in a directory named after dataset and tokenizer.
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// save-to-disk, parquet or jsonl [default: save-to-disk]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_format: Option<String>,
    /// cl100k, o200k, llama, a path, or a model's name on the hub.
    #[arg(long, value_name = "NAME")]
    tokenizer_name: String,
    /// Threads; 0 is as many as there are processors [default: 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_proc: Option<usize>,
    /// Hub cache for datasets and tokenizers [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &TokenizeDatasetArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::tokenize_dataset(&config).map_err(Failure::of_configuration)?;
    let summary = Progress::new(talk, "tokenizing", "left out for want of a prompt or patch").follow(job)?;
    let text = format!(
        "{} instances tokenized, {} left out; {} prompt tokens, in {:.1} s",
        summary["finished"],
        summary["skipped"],
        summary["prompt_tokens"],
        summary["seconds"].as_f64().unwrap_or(0.0),
    );
    talk.news(&text, &summary);
    if let Some(path) = summary["output_dir"].as_str().filter(|_| exit(&summary) == Exit::Done) {
        output::line(path)?;
    }
    Ok(exit(&summary))
}
