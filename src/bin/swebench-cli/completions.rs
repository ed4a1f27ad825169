//! `completions`: what a shell needs to complete this program's flags.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::output;

/// Print the completion script of a shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  swebench-cli completions bash > ~/.local/share/bash-completion/completions/swebench-cli"
)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    // Into memory first: clap_complete panics when a pipe is closed.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "swebench-cli", &mut script);
    output::write(&script)?;
    Ok(Exit::Done)
}
