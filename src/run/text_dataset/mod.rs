//! Datasets of prompts: instances with the files of their repositories, read from git objects without a checkout.

mod clones;
mod config;
mod event;
mod progress;
mod prompts;
mod retrieval_file;
mod rows;
#[cfg(test)]
mod tests;

pub use config::{FileSource, TextDatasetConfig};
pub use event::{RunEvent, RunSummary};

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use serde_json::json;

use super::split::open_split;
use super::text_tokenizer::TextTokenizer;
use crate::cancel::CancelToken;
use crate::dataset::{Dataset, DatasetSpec, Instance, existing_splits};
use crate::error::{Error, ErrorKind, Result};
use crate::repo::Mirrors;
use clones::{Clones, Worker};
use progress::Progress;
use prompts::PromptMaker;

/// Prompts that wait to be written.
const QUEUED: usize = 64;

/// Makes the prompts of every split and writes the dataset, continuing an earlier run with the same configuration.
///
/// `on_event` is called on this thread. Cancelling ends the run with [`RunSummary::interrupted`] set; what is done is kept in
/// `{output}.{split}.progress.jsonl`. An instance that fails is left out of the dataset, and the same configuration tries it
/// again. A split that the dataset has already is left as it is.
///
/// # Errors
/// `InvalidArgument` for the configuration, `NotFound` for what it names, `Busy` when another run makes the same dataset,
/// `Io` when it cannot be written.
pub fn run(
    config: &TextDatasetConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let start = Instant::now();
    let mut summary = RunSummary::default();
    match run_stages(config, cancel, on_event, &mut summary) {
        Err(error) if error.kind() == ErrorKind::Cancelled && cancel.is_cancelled() => {
            summary.interrupted = true
        }
        outcome => outcome?,
    }
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

fn run_stages(
    config: &TextDatasetConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let clones = Clones::new(Mirrors::new(config.mirrors())?);
    let hits = match &config.retrieval_file {
        Some(file) => retrieval_file::read(file, config.k.map(usize::from))?,
        None => HashMap::new(),
    };
    let tokenizer = config.tokenizer_name.as_deref();
    let tokenizer =
        tokenizer.map(|name| TextTokenizer::open(name, config.cache_dir.as_deref(), cancel)).transpose()?;
    let maker = PromptMaker::new(config, hits, tokenizer);

    let output = config.output_dir.join(config.output_name());
    summary.output_dir.clone_from(&output);
    let there = existing_splits(&output, config.output_format)?;
    let mut made: Vec<(&str, Progress)> = Vec::new();
    for split in &config.splits {
        let path = progress_path(&output, split);
        // A progress file beside a split that is there has instances that failed.
        if there.contains(split) && !path.exists() {
            on_event(RunEvent::Warning {
                message: format!("{} has a split `{split}` already, which stays as it is", output.display()),
            });
            summary.splits_there.push(split.clone());
            continue;
        }
        let dataset = open_split(spec(config, split, &prompt_columns(config)), cancel)?.load()?;
        prompt_columns(config).iter().try_for_each(|column| dataset.require(column))?;
        let mut progress = Progress::open(&path, &settings(config))?;
        if let Some(message) = progress.warning() {
            on_event(RunEvent::Warning { message });
        }
        let work = Work { maker: &maker, clones: &clones, workers: config.workers(), cancel };
        let pending = pending(&dataset, &progress);
        let already_done = dataset.instances.len() - pending.len();
        summary.total += dataset.instances.len();
        summary.already_done += already_done;
        on_event(RunEvent::Started {
            output_dir: output.clone(),
            split: split.clone(),
            total: dataset.instances.len(),
            already_done,
            skipped: 0,
        });
        work.finish_all(&pending, |instance, prompt| {
            progress.record(&instance.instance_id, &prompt)?;
            let error = prompt.err().map(|error| error.to_line());
            *if error.is_none() { &mut summary.finished } else { &mut summary.failed } += 1;
            if let Some(error) = &error {
                log::info!("{}: {error}", instance.instance_id);
            }
            on_event(RunEvent::InstanceFinished { instance_id: instance.instance_id.clone(), error });
            Ok(())
        })?;
        made.push((split, progress));
    }
    if made.is_empty() {
        return Ok(());
    }
    rows::write(config, &output, &mut made, cancel, on_event)?;
    // What failed is tried again as long as the file is there.
    if summary.failed == 0 {
        made.into_iter().try_for_each(|(_, progress)| progress.remove())?;
    }
    Ok(())
}

/// The columns that prompts are made of.
fn prompt_columns(config: &TextDatasetConfig) -> Vec<&'static str> {
    let mut columns = vec!["repo", "base_commit", "problem_statement"];
    if config.file_source == FileSource::Oracle {
        columns.push("patch");
    }
    columns
}

