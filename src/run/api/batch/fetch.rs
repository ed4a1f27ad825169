//! Writing the predictions of batches that have ended.

use std::collections::HashMap;

use super::state::Batch;
use super::{Lines, Run, report::BatchRow};
use crate::client::BatchStatus;
use crate::error::{Error, Result};
use crate::run::api::RunEvent;
use crate::run::api::prompts::Prompt;
use crate::run::api::select::Row;

impl Run<'_> {
    /// `rows` are those of the whole dataset.
    pub(super) fn fetch(mut self, mut rows: Vec<Row>) -> Result<()> {
        rows.retain(|row| self.batches.holds(&row.instance_id));
        let rows: HashMap<String, Row> = rows.into_iter().map(|row| (row.instance_id.clone(), row)).collect();
        let mut requests = self.batches.batches().iter().flat_map(|batch| &batch.requests);
        if let Some(lost) = requests.find(|request| !rows.contains_key(&request.instance_id)) {
            return Err(Error::not_found(format!(
                "the dataset lacks `{}`, which is in a batch",
                lost.instance_id.escape_debug()
            ))
            .with_path(&self.config.dataset_name_or_path));
        }
        self.summary.total = rows.len();
        let output_file = self.summary.output_file.clone();
        (self.on_event)(RunEvent::Started { output_file, total: rows.len(), already_done: 0, skipped: 0 });
        for batch in self.batches.batches().to_vec() {
            let Some(id) = batch.id() else {
                self.leave(&batch, None);
                continue;
            };
            self.service.require_home(&batch)?;
            let status = self.service.ask(self.service.client.batch_status(id))?;
            if status.is_ended {
                self.take_results(&batch, &status, &rows)?;
            } else {
                self.leave(&batch, Some(&status));
            }
        }
        self.finish()
    }

    /// A batch that has to wait.
    fn leave(&mut self, batch: &Batch, status: Option<&BatchStatus>) {
        self.report.waiting += batch.requests.len();
        self.report.batches.push(BatchRow::new(batch, status));
    }

    fn take_results(
        &mut self,
        batch: &Batch,
        status: &BatchStatus,
        rows: &HashMap<String, Row>,
    ) -> Result<()> {
        let results = self.service.ask(self.service.client.batch_results(status))?;
        let empty = || (0..batch.lines_each).map(|_| None).collect::<Lines>();
        let mut answers: Vec<Lines> = batch.requests.iter().map(|_| empty()).collect();
        for result in results {
            match batch.parse_custom_id(&result.custom_id) {
                Some((request, line)) => answers[request][line as usize] = Some(result.answer),
                None => log::warn!("batch {} has a result that nobody asked for", status.id),
            }
        }
        let reason = status.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        let missing = format!("batch {} is {} without an answer{reason}", status.id, status.state);
        let rows = batch.requests.iter().filter_map(|request| rows.get(&request.instance_id).cloned());
        let prompts = self.prompts(rows.collect())?;
        for ((request, lines), prompt) in batch.requests.iter().zip(answers).zip(prompts) {
            self.service.cancel.check()?;
            let Prompt { instance_id, text } = prompt?;
            self.take(instance_id, text, lines, request.at_most, &missing)?;
        }
        self.batches.remove(&batch.marker)
    }
}
