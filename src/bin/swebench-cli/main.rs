//! `swebench-cli`: runs models on SWE-bench. Everything that it does goes through the library's C ABI.

// Links the library; its functions are declared in `bindings/rust/sys.rs` alone.
use swebench_infer as _;

#[path = "../../../bindings/rust/mod.rs"]
mod swebench;

mod args;
mod batch;
mod bench;
mod completions;
mod dry_run;
mod exit;
mod extract_diff;
mod follow;
mod info;
mod interrupt;
mod make_datasets;
mod output;
mod plain;
mod predictions;
mod progress;
mod run_api;
mod run_live;
mod run_llama;
mod service;
mod shard;
mod talk;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use args::{Cli, Command, hyphenate};
use exit::{Exit, Failure};
use talk::Talk;

fn main() -> ExitCode {
    let cli = Cli::parse_from(std::env::args_os().map(hyphenate));
    let talk = Arc::new(Talk::new(cli.log_format, cli.verbosity()));
    match run(cli.command, &talk) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            talk.failure(&failure);
            failure.exit().into()
        }
    }
}

fn run(command: Command, talk: &Arc<Talk>) -> Result<Exit, Failure> {
    swebench::init()?;
    Talk::receive_log_lines(talk)?;
    match command {
        Command::RunLlama(args) => run_llama::run(&args, talk),
        Command::RunApi(args) => run_api::run(&args, talk),
        Command::RunLive(args) => run_live::run(&args, talk),
        Command::MakeDatasets(args) => make_datasets::run(&args, talk),
        Command::ExtractDiff(args) => extract_diff::run(&args, talk),
        Command::Predictions(args) => predictions::run(&args, talk),
        Command::Info(args) => info::run(&args),
        Command::Bench(args) => bench::run(&args, talk),
        Command::Completions(args) => completions::run(&args),
    }
}
