//! `run-live`: issues as they are on GitHub now.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::follow::follow;
use crate::output;
use crate::plain::plain;
use crate::run_llama::exit;
use crate::service::ServiceArgs;
use crate::swebench::{Job, Level, sys};
use crate::talk::Talk;

const EXAMPLES: &str = "\
Examples:
  # A service's model, with the key in OPENAI_API_KEY; the repository is cloned once into ./run_live_data
  swebench-cli run-live --model-name gpt-4o --issue-url https://github.com/psf/requests/issues/6710

  # A local model and a checkout of one's own, which gets the patch if it applies
  swebench-cli run-live --model-name ./SWE-Llama-7b --issue-url https://github.com/psf/requests/issues/6710 \\
      --local-repo ./requests --apply

  # A GitHub of one's own, with a token in GITHUB_TOKEN
  swebench-cli run-live --model-name gpt-4o --github-api-url https://git.example.com/api/v3 \\
      --issue-url https://git.example.com/team/tool/issues/7 --base-commit v1.2

The same command continues an interrupted run and tries failed issues again. The path of the records is the one line on stdout.";

/// Ask a model to solve issues as they are on GitHub now.
///
/// Fetches issues, clones and searches their repositories, makes prompts, and tries the patches on the commit's files. The flags are
/// the keys of the configuration `run-live`; what is left out has the library's default.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunLiveArgs {
    /// The model as its service names it, or the directory of a local one.
    #[arg(long, value_name = "MODEL")]
    model_name: String,
    /// https://github.com/OWNER/NAME/issues/NUMBER, one or more.
    #[arg(long, num_args = 1.., required = true, value_name = "URL")]
    issue_url: Vec<String>,
    /// A commit for each issue [default: the newest of the default branch, or what is checked out in --local-repo]
    #[arg(long, num_args = 1.., value_name = "COMMIT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    base_commit: Vec<String>,
    /// Where records go [default: ./live_outputs]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dir: Option<PathBuf>,
    /// Put the patch into the files of --local-repo if it applies; nothing is committed.
    #[arg(long)]
    apply: bool,
    /// style-2, style-3 or full_file_gen [default: style-3]
    #[arg(long, value_name = "STYLE", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_style: Option<String>,
    /// Tokens of cl100k that the prompt stays below [default: 16000]
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_context_length: Option<usize>,
    /// file_name_and_contents, file_name_and_documentation or file_name_and_docs_jedi [default: file_name_and_contents]
    #[arg(long, value_name = "STYLE", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    document_encoding_func: Option<String>,
    /// The ends of the names of files to search, tests apart [default: .py]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "END", help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<String>,
    /// Whether prompts show the READMEs [default: false]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new(), help_heading = "Prompts")]
    #[serde(skip_serializing_if = "Option::is_none")]
    include_readmes: Option<bool>,
    /// Show the comments below the issue, too.
    #[arg(long, help_heading = "Prompts")]
    include_comments: bool,
    /// The REST interface of another host than github.com; GITHUB_TOKEN is sent there.
    #[arg(long, value_name = "URL", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    github_api_url: Option<String>,
    /// Where clones are kept [default: ./run_live_data]
    #[arg(long, value_name = "DIR", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    root_dir: Option<PathBuf>,
    /// A clone of the issues' repository that is used instead.
    #[arg(long, value_name = "DIR", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    local_repo: Option<PathBuf>,
    /// A directory of clones named owner__name or owner__name.git; nothing is cloned then.
    #[arg(long, value_name = "DIR", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror_dir: Option<PathBuf>,
    /// What repositories' names are added to for cloning [default: the issue's host]
    #[arg(long, value_name = "URL", help_heading = "Repositories")]
    #[serde(skip_serializing_if = "Option::is_none")]
    clone_url: Option<String>,
    /// Parameters of every request; values are JSON, or else text.
    #[arg(long, value_name = "K=V,…", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model_args: Option<String>,
    /// The most tokens of an answer [default: the service's; 1024 of a local model]
    #[arg(long, value_name = "N", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// The most to spend, earlier runs of the same file included.
    #[arg(long, value_name = "USD", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost: Option<f64>,
    /// Prices in LiteLLM's format, looked up before the built-in ones.
    #[arg(long, value_name = "FILE", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    service: ServiceArgs,
    /// Stream answers, which keeps long ones from looking like dead connections.
    #[arg(long, help_heading = "Service")]
    stream: bool,
    /// auto, cpu, reference, cuda or cuda:N; with it the model is a local one in any case.
    #[arg(long, help_heading = "Local model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// auto, f32, bf16 or f16 [default: auto]
    #[arg(long, help_heading = "Local model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// Directory or hub name of a PEFT LoRA adapter.
    #[arg(long, value_name = "ADAPTER", help_heading = "Local model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    peft_path: Option<String>,
    /// Hub cache for models [default: the usual Hugging Face cache]
    #[arg(long, value_name = "DIR", help_heading = "Local model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &RunLiveArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    let config = serde_json::to_string(args)
        .map_err(|error| Failure::new(format!("the flags cannot be passed on: {error}")))?;
    let job = Job::live(&config).map_err(Failure::of_configuration)?;
    let summary = follow(job, |kind, event| {
        match kind {
            sys::SWEBENCH_EVENT_STARTED => started(talk, event),
            sys::SWEBENCH_EVENT_INSTANCE => tell_issue(talk, event),
            sys::SWEBENCH_EVENT_WARNING => {
                talk.say(Level::Warn, event["message"].as_str().unwrap_or_default(), event);
            }
            _ => {}
        }
        Ok(())
    })?;
    tell(talk, &summary);
    if let Some(file) = summary["output_file"].as_str().filter(|file| !file.is_empty()) {
        output::line(file)?;
    }
    Ok(match exit(&summary) {
        Exit::Done if args.apply && summary["applied"] == 0 => Exit::SomeFailed,
        exit => exit,
    })
}

