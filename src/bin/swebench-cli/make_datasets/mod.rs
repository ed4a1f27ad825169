//! `make-datasets`: datasets with prompts, and what they are made of.

mod eval_retrieval;

use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::talk::Talk;

/// Make datasets with prompts, and what they are made of.
#[derive(Debug, Args)]
pub(crate) struct MakeDatasetsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    EvalRetrieval(eval_retrieval::EvalRetrievalArgs),
}

/// Runs the command.
pub(crate) fn run(args: &MakeDatasetsArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    match &args.command {
        Command::EvalRetrieval(args) => eval_retrieval::run(args, talk),
    }
}
