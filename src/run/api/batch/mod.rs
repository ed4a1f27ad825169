//! Runs through the provider's batches: half the price, answers within a day, and the same predictions file.
//!
//! Submitting, asking and fetching are runs of their own, each of which may be killed at any point: what was sent is in
//! [`BatchFile`] before it is sent, what it may cost is in the ledger, and a submission whose fate a kill has hidden is
//! looked up at the provider before anything is sent again.

mod fetch;
mod files;
mod lookup;
mod report;
mod state;
mod submit;

pub use report::{BatchReport, BatchRow};
pub(super) use state::{BatchFile, require_none};

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Opened};
use super::plan::{Plan, Planner};
use super::prompts::{Prompts, survey};
use super::record::Answers;
use super::select::{Filter, Row, Selection, join_messages, select};
use super::send::plan;
use super::{RunApiConfig, RunEvent, RunSummary, open_dataset};
use crate::cancel::CancelToken;
use crate::client::{BatchAnswer, Client, Driver, Failure, Money, Request, Usage};
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::run::predictions::{Prediction, PredictionsFile};

/// What to do with batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchAction {
    /// Sends what is not done.
    Submit,
    /// Tells how far the batches are.
    Status,
    /// Writes the predictions of batches that have ended.
    Fetch,
    /// Writes a file of requests, for vLLM's `run-batch`.
    Write,
    /// Reads a file of its answers.
    Read,
}

impl BatchAction {
    /// Whether it goes by a file instead of the provider.
    pub(super) fn has_file(self) -> bool {
        matches!(self, Self::Write | Self::Read)
    }
}

/// Does one step of a run through batches.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(
    config: &RunApiConfig,
    action: BatchAction,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let shard = config.resolve_shard(&|name| std::env::var(name).ok())?;
    let client = Client::new(&config.client())?;
    if action.has_file() {
        client.require_batch_files()?
    } else {
        client.require_batches()?
    }
    summary.output_file = config.output_file(shard);
    let service = Service { client, driver: Driver::start()?, cancel };
    if action == BatchAction::Status {
        summary.batch = Some(report::status(&service, &BatchFile::open(&summary.output_file)?)?);
        return Ok(());
    }

    let planner = Planner::new(config, service.client.provider(), service.client.prices())?;
    let split = open_dataset(config, cancel)?;
    let rows = survey(&split, cancel)?;
    let mut run = Run::open(config, split, service, planner, on_event, summary)?;
    if action == BatchAction::Fetch {
        return run.fetch(rows);
    }
    let filter = Filter { instance_id: config.filter()?, shard };
    let Selection { mut pending, total, already_done, skipped } = select(rows, &filter, |instance_id| {
        !run.file.is_finished(instance_id) && (!config.redo_failed || run.file.has_failed(instance_id))
    });
    let unfinished = pending.len();
    pending.retain(|row| !run.batches.holds(&row.instance_id));
    run.report.waiting = unfinished - pending.len();
    (run.summary.total, run.summary.already_done, run.summary.skipped) = (total, already_done, skipped);
    let output_file = run.summary.output_file.clone();
    (run.on_event)(RunEvent::Started { output_file, total, already_done, skipped });
    match action {
        BatchAction::Write => run.write(pending),
        BatchAction::Read => run.read(pending),
        BatchAction::Submit | BatchAction::Status | BatchAction::Fetch => run.submit(pending),
    }
}

/// A client whose answers are waited for.
struct Service<'a> {
    client: Client,
    driver: Driver,
    cancel: &'a CancelToken,
}

impl Service<'_> {
    /// Waits for a request; its failure is the run's.
    fn ask<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> Result<T> {
        self.driver.wait(self.cancel, request)?.map_err(|failure| failure.error)
    }
}

/// The predictions file, and what is in batches.
struct Run<'a> {
    config: &'a RunApiConfig,
    split: Split,
    service: Service<'a>,
    planner: Planner,
    file: PredictionsFile,
    batches: BatchFile,
    ledger: Option<Ledger>,
    /// What may be billed for each instance in a batch.
    held: HashMap<String, Money>,
    spent: Money,
    report: BatchReport,
    on_event: &'a mut dyn FnMut(RunEvent),
    summary: &'a mut RunSummary,
}

impl<'a> Run<'a> {
    fn open(
        config: &'a RunApiConfig,
        split: Split,
        service: Service<'a>,
        planner: Planner,
        on_event: &'a mut dyn FnMut(RunEvent),
        summary: &'a mut RunSummary,
    ) -> Result<Self> {
        let file = PredictionsFile::open(&summary.output_file)?;
        let warning = planner.warning().map(str::to_owned);
        for message in [file.set_aside_warning(), warning].into_iter().flatten() {
            on_event(RunEvent::Warning { message });
        }
        let batches = BatchFile::open(file.path())?;
        if config.batch.is_some_and(BatchAction::has_file) {
            require_none(file.path())?;
        }
        let opened = planner.price().is_some().then(|| Ledger::open(file.path(), |id| batches.holds(id)));
        let (ledger, spent, held) = match opened.transpose()? {
            Some(Opened { ledger, spent, held }) => (Some(ledger), spent, held),
            None => (None, Money::ZERO, HashMap::new()),
        };
        let report = BatchReport::default();
        let mut run = Self {
            config,
            split,
            service,
            planner,
            file,
            batches,
            ledger,
            held,
            spent,
            report,
            on_event,
            summary,
        };
        run.look_up()?;
        Ok(run)
    }

