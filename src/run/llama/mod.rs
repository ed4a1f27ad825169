//! The run of a local model over a dataset: prompts in, one prediction a line out, continued where it stopped.

mod config;
mod event;
mod generate;
mod prompts;
mod sources;
#[cfg(test)]
mod tests;
mod writer;

pub use config::{RunLlamaConfig, RunOrder};
pub use event::{RunEvent, RunSummary};
pub(super) use writer::Writer;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::names::belongs_to_run;
use super::predictions::{PredictionsFile, finished_ids};
use crate::cancel::CancelToken;
use crate::engine::{Engine, EngineOptions, Order};
use crate::error::{Error, Result};
use crate::model;
use crate::tokenizer::Tokenizer;
use generate::{GenerateOptions, generate_all};
use prompts::{Filter, Selection, select, tokenize, wanted_instances};
use sources::Sources;

/// Requests submitted at once when the KV cache decides how many run: more than any cache holds at useful lengths.
const DEFAULT_MAX_SUBMITTED: usize = 256;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the model over the dataset and writes the predictions, continuing an earlier run with the same configuration.
///
/// `on_event` is called on this thread. Cancelling ends the run early with [`RunSummary::interrupted`] set; predictions
/// that were finished are in the file. An instance that fails has a record with its `error` and is tried again by the
/// next run; see [`RunSummary::failed`].
///
/// # Errors
/// `InvalidArgument` for the configuration, `NotFound` for what it names, `Busy` when another run writes the same file,
/// `Io` when it cannot be written; whatever loading the model gives; `Device`, `OutOfMemory` or `Internal` when the engine
/// fails. Finished predictions stay in the file in every case.
pub fn run(
    config: &RunLlamaConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let start = Instant::now();
    let mut summary = RunSummary::default();
    summary.interrupted = cancel.interrupted(run_stages(config, cancel, on_event, &mut summary))?;
    summary.seconds = start.elapsed().as_secs_f64();
    on_event(RunEvent::Finished(summary.clone()));
    Ok(summary)
}

/// What is cheap and may be refused comes before what is dear: the file is locked before the model is loaded, and a run
/// with nothing left to do loads none.
fn run_stages(
    config: &RunLlamaConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let shard = config.resolve_shard(&|name| std::env::var(name).ok())?;
    let name = config.name(shard);
    let sources = Sources::new(config, cancel);
    let model_dir = sources.model_dir(&config.model_name_or_path)?;
    let adapter_dir = config.peft_path.as_deref().map(|path| sources.model_dir(path)).transpose()?;
    let tokenizer = Arc::new(Tokenizer::open(&model_dir)?);
    let dataset = sources.dataset()?.load()?;
    let instances = wanted_instances(dataset, config.instance_ids.as_deref())?;
    cancel.check()?;

    let output_file = config.output_dir.join(name.file_name());
    let mut file = PredictionsFile::open(&output_file)?;
    if let Some(message) = file.set_aside_warning() {
        on_event(RunEvent::Warning { message });
    }
    let finished_elsewhere = finished_in_other_files(&output_file, &name.stub(), on_event)?;

    let threads = config.threads.or_else(|| available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let encode = |text: &str| tokenizer.encode(text, true);
    let prompts = tokenize(instances, &encode, ends_in_newlines(config), threads, cancel)?;
    let filter = Filter { min_len: config.min_len, max_len: config.max_len, shard };
    let Selection { mut pending, total, already_done, skipped } = select(prompts, filter, |instance_id| {
        file.is_finished(instance_id) || finished_elsewhere.contains(instance_id)
    });
    *summary = RunSummary {
        output_file: output_file.clone(),
        total,
        already_done,
        skipped,
        ..RunSummary::default()
    };
    on_event(RunEvent::Started { output_file, total, already_done, skipped });
    if pending.is_empty() {
        return Ok(());
    }

    if config.order == RunOrder::LongestFirst {
        pending.reverse();
    }
    cancel.check()?;
    let decoder = model::load(&model_dir, &config.load_options(adapter_dir)?)?;
    let eos_token_ids = tokenizer.special_tokens().eos.clone();
    let engine = Engine::start(
        decoder,
        tokenizer,
        &EngineOptions {
            max_sequences: config.batch_size,
            prompt_lookup: config.prompt_lookup,
            prefix_cache: config.prefix_cache,
            order: Order::Arrival,
        },
    )?;
    let options = GenerateOptions {
        recorded_model: name.recorded_model(),
        patch_mode: config.patch_mode,
        sampling: config.sampling(),
        stop: config.stop_rules(eos_token_ids),
        // Twice the batch, so that the next requests wait in the engine when places become free.
        max_submitted: config.batch_size.map_or(DEFAULT_MAX_SUBMITTED, |size| size.saturating_mul(2)),
        progress_interval: PROGRESS_INTERVAL,
    };
    // Only now: had the model not loaded, the reasons of earlier failures would be lost for nothing.
    let pending_ids: HashSet<&str> = pending.iter().map(|prompt| prompt.instance_id.as_str()).collect();
    file.discard_failures(|instance_id| {
        pending_ids.contains(instance_id) || finished_elsewhere.contains(instance_id)
    })?;
    let tally = generate_all(&engine, pending, &options, &mut file, cancel, on_event)?;
    summary.finished = tally.finished;
    summary.failed = tally.failed;
    summary.prompt_tokens = tally.prompt_tokens;
    summary.completion_tokens = tally.completion_tokens;
    summary.interrupted = tally.interrupted;
    Ok(())
}

/// SWE-Llama was trained on prompts that end in two newlines; its adapters were, too.
fn ends_in_newlines(config: &RunLlamaConfig) -> bool {
    [Some(&config.model_name_or_path), config.peft_path.as_ref()]
        .into_iter()
        .flatten()
        .any(|name| name.to_ascii_lowercase().contains("swe-llama"))
}

/// Ids with a finished prediction in the files of this run's other shards and length filters.
fn finished_in_other_files(
    output_file: &Path,
    stub: &str,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<HashSet<String>> {
    let dir = output_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let read_error = |error| Error::io("list the output directory", dir, error);
    let mut finished = HashSet::new();
    for entry in fs::read_dir(dir).map_err(read_error)? {
        let file_name = entry.map_err(read_error)?.file_name();
        let is_other = Some(file_name.as_os_str()) != output_file.file_name();
        if !(is_other && file_name.to_str().is_some_and(|file_name| belongs_to_run(file_name, stub))) {
            continue;
        }
        match finished_ids(&dir.join(&file_name)) {
            Ok(ids) => finished.extend(ids),
            Err(error) => on_event(RunEvent::Warning {
                message: format!("predictions of another shard are not counted: {}", error.to_line()),
            }),
        }
    }
    Ok(finished)
}
