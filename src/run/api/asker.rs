//! A service's model for runs that make their own prompts: one request after the other, with the plans, the ledger and the cap of a
//! run over a dataset.

use std::path::Path;
use std::sync::Arc;

use super::config::RunApiConfig;
use super::latency_ms;
use super::ledger::Ledger;
use super::plan::Planner;
use super::prompts::Prompt;
use super::record::Answers;
use super::send::{Bill, End, Outcome, Shared, pace_observer, request};
use crate::cancel::CancelToken;
use crate::client::{Budget, Client, Driver, Limiter, Money};
use crate::error::{Error, Result};
use crate::run::predictions::Prediction;

/// A service that can be asked; nothing is written yet.
pub(in crate::run) struct Service {
    client: Client,
    planner: Planner,
}

impl Service {
    /// Checks the configuration and finds the key.
    ///
    /// # Errors
    /// As those of a run over a dataset before its first request.
    pub(in crate::run) fn new(config: &RunApiConfig) -> Result<Self> {
        let client = Client::new(&config.client())?.with_pace_observer(pace_observer());
        let planner = Planner::new(config, client.provider(), client.prices())?;
        Ok(Self { client, planner })
    }

    /// What the user should know about costs.
    pub(in crate::run) fn warning(&self) -> Option<&str> {
        self.planner.warning()
    }

    /// Begins to ask, for records in this predictions file, which the caller holds the lock of.
    ///
    /// # Errors
    /// `Io` when the ledger cannot be read or written, or the system gives no thread.
    pub(in crate::run) fn start(self, config: &RunApiConfig, predictions: &Path) -> Result<Asker> {
        let Self { client, planner } = self;
        let opened = planner.price().is_some().then(|| Ledger::open(predictions, |_| false)).transpose()?;
        let (ledger, spent) =
            opened.map_or((None, Money::ZERO), |opened| (Some(opened.ledger), opened.spent));
        let limiter = Limiter::new(config.limiter());
        let budget = Budget::new(config.cap()?, spent);
        let shared = Arc::new(Shared { client, planner, limiter, budget, ledger });
        Ok(Asker { shared, driver: Driver::start()? })
    }
}

/// A service that is asked.
pub(in crate::run) struct Asker {
    shared: Arc<Shared>,
    driver: Driver,
}

/// An instance's record, and what its request is charged.
pub(in crate::run) struct Asked {
    /// The record, of a failure where the service gave no answer.
    pub(in crate::run) prediction: Prediction,
    bill: Option<Bill>,
}

impl Asker {
    /// Asks for a prompt's answer.
    ///
    /// # Errors
    /// The failure that every further request would share, such as a refused key or a cap that is reached; `Cancelled`.
    pub(in crate::run) fn ask(&self, instance_id: &str, text: String, cancel: &CancelToken) -> Result<Asked> {
        let prompt = Prompt { instance_id: instance_id.to_owned(), text };
        let Outcome { instance_id, end } =
            self.driver.wait(cancel, request(Arc::clone(&self.shared), prompt))?;
        let planner = &self.shared.planner;
        Ok(match end {
            End::Answered { response, text, bill } => {
                let answers = Answers {
                    instance_id,
                    text,
                    latency_ms: Some(latency_ms(&response.attempts)),
                    choices: response.choices,
                    usage: bill.usage,
                    cost: bill.cost,
                };
                Asked { prediction: planner.record(answers), bill: Some(bill) }
            }
            End::Failed { failure, bill } if failure.kind.is_final() => {
                self.settle_bill(&instance_id, bill)?;
                return Err(failure.error);
            }
            End::Failed { failure, bill } => {
                let billed = Some((&bill.usage, bill.cost));
                let prediction = planner.failure_record(instance_id, failure.error.to_line(), billed);
                Asked { prediction, bill: Some(bill) }
            }
            End::Refused(error) => {
                Asked { prediction: planner.failure_record(instance_id, error.to_line(), None), bill: None }
            }
            End::Unaffordable => {
                return Err(Error::invalid_argument(format!(
                    "{instance_id} was not sent: what it may cost does not fit below `max_cost` any more"
                )));
            }
            End::Unrecorded(error) => return Err(error),
        })
    }

    /// Books what a request has cost, once its record is on the disk.
    ///
    /// # Errors
    /// `Io` when the ledger cannot be written.
    pub(in crate::run) fn settle(&self, asked: Asked) -> Result<()> {
        match asked.bill {
            Some(bill) => self.settle_bill(&asked.prediction.instance_id, bill),
            None => Ok(()),
        }
    }

    /// Dollars of this file, earlier runs included; `None` where the price is not known.
    pub(in crate::run) fn spent(&self) -> Option<Money> {
        self.shared.ledger.as_ref().map(|_| self.shared.budget.spent())
    }

    fn settle_bill(&self, instance_id: &str, bill: Bill) -> Result<()> {
        if let (Some(reservation), Some(cost), Some(ledger)) =
            (bill.reservation, bill.cost, &self.shared.ledger)
        {
            ledger.settle(instance_id, cost)?;
            reservation.settle(cost);
        }
        Ok(())
    }
}
