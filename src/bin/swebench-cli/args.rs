//! The command line as typed: subcommands, global flags, and the underscore spelling of flags.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::bench::BenchArgs;
use crate::completions::CompletionsArgs;
use crate::extract_diff::ExtractDiffArgs;
use crate::info::InfoArgs;
use crate::make_datasets::MakeDatasetsArgs;
use crate::predictions::PredictionsArgs;
use crate::run_api::RunApiArgs;
use crate::run_live::RunLiveArgs;
use crate::run_llama::RunLlamaArgs;
use crate::swebench::Level;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    finished, but some instances failed (each has a record with a reason)
  130  interrupted; the same command continues

Every flag may also be written with underscores: --model_name_or_path is --model-name-or-path.";

/// SWE-bench inference: models on datasets, patches out.
#[derive(Debug, Parser)]
#[command(name = "swebench-cli", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How messages on stderr look: for people, or one JSON object a line.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = "Messages")]
    pub(crate) log_format: LogFormat,

    /// Say more: -v steps, -vv details, -vvv everything.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Messages")]
    verbose: u8,

    /// Say less: -q only failures, -qq nothing.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose", help_heading = "Messages")]
    quiet: u8,
}

/// The form of messages on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    RunLlama(Box<RunLlamaArgs>),
    RunApi(Box<RunApiArgs>),
    RunLive(Box<RunLiveArgs>),
    MakeDatasets(MakeDatasetsArgs),
    ExtractDiff(ExtractDiffArgs),
    Predictions(PredictionsArgs),
    Info(InfoArgs),
    Bench(BenchArgs),
    Completions(CompletionsArgs),
}

impl Cli {
    /// The least important level that is shown; `None` shows nothing.
    pub(crate) fn verbosity(&self) -> Option<Level> {
        match (self.quiet, self.verbose) {
            (0, 0) => Some(Level::Warn),
            (0, 1) => Some(Level::Info),
            (0, 2) => Some(Level::Debug),
            (0, _) => Some(Level::Trace),
            (1, _) => Some(Level::Error),
            _ => None,
        }
    }
}

/// Turns the underscores of a flag's name into hyphens; values and everything else stay as they are.
pub(crate) fn hyphenate(argument: OsString) -> OsString {
    let bytes = argument.as_bytes();
    if !bytes.starts_with(b"--") || bytes.len() == 2 {
        return argument;
    }
    let name = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
    let mut bytes = bytes.to_vec();
    bytes[..name].iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
    OsStr::from_bytes(&bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::swebench::config_schema;

    #[test]
    fn only_the_names_of_flags_are_changed() {
        for (typed, expected) in [
            ("--model_name_or_path", "--model-name-or-path"),
            ("--output_dir=my_dir/a_b", "--output-dir=my_dir/a_b"),
            ("my_model", "my_model"),
            ("-v", "-v"),
            ("--", "--"),
            ("run_llama", "run_llama"),
        ] {
            assert_eq!(hyphenate(typed.into()), expected);
        }
        let raw = OsStr::from_bytes(b"--output_dir=\xff_x");
        assert_eq!(hyphenate(raw.into()).as_bytes(), b"--output-dir=\xff_x");
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Flags and configuration keys are the same facts: one without the other is a mistake.
    #[test]
    fn flags_are_the_keys_of_the_configuration() {
        for (path, kind) in [
            (&["run-llama"][..], "run-llama"),
            (&["run-api"], "run-api"),
            (&["run-live"], "run-live"),
            (&["make-datasets", "create-text-dataset"], "create-text-dataset"),
            (&["make-datasets", "tokenize-dataset"], "tokenize-dataset"),
            (&["make-datasets", "bm25-retrieval"], "bm25-retrieval"),
            (&["make-datasets", "eval-retrieval"], "eval-retrieval"),
            (&["bench"], "bench"),
        ] {
            let schema: serde_json::Value = serde_json::from_str(&config_schema(kind).unwrap()).unwrap();
            let mut keys: Vec<String> =
                schema["properties"].as_object().unwrap().keys().map(|key| key.replace('_', "-")).collect();
            let cli = Cli::command();
            let command = path.iter().fold(&cli, |command, name| command.find_subcommand(name).unwrap());
            let mut flags: Vec<String> =
                command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
            flags.retain(|flag| flag != "json");
            keys.sort();
            flags.sort();
            assert_eq!(flags, keys, "{kind}");
        }
    }
}
