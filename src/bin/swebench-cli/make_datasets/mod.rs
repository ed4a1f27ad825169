//! `make-datasets`: datasets with prompts, and what they are made of.

mod bm25_retrieval;
mod create_text_dataset;
mod eval_retrieval;
mod repositories;
mod tokenize_dataset;

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
    Bm25Retrieval(Box<bm25_retrieval::Bm25RetrievalArgs>),
    CreateTextDataset(Box<create_text_dataset::CreateTextDatasetArgs>),
    TokenizeDataset(tokenize_dataset::TokenizeDatasetArgs),
    EvalRetrieval(eval_retrieval::EvalRetrievalArgs),
}

/// Runs the command.
pub(crate) fn run(args: &MakeDatasetsArgs, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    match &args.command {
        Command::Bm25Retrieval(args) => bm25_retrieval::run(args, talk),
        Command::CreateTextDataset(args) => create_text_dataset::run(args, talk),
        Command::TokenizeDataset(args) => tokenize_dataset::run(args, talk),
        Command::EvalRetrieval(args) => eval_retrieval::run(args, talk),
    }
}
