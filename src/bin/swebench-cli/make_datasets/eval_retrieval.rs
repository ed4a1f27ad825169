//! `make-datasets eval-retrieval`: the recall of a dataset's prompts.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::follow::follow;
use crate::output;
use crate::run_llama::exit;
use crate::swebench::{Job, Level, sys};
use crate::talk::Talk;

const EXAMPLES: &str = "\
Examples:
  swebench-cli make-datasets eval-retrieval --dataset-name-or-path ./datasets/SWE-bench__style-3__fs-bm25 --split test";

/// Of the files that gold patches change, how many the prompts of a dataset show.
///
/// The flags are the keys of the configuration `eval-retrieval`; what is left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalRetrievalArgs {
    /// Path or hub name of a dataset with prompts and patches [default: SWE-bench/SWE-bench_bm25_13K]
    #[arg(long, value_name = "DATASET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_name_or_path: Option<String>,
    /// The dataset's split [default: test]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<String>,
    /// Hub cache directory [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &EvalRetrievalArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::eval_retrieval(&config).map_err(Failure::of_configuration)?;
    let summary = follow(job, |kind, event| {
        if kind == sys::SWEBENCH_EVENT_WARNING {
            talk.say(Level::Warn, event["message"].as_str().unwrap_or_default(), event);
        }
        Ok(())
    })?;
    let counts =
        format!("{} instances, {} without gold files", summary["total"], summary["without_gold_files"]);
    talk.say(Level::Info, &counts, &summary);
    if exit(&summary) == Exit::Done {
        for (name, key) in [("Avg", "average_recall"), ("All", "all_recall"), ("Any", "any_recall")] {
            let recall =
                summary[key].as_f64().map_or("n/a".into(), |recall| format!("{:.2}", recall * 100.0));
            output::line(&format!("{name} Recall: {recall}"))?;
        }
    }
    Ok(exit(&summary))
}