fn spec(config: &TextDatasetConfig, split: &str, columns: &[&str]) -> DatasetSpec {
    DatasetSpec {
        name_or_path: config.dataset_name_or_path.clone(),
        split: split.to_owned(),
        columns: columns.iter().map(ToString::to_string).collect(),
        cache_dir: config.cache_dir.clone(),
    }
}

fn progress_path(output: &Path, split: &str) -> PathBuf {
    let mut name = OsString::from(output);
    name.push(format!(".{split}.progress.jsonl"));
    PathBuf::from(name)
}

/// What a prompt depends on besides the name of its progress file.
fn settings(config: &TextDatasetConfig) -> serde_json::Value {
    json!({"retrieval_file": config.retrieval_file, "tokenizer_name": config.tokenizer_name, "compat": config.compat})
}

/// The instances that have no prompt yet; those of one repository and time are neighbours, which share a reader and packs.
fn pending<'a>(dataset: &'a Dataset, progress: &Progress) -> Vec<&'a Instance> {
    let mut pending: Vec<&Instance> =
        dataset.instances.iter().filter(|instance| !progress.is_finished(&instance.instance_id)).collect();
    pending.sort_by_key(|instance| instance.fields.get("repo").and_then(|repo| repo.as_str()));
    pending
}

/// The work on a split.
struct Work<'a> {
    maker: &'a PromptMaker,
    clones: &'a Clones,
    workers: usize,
    cancel: &'a CancelToken,
}

impl Work<'_> {
    /// Makes the prompts on threads and hands each to `take` on this one.
    fn finish_all(
        &self,
        pending: &[&Instance],
        mut take: impl FnMut(&Instance, Result<String>) -> Result<()>,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (sender, prompts) = sync_channel(QUEUED);
            for worker in 0..self.workers.min(pending.len()) {
                let (sender, next) = (sender.clone(), &next);
                std::thread::Builder::new()
                    .name(format!("text-dataset-{worker}"))
                    .spawn_scoped(scope, move || self.work(pending, next, &sender))
                    .map_err(|error| {
                        Error::new(ErrorKind::Io, "the system gave no thread").with_source(error)
                    })?;
            }
            drop(sender);
            // When this ends early, the workers cannot send any more, and end, too.
            for (index, prompt) in prompts {
                take(pending[index], prompt)?;
            }
            self.cancel.check()
        })
    }

    fn work(&self, pending: &[&Instance], next: &AtomicUsize, sender: &SyncSender<(usize, Result<String>)>) {
        let mut worker = Worker::new(self.clones, self.cancel);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(instance) = pending.get(index).filter(|_| !self.cancel.is_cancelled()) else { return };
            let prompt = self.maker.text(&mut worker, instance, self.cancel);
            // What the user stopped did not fail.
            let is_cancelled = matches!(&prompt, Err(error) if error.kind() == ErrorKind::Cancelled);
            if is_cancelled || sender.send((index, prompt)).is_err() {
                return;
            }
        }
    }
}
