//! The files that each issue of a dataset is about, by BM25: repositories in, one line of hits an instance out.

mod config;
mod event;
mod search;

pub use config::Bm25RetrievalConfig;
pub use event::{RunEvent, RunSummary};

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::predictions::{PredictionsFile, Record};
use super::shard::Shard;
use super::spill::{Place, Spill, SpillWriter};
use super::split::open_split;
use crate::cancel::CancelToken;
use crate::dataset::{DatasetSpec, Instance, Split, require_column};
use crate::error::{Error, ErrorKind, Result};
use crate::retrieval::Hit;
pub(super) use search::explain;
use search::{Outcome, Searcher, Shelf, Task};

/// What is needed of an instance.
const COLUMNS: [&str; 3] = ["repo", "base_commit", "problem_statement"];

/// How long to wait for an outcome before looking at the cancel token.
const POLL: Duration = Duration::from_millis(20);

/// One instance's line.
#[derive(Debug, Serialize)]
struct Retrieval {
    instance_id: String,
    hits: Vec<Hit>,
    /// Why the instance failed; it is then tried again by the next run.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Record for Retrieval {
    fn instance_id(&self) -> &str {
        &self.instance_id
    }

    fn is_failure(&self) -> bool {
        self.error.is_some()
    }
}

/// Searches for every instance of the dataset and writes the hits, continuing an earlier run with the same configuration.
///
/// `on_event` is called on this thread. Cancelling ends the run with [`RunSummary::interrupted`] set. An instance that fails
/// has a record with its `error` and no hits.
///
/// # Errors
/// `InvalidArgument` for the configuration, `NotFound` for a dataset, split, column or directory that is not there, `Busy` when
/// another run writes the same file, `Io` when it cannot be written. Finished results stay in the file in every case.
pub fn run(
    config: &Bm25RetrievalConfig,
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
    config: &Bm25RetrievalConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let shard = config.resolve_shard(&|name| std::env::var(name).ok())?;
    let mirrors = config.mirrors()?;
    let splits = open_splits(config, cancel)?;
    let rows = survey(&splits, shard, cancel)?;

    let output_file = config.output_file(shard);
    let mut file = PredictionsFile::open(&output_file)?;
    if let Some(message) = file.set_aside_warning() {
        on_event(RunEvent::Warning { message });
    }
    let total = rows.len();
    let pending: Vec<Row> = rows.into_iter().filter(|row| !file.is_finished(&row.instance_id)).collect();
    let already_done = total - pending.len();
    *summary = RunSummary { output_file: output_file.clone(), total, already_done, ..RunSummary::default() };
    on_event(RunEvent::Started { output_file, total, already_done, skipped: 0 });
    if pending.is_empty() {
        return Ok(());
    }
    let pending_ids: HashSet<&str> = pending.iter().map(|row| row.instance_id.as_str()).collect();
    file.discard_failures(|instance_id| pending_ids.contains(instance_id))?;
    let (issues, places) = gather(&splits, &pending_ids, &config.output_dir, cancel)?;
    let tasks = tasks(&pending, &places);

    let searcher = Searcher { config, mirrors: &mirrors, issues: &issues, cancel };
    let finished = finish_all(&searcher, tasks, |Outcome { instance_id, hits }| {
        let (hits, error) = match hits {
            Ok(hits) => (hits, None),
            // A run that is cancelled finds nothing out about its instances.
            Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(()),
            Err(error) => (Vec::new(), Some(explain(&error))),
        };
        if let Some(error) = &error {
            log::info!("{instance_id}: {error}");
        }
        *if error.is_none() { &mut summary.finished } else { &mut summary.failed } += 1;
        let record = Retrieval { instance_id, hits, error };
        file.append(&record)?;
        let Retrieval { instance_id, hits, error } = record;
        on_event(RunEvent::InstanceFinished { instance_id, hits: hits.len(), error });
        Ok(())
    });
    if !config.leave_indexes {
        remove_indexes(&config.index_dir());
    }
    finished?;
    cancel.check()
}

/// An instance without its issue.
#[derive(Debug)]
struct Row {
    instance_id: String,
    repo: String,
    base_commit: String,
}

