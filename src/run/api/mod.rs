//! The run of a service's model over a dataset: prompts out, one prediction a line in, continued where it stopped.

mod asker;
mod batch;
mod config;
mod dry_run;
mod event;
mod ledger;
mod model_args;
mod plan;
mod prompts;
mod record;
mod select;
mod send;

pub(super) use asker::{Asked, Asker, Service};
pub use batch::{BatchAction, BatchReport, BatchRow};
pub use config::RunApiConfig;
pub use dry_run::{DryRun, Lengths, dry_run};
pub use event::{RunEvent, RunSummary};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::predictions::{Prediction, PredictionsFile};
use super::split::open_split;
use crate::cancel::CancelToken;
use crate::client::{Attempt, Budget, Client, Limiter, Money, Response};
use crate::dataset::{DatasetSpec, Split};
use crate::error::{Error, Result};
use ledger::Ledger;
use plan::Planner;
use prompts::{Prompts, survey};
use record::Answers;
use select::{Filter, Selection, select};
use send::{Bill, End, Outcome, Pool, Shared, pace_observer, request};

/// How long to wait for an outcome before looking at the cancel token.
const POLL: Duration = Duration::from_millis(20);
/// Most answers that are written with one wait for the disk.
const MOST_TOGETHER: usize = 32;
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
    summary.interrupted = cancel.interrupted(outcome)?;
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
    let split = open_dataset(config, cancel)?;
    let rows = survey(&split, cancel)?;

    let output_file = config.output_file(shard);
    let mut file = PredictionsFile::open(&output_file)?;
    for message in [file.set_aside_warning(), planner.warning().map(str::to_owned)].into_iter().flatten() {
        on_event(RunEvent::Warning { message });
    }
    batch::require_none(file.path())?;
    let ledger = planner.price().is_some().then(|| Ledger::open(file.path(), |_| false)).transpose()?;
    let (ledger, spent) = ledger.map_or((None, Money::ZERO), |opened| (Some(opened.ledger), opened.spent));
    let filter = Filter { instance_id: config.filter()?, shard };
    let Selection { pending, total, already_done, skipped } = select(rows, &filter, |instance_id| {
        !file.is_finished(instance_id) && (!config.redo_failed || file.has_failed(instance_id))
    });
    *summary = RunSummary {
        output_file: output_file.clone(),
        total,
        already_done,
        skipped,
        spent: ledger.is_some().then_some(spent),
        ..RunSummary::default()
    };
    on_event(RunEvent::Started { output_file, total, already_done, skipped });
    if pending.is_empty() {
        return Ok(());
    }
    let pending_ids: HashSet<&str> = pending.iter().map(|row| row.instance_id.as_str()).collect();
    file.discard_failures(|instance_id| pending_ids.contains(instance_id))?;
    drop(pending_ids);
    let prompts = Prompts::gather(&split, pending, &config.output_dir, cancel)?;

    let shared = Arc::new(Shared {
        client,
        planner,
        limiter: Limiter::new(config.limiter()),
        budget: Budget::new(config.cap()?, spent),
        ledger,
    });
    let pool = Pool::start()?;
    Work { config, shared: &shared, pool, file, on_event, summary, end: None, last_progress: Instant::now() }
        .finish_all(prompts, cancel)
}

/// The split with its prompts.
fn open_dataset(config: &RunApiConfig, cancel: &CancelToken) -> Result<Split> {
    let spec = DatasetSpec {
        name_or_path: config.dataset_name_or_path.clone(),
        split: config.split.clone(),
        columns: vec!["text".into()],
        cache_dir: config.cache_dir.clone(),
    };
    open_split(spec, cancel)
}

struct Work<'a> {
    config: &'a RunApiConfig,
    shared: &'a Arc<Shared>,
    pool: Pool<Outcome>,
    file: PredictionsFile,
    on_event: &'a mut dyn FnMut(RunEvent),
    summary: &'a mut RunSummary,
    /// Why nothing more is sent; what is in flight is waited for.
    end: Option<Reason>,
    last_progress: Instant,
}

