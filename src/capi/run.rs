//! Runs: a model over a dataset, and benchmarks.

use serde::Serialize;
use serde_json::Value;

use super::boundary::{OK, Out, enter};
use super::config::{Config, parse};
use super::error::ErrorObject;
use super::event::{
    Event, SWEBENCH_EVENT_INSTANCE, SWEBENCH_EVENT_PLANNED, SWEBENCH_EVENT_PROGRESS, SWEBENCH_EVENT_ROW,
    SWEBENCH_EVENT_STARTED, SWEBENCH_EVENT_WARNING,
};
use super::job::{Job, Reporter};
use super::text::Str;
use crate::error::{Error, Result};
use crate::run::api::{self, RunApiConfig};
use crate::run::bench::{self, BenchConfig};
use crate::run::bm25_retrieval::{self, Bm25RetrievalConfig};
use crate::run::eval_retrieval::{self, EvalRetrievalConfig};
use crate::run::live::{self, RunLiveConfig};
use crate::run::llama::{self, RunEvent, RunLlamaConfig};
use crate::run::review::{self, PredictionsConfig};
use crate::run::text_dataset::{self, TextDatasetConfig};
use crate::run::tokenize_dataset::{self, TokenizeDatasetConfig};

/// Starts a run of a local model over a dataset: one line per instance in a predictions file that the harness reads.
///
/// `config_json` is a configuration of kind "run-llama". Events: STARTED, PROGRESS several times a second, INSTANCE
/// when a prediction is on disk, WARNING, and FINISHED with counts, the file, and `interrupted`. A cancelled run ends with
/// FINISHED, too; the same configuration continues it, and no finished instance is done twice. Two processes on one file:
/// SWEBENCH_ERROR_BUSY. Free `out` with swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_llama_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_llama) }
}

/// Starts a run of a service's model over a dataset: OpenAI, Azure, Anthropic, or any server that speaks one of their protocols.
///
/// `config_json` is a configuration of kind "run-api"; keys of services come from the environment or a file that it names.
/// Events and results as of swebench_run_llama_start(), with dollars: `spent` in PROGRESS and in the result, `cost` in
/// INSTANCE; null where the price is not known. A failure that every request would share, such as a refused key, ends the
/// job with that error.
///
/// With `dry_run` nothing is asked for, spent or written: STARTED is followed by PLANNED for every instance that is left to do,
/// and FINISHED sums up tokens, dollars, and what does not fit into the model's context. With `batch`, which asks through
/// the provider's batches, one step a run, the result has `batch`: `{submitted, waiting, reserved, batches, file}`. Free
/// `out` with swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_api_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_api) }
}

/// Starts a run over issues as they are on GitHub now: fetched, their repositories cloned and searched, a service's or a local model
/// asked, its patch made to fit the files and tried.
///
/// `config_json` is a configuration of kind "run-live". Events: STARTED, INSTANCE when an issue's record is on disk, with `title`,
/// `retrieved` (`path`, `score`, `shown`), tokens, `cost`, `model_patch`, `check` (`applies`, `reason`), `applied` and `error`;
/// WARNING, and FINISHED with counts, the file, and `interrupted`. The same configuration continues a cancelled run and tries failed
/// issues again. Titles are what strangers wrote: escape them. Two processes on one file: SWEBENCH_ERROR_BUSY. Free `out` with
/// swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_live_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_live) }
}

/// Starts a search for the files that the issues of a dataset are about, by BM25 over the files of each instance's commit.
///
/// `config_json` is a configuration of kind "bm25-retrieval". Events: STARTED, INSTANCE when an instance's hits are on disk,
/// WARNING, and FINISHED with counts, `output_file` and `interrupted`. The file has one line an instance: `instance_id` and
/// `hits`, each with `docid` and `score`; one with `error` failed and is tried again by the same configuration, which also
/// continues a cancelled run. Two processes on one file: SWEBENCH_ERROR_BUSY. Free `out` with swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_bm25_retrieval_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_bm25_retrieval) }
}