fn open_splits(config: &Bm25RetrievalConfig, cancel: &CancelToken) -> Result<Vec<Split>> {
    let open = |split: &String| {
        let spec = DatasetSpec {
            name_or_path: config.dataset_name_or_path.clone(),
            split: split.clone(),
            columns: COLUMNS.map(str::to_owned).to_vec(),
            cache_dir: config.cache_dir.clone(),
        };
        open_split(spec, cancel)
    };
    config.splits.iter().map(open).collect()
}

/// The instances of this run's part of each split; one that is in two splits counts once.
fn survey(splits: &[Split], shard: Option<Shard>, cancel: &CancelToken) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    for split in splits {
        let mut part = Vec::new();
        let columns = split.for_each(|instance| {
            let (repo, base_commit) = (text(&instance, "repo"), text(&instance, "base_commit"));
            part.push(Row { instance_id: instance.instance_id, repo, base_commit });
            cancel.check()
        })?;
        COLUMNS.iter().try_for_each(|column| require_column(&columns, column))?;
        let range = shard.map_or(0..part.len(), |shard| shard.range(part.len()));
        let part = part.into_iter().skip(range.start).take(range.len());
        rows.extend(part.filter(|row| seen.insert(row.instance_id.clone())));
    }
    Ok(rows)
}

/// Puts the issues of the `wanted` instances on the disk: there are many, and each is needed once.
fn gather<'a>(
    splits: &[Split],
    wanted: &HashSet<&'a str>,
    dir: &Path,
    cancel: &CancelToken,
) -> Result<(Spill, HashMap<&'a str, Place>)> {
    let mut issues = SpillWriter::create_in(dir)?;
    let mut places = HashMap::new();
    for split in splits {
        split.for_each(|instance| {
            if let Some(&id) = wanted.get(instance.instance_id.as_str()) {
                places.insert(id, issues.append(&text(&instance, "problem_statement"))?);
            }
            cancel.check()
        })?;
    }
    Ok((issues.finish()?, places))
}

fn text(instance: &Instance, column: &str) -> String {
    instance.fields.get(column).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

/// The instances by repository, in the order of its first.
fn tasks(pending: &[Row], issues: &HashMap<&str, Place>) -> Vec<Task> {
    let mut shelves: HashMap<&str, (usize, Arc<Shelf>)> = HashMap::new();
    let mut tasks: Vec<(usize, Task)> = Vec::with_capacity(pending.len());
    for row in pending {
        let Some(&issue) = issues.get(row.instance_id.as_str()) else { continue };
        let count = shelves.len();
        let (place, shelf) =
            shelves.entry(&row.repo).or_insert_with(|| (count, Arc::new(Shelf::new(&row.repo))));
        let task = Task {
            instance_id: row.instance_id.clone(),
            base_commit: row.base_commit.clone(),
            issue,
            shelf: Arc::clone(shelf),
        };
        tasks.push((*place, task));
    }
    tasks.sort_by_key(|(place, _)| *place);
    tasks.into_iter().map(|(_, task)| task).collect()
}

/// Searches on several threads, and hands the outcomes to `take` on this one as they come.
fn finish_all(
    searcher: &Searcher<'_>,
    tasks: Vec<Task>,
    mut take: impl FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    let workers = searcher.config.workers().min(tasks.len());
    let tasks = Mutex::new(tasks.into_iter());
    let (sender, outcomes) = channel();
    thread::scope(|scope| {
        // Dropped when this closure ends, by an error as well: the threads then stop after their task.
        let outcomes = outcomes;
        for _ in 0..workers {
            let (sender, tasks) = (sender.clone(), &tasks);
            let worker = thread::Builder::new().name("retrieval".into());
            worker.spawn_scoped(scope, move || searcher.work(tasks, &sender)).map_err(|error| {
                Error::new(ErrorKind::Io, "cannot start a thread to search").with_source(error)
            })?;
        }
        drop(sender);
        loop {
            match outcomes.recv_timeout(POLL) {
                Ok(outcome) => take(outcome)?,
                Err(RecvTimeoutError::Timeout) => searcher.cancel.check()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}

/// Removes the terms of files; what else is there stays.
fn remove_indexes(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "terms") {
            let removed = std::fs::remove_file(entry.path());
            removed.unwrap_or_else(|error| log::warn!("{}: {error}", entry.path().display()));
        }
    }
    // Only when nothing else is in it.
    let _ = std::fs::remove_dir(directory);
}
