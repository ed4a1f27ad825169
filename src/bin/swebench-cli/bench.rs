//! `bench`: how fast a model runs here, beside what memory and arithmetic of this machine allow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
`limit` is what this machine allows, from the rates at which it read memory and multiplied in the same run: a step takes as
long as reading the weights and the visible keys and values once, or as long as its products (2 operations a weight and
token, and those of the attention), whichever is longer. `share` is the part of it that is reached, `spread` the slowest and
the fastest repetition.";

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
    talk.bar().set_message("loading the model");
    talk.bar().enable_steady_tick(Duration::from_millis(120));
    let result = follow(job, |kind, row| {
        if kind == sys::SWEBENCH_EVENT_ROW {
            let test = row["test"].as_str().unwrap_or_default();
            talk.bar().set_message(format!("{test}: {} tokens/s", rate(&row["tokens_per_second"])));
        }
        Ok(())
    });
    talk.bar().finish_and_clear();
    if interrupt::happened() {
        return Ok(Exit::Interrupted);
    }
    let report = result?;
    output::line(&if args.json { format!("{report:#}") } else { text(&report) })?;
    Ok(Exit::Done)
}

/// What was measured with, and one line for each test.
fn text(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let memory = &report["memory"];
    let mut text = format!(
        "{}, {}, {:.2} billion parameters, loaded in {:.1} s\n",
        report["backend"].as_str().unwrap_or_default(),
        report["dtype"].as_str().unwrap_or_default(),
        number(&report["parameters"]) / 1e9,
        number(&report["load_seconds"]),
    );
    text += &format!("memory: weights {}, cache {}", bytes(&memory["weights"]), bytes(&memory["kv_cache"]));
    if !memory["peak"].is_null() {
        text += &format!(", peak {}", bytes(&memory["peak"]));
    }
    if let Some(roofline) = report["roofline"].as_object() {
        text += &format!(
            "\nroofline: reads {:.1} GB/s, multiplies {:.0} GFLOP/s",
            number(&roofline["read_gb_s"]),
            number(&roofline["matrix_gflop_s"]),
        );
    }
    text += "\n\n";
    text += &line(["test", "tokens/s", "spread", "limit", "share"].map(str::to_owned));
    for row in report["rows"].as_array().into_iter().flatten() {
        text.push('\n');
        text += &line([
            row["test"].as_str().unwrap_or_default().to_owned(),
            rate(&row["tokens_per_second"]),
            format!("{}–{}", rate(&row["min"]), rate(&row["max"])),
            rate(&row["limit"]),
            row["share"].as_f64().map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        ]);
    }
    text
}

fn line([test, rate, spread, limit, share]: [String; 5]) -> String {
    format!("{test:<16}{rate:>12}{spread:>20}{limit:>12}{share:>8}")
}

fn rate(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn bytes(value: &Value) -> String {
    format!("{:.2} GB", value.as_f64().unwrap_or(0.0) / 1e9)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_unknown_limits_are_dashes() {
        let row = |test: &str, limit: Value, share: Value| json!({"test": test, "tokens_per_second": 1234.56, "min": 1000.0, "max": 1300.0, "limit": limit, "share": share});
        let report = json!({
            "backend": "cpu", "dtype": "bf16", "parameters": 1.1e9, "load_seconds": 0.5,
            "roofline": {"read_gb_s": 30.0, "matrix_gflop_s": 6900.0},
            "memory": {"weights": 2_200_000_000_u64, "kv_cache": 100_000_000, "peak": null},
            "rows": [row("pp2048", json!(2000.0), json!(0.617)), row("tg32@2048x8", Value::Null, Value::Null)],
        });
        let text = text(&report);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "cpu, bf16, 1.10 billion parameters, loaded in 0.5 s");
        assert_eq!(lines[1], "memory: weights 2.20 GB, cache 0.10 GB");
        assert_eq!(lines[2], "roofline: reads 30.0 GB/s, multiplies 6900 GFLOP/s");
        assert_eq!(lines[5], "pp2048                1234.6       1000.0–1300.0      2000.0    62 %");
        assert_eq!(lines[6], "tg32@2048x8           1234.6       1000.0–1300.0           -       -");
        assert_eq!(
            lines[4].len(),
            "pp2048                1234.6       1000.0–1300.0      2000.0    62 %".chars().count()
        );
    }
}