    /// What the run tells at its end.
    fn finish(self) -> Result<()> {
        let has_price = self.planner.price().is_some();
        self.summary.spent = has_price.then_some(self.spent);
        self.summary.batch = Some(BatchReport {
            reserved: has_price.then(|| self.held.values().copied().sum()),
            ..self.report
        });
        Ok(())
    }

    fn warn(&mut self, message: String) {
        (self.on_event)(RunEvent::Warning { message });
    }

    /// Writes an instance's record and books what it has cost, each once however often this is tried.
    fn record(&mut self, record: &Prediction, usage: &Usage, cost: Option<Money>) -> Result<()> {
        let instance_id = &record.instance_id;
        let is_new = !self.file.is_finished(instance_id) && !self.file.has_failed(instance_id);
        if is_new {
            self.file.append(record)?;
        }
        let is_open = self.held.remove(instance_id).is_some();
        if let (Some(ledger), Some(cost)) = (&self.ledger, cost)
            && (is_new || is_open)
        {
            ledger.settle(instance_id, cost)?;
            self.spent += cost;
        }
        if !is_new {
            return Ok(());
        }
        self.summary.prompt_tokens += usage.input_tokens;
        self.summary.completion_tokens += usage.output_tokens;
        match &record.error {
            Some(reason) => {
                log::warn!("{instance_id}: {reason}");
                self.summary.failed += 1;
            }
            None => self.summary.finished += 1,
        }
        (self.on_event)(RunEvent::InstanceFinished {
            instance_id: instance_id.clone(),
            finish_reason: record.finish_reason.clone(),
            completion_tokens: usage.output_tokens,
            cost,
            error: record.error.clone(),
        });
        Ok(())
    }

    /// Writes the record of an instance that is not asked for, because of what it is.
    fn refuse(&mut self, instance_id: String, error: &Error) -> Result<()> {
        let record = self.planner.failure_record(instance_id, error.to_line(), None);
        self.record(&record, &Usage::default(), None)
    }

    /// The prompts of these rows, in their order.
    fn prompts(&self, rows: Vec<Row>) -> Result<Prompts> {
        Prompts::gather(&self.split, rows, &self.config.output_dir, self.service.cancel)
    }

    /// The request for a prompt, and what it takes.
    ///
    /// # Errors
    /// `Cancelled`; anything else is the instance's own.
    fn plan(&self, text: String) -> Result<(Request, Plan)> {
        let request = self.planner.request(text)?;
        let plan = plan(&self.service.client, &self.planner, &request);
        let plan = self.service.driver.wait(self.service.cancel, plan)??;
        Ok((request, plan))
    }

    /// Drops the failure records of instances that are tried again.
    fn discard_failures(&mut self, pending: &[Row]) -> Result<()> {
        let ids: HashSet<&str> = pending.iter().map(|row| row.instance_id.as_str()).collect();
        self.file.discard_failures(|instance_id| ids.contains(instance_id))
    }
}

/// What came back for an instance, by line.
type Lines = Vec<Option<Result<BatchAnswer, Failure>>>;

impl Run<'_> {
    /// Records what came back for an instance: all of its answers, or why one is missing.
    fn take(
        &mut self,
        instance_id: String,
        text: String,
        lines: Lines,
        at_most: Option<Money>,
        missing: &str,
    ) -> Result<()> {
        let mut choices = Vec::new();
        let mut usage = Usage::default();
        let mut cost = self.planner.price().map(|_| Money::ZERO);
        let mut is_metered = true;
        let mut reason = None;
        for line in lines {
            match line {
                Some(Ok(answer)) => {
                    let counted = answer.usage.unwrap_or_default();
                    usage += counted;
                    is_metered &= answer.usage.is_some();
                    // Line by line, as a sum may fall into another tier.
                    cost = cost.zip(self.planner.cost_of(&counted)).map(|(sum, price)| sum + price);
                    choices.extend(answer.choices);
                }
                Some(Err(failure)) => reason = reason.or(Some(failure.error.to_line())),
                None => reason = reason.or_else(|| Some(missing.to_owned())),
            }
        }
        if !is_metered {
            cost = cost.and(at_most);
        }
        choices.truncate(self.config.n.get() as usize);
        let record = match reason {
            Some(reason) => self.planner.failure_record(instance_id, reason, Some((&usage, cost))),
            None => {
                let request = self.planner.request(text)?;
                let text = join_messages(&request.system, &request.user);
                self.planner.record(Answers { instance_id, text, choices, usage, cost, latency_ms: None })
            }
        };
        self.record(&record, &usage, cost)
    }
}

/// The file of a run that goes by one; [`RunApiConfig::validate`] has seen that it is there.
fn batch_file(config: &RunApiConfig) -> PathBuf {
    config.batch_file.clone().unwrap_or_default()
}