/// An instance's line, and what its requests were charged.
struct Record {
    prediction: Prediction,
    bill: Option<Bill>,
}

/// Why a run ends.
struct Reason {
    error: Error,
    first_hand: bool,
}

impl Work<'_> {
    fn finish_all(mut self, mut prompts: Prompts, cancel: &CancelToken) -> Result<()> {
        loop {
            while !self.is_ending() && self.pool.running() < self.config.max_submitted() {
                let Some(prompt) = prompts.next() else { break };
                self.pool.submit(request(Arc::clone(self.shared), prompt?));
            }
            if self.pool.running() == 0 {
                self.summary.unaffordable += if self.end.is_none() { prompts.len() } else { 0 };
                break;
            }
            cancel.check()?;
            let mut outcomes = Vec::from_iter(self.pool.next(POLL));
            while (1..MOST_TOGETHER).contains(&outcomes.len())
                && let Some(outcome) = self.pool.next(Duration::ZERO)
            {
                outcomes.push(outcome);
            }
            self.take(outcomes)?;
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
        self.end.map_or(Ok(()), |end| Err(end.error))
    }

    fn is_ending(&self) -> bool {
        self.end.is_some() || self.summary.unaffordable > 0
    }

    /// Records what there is to be recorded, and then counts it as done.
    fn take(&mut self, outcomes: Vec<Outcome>) -> Result<()> {
        let mut records = Vec::new();
        for Outcome { instance_id, end } in outcomes {
            match end {
                End::Answered { response, text, bill } => {
                    records.push(self.answered(instance_id, text, response, bill));
                }
                End::Failed { failure, bill } if failure.kind.is_final() => {
                    // The instance is not to blame and has no record.
                    self.settle(&instance_id, bill)?;
                    self.stop(failure.error, !failure.attempts.is_empty());
                }
                End::Failed { failure, bill } => {
                    records.push(self.failed(instance_id, &failure.error, Some(bill)));
                }
                End::Refused(error) => records.push(self.failed(instance_id, &error, None)),
                End::Unaffordable => self.summary.unaffordable += 1,
                End::Unrecorded(error) => self.stop(error, true),
            }
        }
        self.file.append_all(records.iter().map(|record| &record.prediction))?;
        for Record { prediction, bill } in records {
            let Prediction { instance_id, finish_reason, usage, cost, error, .. } = prediction;
            if let Some(bill) = bill {
                self.settle(&instance_id, bill)?;
            }
            *(if error.is_some() { &mut self.summary.failed } else { &mut self.summary.finished }) += 1;
            (self.on_event)(RunEvent::InstanceFinished {
                instance_id,
                finish_reason,
                completion_tokens: usage.map_or(0, |usage| usage.completion_tokens as u64),
                cost: cost.flatten(),
                error,
            });
        }
        Ok(())
    }

    /// Sends nothing more, for this reason. What was met first-hand says more than what was not sent because of it.
    fn stop(&mut self, error: Error, first_hand: bool) {
        if self.end.as_ref().is_none_or(|end| first_hand && !end.first_hand) {
            self.end = Some(Reason { error, first_hand });
        }
    }

    fn answered(&self, instance_id: String, text: String, response: Response, bill: Bill) -> Record {
        let Response { choices, attempts, .. } = response;
        let answers = Answers {
            instance_id,
            text,
            choices,
            usage: bill.usage,
            cost: bill.cost,
            latency_ms: Some(latency_ms(&attempts)),
        };
        Record { prediction: self.shared.planner.record(answers), bill: Some(bill) }
    }

    fn failed(&self, instance_id: String, error: &Error, bill: Option<Bill>) -> Record {
        let reason = error.to_line();
        log::info!("{instance_id}: {reason}");
        let billed = bill.as_ref().map(|bill| (&bill.usage, bill.cost));
        Record { prediction: self.shared.planner.failure_record(instance_id, reason, billed), bill }
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
