//! `bench`: how fast this machine is, beside what its memory allows.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::follow::follow;
use crate::swebench::{Job, sys};
use crate::talk::Talk;
use crate::{interrupt, output};

const EXAMPLES: &str = "\
Examples:
  swebench-cli bench --config benches/configs/llama-1.1b.json --prompt 512,2048 --gen 32 --depth 0,2048
  swebench-cli bench --model ./model --batch 1,8 --json

A row `pp2048` is a prompt of 2,048 tokens, `tg32@2048x8` 32 tokens for each of 8 sequences after 2,048 tokens.
`limit` is what reading the weights once a step allows, from the memory rate measured in the same run.";

/// Measure prefill and decode speed.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").required(true))]
pub(crate) struct BenchArgs {
    /// A model directory.
    #[arg(long, value_name = "DIR", group = "what")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
    /// A config.json instead: random weights, no other files.
    #[arg(long, value_name = "FILE", group = "what")]
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<PathBuf>,
    /// auto, cpu, reference, cuda or cuda:N [default: auto]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// Weights and KV cache: auto, bf16, f16 or f32 [default: auto]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// 8-bit weights made at load, half of what bf16 reads: none or int8 [default: none]
    #[arg(long, value_name = "HOW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    quantize: Option<String>,
    /// Worker threads [default: one per available core]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    /// Prompt lengths of the prefill tests [default: 512]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<Vec<usize>>,
    /// Tokens decoded in the decode tests; 0 leaves them out [default: 32]
    #[arg(long = "gen", value_name = "N")]
    #[serde(rename = "gen", skip_serializing_if = "Option::is_none")]
    new_tokens: Option<usize>,
    /// Tokens of context before the decoded ones [default: 0]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<Vec<usize>>,
    /// Sequences decoded together [default: 1]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Vec<usize>>,
    /// Repetitions of each test; the median counts [default: 3]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    repetitions: Option<usize>,
    /// One JSON object at the end instead of a table.
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::bench(&config).map_err(Failure::of_configuration)?;
    let mut header =
        Some(format!("{:<16}{:>12}{:>12}{:>12}{:>12}", "test", "tokens/s", "min", "max", "limit"));
    let result = follow(job, |kind, event| {
        if kind == sys::SWEBENCH_EVENT_ROW && !args.json {
            header.take().map_or(Ok(()), |header| output::line(&header))?;
            output::line(&row(event))?;
        }
        Ok(())
    });
    if interrupt::happened() {
        return Ok(Exit::Interrupted);
    }
    let report = result?;
    if args.json {
        output::line(&format!("{report:#}"))?;
    } else {
        talk.news(&machine(&report), &report);
    }
    Ok(Exit::Done)
}

fn row(row: &Value) -> String {
    let number = |key: &str| row[key].as_f64().map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
    format!(
        "{:<16}{:>12}{:>12}{:>12}{:>12}",
        row["test"].as_str().unwrap_or_default(),
        number("tokens_per_second"),
        number("min"),
        number("max"),
        number("limit"),
    )
}

fn machine(report: &Value) -> String {
    format!(
        "{}, {}, {:.2} billion parameters, memory read at {:.1} GB/s",
        report["backend"].as_str().unwrap_or_default(),
        report["dtype"].as_str().unwrap_or_default(),
        report["parameters"].as_f64().unwrap_or(0.0) / 1e9,
        report["memory_gb_s"].as_f64().unwrap_or(0.0),
    )
}