/// Starts an evaluation of retrieval: of the files that gold patches change, how many a dataset's prompts show.
///
/// `config_json` is a configuration of kind "eval-retrieval". Events: WARNING for an instance without gold files, which counts
/// nowhere, or without retrieved ones, and FINISHED with `average_recall`, `all_recall` and `any_recall`, from 0 to 1, null
/// where no instance has gold files. Free `out` with swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_eval_retrieval_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_eval_retrieval) }
}

/// Starts making a dataset of prompts from instances and the repositories that they are of.
///
/// `config_json` is a configuration of kind "create-text-dataset". Events: STARTED for each split, INSTANCE when a prompt is in the
/// progress file, WARNING, and FINISHED with counts, `output_dir` and `interrupted`. The same configuration continues a
/// cancelled run, and tries failed instances again. Two processes on one dataset: SWEBENCH_ERROR_BUSY. Free `out` with
/// swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_text_dataset_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_text_dataset) }
}

/// Starts adding token ids and labels to a dataset of prompts.
///
/// `config_json` is a configuration of kind "tokenize-dataset". Events: STARTED for each split, INSTANCE for each of its
/// instances, and FINISHED with counts, `output_dir` and `interrupted`; a cancelled run writes nothing. Free `out` with
/// swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_run_tokenize_dataset_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_tokenize_dataset) }
}

/// Starts a benchmark of prefill and decode; `config_json` is a configuration of kind "bench".
///
/// Events: ROW for every test as it is measured, FINISHED with all rows, the backend, its memory, and the machine's memory and
/// matrix rates measured in the same run, from which each row's limit and share follow. Rates are tokens per second. Free `out` with swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_bench_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, run_bench) }
}

/// Starts to validate, merge, convert or show predictions files; `config_json` is a configuration of kind "predictions".
///
/// FINISHED has `totals` over all records, `problems` with their files and lines, `merged` when records were, `instances` (those
/// that count as nothing, or to be shown) with why, and the `output` that was written. Files are replaced in one step. Free `out`
/// with swebench_job_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_predictions_start(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: text, output and error are valid by contract.
    unsafe { start(config_json, out, error, predictions) }
}

/// Starts `run` on a configuration as a job.
///
/// # Safety
/// `config_json`, `out` and `error` are as the entry's caller gave them, by the header's contract.
unsafe fn start<C: Config + Send + 'static>(
    config_json: Str,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
    run: fn(&C, Reporter<'_>) -> Result<Value>,
) -> i32 {
    enter(error, || {
        // SAFETY: text and output are valid by contract.
        let (config_json, out) = unsafe { (config_json.get("config_json")?, Out::new(out, "out")?) };
        let config: C = parse(config_json)?;
        out.write_boxed(Job::start(move |reporter| run(&config, reporter))?);
        OK
    })
}

fn run_llama(config: &RunLlamaConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: RunEvent| {
        let kind = match &event {
            RunEvent::Warning { .. } => SWEBENCH_EVENT_WARNING,
            RunEvent::Started { .. } => SWEBENCH_EVENT_STARTED,
            RunEvent::Progress { .. } => SWEBENCH_EVENT_PROGRESS,
            RunEvent::InstanceFinished { .. } => SWEBENCH_EVENT_INSTANCE,
            // The summary is the job's result.
            RunEvent::Finished(_) => return,
        };
        report(reporter, kind, &event);
    };
    to_json(&llama::run(config, reporter.cancel, &mut on_event)?)
}

