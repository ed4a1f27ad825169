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

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;

use super::split::open_split;
use super::text_tokenizer::TextTokenizer;
use crate::cancel::CancelToken;
use crate::dataset::{DatasetSpec, Instance, Split, existing_splits, require_column};
use crate::error::{Error, ErrorKind, Result};
use crate::hub::{Hub, Upload};
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
    summary.interrupted = cancel.interrupted(run_stages(config, cancel, on_event, &mut summary))?;
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
    let there = existing_splits(&output, config.format())?;
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
        let mut progress = Progress::open(&path, &settings(config))?;
        if let Some(message) = progress.warning() {
            on_event(RunEvent::Warning { message });
        }
        let (total, already_done) = survey(config, split, &progress, cancel)?;
        summary.total += total;
        summary.already_done += already_done;
        on_event(RunEvent::Started {
            output_dir: output.clone(),
            split: split.clone(),
            total,
            already_done,
            skipped: 0,
        });
        let rows = open_split(spec(config, split, &prompt_columns(config)), cancel)?;
        let done = progress.finished_ids();
        let work = Work { maker: &maker, clones: &clones, workers: config.workers(), cancel };
        work.finish_all(&rows, &done, |instance_id, prompt| {
            progress.record(&instance_id, &prompt)?;
            let error = prompt.err().map(|error| error.to_line());
            *if error.is_none() { &mut summary.finished } else { &mut summary.failed } += 1;
            if let Some(error) = &error {
                log::info!("{instance_id}: {error}");
            }
            on_event(RunEvent::InstanceFinished { instance_id, error });
            Ok(())
        })?;
        made.push((split, progress));
    }
    if !made.is_empty() {
        rows::write(config, &output, &mut made, cancel, on_event)?;
    }
    if let Some(user) = &config.push_to_hub_user {
        summary.hub_url = Some(push(config, user, &output, cancel)?);
    }
    // What failed is tried again as long as the file is there.
    if summary.failed == 0 {
        made.into_iter().try_for_each(|(_, progress)| progress.remove())?;
    }
    Ok(())
}

/// Uploads what is at `output`, whichever run has made it.
fn push(config: &TextDatasetConfig, user: &str, output: &Path, cancel: &CancelToken) -> Result<String> {
    let directory = output.join("data");
    let unreadable = |error| Error::io("list", &directory, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        files.push(Upload {
            name: format!("data/{}", entry.file_name().to_string_lossy()),
            path: entry.path(),
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let hub = Hub::from_env(config.cache_dir.as_deref())?.with_cancel(cancel.clone());
    hub.push_dataset(&format!("{user}/{}", config.output_name()), &files)
        .map_err(|error| error.context("the dataset is written, but not uploaded"))
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

/// How many instances a split has, and how many of them have their prompt.
///
/// # Errors
/// `NotFound` when the dataset lacks a column that prompts need.
fn survey(
    config: &TextDatasetConfig,
    split: &str,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<(usize, usize)> {
    let (mut total, mut already_done) = (0, 0);
    let columns = open_split(spec(config, split, &[]), cancel)?.for_each(|instance| {
        total += 1;
        already_done += usize::from(progress.is_finished(&instance.instance_id));
        cancel.check()
    })?;
    prompt_columns(config).iter().try_for_each(|column| require_column(&columns, column))?;
    Ok((total, already_done))
}

/// The work on a split.
struct Work<'a> {
    maker: &'a PromptMaker,
    clones: &'a Clones,
    workers: usize,
    cancel: &'a CancelToken,
}

impl Work<'_> {
    /// Makes the prompts of the rows that are not `done` on threads, and hands each to `take` on this one.
    ///
    /// Rows are read as workers want them, in the dataset's order: those of one repository are neighbours there, and share a
    /// reader.
    fn finish_all(
        &self,
        rows: &Split,
        done: &HashSet<String>,
        mut take: impl FnMut(String, Result<String>) -> Result<()>,
    ) -> Result<()> {
        let no_thread = |error| Error::new(ErrorKind::Io, "the system gave no thread").with_source(error);
        std::thread::scope(|scope| {
            let (row_sender, row_receiver) = sync_channel(self.workers);
            let row_receiver = Arc::new(Mutex::new(row_receiver));
            let (prompt_sender, prompts) = sync_channel(QUEUED);
            let reader = std::thread::Builder::new()
                .name("text-dataset-rows".into())
                .spawn_scoped(scope, move || self.read(rows, done, &row_sender))
                .map_err(no_thread)?;
            for worker in 0..self.workers {
                let (rows, prompts) = (Arc::clone(&row_receiver), prompt_sender.clone());
                std::thread::Builder::new()
                    .name(format!("text-dataset-{worker}"))
                    .spawn_scoped(scope, move || self.work(&rows, &prompts))
                    .map_err(no_thread)?;
            }
            // Whoever ends early takes its ends of the channels along, and with them everyone else.
            drop((row_receiver, prompt_sender));
            for (instance_id, prompt) in prompts {
                take(instance_id, prompt)?;
            }
            reader.join().unwrap_or_else(|_| Err(Error::internal("the reader of rows panicked")))?;
            self.cancel.check()
        })
    }

    fn read(&self, rows: &Split, done: &HashSet<String>, workers: &SyncSender<Instance>) -> Result<()> {
        rows.for_each(|instance| {
            self.cancel.check()?;
            if done.contains(&instance.instance_id) {
                return Ok(());
            }
            // Why nobody wants more rows is known elsewhere.
            workers.send(instance).map_err(|_| Error::new(ErrorKind::Cancelled, "nobody wants more rows"))
        })
        .map(drop)
    }

    fn work(&self, rows: &Mutex<Receiver<Instance>>, prompts: &SyncSender<(String, Result<String>)>) {
        let mut worker = Worker::new(self.clones, self.cancel);
        loop {
            let row = rows.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Some(instance) = row.ok().filter(|_| !self.cancel.is_cancelled()) else { return };
            let prompt = self.maker.text(&mut worker, &instance, self.cancel);
            // What the user stopped did not fail.
            let is_cancelled = matches!(&prompt, Err(error) if error.kind() == ErrorKind::Cancelled);
            if is_cancelled || prompts.send((instance.instance_id, prompt)).is_err() {
                return;
            }
        }
    }
}
