//! `run-llama`: a local model over a dataset.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::shard::ShardArgs;
use crate::swebench::Job;
use crate::talk::Talk;
use crate::{interrupt, output};

const EXAMPLES: &str = "\
Examples:
  # A model directory on a dataset from the hub
  swebench-cli run-llama --model-name-or-path ./SWE-Llama-7b --dataset-path princeton-nlp/SWE-bench_oracle

  # With a LoRA adapter, on the CPU, prompts below 16,000 tokens
  swebench-cli run-llama --model-name-or-path ./CodeLlama-7b --peft-path ./SWE-Llama-7b-peft \\
      --dataset-path ./SWE-bench_oracle --device cpu --max-len 16000

  # One task of a Slurm array or of a Kubernetes indexed job
  swebench-cli run-llama --model-name-or-path ./model --dataset-path ./dataset --shard auto

The same command continues an interrupted run. The path of the predictions file is the one line on stdout.";

/// Run a local Llama-family model over a dataset and write its predictions.
///
/// The flags are the keys of the configuration `run-llama`; what is left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunLlamaArgs {
    /// Directory or hub name of the model.
    #[arg(long, value_name = "MODEL")]
    model_name_or_path: String,
    /// Directory or hub name of a PEFT LoRA adapter to merge into the model.
    #[arg(long, value_name = "ADAPTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    peft_path: Option<String>,
    /// Path or hub name of a dataset with a `text` or `input_ids` column.
    #[arg(long, value_name = "DATASET")]
    dataset_path: String,
    /// The dataset's split [default: test]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<String>,
    /// Where the predictions file goes [default: ./outputs]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dir: Option<PathBuf>,
    /// Only these instances, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ID,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_ids: Option<Vec<String>>,

    /// Sampling temperature; 0 is greedy [default: 0]
    #[arg(long, help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// Nucleus threshold, more than 0, at most 1 [default: 1]
    #[arg(long, help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    /// Only the k most probable tokens; 0 keeps all [default: 0]
    #[arg(long, value_name = "K", help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    /// Makes sampling repeatable [default: from the system]
    #[arg(long, help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// The most tokens to generate for an instance [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_new_tokens: Option<usize>,
    /// A string that ends a generation; may be repeated.
    #[arg(long, value_name = "TEXT", help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Vec<String>>,
    /// Stop when the last 100 tokens hold at most 10 distinct ones [default: true]
    #[arg(long, value_name = "BOOL", help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_stop: Option<bool>,
    /// How patches are found: robust, or legacy for the reference's rules [default: robust]
    #[arg(long, value_name = "MODE", help_heading = "Generation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_mode: Option<String>,

    /// Which prompts come first, by length [default: shortest-first]
    #[arg(long, value_enum, help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Order>,
    /// Skip prompts of fewer tokens.
    #[arg(long, value_name = "N", help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_len: Option<usize>,
    /// Skip prompts of this many tokens and more.
    #[arg(long, value_name = "N", help_heading = "Which instances")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_len: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    shard: ShardArgs,

    /// auto, cpu, reference, cuda or cuda:N [default: auto]
    #[arg(long, help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// Weights and KV cache: auto, bf16, f16 or f32 [default: auto]
    #[arg(long, help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// 8-bit weights made at load, half of what bf16 reads: none or int8 [default: none]
    #[arg(long, value_name = "HOW", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    quantize: Option<String>,
    /// Worker threads [default: one per available core]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    /// The most instances generated at once; `auto` is as many as the KV cache holds [default: auto]
    #[arg(long, value_name = "N", value_parser = batch_size, help_heading = "Machine")]
    #[serde(skip_serializing_if = "is_auto")]
    batch_size: Option<BatchSize>,
    /// Guess tokens by copying from the prompt and verify them together; changes no text [default: true]
    #[arg(long, value_name = "BOOL", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_lookup: Option<bool>,
    /// Share the work on prompts that begin alike; changes no text [default: true]
    #[arg(long, value_name = "BOOL", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_cache: Option<bool>,
    /// Memory for the KV cache, in bytes.
    #[arg(long, value_name = "BYTES", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_memory: Option<u64>,
    /// The longest context to serve, in tokens [default: the model's]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_context: Option<usize>,
    /// The most prompt tokens computed in one step.
    #[arg(long, value_name = "N", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_step_tokens: Option<usize>,
    /// Hub cache for datasets [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// Which prompts come first.
#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Most predictions come early, as in the reference.
    ShortestFirst,
    /// No long prompt is left for the end.
    LongestFirst,
}

/// A number, or what `auto` leaves to the library.
#[derive(Debug, Clone, Copy, Serialize)]
struct BatchSize(Option<usize>);

fn batch_size(text: &str) -> Result<BatchSize, String> {
    match text {
        "auto" => Ok(BatchSize(None)),
        _ => text.parse().map(|size| BatchSize(Some(size))).map_err(|_| "expected `auto` or a number".into()),
    }
}

fn is_auto(size: &Option<BatchSize>) -> bool {
    size.is_none_or(|size| size.0.is_none())
}

/// Runs the command.
pub(crate) fn run(args: &RunLlamaArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::run_llama(&config).map_err(Failure::of_configuration)?;
    let summary = Progress::new(talk, "loading the model", "left out by length").follow(job)?;
    tell(talk, &summary);
    if let Some(file) = summary["output_file"].as_str().filter(|file| !file.is_empty()) {
        output::line(file)?;
    }
    Ok(exit(&summary))
}

/// How a program ends whose run ended like this.
pub(crate) fn exit(summary: &Value) -> Exit {
    if summary["interrupted"].as_bool() == Some(true) || interrupt::happened() {
        Exit::Interrupted
    } else if summary["failed"].as_u64() > Some(0) {
        Exit::SomeFailed
    } else {
        Exit::Done
    }
}

fn tell(talk: &Talk, summary: &Value) {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let seconds = summary["seconds"].as_f64().unwrap_or(0.0);
    let tokens = count("completion_tokens");
    let text = format!(
        "{} finished, {} failed, {} done before, {} left out by length; {} prompt and {tokens} new tokens in {seconds:.1} s{}",
        count("finished"),
        count("failed"),
        count("already_done"),
        count("skipped"),
        count("prompt_tokens"),
        if seconds > 0.0 { format!(" ({:.1} tokens/s)", tokens as f64 / seconds) } else { String::new() },
    );
    talk.news(&text, summary);
    match exit(summary) {
        Exit::Interrupted => {
            talk.news("interrupted: what is finished is kept, and the same command continues", summary);
        }
        Exit::SomeFailed => {
            talk.news("the same command tries the failed instances again", summary);
        }
        _ => {}
    }
}
