//! Submissions whose fate a kill or a broken connection has hidden: found at the provider, or known never to have arrived.

use super::state::{Batch, Phase, now};
use super::{Run, Service};
use crate::client::{BatchStatus, Money};
use crate::error::{Error, Result};

/// Seconds after which a request that the provider does not know never arrived.
const ARRIVAL: i64 = 60;
/// Seconds by which clocks may differ.
const CLOCK_SKEW: i64 = 3600;

/// What the provider knows of a submission.
enum Fate {
    /// It is this batch.
    Found(String),
    /// It may be this batch, which will tell when it has ended.
    Perhaps(String),
    /// There is none.
    Lost,
}

impl Run<'_> {
    /// Finds out what became of submissions without an answer.
    pub(super) fn look_up(&mut self) -> Result<()> {
        for batch in self.batches.batches().to_vec() {
            let at = match batch.phase {
                Phase::Created { .. } => continue,
                Phase::Planned => {
                    self.release(&batch)?;
                    continue;
                }
                Phase::Creating { at } => at,
            };
            let instances = batch.requests.len();
            match self.find(&batch, at)? {
                Fate::Found(id) => {
                    log::info!("batch {id} has the {instances} instances of an interrupted submission");
                    self.batches.set_phase(&batch.marker, Phase::Created { id, at })?;
                }
                Fate::Perhaps(id) => self.warn(format!(
                    "{instances} instances may be in batch {id}, which will tell when it has ended; they are not sent again before"
                )),
                Fate::Lost if now() - at < ARRIVAL => self.warn(format!(
                    "the submission of {instances} instances was interrupted and may still arrive; the same command decides in {ARRIVAL} s"
                )),
                Fate::Lost => self.release(&batch)?,
            }
        }
        Ok(())
    }

    /// Forgets a batch that was never made.
    pub(super) fn release(&mut self, batch: &Batch) -> Result<()> {
        for request in &batch.requests {
            if self.held.remove(&request.instance_id).is_some()
                && let Some(ledger) = &self.ledger
            {
                ledger.settle(&request.instance_id, Money::ZERO)?;
            }
        }
        self.batches.remove(&batch.marker)
    }

    fn find(&self, batch: &Batch, at: i64) -> Result<Fate> {
        let service = &self.service;
        service.require_home(batch)?;
        let listed = service.ask(service.client.batches_since(at - CLOCK_SKEW))?;
        if let Some(found) = listed.iter().find(|listed| listed.marker.as_ref() == Some(&batch.marker)) {
            return Ok(Fate::Found(found.id.clone()));
        }
        // Where no marker is kept, the names of the results tell, once there are some.
        let lines = batch.requests.len() as u64 * u64::from(batch.lines_each);
        let may_be_it = |listed: &&BatchStatus| {
            listed.marker.is_none()
                && listed.total.is_none_or(|total| total == 0 || total == lines)
                && listed.created_at.is_none_or(|made| made <= at + CLOCK_SKEW)
                && !self.batches.batches().iter().any(|known| known.id() == Some(&listed.id))
        };
        let mut perhaps = None;
        for candidate in listed.iter().filter(may_be_it) {
            if !candidate.is_ended {
                perhaps.get_or_insert_with(|| candidate.id.clone());
                continue;
            }
            let results = service.ask(service.client.batch_results(candidate))?;
            if results.iter().any(|result| batch.parse_custom_id(&result.custom_id).is_some()) {
                return Ok(Fate::Found(candidate.id.clone()));
            }
        }
        Ok(perhaps.map_or(Fate::Lost, Fate::Perhaps))
    }
}

impl Service<'_> {
    /// Refuses to look for a batch where it was not sent.
    pub(super) fn require_home(&self, batch: &Batch) -> Result<()> {
        let service = self.client.service();
        if batch.service == service {
            return Ok(());
        }
        Err(Error::invalid_argument("the run's batches are with another service")
            .with_expected(&batch.service, service)
            .with_hint("give the options with which they were submitted"))
    }
}