fn run_api(config: &RunApiConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: api::RunEvent| {
        let kind = match &event {
            api::RunEvent::Warning { .. } => SWEBENCH_EVENT_WARNING,
            api::RunEvent::Started { .. } => SWEBENCH_EVENT_STARTED,
            api::RunEvent::Progress { .. } => SWEBENCH_EVENT_PROGRESS,
            api::RunEvent::Planned { .. } => SWEBENCH_EVENT_PLANNED,
            api::RunEvent::InstanceFinished { .. } => SWEBENCH_EVENT_INSTANCE,
        };
        report(reporter, kind, &event);
    };
    match config.dry_run {
        true => to_json(&api::dry_run(config, reporter.cancel, &mut on_event)?),
        false => to_json(&api::run(config, reporter.cancel, &mut on_event)?),
    }
}

fn run_live(config: &RunLiveConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: live::RunEvent| {
        let kind = match &event {
            live::RunEvent::Warning { .. } => SWEBENCH_EVENT_WARNING,
            live::RunEvent::Started { .. } => SWEBENCH_EVENT_STARTED,
            live::RunEvent::InstanceFinished(_) => SWEBENCH_EVENT_INSTANCE,
        };
        report(reporter, kind, &event);
    };
    to_json(&live::run(config, reporter.cancel, &mut on_event)?)
}

fn run_bm25_retrieval(config: &Bm25RetrievalConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: bm25_retrieval::RunEvent| {
        let kind = match &event {
            bm25_retrieval::RunEvent::Warning { .. } => SWEBENCH_EVENT_WARNING,
            bm25_retrieval::RunEvent::Started { .. } => SWEBENCH_EVENT_STARTED,
            bm25_retrieval::RunEvent::InstanceFinished { .. } => SWEBENCH_EVENT_INSTANCE,
        };
        report(reporter, kind, &event);
    };
    to_json(&bm25_retrieval::run(config, reporter.cancel, &mut on_event)?)
}

fn run_eval_retrieval(config: &EvalRetrievalConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: eval_retrieval::RunEvent| report(reporter, SWEBENCH_EVENT_WARNING, &event);
    to_json(&eval_retrieval::run(config, reporter.cancel, &mut on_event)?)
}

fn run_text_dataset(config: &TextDatasetConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: text_dataset::RunEvent| {
        let kind = match &event {
            text_dataset::RunEvent::Warning { .. } => SWEBENCH_EVENT_WARNING,
            text_dataset::RunEvent::Started { .. } => SWEBENCH_EVENT_STARTED,
            text_dataset::RunEvent::InstanceFinished { .. } => SWEBENCH_EVENT_INSTANCE,
        };
        report(reporter, kind, &event);
    };
    to_json(&text_dataset::run(config, reporter.cancel, &mut on_event)?)
}

fn run_tokenize_dataset(config: &TokenizeDatasetConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_event = |event: tokenize_dataset::RunEvent| {
        let kind = match &event {
            tokenize_dataset::RunEvent::Started { .. } => SWEBENCH_EVENT_STARTED,
            tokenize_dataset::RunEvent::InstanceFinished { .. } => SWEBENCH_EVENT_INSTANCE,
        };
        report(reporter, kind, &event);
    };
    to_json(&tokenize_dataset::run(config, reporter.cancel, &mut on_event)?)
}

/// Queues an event. Numbers, texts and paths always have a JSON; a path that is not UTF-8 is the one exception.
fn report(reporter: Reporter<'_>, kind: i32, event: &impl Serialize) {
    match to_json(event) {
        Ok(json) => reporter.report(Event::json(kind, &json)),
        Err(error) => log::warn!("an event of the run was lost: {error}"),
    }
}

fn predictions(config: &PredictionsConfig, reporter: Reporter<'_>) -> Result<Value> {
    to_json(&review::run(config, reporter.cancel)?)
}

fn run_bench(config: &BenchConfig, reporter: Reporter<'_>) -> Result<Value> {
    let mut on_row = |row: &bench::BenchRow| {
        if let Ok(json) = to_json(row) {
            reporter.report(Event::json(SWEBENCH_EVENT_ROW, &json));
        }
    };
    to_json(&bench::run(config, reporter.cancel, &mut on_row)?)
}

fn to_json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|source| Error::internal("a report has no JSON form").with_source(source))
}
