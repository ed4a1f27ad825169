//! When the next request may be sent: concurrency, the user's requests and tokens a minute, and what the server says.

mod bucket;
mod window;

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout_at};

use super::Pace;
use bucket::Bucket;
use window::Window;

pub use window::Concurrency;

/// The longest wait on a server's word: then one request asks whether it still holds.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The share of a server's quota below which concurrency does not grow.
const LITTLE_LEFT: f64 = 0.1;
/// The clock's granularity, so that a wait is over when its timer says so.
const TICK: Duration = Duration::from_millis(1);

/// What the user allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterConfig {
    /// Requests in flight.
    pub concurrency: Concurrency,
    /// Requests that start in a minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens of prompts and answers in a minute, as passed to [`Limiter::acquire`].
    pub tokens_per_minute: Option<NonZeroU64>,
}

/// Admits requests in the order in which they ask; clones share one set of limits. For use within a tokio runtime.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Held by the request that is next, so that the others neither overtake it nor wake for nothing.
    turn: Mutex<()>,
    /// Told when what the next request waits for may have changed.
    changed: Notify,
    state: StdMutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    in_flight: usize,
    sent: Sent,
    /// How many requests were sent when the window was last full.
    full_at: u64,
    requests: Limit,
    tokens: Limit,
    paused_until: Option<Instant>,
}

/// What was admitted since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    requests: u64,
    tokens: u64,
}

/// One quantity's limits: the user's and the one that the server states.
#[derive(Debug)]
struct Limit {
    user: Option<Bucket>,
    server: Option<Bucket>,
}

impl Limit {
    fn new(per_minute: Option<f64>, now: Instant) -> Self {
        Self { user: per_minute.map(|amount| Bucket::per_minute(amount, now)), server: None }
    }

    fn take(&mut self, amount: u64) {
        self.user.iter_mut().chain(&mut self.server).for_each(|bucket| bucket.take(amount));
    }
}

/// What the next request waits for.
enum Wait {
    Slot,
    Until(Instant),
}

impl State {
    /// Admits a request of `tokens` that has been next since `since`, or says what it waits for.
    fn admit(&mut self, tokens: u64, since: Instant, now: Instant) -> Result<(), Wait> {
        if self.in_flight >= self.window.size() {
            return Err(Wait::Slot);
        }
        let user = [(&mut self.requests.user, 1), (&mut self.tokens.user, tokens)];
        let server = [(&mut self.requests.server, 1), (&mut self.tokens.server, tokens)];
        let longest = |buckets: [(&mut Option<Bucket>, u64); 2]| {
            let waits =
                buckets.into_iter().filter_map(|(bucket, amount)| Some(bucket.as_mut()?.wait(amount, now)));
            waits.max().unwrap_or_default()
        };
        let pause = self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let trusted = (since + LONGEST_WAIT).saturating_duration_since(now);
        let wait = longest(user).max(longest(server).max(pause).min(trusted));
        if !wait.is_zero() {
            return Err(Wait::Until(now + wait.min(LONGEST_WAIT) + TICK));
        }
        self.in_flight += 1;
        self.sent.requests += 1;
        self.sent.tokens = self.sent.tokens.saturating_add(tokens);
        if self.in_flight == self.window.size() {
            self.full_at = self.sent.requests;
        }
        self.requests.take(1);
        self.tokens.take(tokens);
        Ok(())
    }
}

impl Limiter {
    /// A limiter of which nothing has been used yet.
    pub fn new(config: LimiterConfig) -> Self {
        let now = Instant::now();
        let state = State {
            window: Window::new(config.concurrency),
            in_flight: 0,
            sent: Sent::default(),
            full_at: 0,
            requests: Limit::new(config.requests_per_minute.map(|number| f64::from(number.get())), now),
            tokens: Limit::new(config.tokens_per_minute.map(|number| number.get() as f64), now),
            paused_until: None,
        };
        Self(Arc::new(Shared { turn: Mutex::new(()), changed: Notify::new(), state: StdMutex::new(state) }))
    }

    /// Waits until a request of `tokens`, prompt and room for the answer together, may be sent.
    ///
    /// Cancel safe: a future that is dropped has used nothing and loses its place in the queue.
    pub async fn acquire(&self, tokens: u64) -> Permit {
        let _turn = self.0.turn.lock().await;
        let since = Instant::now();
        loop {
            let wait = {
                let mut state = self.0.lock();
                match state.admit(tokens, since, Instant::now()) {
                    Ok(()) => {
                        let (sent, epoch) = (state.sent, state.window.epoch());
                        return Permit { shared: Arc::clone(&self.0), sent, epoch };
                    }
                    Err(wait) => wait,
                }
            };
            match wait {
                Wait::Slot => self.0.changed.notified().await,
                // Either way the next turn of the loop looks at the state afresh.
                Wait::Until(instant) => drop(timeout_at(instant, self.0.changed.notified()).await),
            }
        }
    }

    /// How many requests may be in flight now.
    pub fn concurrency(&self) -> usize {
        self.0.lock().window.size()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.0.lock().in_flight
    }
}

impl Shared {
    /// The state is consistent after every method, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight; its slot is free again when it is dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    /// What was admitted up to this request, itself included.
    sent: Sent,
    epoch: u64,
}

impl Permit {
    /// Passes on what the headers of an answer to this request say, whatever its status.
    pub fn observe(&self, pace: &Pace) {
        let tokens = pace.tightest_tokens();
        let now = Instant::now();
        let mut state = self.shared.lock();
        let since = Sent {
            requests: state.sent.requests - self.sent.requests,
            tokens: state.sent.tokens - self.sent.tokens,
        };
        if let Some(bucket) = Bucket::observed(&pace.requests, since.requests, now) {
            state.requests.server = Some(bucket);
        }
        if let Some(bucket) = Bucket::observed(&tokens, since.tokens, now) {
            state.tokens.server = Some(bucket);
        }
        let left = [pace.requests.left(), tokens.left()].into_iter().flatten();
        if let Some(least) = left.reduce(f64::min) {
            state.window.hold(least < LITTLE_LEFT);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// The server refused this request as one too many, and named a time to `wait` or not.
    pub fn throttled(&self, wait: Option<Duration>) {
        let mut state = self.shared.lock();
        let in_flight = state.in_flight;
        state.window.shrink(self.epoch, in_flight);
        if let Some(wait) = wait {
            let until = Instant::now() + wait.min(LONGEST_WAIT);
            state.paused_until = state.paused_until.max(Some(until));
        }
    }

    /// The request succeeded.
    pub fn succeeded(self) {
        let mut state = self.shared.lock();
        // A window that was never full while this request was in flight says nothing of what a larger one would do.
        if state.full_at >= self.sent.requests {
            state.window.grow();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().in_flight -= 1;
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
