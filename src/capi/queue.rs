//! The queue between a job's threads and its caller: text and progress that nobody fetches are merged, so it stays short.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Event, SWEBENCH_EVENT_PROGRESS, SWEBENCH_EVENT_TEXT};
use crate::error::{Error, Result};

/// Text events that may wait; further text is appended to the last one of its sample.
const MAX_WAITING_TEXTS: usize = 256;

/// What a caller gets from the queue.
#[derive(Debug)]
pub(super) enum Popped {
    /// The next event.
    Event(Event),
    /// The timeout passed first.
    Pending,
    /// Everything was fetched; also after an error was returned.
    End,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    waiting_texts: usize,
    closed: bool,
    failure: Option<Error>,
}

/// Unbounded only in what is final: one event per sample or instance, none of which is lost.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// Adds an event, or merges it into one that waits.
    pub(super) fn push(&self, event: Event) {
        let mut state = self.lock();
        state.push(event);
        drop(state);
        self.changed.notify_all();
    }

    /// Marks the end; a failure is returned once, after the events that came before it.
    pub(super) fn close(&self, outcome: Result<()>) {
        let mut state = self.lock();
        state.closed = true;
        state.failure = outcome.err();
        drop(state);
        self.changed.notify_all();
    }

    /// The next event; `None` waits as long as it takes.
    pub(super) fn pop(&self, timeout: Option<Duration>) -> Result<Popped> {
        // A timeout too long for the clock is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                state.waiting_texts -= usize::from(event.kind == SWEBENCH_EVENT_TEXT);
                return Ok(Popped::Event(event));
            }
            if state.closed {
                return state.failure.take().map_or(Ok(Popped::End), Err);
            }
            state = match self.wait(state, deadline) {
                Some(state) => state,
                None => return Ok(Popped::Pending),
            };
        }
    }

    /// Waits for the end; `false` when the deadline passed first.
    pub(super) fn wait_closed(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while !state.closed {
            state = match self.wait(state, Some(deadline)) {
                Some(state) => state,
                None => return false,
            };
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change; `None` when the deadline passed.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        let Some(deadline) = deadline else {
            return Some(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl State {
    fn push(&mut self, event: Event) {
        match event.kind {
            SWEBENCH_EVENT_TEXT if self.waiting_texts >= MAX_WAITING_TEXTS => {
                let same = |waiting: &&mut Event| {
                    waiting.kind == SWEBENCH_EVENT_TEXT && waiting.index == event.index
                };
                if let Some(last) = self.events.iter_mut().rev().find(same) {
                    last.text.push_str(&event.text);
                    last.token_ids.extend(event.token_ids);
                    return;
                }
                self.waiting_texts += 1;
            }
            SWEBENCH_EVENT_TEXT => self.waiting_texts += 1,
            SWEBENCH_EVENT_PROGRESS => {
                let same = |waiting: &Event| waiting.kind == event.kind && waiting.index == event.index;
                self.events.retain(|waiting| !same(waiting));
            }
            _ => {}
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::event::{SWEBENCH_EVENT_FINISHED, SWEBENCH_EVENT_SAMPLE};
    use super::*;

    fn drain(queue: &Queue) -> Vec<Event> {
        let mut events = Vec::new();
        while let Popped::Event(event) = queue.pop(Some(Duration::ZERO)).unwrap() {
            events.push(event);
        }
        events
    }

    #[test]
    fn text_that_nobody_fetches_is_merged_and_not_lost() {
        let queue = Queue::default();
        for id in 0..10_000 {
            queue.push(Event::text(id % 3, format!("{id} "), vec![id]));
        }
        queue.push(Event::json(SWEBENCH_EVENT_SAMPLE, &json!({})));
        queue.close(Ok(()));
        let events = drain(&queue);
        assert!(events.len() <= MAX_WAITING_TEXTS + 4, "{}", events.len());
        for sample in 0..3 {
            let ids: Vec<u32> = events
                .iter()
                .filter(|event| event.index == sample)
                .flat_map(|event| event.token_ids.clone())
                .collect();
            assert_eq!(ids, (0..10_000).filter(|id| id % 3 == sample).collect::<Vec<_>>());
        }
        assert!(matches!(queue.pop(None).unwrap(), Popped::End));
    }

    #[test]
    fn only_the_newest_progress_waits() {
        let queue = Queue::default();
        for done in 0..5 {
            queue.push(Event::json(SWEBENCH_EVENT_PROGRESS, &json!({"done": done})));
        }
        queue.push(Event::json(SWEBENCH_EVENT_FINISHED, &json!({})));
        let events = drain(&queue);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].json, "{\"done\":4}");
    }

    #[test]
    fn a_failure_comes_once_after_the_events() {
        let queue = Queue::default();
        assert!(matches!(queue.pop(Some(Duration::ZERO)).unwrap(), Popped::Pending));
        queue.push(Event::text(0, "a".into(), vec![]));
        queue.close(Err(Error::internal("failed")));
        assert!(matches!(queue.pop(None).unwrap(), Popped::Event(_)));
        assert_eq!(queue.pop(None).unwrap_err().message(), "failed");
        assert!(matches!(queue.pop(None).unwrap(), Popped::End));
    }

    #[test]
    fn waiting_ends_with_an_event_from_another_thread() {
        let queue = Queue::default();
        std::thread::scope(|scope| {
            scope.spawn(|| queue.push(Event::text(0, "late".into(), vec![])));
            assert!(matches!(queue.pop(None).unwrap(), Popped::Event(_)));
        });
        assert!(!queue.wait_closed(Instant::now()));
        queue.close(Ok(()));
        assert!(queue.wait_closed(Instant::now()));
    }
}
