//! `predictions`: files of predictions validated, merged, converted and shown.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::follow::follow;
use crate::plain::{diff, plain, table};
use crate::swebench::{Job, Level};
use crate::talk::Talk;
use crate::{interrupt, output};

const EXAMPLES: &str = "\
Examples:
  swebench-cli predictions validate outputs/run.jsonl --dataset SWE-bench/SWE-bench_Lite --mirror-dir ~/repos
  swebench-cli predictions merge outputs/*__shard-*.jsonl --output all.jsonl
  swebench-cli predictions convert all.jsonl --output all.json --layout dict
  swebench-cli predictions show all.jsonl --html all.html";

/// Validate, merge, convert and show files of predictions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictionsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Look for records that are malformed, double, empty, or do not apply. Exit code 1 for what the harness would not read, 3
    /// for predictions that will count as nothing.
    Validate {
        /// Files of predictions: JSON Lines, or `.json` with a list or an object.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        place: PlaceArgs,
        /// Print the whole report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the records of all files into one: equal ones once, predictions before failures.
    Merge {
        /// Files of predictions, shards for one.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        written: WrittenArgs,
        /// Of different predictions of an instance: error, or those of the file named first or last [default: error]
        #[arg(long, value_name = "RULE")]
        on_conflict: Option<String>,
    },
    /// Write a file in another layout.
    Convert {
        /// The file of predictions.
        file: PathBuf,
        #[command(flatten)]
        written: WrittenArgs,
    },
    /// Show a run: a table, single instances with their patches, or a web page.
    Show {
        /// Files of predictions.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Show this instance with its patch; may be repeated.
        #[arg(long, value_name = "ID")]
        instance_id: Vec<String>,
        /// Write one web page that needs no network.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArgs,
        /// Print the whole report as JSON.
        #[arg(long, conflicts_with = "html")]
        json: bool,
    },
}

/// Where patches have to apply.
#[derive(Debug, Args, Serialize)]
#[group(skip)]
struct PlaceArgs {
    /// The dataset of the run: which instances there are, and where their patches apply.
    #[arg(long, value_name = "DATASET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    /// The dataset's split [default: test]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<String>,
    /// Directory of clones named owner__name or owner__name.git: with it patches are checked.
    #[arg(long, value_name = "DIR", requires = "dataset")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror_dir: Option<PathBuf>,
    /// Check as `git` applies patches, or as the `harness` does [default: git]
    #[arg(long, value_name = "PROGRAM", requires = "mirror_dir")]
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// Hub cache directory.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// What is written.
#[derive(Debug, Args, Serialize)]
#[group(skip)]
struct WrittenArgs {
    /// The file to write; one that is there is replaced.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// jsonl, list or dict [default: list for .json, jsonl else]
    #[arg(long, value_name = "LAYOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<String>,
    /// Leave out what is no prediction.
    #[arg(long)]
    skip_unreadable: bool,
}

/// Runs the command.
pub(crate) fn run(args: &PredictionsArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    match &args.action {
        Action::Validate { files, place, json } => {
            let report = report(json!({"action": "validate", "files": files}), place)?;
            validated(&report, *json, talk)
        }
        Action::Merge { files, written, on_conflict } => {
            let mut config = json!({"action": "merge", "files": files});
            if let Some(rule) = on_conflict {
                config["on_conflict"] = json!(rule);
            }
            wrote(&report(config, written)?, talk)
        }
        Action::Convert { file, written } => {
            wrote(&report(json!({"action": "convert", "files": [file]}), written)?, talk)
        }
        Action::Show { files, instance_id, html, place, json } => {
            let mut config = json!({"action": "show", "files": files, "output": html});
            if !instance_id.is_empty() {
                config["instance_ids"] = json!(instance_id);
            }
            shown(&report(config, place)?, *json, !instance_id.is_empty(), talk)
        }
    }
}

/// The result of the job that the configuration and the flags describe.
fn report(mut config: Value, flags: &impl Serialize) -> Result<Value, Failure> {
    let flags = serde_json::to_value(flags)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    if let (Some(config), Value::Object(flags)) = (config.as_object_mut(), flags) {
        config.extend(flags);
    }
    let job = Job::predictions(&config.to_string()).map_err(Failure::of_configuration)?;
    follow(job, |_, _| Ok(()))
}

fn validated(report: &Value, as_json: bool, talk: &Talk) -> Result<Exit, Failure> {
    if as_json {
        output::line(&format!("{report:#}"))?;
    } else {
        tell_problems(report, talk);
        for instance in list(&report["instances"]) {
            let reason =
                instance["reason"].as_str().map_or(String::new(), |reason| format!(": {}", plain(reason)));
            let line = format!("{}: {}{reason}", plain(text(&instance["instance_id"])), status(instance));
            output::line(&line)?;
        }
        output::line(&totals(&report["totals"]))?;
    }
    Ok(if interrupt::happened() {
        Exit::Interrupted
    } else if !list(&report["problems"]).is_empty() {
        Exit::Failed
    } else if !list(&report["instances"]).is_empty() {
        Exit::SomeFailed
    } else {
        Exit::Done
    })
}

fn wrote(report: &Value, talk: &Talk) -> Result<Exit, Failure> {
    tell_problems(report, talk);
    let merged = &report["merged"];
    let told = format!(
        "{} records: {} repeated, {} failures dropped, {} conflicts",
        report["totals"]["records"],
        merged["repeated"],
        merged["failures_dropped"],
        list(&merged["conflicts"]).len()
    );
    talk.news(&told, report);
    output::line(text(&report["output"]))?;
    Ok(Exit::Done)
}

fn shown(report: &Value, as_json: bool, with_patches: bool, talk: &Talk) -> Result<Exit, Failure> {
    if as_json {
        output::line(&format!("{report:#}"))?;
        return Ok(Exit::Done);
    }
    tell_problems(report, talk);
    if let Some(file) = report["output"].as_str() {
        output::line(file)?;
        return Ok(Exit::Done);
    }
    let instances = list(&report["instances"]);
    if with_patches && instances.is_empty() {
        return Err(Failure::new("no prediction has this instance_id"));
    }
    if with_patches {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for instance in instances {
            let reason =
                instance["reason"].as_str().map_or(String::new(), |reason| format!(": {}", plain(reason)));
            output::line(&format!(
                "{}  {}{reason}",
                plain(text(&instance["instance_id"])),
                status(instance)
            ))?;
            output::line(&diff(text(&instance["patch"]), colours))?;
        }
        return Ok(Exit::Done);
    }
    let number = |value: &Value| value.as_f64().map_or(String::new(), |number| format!("{number:.0}"));
    let header =
        ["instance", "patch", "ended by", "prompt", "new", "cost", "lines"].map(str::to_owned).to_vec();
    let rows = instances.iter().map(|instance| {
        vec![
            plain(text(&instance["instance_id"])),
            status(instance),
            plain(text(&instance["finish_reason"])),
            number(&instance["prompt_tokens"]),
            number(&instance["completion_tokens"]),
            instance["cost"].as_f64().map_or(String::new(), |cost| format!("${cost:.4}")),
            format!("+{} -{}", instance["added"], instance["removed"]),
        ]
    });
    output::write(table(std::iter::once(header).chain(rows).collect()).as_bytes())?;
    output::line(&totals(&report["totals"]))?;
    Ok(Exit::Done)
}

fn tell_problems(report: &Value, talk: &Talk) {
    for problem in list(&report["problems"]) {
        let position = problem["position"].as_u64().map_or(String::new(), |line| format!(":{line}"));
        let id = problem["instance_id"].as_str().map_or(String::new(), |id| format!(" ({})", plain(id)));
        let line =
            format!("{}{position}{id}: {}", plain(text(&problem["file"])), plain(text(&problem["what"])));
        talk.say(Level::Warn, &line, problem);
    }
}

/// The counts that are not zero, on one line.
fn totals(totals: &Value) -> String {
    let names = [
        ("applies", "apply"),
        ("does_not_apply", "do not apply"),
        ("unchecked", "with an unchecked patch"),
        ("empty", "empty"),
        ("no_diff", "without a diff"),
        ("failed", "failed"),
        ("missing", "missing"),
        ("unknown", "not in the dataset"),
    ];
    let counts = names.iter().filter_map(|(key, name)| {
        let count = totals[key].as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {name}"))
    });
    let cost = totals["cost"].as_f64().map(|cost| format!("${cost:.4}"));
    let parts: Vec<String> = counts.chain(cost).collect();
    format!("{} records: {}", totals["records"], parts.join(", "))
}

fn status(instance: &Value) -> String {
    match text(&instance["status"]) {
        "patch" => "not checked".into(),
        status => status.replace('_', " "),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