fn started(talk: &Talk, event: &Value) {
    let count = |key: &str| event[key].as_u64().unwrap_or(0);
    let text = format!("{} issues, {} done before", count("total"), count("already_done"));
    talk.say(Level::Info, &text, event);
}

/// What became of an issue, and from which files. Texts are of strangers and models.
fn tell_issue(talk: &Talk, event: &Value) {
    let text = |key: &str| plain(event[key].as_str().unwrap_or_default());
    let mut lines = vec![format!("{}: {}", text("issue_url"), text("title"))];
    if let Some(error) = event["error"].as_str() {
        lines.push(format!("  failed: {}", plain(error)));
        return talk.news(&lines.join("\n"), event);
    }
    if let Some(commit) = event["base_commit"].as_str() {
        lines.push(format!("  at {}", plain(commit)));
    }
    for file in event["retrieved"].as_array().into_iter().flatten() {
        let shown = if file["shown"] == true { "shown" } else { "no room" };
        let path = plain(file["path"].as_str().unwrap_or_default());
        lines.push(format!("  {:>8.3}  {shown:<7}  {path}", file["score"].as_f64().unwrap_or(0.0)));
    }
    let count = |key: &str| event[key].as_u64().unwrap_or(0);
    if count("prompt_tokens") > 0 {
        let cost = event["cost"].as_f64().map_or_else(String::new, |dollars| format!(", ${dollars:.4}"));
        lines.push(format!(
            "  {} prompt and {} new tokens{cost}",
            count("prompt_tokens"),
            count("completion_tokens")
        ));
    }
    if let Some(check) = event["check"].as_object() {
        lines.push(match check.get("applies").and_then(Value::as_bool) {
            Some(true) => "  the patch applies".into(),
            _ => format!("  no patch that applies: {}", reason(check.get("reason"))),
        });
    }
    match event["applied"].as_bool() {
        Some(true) => lines.push("  it is now in the files of the checkout".into()),
        Some(false) => {
            lines.push(format!("  not put into the checkout: {}", reason(event.get("apply_error"))))
        }
        None => {}
    }
    talk.news(&lines.join("\n"), event);
}

fn reason(value: Option<&Value>) -> String {
    plain(value.and_then(Value::as_str).unwrap_or_default())
}

fn tell(talk: &Talk, summary: &Value) {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let spent = summary["spent"].as_f64();
    let spent = spent.map_or_else(String::new, |dollars| format!(", ${dollars:.4} spent in all"));
    let text = format!(
        "{} finished ({} with a patch that applies), {} failed, {} done before; {} prompt and {} new tokens{spent}, in {:.1} s",
        count("finished"),
        count("applying"),
        count("failed"),
        count("already_done"),
        count("prompt_tokens"),
        count("completion_tokens"),
        summary["seconds"].as_f64().unwrap_or(0.0),
    );
    talk.news(&text, summary);
    match exit(summary) {
        Exit::Interrupted => {
            talk.news("interrupted: what is finished is kept, and the same command continues", summary);
        }
        Exit::SomeFailed => talk.news("the same command tries the failed issues again", summary),
        _ => {}
    }
}
