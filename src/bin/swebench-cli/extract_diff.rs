//! `extract-diff`: the patch in a model's answer.

use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::{output, swebench};

const EXAMPLES: &str = "\
Examples:
  swebench-cli extract-diff answer.txt
  jq -r .full_output predictions.jsonl | swebench-cli extract-diff - > patch.diff";

/// Print the diff in a model's answer, and nothing else.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExtractDiffArgs {
    /// File with the answer; `-` is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// `legacy`: byte for byte what the reference implementation finds.
    #[arg(long, default_value = "legacy")]
    mode: String,
}

/// Runs the command.
pub(crate) fn run(args: &ExtractDiffArgs) -> Result<Exit, Failure> {
    let patch = swebench::extract_diff(&read(&args.file)?, &args.mode).map_err(Failure::of_configuration)?;
    output::write(patch.as_bytes())?;
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<String, Failure> {
    let result = if file == Path::new("-") {
        let mut text = String::new();
        stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    result.map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))
}
