//! The run of a service's model over a dataset: prompts out, one prediction a line in, continued where it stopped.

mod batch;
mod config;
mod event;
mod ledger;
mod model_args;
mod plan;
mod record;
mod select;
mod send;

pub use batch::{BatchAction, BatchReport, BatchRow};
pub use config::RunApiConfig;
pub use event::{RunEvent, RunSummary};

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::names::api_file_name;
use super::predictions::PredictionsFile;
use crate::cancel::CancelToken;
use crate::client::{Attempt, Budget, Client, Limiter, Money, Response};
use crate::dataset::{self, Dataset, DatasetSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::hub::Hub;
use ledger::Ledger;
use plan::Planner;
use record::Answers;
use select::{Filter, Prompt, Selection, select};
use send::{Bill, End, Outcome, Pool, Shared, pace_observer};

/// How long to wait for an outcome before looking at the cancel token.
const POLL: Duration = Duration::from_millis(20);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Asks the service for every instance of the dataset and writes the predictions, continuing an earlier run with the same
/// configuration.
///
/// `on_event` is called on this thread. Cancelling ends the run with [`RunSummary::interrupted`] set; requests in flight are
/// dropped, and count at their worst case. An instance that fails has a record with its `error` and is tried again by the
/// next run.
///
/// # Errors
/// `InvalidArgument` for the configuration, `NotFound` for what it names, `Busy` when another run writes the same file,
/// `Io` when it cannot be written; and the first failure that every further request would share, such as a refused key.
/// Finished predictions stay in the file in every case.
pub fn run(
    config: &RunApiConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let start = Instant::now();
    let mut summary = RunSummary::default();
    let outcome = match config.batch {
        None => run_stages(config, cancel, on_event, &mut summary),
        Some(action) => batch::run(config, action, cancel, on_event, &mut summary),
    };
    match outcome {
        Err(error) if error.kind() == ErrorKind::Cancelled && cancel.is_cancelled() => {
            summary.interrupted = true;
        }
        outcome => outcome?,
    }
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

/// All that may be refused comes before the first request.
fn run_stages(
    config: &RunApiConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let shard = config.resolve_shard(&|name| std::env::var(name).ok())?;
    let client = Client::new(&config.client())?.with_pace_observer(pace_observer());
    let planner = Planner::new(config, client.provider(), client.prices())?;
    let dataset = load(config, cancel)?;
    dataset.require("text")?;
    cancel.check()?;

    let name = api_file_name(&config.model_name_or_path, &config.dataset_name_or_path, &config.split, shard);
    let output_file = config.output_dir.join(name);
    let mut file = PredictionsFile::open(&output_file)?;
    if let Some(message) = file.set_aside_warning() {
        on_event(RunEvent::Warning { message });
    }
    batch::require_none(file.path())?;
    let ledger = planner.has_price().then(|| Ledger::open(file.path(), |_| false)).transpose()?;
    let (ledger, spent) = ledger.map_or((None, Money::ZERO), |opened| (Some(opened.ledger), opened.spent));
    let filter = Filter { instance_id: config.filter()?, shard };
    let Selection { pending, total, already_done, skipped } =
        select(dataset.instances, &filter, |instance_id| {
            !file.is_finished(instance_id) && (!config.redo_failed || file.has_failed(instance_id))
        });
    *summary = RunSummary {
        output_file: output_file.clone(),
        total,
        already_done,
        skipped,
        spent: planner.has_price().then_some(spent),
        ..RunSummary::default()
    };
    on_event(RunEvent::Started { output_file, total, already_done, skipped });
    if pending.is_empty() {
        return Ok(());
    }
    let pending_ids: HashSet<&str> = pending.iter().map(|prompt| prompt.instance_id.as_str()).collect();
    file.discard_failures(|instance_id| pending_ids.contains(instance_id))?;

    let shared = Arc::new(Shared {
        client,
        planner,
        limiter: Limiter::new(config.limiter()),
        budget: Budget::new(config.cap()?, spent),
        ledger,
    });
    let pool = Pool::start(Arc::clone(&shared))?;
    Work { config, shared: &shared, pool, file, on_event, summary, end: None, last_progress: Instant::now() }
        .finish_all(pending, cancel)
}

/// The split with its prompts.
fn load(config: &RunApiConfig, cancel: &CancelToken) -> Result<Dataset> {
    let spec = DatasetSpec {
        name_or_path: config.dataset_name_or_path.clone(),
        split: config.split.clone(),
        columns: vec!["text".into()],
        cache_dir: config.cache_dir.clone(),
    };
    // Local files need no hub, and so no place for its cache.
    if Path::new(&spec.name_or_path).exists() {
        return dataset::load(&spec);
    }
    let hub = Hub::from_env(config.cache_dir.as_deref())?.with_cancel(cancel.clone());
    dataset::load_with(&spec, &hub)
}

struct Work<'a> {
    config: &'a RunApiConfig,
    shared: &'a Shared,
    pool: Pool,
    file: PredictionsFile,
    on_event: &'a mut dyn FnMut(RunEvent),
    summary: &'a mut RunSummary,
    /// Why nothing more is sent; what is in flight is waited for.
    end: Option<Error>,
    last_progress: Instant,
}

impl Work<'_> {
    fn finish_all(mut self, pending: Vec<Prompt>, cancel: &CancelToken) -> Result<()> {
        let mut pending = pending.into_iter();
        loop {
            while !self.is_ending() && self.pool.running() < self.config.max_submitted() {
                let Some(prompt) = pending.next() else { break };
                self.pool.submit(prompt);
            }
            if self.pool.running() == 0 {
                self.summary.unaffordable += if self.end.is_none() { pending.len() } else { 0 };
                break;
            }
            cancel.check()?;
            if let Some(outcome) = self.pool.next(POLL) {
                self.take(outcome)?;
            }
            self.report_progress();
        }
        if self.summary.unaffordable > 0 {
            (self.on_event)(RunEvent::Warning {
                message: format!(
                    "{} instances were not sent: what they may cost does not fit below max_cost any more",
                    self.summary.unaffordable
                ),
            });
        }
        self.end.map_or(Ok(()), Err)
    }

    fn is_ending(&self) -> bool {
        self.end.is_some() || self.summary.unaffordable > 0
    }

    fn take(&mut self, outcome: Outcome) -> Result<()> {
        let Outcome { instance_id, text, end } = outcome;
        match end {
            End::Answered { response, bill } => self.finish(instance_id, text, response, bill),
            End::Failed { failure, bill } if failure.kind.is_final() => {
                // The instance is not to blame and has no record.
                self.settle(&instance_id, bill)?;
                self.end.get_or_insert(failure.error);
                Ok(())
            }
            End::Failed { failure, bill } => self.fail(instance_id, &failure.error, Some(bill)),
            End::Refused(error) => self.fail(instance_id, &error, None),
            End::Unaffordable => {
                self.summary.unaffordable += 1;
                Ok(())
            }
            End::Unrecorded(error) => {
                self.end.get_or_insert(error);
                Ok(())
            }
        }
    }

    fn finish(&mut self, instance_id: String, text: String, response: Response, bill: Bill) -> Result<()> {
        let Response { choices, attempts, .. } = response;
        let (usage, cost) = (bill.usage, bill.cost);
        let latency_ms = Some(latency_ms(&attempts));
        let answers = Answers { instance_id: instance_id.clone(), text, choices, usage, cost, latency_ms };
        let record = self.shared.planner.record(answers);
        self.file.append(&record)?;
        self.settle(&instance_id, bill)?;
        self.summary.finished += 1;
        (self.on_event)(RunEvent::InstanceFinished {
            instance_id,
            finish_reason: record.finish_reason,
            completion_tokens: usage.output_tokens,
            cost,
            error: None,
        });
        Ok(())
    }

    fn fail(&mut self, instance_id: String, error: &Error, bill: Option<Bill>) -> Result<()> {
        let reason = error.to_line();
        log::warn!("{instance_id}: {reason}");
        let cost = bill.as_ref().and_then(|bill| bill.cost);
        let billed = bill.as_ref().map(|bill| (&bill.usage, bill.cost));
        let planner = &self.shared.planner;
        self.file.append(&planner.failure_record(instance_id.clone(), reason.clone(), billed))?;
        if let Some(bill) = bill {
            self.settle(&instance_id, bill)?;
        }
        self.summary.failed += 1;
        (self.on_event)(RunEvent::InstanceFinished {
            instance_id,
            finish_reason: None,
            completion_tokens: 0,
            cost,
            error: Some(reason),
        });
        Ok(())
    }

    /// Books what a request has cost, once its record is on the disk.
    fn settle(&mut self, instance_id: &str, bill: Bill) -> Result<()> {
        self.summary.prompt_tokens += bill.usage.input_tokens;
        self.summary.completion_tokens += bill.usage.output_tokens;
        if let (Some(reservation), Some(cost), Some(ledger)) =
            (bill.reservation, bill.cost, &self.shared.ledger)
        {
            ledger.settle(instance_id, cost)?;
            reservation.settle(cost);
            self.summary.spent = Some(self.shared.budget.spent());
        }
        Ok(())
    }

    fn report_progress(&mut self) {
        if self.last_progress.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.last_progress = Instant::now();
        (self.on_event)(RunEvent::Progress {
            prompt_tokens: self.summary.prompt_tokens,
            completion_tokens: self.summary.completion_tokens,
            running: self.pool.running(),
            spent: self.summary.spent,
        });
    }
}

/// Milliseconds of all tries and the waits between them.
fn latency_ms(attempts: &[Attempt]) -> f64 {
    attempts.iter().map(|attempt| attempt.duration + attempt.wait).sum::<Duration>().as_secs_f64() * 1e3
}
