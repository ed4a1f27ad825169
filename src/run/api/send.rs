//! Requests on a runtime of their own: each waits for its turn and its share of the budget, and reports how it went.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::ledger::Ledger;
use super::plan::{Plan, Planner};
use super::prompts::Prompt;
use super::select::join_messages;
use crate::client::{
    Budget, Client, Count, Failure, FailureKind, Fit, Limiter, Pace, PaceObserver, Permit, Request,
    Reservation, Response, Usage,
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
    pub(super) end: End,
}

/// The end of a request.
pub(super) enum End {
    Answered {
        response: Response,
        /// The prompt as it was sent.
        text: String,
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

/// Works in the background; dropping it drops what is in flight at once.
pub(super) struct Pool<T> {
    runtime: Option<Runtime>,
    sender: Sender<T>,
    receiver: Receiver<T>,
    running: usize,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the runtime.
    ///
    /// # Errors
    /// `Io` when the system gives no threads.
    pub(super) fn start() -> Result<Self> {
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
        Ok(Self { runtime: Some(runtime), sender, receiver, running: 0 })
    }

    /// Starts a piece of work.
    pub(super) fn submit(&mut self, work: impl Future<Output = T> + Send + 'static) {
        let Some(runtime) = &self.runtime else { return };
        let sender = self.sender.clone();
        self.running += 1;
        runtime.spawn(async move {
            // A run that has ended wants no outcomes any more.
            let _ = sender.send(work.await);
        });
    }

    /// Pieces of work whose outcome was not taken yet.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// The next outcome, if there is one within `timeout`.
    pub(super) fn next(&mut self, timeout: Duration) -> Option<T> {
        match self.receiver.recv_timeout(timeout) {
            Ok(outcome) => {
                self.running -= 1;
                Some(outcome)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Asks for a prompt's answer.
pub(super) async fn request(shared: Arc<Shared>, prompt: Prompt) -> Outcome {
    let Prompt { instance_id, text } = prompt;
    let end = match shared.planner.request(text) {
        Ok(request) => send(&shared, &instance_id, request).await,
        Err(error) => End::Refused(error),
    };
    Outcome { instance_id, end }
}

/// What a request takes, after the service was asked where an estimate alone says that it is too long.
///
/// # Errors
/// `InvalidArgument` for one that does not fit into the model's context.
pub(super) async fn plan(client: &Client, planner: &Planner, request: &Request) -> Result<Plan> {
    let mut plan = planner.plan(&planner.count(request));
    if matches!(plan.fit, Fit::Doubtful(_)) && client.has_key() {
        // Where this fails, the request itself will say why.
        if let Ok(Some(tokens)) = client.count_tokens(request).await {
            plan = planner.plan(&Count::from_provider(tokens));
        }
    }
    match plan.fit {
        Fit::Overflows(overflow) => Err(Error::invalid_argument(overflow.to_string())),
        Fit::Fits | Fit::Doubtful(_) => Ok(plan),
    }
}

async fn send(shared: &Shared, instance_id: &str, request: Request) -> End {
    let plan = &match plan(&shared.client, &shared.planner, &request).await {
        Ok(plan) => plan,
        Err(error) => return End::Refused(error),
    };
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
        let answer = PERMIT.scope(Arc::clone(&permit), shared.client.complete(&request, None)).await;
        let (usage, unmetered, attempts) = match &answer {
            Ok(response) => (response.usage, response.unmetered, &response.attempts),
            Err(failure) => (failure.usage, failure.unmetered, &failure.attempts),
        };
        bill.usage += usage;
        let cost = shared.planner.cost(attempts, unmetered, plan.worst_case);
        bill.cost = bill.cost.zip(cost).map(|(before, cost)| before + cost);
        match answer {
            Ok(response) => {
                // The observer's reference ended with its scope.
                if let Some(permit) = Arc::into_inner(permit) {
                    permit.succeeded();
                }
                let text = join_messages(&request.system, &request.user);
                return End::Answered { response, text, bill };
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
