//! Sending what is not done, in as few batches as the provider allows.

use super::state::{Batch, Phase, Request, now};
use super::{Run, report::BatchRow};
use crate::client::{self, BatchInput, Money};
use crate::error::{Error, Result};
use crate::run::api::prompts::Prompt;
use crate::run::api::select::Row;

/// A batch while it is filled.
struct Part {
    batch: Batch,
    input: BatchInput,
}

impl Run<'_> {
    pub(super) fn submit(mut self, pending: Vec<Row>) -> Result<()> {
        self.discard_failures(&pending)?;
        let mut prompts = self.prompts(pending)?;
        let cap = self.config.cap()?;
        let mut committed = self.spent + self.held.values().copied().sum();
        let mut part = self.part();
        while let Some(prompt) = prompts.next() {
            let Prompt { instance_id, text } = prompt?;
            self.service.cancel.check()?;
            let (request, plan) = match self.plan(text) {
                Ok(planned) => planned,
                Err(error) => {
                    self.service.cancel.check()?;
                    self.refuse(instance_id, &error)?;
                    continue;
                }
            };
            let at_most = plan.worst_case.unwrap_or_default();
            if cap.is_some_and(|cap| committed + at_most > cap) {
                self.summary.unaffordable = 1 + prompts.len();
                break;
            }
            if !self.fill(&mut part, &instance_id, &request, plan.worst_case)? {
                let full = std::mem::replace(&mut part, self.part());
                self.send(full)?;
                if !self.fill(&mut part, &instance_id, &request, plan.worst_case)? {
                    let error = Error::invalid_argument("the prompt is longer than what a batch takes");
                    self.refuse(instance_id, &error)?;
                    continue;
                }
            }
            committed += at_most;
        }
        self.send(part)?;
        if self.summary.unaffordable > 0 {
            self.warn(format!(
                "{} instances were not sent: what they may cost does not fit below max_cost any more",
                self.summary.unaffordable
            ));
        }
        self.finish()
    }

    fn part(&self) -> Part {
        let client = &self.service.client;
        let lines_each = client.batch_lines_of(self.config.n.get());
        Part { batch: Batch::planned(client.service(), lines_each), input: client.batch_input() }
    }

    /// Adds an instance to a batch; `false` when it is full.
    fn fill(
        &self,
        part: &mut Part,
        instance_id: &str,
        request: &client::Request,
        at_most: Option<Money>,
    ) -> Result<bool> {
        let number = part.batch.requests.len();
        let custom_id = |line| part.batch.custom_id(number, line);
        let lines = self.service.client.batch_lines(request, custom_id);
        let is_in = part.input.push(&lines.map_err(|failure| failure.error)?);
        if is_in {
            part.batch.requests.push(Request { instance_id: instance_id.to_owned(), at_most });
        }
        Ok(is_in)
    }

    /// Has the provider work on a batch. Whenever this is cut off, the files say what may have been sent.
    fn send(&mut self, Part { mut batch, input }: Part) -> Result<()> {
        if batch.requests.is_empty() {
            return Ok(());
        }
        self.batches.push(batch.clone())?;
        for Request { instance_id, at_most } in &batch.requests {
            if let (Some(ledger), Some(at_most)) = (&self.ledger, *at_most) {
                ledger.reserve(instance_id, at_most)?;
                self.held.insert(instance_id.clone(), at_most);
            }
        }
        let service = &self.service;
        let uploaded = match service.ask(service.client.upload_batch(input)) {
            Ok(uploaded) => uploaded,
            Err(error) => {
                self.release(&batch)?;
                return Err(error);
            }
        };
        let at = now();
        batch.phase = Phase::Creating { at };
        self.batches.set_phase(&batch.marker, batch.phase.clone())?;
        let service = &self.service;
        let created = service.client.create_batch(uploaded, &batch.marker);
        let status = match service.driver.wait(service.cancel, created)? {
            Ok(status) => status,
            Err(failure) if failure.may_have_arrived() => {
                return Err(failure.error.with_hint(
                    "whether the batch was made is not known; the same command finds out and goes on",
                ));
            }
            Err(failure) => {
                self.release(&batch)?;
                return Err(failure.error);
            }
        };
        batch.phase = Phase::Created { id: status.id.clone(), at };
        self.batches.set_phase(&batch.marker, batch.phase.clone())?;
        log::info!("batch {} has {} instances", status.id, batch.requests.len());
        self.report.submitted += batch.requests.len();
        self.report.waiting += batch.requests.len();
        self.report.batches.push(BatchRow::new(&batch, Some(&status)));
        Ok(())
    }
}
