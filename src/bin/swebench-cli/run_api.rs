//! `run-api`: a service's model over a dataset.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::batch::{self, BatchStep};
use crate::dry_run;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::run_llama::exit;
use crate::service::ServiceArgs;
use crate::shard::ShardArgs;
use crate::swebench::Job;
use crate::talk::Talk;

const EXAMPLES: &str = "\
Examples:
  # OpenAI, with the key in OPENAI_API_KEY, for at most ten dollars
  swebench-cli run-api --model-name-or-path gpt-4o --dataset-name-or-path princeton-nlp/SWE-bench_oracle --max-cost 10

  # What that would cost, without a key and for nothing
  swebench-cli run-api --model-name-or-path gpt-4o --dataset-name-or-path princeton-nlp/SWE-bench_oracle --dry-run

  # A server of one's own that speaks OpenAI's protocol, without a key
  swebench-cli run-api --model-name-or-path my-model --base-url http://localhost:8000/v1 \\
      --dataset-name-or-path ./SWE-bench_oracle --concurrency 64 --model-args temperature=0.2,top_p=0.95

  # At half price through the provider's batches: within a day the answers are there
  swebench-cli run-api --model-name-or-path gpt-4o --dataset-name-or-path ./SWE-bench_oracle --batch submit
  swebench-cli run-api --model-name-or-path gpt-4o --dataset-name-or-path ./SWE-bench_oracle --batch status
  swebench-cli run-api --model-name-or-path gpt-4o --dataset-name-or-path ./SWE-bench_oracle --batch fetch

The same command continues an interrupted run. The path of the predictions file is the one line on stdout.";

/// Run a service's model over a dataset and write its predictions.
///
/// The flags are the keys of the configuration `run-api`; what is left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunApiArgs {
    /// Path or hub name of a dataset with a `text` column.
    #[arg(long, value_name = "DATASET")]
    dataset_name_or_path: String,
    /// The model as the service names it.
    #[arg(long, value_name = "MODEL")]
    model_name_or_path: String,
    /// The dataset's split [default: test]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<String>,
    /// Where the predictions file goes [default: ./outputs]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dir: Option<PathBuf>,
    /// Parameters of every request; values are JSON, or else text.
    #[arg(long, value_name = "K=V,…", help_heading = "Requests")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model_args: Option<String>,
    /// The most tokens of an answer [default: 4096 at Anthropic, the service's elsewhere]
    #[arg(long, value_name = "N", help_heading = "Requests")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// Answers for an instance [default: 1]
    #[arg(long, value_name = "N", help_heading = "Requests")]
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
    /// Stream answers, which keeps long ones from looking like dead connections.
    #[arg(long, help_heading = "Requests")]
    stream: bool,
    /// Mark the first line of the prompts for Anthropic's cache.
    #[arg(long, help_heading = "Requests")]
    prompt_cache: bool,
    /// How patches are found: robust, or legacy for the reference's rules [default: robust]
    #[arg(long, value_name = "MODE", help_heading = "Requests")]
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_mode: Option<String>,
    /// Only instances whose id matches.
    #[arg(long, value_name = "REGEX", help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    /// Only instances that failed in an earlier run.
    #[arg(long, help_heading = "Which instances")]
    redo_failed: bool,
    #[command(flatten)]
    #[serde(flatten)]
    shard: ShardArgs,
    /// The most to spend, earlier runs of the same file included.
    #[arg(long, value_name = "USD", help_heading = "Costs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost: Option<f64>,
    /// Prices in LiteLLM's format, looked up before the built-in ones.
    #[arg(long, value_name = "FILE", help_heading = "Costs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prices: Option<PathBuf>,
    /// Only count tokens and costs: nothing is asked for, spent or written.
    #[arg(long, help_heading = "Costs")]
    dry_run: bool,
    /// Print the dry run as JSON Lines: an object for each instance, then one for all.
    #[arg(long, requires = "dry_run", help_heading = "Costs")]
    #[serde(skip)]
    json: bool,
    #[command(flatten)]
    #[serde(flatten)]
    service: ServiceArgs,
    /// Requests in flight [default: as many as the service takes]
    #[arg(long, value_name = "N", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<usize>,
    /// The most requests in a minute.
    #[arg(long, value_name = "N", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    /// The most tokens of prompts and answers in a minute.
    #[arg(long, value_name = "N", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
    /// Hub cache for datasets [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
    /// Ask through the provider's batches, at half price, one step a command.
    #[arg(long, value_enum, value_name = "STEP", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<BatchStep>,
    /// The file that `write` writes or `read` reads.
    #[arg(long, value_name = "FILE", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_file: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &RunApiArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::run_api(&config).map_err(Failure::of_configuration)?;
    if args.dry_run {
        return dry_run::show(job, talk, args.json);
    }
    if let Some(step) = args.batch {
        return batch::run(step, job, talk);
    }
    let summary = Progress::new(talk, "waiting for answers", "left out by the filter").follow(job)?;
    tell(talk, &summary);
    if let Some(file) = summary["output_file"].as_str().filter(|file| !file.is_empty()) {
        output::line(file)?;
    }
    Ok(exit_of_cap(&summary))
}

/// How a program ends whose run may have been stopped by its cap.
pub(crate) fn exit_of_cap(summary: &Value) -> Exit {
    match exit(summary) {
        Exit::Done if summary["unaffordable"].as_u64() > Some(0) => Exit::SomeFailed,
        exit => exit,
    }
}

fn tell(talk: &Talk, summary: &Value) {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let text = format!(
        "{} finished, {} failed, {} done before, {} not sent for their cost; {} prompt and {} new tokens, {}, in {:.1} s",
        count("finished"),
        count("failed"),
        count("already_done"),
        count("unaffordable"),
        count("prompt_tokens"),
        count("completion_tokens"),
        match summary["spent"].as_f64() {
            Some(dollars) => format!("${dollars:.4} spent in all"),
            None => "at a price that is not known".into(),
        },
        summary["seconds"].as_f64().unwrap_or(0.0),
    );
    talk.news(&text, summary);
    match exit(summary) {
        Exit::Interrupted => {
            talk.news("interrupted: what is finished is kept, and the same command continues", summary);
        }
        Exit::SomeFailed => talk.news("the same command tries the failed instances again", summary),
        _ => {}
    }
}
