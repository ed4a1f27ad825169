//! Requests on a runtime of their own: each waits for its turn and its share of the budget, and reports how it went.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::ledger::Ledger;
use super::plan::{Plan, Planner};
use super::select::Prompt;
use crate::client::{
    Budget, Client, Failure, FailureKind, Limiter, Pace, PaceObserver, Permit, Reservation, Response, Usage,
};
use crate::error::{Error, Result};

/// Requests wait for servers; two threads are enough to count their tokens.
const WORKER_THREADS: usize = 2;
/// Rounds of tries of a request of which one may have been billed; each is reserved before.
const MAX_ROUNDS: u32 = 3;

tokio::task_local! {
    /// The permit of the request that the task makes, for what the headers of its answers say.
    static PERMIT: Arc<Permit>;
}

/// Passes what answers say about limits on to the limiter.
pub(super) fn pace_observer() -> PaceObserver {
    Arc::new(|pace: &Pace| {
        // Without a permit there is no request of this run.
        let _ = PERMIT.try_with(|permit| {
            permit.observe(pace);
            if pace.cut_off || matches!(pace.status, 429 | 503 | 529) {
                permit.throttled(pace.wait());
            }
        });
    })
}

/// How an instance's request went.
pub(super) struct Outcome {
    pub(super) instance_id: String,
    /// The prompt as it was sent.
    pub(super) text: String,
    pub(super) end: End,
}

/// The end of a request.
pub(super) enum End {
    Answered {
        response: Response,
        bill: Bill,
    },
    Failed {
        failure: Failure,
        bill: Bill,
    },
    /// Not sent, for a reason that is the instance's own.
    Refused(Error),
    /// Not sent, because its worst case does not fit below the cap.
    Unaffordable,
    /// Not sent, because the ledger cannot be written.
    Unrecorded(Error),
}

/// What a request is charged.
pub(super) struct Bill {
    pub(super) reservation: Option<Reservation>,
    /// Usage of all rounds.
    pub(super) usage: Usage,
    /// `None` where the price is not known.
    pub(super) cost: Option<crate::client::Money>,
}

/// What all requests use.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) planner: Planner,
    pub(super) limiter: Limiter,
    pub(super) budget: Budget,
    pub(super) ledger: Option<Ledger>,
}

/// Sends requests in the background; dropping it drops those in flight at once.
pub(super) struct Pool {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    sender: Sender<Outcome>,
    receiver: Receiver<Outcome>,
    running: usize,
}

impl Pool {
    /// Starts the runtime.
    ///
    /// # Errors
    /// `Io` when the system gives no threads.
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .thread_name("swebench-api")
            .enable_all()
            .build()
            .map_err(|source| {
                Error::new(crate::error::ErrorKind::Io, "the system gave no threads for requests")
                    .with_source(source)
            })?;
        let (sender, receiver) = channel();
        Ok(Self { shared, runtime: Some(runtime), sender, receiver, running: 0 })
    }

    /// Queues a prompt's request.
    pub(super) fn submit(&mut self, prompt: Prompt) {
        let (shared, sender) = (Arc::clone(&self.shared), self.sender.clone());
        let Some(runtime) = &self.runtime else { return };
        self.running += 1;
        runtime.spawn(async move {
            let outcome = request(&shared, prompt).await;
            // A run that has ended wants no outcomes any more.
            let _ = sender.send(outcome);
        });
    }

    /// Requests that were submitted and whose outcome is not known.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// The next outcome, if there is one within `timeout`.
    pub(super) fn next(&mut self, timeout: Duration) -> Option<Outcome> {
        match self.receiver.recv_timeout(timeout) {
            Ok(outcome) => {
                self.running -= 1;
                Some(outcome)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn request(shared: &Shared, prompt: Prompt) -> Outcome {
    let Prompt { instance_id, text } = prompt;
    match shared.planner.plan(&text) {
        Ok(plan) => {
            let end = send(shared, &instance_id, &plan).await;
            Outcome { instance_id, text: plan.text, end }
        }
        Err(error) => Outcome { instance_id, text, end: End::Refused(error) },
    }
}

async fn send(shared: &Shared, instance_id: &str, plan: &Plan) -> End {
    let permit = Arc::new(shared.limiter.acquire(plan.tokens).await);
    let mut bill = Bill {
        reservation: None,
        usage: Usage::default(),
        cost: plan.worst_case.map(|_| Default::default()),
    };
    let mut round = 0;
    loop {
        round += 1;
        if let Err(end) = reserve(shared, instance_id, plan, &mut bill).await {
            return end;
        }
        let answer = PERMIT.scope(Arc::clone(&permit), shared.client.complete(&plan.request, None)).await;
        let (usage, unmetered) = match &answer {
            Ok(response) => (response.usage, response.unmetered),
            Err(failure) => (failure.usage, failure.unmetered),
        };
        bill.usage += usage;
        let cost = shared.planner.cost(&usage, unmetered, plan.worst_case);
        bill.cost = bill.cost.zip(cost).map(|(before, cost)| before + cost);
        match answer {
            Ok(response) => {
                // The observer's reference ended with its scope.
                if let Some(permit) = Arc::into_inner(permit) {
                    permit.succeeded();
                }
                return End::Answered { response, bill };
            }
            Err(failure) => {
                let may_help = matches!(failure.kind, FailureKind::Server | FailureKind::Network);
                let billed = unmetered > 0 || usage != Usage::default();
                let stopped_for_its_cost = shared.budget.cap().is_some() && may_help && billed;
                if !stopped_for_its_cost || round == MAX_ROUNDS || !fits_again(plan, &mut bill) {
                    return End::Failed { failure, bill };
                }
                log::info!("{instance_id}: {}; trying again within the budget", failure.error.to_line());
            }
        }
    }
}

/// Reserves a request's worst case in the budget and in the ledger.
async fn reserve(shared: &Shared, instance_id: &str, plan: &Plan, bill: &mut Bill) -> Result<(), End> {
    let (Some(worst_case), Some(ledger)) = (plan.worst_case, &shared.ledger) else { return Ok(()) };
    if bill.reservation.is_none() {
        let Some(reservation) = shared.budget.reserve(worst_case).await else {
            return Err(End::Unaffordable);
        };
        bill.reservation = Some(reservation);
    }
    ledger.reserve(instance_id, worst_case).map_err(|error| {
        if let Some(reservation) = bill.reservation.take() {
            reservation.release();
        }
        End::Unrecorded(error)
    })
}

/// Reserves as much again for another round.
fn fits_again(plan: &Plan, bill: &mut Bill) -> bool {
    match (plan.worst_case, &mut bill.reservation) {
        (Some(worst_case), Some(reservation)) => reservation.try_grow(worst_case).is_ok(),
        _ => false,
    }
}
