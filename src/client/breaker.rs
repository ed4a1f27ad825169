//! Keeps requests from failing one after another for a reason that they share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::FailureKind;
use super::config::{BreakerPolicy, seconds};
use super::retry::{Fault, Stopped};
use crate::error::Error;

/// Tries of one request without a connection after which a server that has never been there is taken for absent.
const UNREACHABLE_TRIES: u32 = 3;
/// Requests that are refused before any succeeds, after which it is not the prompts that are wrong.
const REFUSED_REQUESTS: u32 = 5;

/// The state that all requests of a client share.
///
/// A final failure, such as a wrong key, answers every request from then on. Many failures of the server in a row open
/// the breaker: requests wait, one at a time tries, and the first that succeeds lets all of them go on.
pub(super) struct Breaker {
    failures: u32,
    pause: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// What fails every request for a model.
    unknown: HashMap<String, Reason>,
    /// What fails every request.
    stopped: Option<Reason>,
    /// The way in which the last tries failed, and how many did so.
    streak: Option<(Manner, u32)>,
    /// Whether the server was ever there.
    met: bool,
    /// Whether a request ever succeeded.
    succeeded: bool,
    /// Requests that were refused before one did.
    refused: u32,
    gate: Gate,
}

/// Failures that are alike.
type Manner = (FailureKind, Option<u16>);

#[derive(Default, Clone, Copy, PartialEq)]
enum Gate {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    /// One request finds out.
    Probing,
}

/// An error that can be given to several requests.
#[derive(Clone)]
struct Reason {
    kind: FailureKind,
    line: String,
    hint: Option<String>,
}

impl Reason {
    fn stop(&self) -> Stopped {
        let error = Error::new(
            self.kind.error_kind(),
            format!("not sent, because an earlier request failed for good: {}", self.line),
        );
        Stopped(
            self.kind,
            match &self.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            },
        )
    }
}

impl Breaker {
    pub(super) fn new(policy: &BreakerPolicy) -> Self {
        Self {
            failures: policy.failures,
            pause: seconds(policy.pause),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until a try may be made.
    pub(super) async fn admit(&self, model: &str) -> Result<Permit<'_>, Stopped> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let until = {
                let mut state = self.lock();
                if let Some(reason) = state.stopped.as_ref().or_else(|| state.unknown.get(model)) {
                    return Err(reason.stop());
                }
                match state.gate {
                    Gate::Closed => return Ok(Permit { breaker: self, model: model.into(), probe: false }),
                    Gate::Open { until } if until <= Instant::now() => {
                        state.gate = Gate::Probing;
                        return Ok(Permit { breaker: self, model: model.into(), probe: true });
                    }
                    Gate::Open { until } => Some(until),
                    Gate::Probing => None,
                }
            };
            match until {
                Some(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// What to say to a request whose deadline passed while it waited.
    pub(super) fn still_open(&self) -> Error {
        let error = Error::new(
            FailureKind::Server.error_kind(),
            "not sent within the deadline, because the requests before it failed",
        );
        match self.lock().streak {
            Some(((_, Some(status)), count)) => {
                error.with_expected("an answer", format!("status {status} {count} times in a row"))
            }
            Some(((_, None), count)) => {
                error.with_expected("an answer", format!("none {count} times in a row"))
            }
            None => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every state is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one try; what becomes of it is told to the breaker.
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    model: String,
    probe: bool,
}

impl Permit<'_> {
    /// The server answered.
    pub(super) fn succeeded(mut self) {
        self.probe = false;
        self.breaker.lock().succeeded = true;
        self.answered();
    }

    /// The fault as it looks beside those before it, after this many tries of the request: as long as nothing has ever
    /// succeeded, the address or the configuration may be wrong, and not the moment or the prompt.
    ///
    /// A breaker that never waits never gives up either.
    pub(super) fn judge(&self, fault: Fault, tries: u32) -> Fault {
        let mut state = self.breaker.lock();
        if state.succeeded || self.breaker.failures == 0 {
            return fault;
        }
        let answered = fault.unmetered || fault.status.is_some();
        state.met |= answered;
        match fault.kind {
            FailureKind::Network if !state.met && tries >= UNREACHABLE_TRIES => {
                Fault { kind: FailureKind::WrongAddress, transient: false, ..fault }
            }
            FailureKind::Rejected | FailureKind::Protocol => {
                state.refused += 1;
                if state.refused < REFUSED_REQUESTS {
                    return fault;
                }
                let all = format!("none of the first {} requests was accepted", state.refused);
                let error = fault.error.context(all);
                Fault { kind: FailureKind::Misconfigured, transient: false, error, ..fault }
            }
            _ => fault,
        }
    }

    /// The try failed.
    pub(super) fn failed(mut self, fault: &Fault) {
        let probe = std::mem::take(&mut self.probe);
        if fault.kind.is_final() {
            let reason = Reason {
                kind: fault.kind,
                line: fault.error.to_line(),
                hint: fault.error.hint().map(str::to_owned),
            };
            let mut state = self.breaker.lock();
            match fault.kind {
                FailureKind::UnknownModel => {
                    state.unknown.insert(self.model.clone(), reason);
                }
                _ => state.stopped = Some(reason),
            }
        }
        if !matches!(fault.kind, FailureKind::Server | FailureKind::Network) {
            return self.answered();
        }
        let manner = (fault.kind, fault.status);
        let mut state = self.breaker.lock();
        let count = match state.streak {
            Some((last, count)) if last == manner => count.saturating_add(1),
            _ => 1,
        };
        state.streak = Some((manner, count));
        if probe || (count >= self.breaker.failures && self.breaker.failures > 0) {
            if state.gate == Gate::Closed {
                log::warn!(
                    "{count} tries in a row failed ({}); all requests wait for {:.0} s",
                    fault.error,
                    self.breaker.pause.as_secs_f64()
                );
            }
            state.gate = Gate::Open { until: Instant::now() + self.breaker.pause };
            drop(state);
            self.breaker.changed.notify_waiters();
        }
    }

    fn answered(&self) {
        let mut state = self.breaker.lock();
        state.streak = None;
        state.gate = Gate::Closed;
        drop(state);
        self.breaker.changed.notify_waiters();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // A probe that was cancelled has found nothing out: the next request tries.
        if self.probe {
            self.breaker.lock().gate = Gate::Open { until: Instant::now() };
            self.breaker.changed.notify_waiters();
        }
    }
}
