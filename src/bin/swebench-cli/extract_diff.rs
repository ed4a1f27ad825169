//! `extract-diff`: the patch in a model's answer, made to fit, cut and checked as asked.

use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::swebench::Level;
use crate::talk::Talk;
use crate::{output, swebench};

const EXAMPLES: &str = "\
Examples:
  swebench-cli extract-diff answer.txt
  swebench-cli extract-diff answer.txt --repair --check ~/repos/flask@4c288bc9
  jq -r .full_output predictions.jsonl | swebench-cli extract-diff - > patch.diff";

/// Print the patch in a model's answer, and nothing else.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExtractDiffArgs {
    /// File with the answer, or with a patch; `-` is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// `robust`, or `legacy`: byte for byte what the reference implementation finds.
    #[arg(long, default_value = "robust")]
    mode: String,
    /// Make the hunks fit: their counts and, with --check, their places and context in the repository.
    #[arg(long)]
    repair: bool,
    /// Keep no context but one line after each change.
    #[arg(long)]
    minimal: bool,
    /// Say whether the patch applies to a commit of a repository, bare or not [commit: HEAD]; exit with 1 if it does not.
    /// Whole files and search/replace blocks become patches of its files.
    #[arg(long, value_name = "REPO[@COMMIT]")]
    check: Option<String>,
    /// Check as the harness does: `git apply`, `git apply --3way`, `patch --fuzz=5`.
    #[arg(long, requires = "check")]
    harness: bool,
    /// Print a report as JSON instead of the patch: where it was found, what was changed, why it is empty.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &ExtractDiffArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let mut config = json!({"mode": args.mode, "repair": args.repair, "minimal": args.minimal});
    if let Some(place) = &args.check {
        let (repository, commit) = split_place(place);
        config["repository"] = repository.into();
        config["commit"] = commit.into();
        config["check"] = if args.harness { "harness" } else { "git" }.into();
    }
    swebench::config_validate("diff", &config.to_string()).map_err(Failure::of_configuration)?;
    let report = swebench::diff(&read(&args.file)?, &config.to_string())?;
    let report: Value = serde_json::from_str(&report)
        .map_err(|error| Failure::new(format!("the library sent a report that is no JSON: {error}")))?;
    if args.json {
        output::line(&format!("{report:#}"))?;
    } else {
        output::write(report["patch"].as_str().unwrap_or_default().as_bytes())?;
    }
    tell(&report, talk);
    Ok(if report["check"]["applies"] == false { Exit::Failed } else { Exit::Done })
}

/// `REPO@COMMIT`; the directory's own name may have an `@`.
fn split_place(place: &str) -> (&str, &str) {
    match place.rsplit_once('@') {
        Some((repository, commit)) if !Path::new(place).exists() => (repository, commit),
        _ => (place, "HEAD"),
    }
}

fn tell(report: &Value, talk: &Talk) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(reason) = report["reason"].as_str() {
        talk.say(Level::Warn, reason, report);
    }
    if report["truncated"] == true {
        talk.say(Level::Warn, "the answer was cut off in the patch", report);
    }
    for refusal in report["refused"].as_array().into_iter().flatten() {
        let path = text(&refusal["path"]).escape_debug().to_string();
        talk.say(
            Level::Warn,
            &format!("left out {path}: {}", text(&refusal["reason"]).replace('_', " ")),
            refusal,
        );
    }
    for change in report["changes"].as_array().into_iter().flatten() {
        let what = text(&change["change"]);
        let by = change["lines"].as_i64().map_or(String::new(), |lines| format!(" by {lines} lines"));
        let level = match what.as_str() {
            "not_found" | "not_text" | "no_such_file" | "file_exists" => Level::Warn,
            _ => Level::Info,
        };
        let path = text(&change["path"]).escape_debug().to_string();
        let what = what.replace('_', " ");
        talk.say(level, &format!("{path}, hunk {}: {what}{by}", change["hunk"]), change);
    }
    match report["check"]["applies"].as_bool() {
        Some(true) => {
            let by = text(&report["check"]["by"]);
            talk.say(Level::Info, &format!("the patch applies: {by}"), &report["check"]);
        }
        Some(false) => {
            let reason = text(&report["check"]["reason"]);
            talk.say(Level::Error, &format!("the patch does not apply: {reason}"), &report["check"]);
        }
        None => {}
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let result = if file == Path::new("-") {
        stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|content| bytes = content)
    };
    result.map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    String::from_utf8(bytes).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}
