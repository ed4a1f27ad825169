//! The way from the engine's thread to the owner of one generation: events that join instead of piling up.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::request::{Completion, Event};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};

#[derive(Debug, Default)]
struct Contents {
    /// Prompt tokens done and in all.
    prefill: Option<(usize, usize)>,
    text: String,
    token_ids: Vec<u32>,
    outcome: Option<Result<Box<Completion>>>,
    /// Nothing will follow.
    closed: bool,
}

impl Contents {
    /// Takes the oldest kind of news: progress comes before text, and text before the end.
    fn take(&mut self) -> Result<Option<Event>> {
        if let Some((done, total)) = self.prefill.take() {
            return Ok(Some(Event::Prefill { done, total }));
        }
        if !self.token_ids.is_empty() || !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            return Ok(Some(Event::Delta { text, token_ids: std::mem::take(&mut self.token_ids) }));
        }
        self.outcome.take().transpose().map(|completion| completion.map(Event::Finished))
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    contents: Mutex<Contents>,
    arrived: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        // No code that holds the lock leaves the contents half changed, so a panic elsewhere does not spoil them.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's end. When it is dropped without an outcome, the receiver gets an error instead of waiting for ever.
#[derive(Debug)]
pub(super) struct EventSender {
    mailbox: Arc<Mailbox>,
    cancel: CancelToken,
}

/// The owner's end. Dropping it cancels the generation.
#[derive(Debug)]
pub(super) struct EventReceiver {
    mailbox: Arc<Mailbox>,
    cancel: CancelToken,
}

/// Both ends of a new mailbox.
pub(super) fn mailbox() -> (EventSender, EventReceiver) {
    let mailbox = Arc::new(Mailbox::default());
    let cancel = CancelToken::new();
    (EventSender { mailbox: Arc::clone(&mailbox), cancel: cancel.clone() }, EventReceiver { mailbox, cancel })
}

impl EventSender {
    /// Whether the owner asked to stop or is gone.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Reports progress of the prefill; replaces what was not fetched.
    pub(super) fn prefill(&self, done: usize, total: usize) {
        self.mailbox.lock().prefill = Some((done, total));
        self.mailbox.arrived.notify_all();
    }

    /// Reports new ids and text; joined to what was not fetched.
    pub(super) fn delta(&self, text: &str, token_ids: &[u32]) {
        let mut contents = self.mailbox.lock();
        contents.text.push_str(text);
        contents.token_ids.extend_from_slice(token_ids);
        self.mailbox.arrived.notify_all();
    }

    /// Reports the end.
    pub(super) fn finish(self, outcome: Result<Box<Completion>>) {
        self.close(outcome);
    }

    fn close(&self, outcome: Result<Box<Completion>>) {
        let mut contents = self.mailbox.lock();
        if !contents.closed {
            contents.closed = true;
            contents.outcome = Some(outcome);
            self.mailbox.arrived.notify_all();
        }
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.close(Err(Error::internal("the engine ended before the request was finished")));
    }
}

impl EventReceiver {
    /// The next event; `Ok(None)` when `timeout` passed first, or at once after the outcome.
    pub(super) fn next(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        // A timeout too long for the clock is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut contents = self.mailbox.lock();
        loop {
            let event = contents.take()?;
            if event.is_some() || contents.closed {
                return Ok(event);
            }
            let arrived = &self.mailbox.arrived;
            contents = match deadline {
                None => arrived.wait(contents).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    arrived.wait_timeout(contents, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Asks the engine to stop.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::FinishReason;

    fn completion() -> Box<Completion> {
        Box::new(Completion {
            text: "ab".into(),
            token_ids: vec![1, 2],
            finish_reason: FinishReason::Stop,
            logprobs: Vec::new(),
            usage: Default::default(),
        })
    }

    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn events_join_until_they_are_fetched() {
        let (sender, receiver) = mailbox();
        assert_eq!(receiver.next(AT_ONCE).unwrap(), None);
        sender.prefill(1, 9);
        sender.prefill(9, 9);
        sender.delta("a", &[1]);
        sender.delta("", &[2]);
        sender.delta("b", &[]);
        sender.finish(Ok(completion()));
        let events: Vec<_> = std::iter::from_fn(|| receiver.next(None).unwrap()).collect();
        assert_eq!(
            events,
            [
                Event::Prefill { done: 9, total: 9 },
                Event::Delta { text: "ab".into(), token_ids: vec![1, 2] },
                Event::Finished(completion()),
            ]
        );
        assert_eq!(receiver.next(None).unwrap(), None, "no wait after the end");
    }

    #[test]
    fn an_error_is_delivered_once_after_the_text() {
        let (sender, receiver) = mailbox();
        sender.delta("a", &[1]);
        sender.finish(Err(Error::invalid_data("broken")));
        assert!(matches!(receiver.next(None), Ok(Some(Event::Delta { .. }))));
        assert_eq!(receiver.next(None).unwrap_err().message(), "broken");
        assert_eq!(receiver.next(None).unwrap(), None);
    }

    #[test]
    fn a_lost_sender_is_an_error_and_a_lost_receiver_cancels() {
        let (sender, receiver) = mailbox();
        drop(sender);
        assert!(receiver.next(None).is_err());

        let (sender, receiver) = mailbox();
        assert!(!sender.is_cancelled());
        drop(receiver);
        assert!(sender.is_cancelled());
    }

    #[test]
    fn a_waiting_receiver_wakes_up() {
        let (sender, receiver) = mailbox();
        let waiting = std::thread::spawn(move || receiver.next(Some(Duration::MAX)));
        sender.delta("a", &[1]);
        assert!(matches!(waiting.join().unwrap(), Ok(Some(Event::Delta { .. }))));
    }
}
