//! `make-datasets create-text-dataset`: prompts from instances and their repositories.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::repositories::RepositoryArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::run_llama::exit;
use crate::swebench::Job;
use crate::talk::Talk;

const EXAMPLES: &str = "\
Examples:
  # The files that the gold patches change, from clones in ./mirrors/owner__name.git
  swebench-cli make-datasets create-text-dataset --dataset-name-or-path SWE-bench/SWE-bench_Lite --splits dev test \\
      --mirror-dir ./mirrors --output-dir ./datasets

  # As many retrieved files as 13,000 tokens take
  swebench-cli make-datasets create-text-dataset --dataset-name-or-path SWE-bench/SWE-bench --splits test \\
      --file-source bm25 --retrieval-file ./retrieval/SWE-bench__SWE-bench/file_name_and_contents.retrieval.jsonl \\
      --k 20 --max-context-len 13000 --tokenizer-name cl100k --output-dir ./datasets

The same command continues an interrupted run and tries failed instances again. The path of the dataset is the one line on stdout.";

/// Make a dataset of prompts from instances and their repositories.
///
/// Files are read from git objects, without a checkout. The flags are the keys of the configuration `create-text-dataset`; what
/// is left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateTextDatasetArgs {
    /// Path or hub name of a dataset of instances [default: SWE-bench/SWE-bench]
    #[arg(long, value_name = "DATASET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_name_or_path: Option<String>,
    /// The splits to make prompts of [default: train test]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "SPLIT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    splits: Vec<String>,
    /// The share of `train` that becomes `validation` [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_ratio: Option<f64>,
    /// Where the dataset goes, in a directory named after what it is made of.
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// save-to-disk, parquet or jsonl [default: save-to-disk]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_format: Option<String>,
    /// style-2, style-3, full_file_gen or style-2-edits-only [default: style-3]
    #[arg(long, value_name = "STYLE", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_style: Option<String>,
    /// oracle, bm25, all or none [default: oracle]
    #[arg(long, value_name = "SOURCE", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    file_source: Option<String>,
    /// What `bm25-retrieval` wrote; needed by the source bm25.
    #[arg(long, value_name = "FILE", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    retrieval_file: Option<PathBuf>,
    /// The most files of those that retrieval found [default: all]
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    /// The most tokens of a prompt; retrieved files that do not fit are left out.
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_context_len: Option<usize>,
    /// What counts them: cl100k, o200k, llama, a path, or a model's name on the hub.
    #[arg(long, value_name = "NAME", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer_name: Option<String>,
    /// Keep the reference's faults: windows of edits that are cut, new files as /dev/null.
    #[arg(long, help_heading = "Prompts")]
    compat: bool,
    #[command(flatten)]
    #[serde(flatten)]
    repositories: RepositoryArgs,
    /// Upload the dataset as this user's or organization's, with the token in HF_TOKEN.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    push_to_hub_user: Option<String>,
    /// Hub cache for datasets [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &CreateTextDatasetArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::text_dataset(&config).map_err(Failure::of_configuration)?;
    let summary = Progress::new(talk, "reading repositories", "left out").follow(job)?;
    tell(talk, &summary);
    if let Some(path) = summary["output_dir"].as_str().filter(|_| exit(&summary) != Exit::Interrupted) {
        output::line(path)?;
    }
    Ok(exit(&summary))
}

fn tell(talk: &Talk, summary: &Value) {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let text = format!(
        "{} prompts made, {} failed, {} made before, in {:.1} s",
        count("finished"),
        count("failed"),
        count("already_done"),
        summary["seconds"].as_f64().unwrap_or(0.0),
    );
    talk.news(&text, summary);
    if let Some(url) = summary["hub_url"].as_str() {
        talk.news(&format!("uploaded to {url}"), summary);
    }
    match exit(summary) {
        Exit::Interrupted => {
            talk.news("interrupted: what is made is kept, and the same command continues", summary)
        }
        Exit::SomeFailed => {
            talk.news("the dataset lacks the failed instances; the same command tries them again", summary);
        }
        _ => {}
    }
}
