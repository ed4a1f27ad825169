//! The one place where failed tries are repeated.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::breaker::Breaker;
use super::config::seconds;
use super::{Attempt, Failure, FailureKind, Usage};
use crate::error::Error;

/// When a failed try is repeated: after connection errors, and answers 408, 409, 429 and 500 and above, unless the
/// server says otherwise; not when credit is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Most tries of a request; 10 by default.
    pub max_attempts: u32,
    /// Seconds before the second try, where the server names none; doubled from then on; 1 by default.
    pub first_wait: f64,
    /// Longest such wait in seconds; 60 by default. What a server asks for is honoured beyond it.
    pub longest_wait: f64,
    /// Seconds for all tries of a request and the waits between them; 3600 by default.
    pub deadline: f64,
    /// Whether a try that failed and yet may have been billed is repeated; true by default.
    pub repeat_billed: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 10, first_wait: 1.0, longest_wait: 60.0, deadline: 3600.0, repeat_billed: true }
    }
}

impl RetryPolicy {
    /// The wait after the try of this number, from 1; `chance` in [0, 1) keeps clients from coming back together.
    fn wait(&self, tries: u32, asked: Option<Duration>, chance: f64) -> Duration {
        match asked {
            // Never before the time that the server named.
            Some(asked) => asked.saturating_add(asked.min(seconds(self.longest_wait)).mul_f64(0.1 * chance)),
            None => {
                let doubled = self.first_wait * 2_f64.powf(f64::from(tries - 1));
                seconds(doubled.min(self.longest_wait) * (1.0 - 0.5 * chance))
            }
        }
    }
}

/// One try that failed.
#[derive(Debug)]
pub(super) struct Fault {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The message, without secrets.
    pub error: Error,
    /// The HTTP status, where there is one.
    pub status: Option<u16>,
    /// Whether to try again.
    pub transient: bool,
    /// How long the server wants to be left alone before.
    pub wait: Option<Duration>,
    /// Tokens that were billed all the same.
    pub usage: Usage,
    /// Whether more may have been billed than that.
    pub unmetered: bool,
}

/// One try that succeeded.
#[derive(Debug)]
pub(super) struct Success<T> {
    /// What came back.
    pub answer: T,
    /// The HTTP status.
    pub status: u16,
    /// What was billed.
    pub usage: Usage,
    /// Whether more may have been billed than that.
    pub unmetered: bool,
}

/// A call that can be made again.
pub(super) trait Exchange {
    /// What comes back.
    type Answer;

    /// Makes the call once.
    fn attempt(&mut self) -> impl Future<Output = Result<Success<Self::Answer>, Fault>> + Send;
}

/// All tries for one request.
#[derive(Debug)]
pub(super) struct Tries {
    /// What became of each.
    pub attempts: Vec<Attempt>,
    /// Tokens of all.
    pub usage: Usage,
    /// How many may have been billed more than `usage` says.
    pub unmetered: u32,
    deadline: Instant,
}

impl Tries {
    /// None yet; the policy's deadline counts from now.
    pub(super) fn new(policy: &RetryPolicy) -> Self {
        Self {
            attempts: Vec::new(),
            usage: Usage::default(),
            unmetered: 0,
            deadline: Instant::now() + seconds(policy.deadline),
        }
    }

    /// The request's failure.
    pub(super) fn into_failure(self, Stopped(kind, error): Stopped) -> Failure {
        Failure { kind, error, attempts: self.attempts, usage: self.usage, unmetered: self.unmetered }
    }

    /// Makes the call until it succeeds, fails for good, or has failed too often or too long.
    pub(super) async fn make<E: Exchange>(
        &mut self,
        policy: &RetryPolicy,
        breaker: &Breaker,
        model: &str,
        exchange: &mut E,
    ) -> Result<E::Answer, Stopped> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Ok(permit) = timeout_at(self.deadline, breaker.admit(model)).await else {
                return Err(Stopped(FailureKind::Server, breaker.still_open()));
            };
            let permit = permit?;
            let begun = Instant::now();
            let result = timeout_at(self.deadline, exchange.attempt()).await;
            let duration = begun.elapsed();
            let fault = match result {
                Ok(Ok(success)) => {
                    permit.succeeded();
                    self.attempts.push(Attempt {
                        status: Some(success.status),
                        error: None,
                        duration,
                        wait: Duration::ZERO,
                        usage: success.usage,
                    });
                    self.add(success.usage, success.unmetered);
                    return Ok(success.answer);
                }
                Ok(Err(fault)) => fault,
                Err(_) => overtime(policy),
            };
            let fault = permit.judge(fault, tries);
            permit.failed(&fault);
            self.add(fault.usage, fault.unmetered);
            let wait = policy.wait(tries, fault.wait, chance());
            let billed = fault.unmetered || fault.usage != Usage::default();
            let again = fault.transient && tries < policy.max_attempts && (policy.repeat_billed || !billed);
            let in_time = Instant::now().checked_add(wait).is_some_and(|then| then < self.deadline);
            self.attempts.push(Attempt {
                status: fault.status,
                error: Some(fault.error.to_line()),
                duration,
                wait: if again && in_time { wait } else { Duration::ZERO },
                usage: fault.usage,
            });
            if !again || !in_time {
                let error = match fault.wait {
                    Some(asked) if again => fault.error.context(format!(
                        "the server asks to wait for {} s, which the deadline does not allow",
                        asked.as_secs()
                    )),
                    _ if tries > 1 => fault.error.context(format!("no answer after {tries} tries")),
                    _ => fault.error,
                };
                return Err(Stopped(fault.kind, error));
            }
            log::info!("{}; trying again in {:.1} s", fault.error.to_line(), wait.as_secs_f64());
            sleep(wait).await;
        }
    }

    fn add(&mut self, usage: Usage, unmetered: bool) {
        self.usage += usage;
        self.unmetered += u32::from(unmetered);
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Stopped(pub FailureKind, pub Error);

fn overtime(policy: &RetryPolicy) -> Fault {
    let error = Error::new(
        FailureKind::Network.error_kind(),
        format!("no answer within the deadline of {} s", policy.deadline),
    );
    Fault {
        kind: FailureKind::Network,
        error,
        status: None,
        transient: false,
        wait: None,
        usage: Usage::default(),
        unmetered: true,
    }
}

/// A number in [0, 1) that differs between calls and processes.
fn chance() -> f64 {
    // Every `RandomState` has keys of its own, from the system's randomness.
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}
