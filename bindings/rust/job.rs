//! Jobs as iterators of events.

use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::sys::{self, swebench_event, swebench_job};
use super::{Error, Result, borrow, borrow_ids, call};

/// A running job; iterate over its events. Dropping it cancels the work and waits for its threads.
pub struct Job(Arc<Owned>);

/// Cancels a job from any thread; does nothing once the job is dropped.
#[derive(Clone)]
pub struct JobHandle(Weak<Owned>);

struct Owned(NonNull<swebench_job>);

// SAFETY: a job may be used and freed on any thread; `Job` is the only user of what needs exclusive use.
unsafe impl Send for Owned {}
// SAFETY: what a shared reference can reach is `swebench_job_cancel`, which any thread may call.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: from the library, freed once, and nobody holds it any more.
        unsafe { sys::swebench_job_free(self.0.as_ptr()) }
    }
}

impl JobHandle {
    /// Asks the job to stop; returns at once.
    pub fn cancel(&self) {
        if let Some(job) = self.0.upgrade() {
            // SAFETY: alive as long as `job`.
            unsafe { sys::swebench_job_cancel(job.0.as_ptr()) }
        }
    }
}

impl Job {
    pub(super) fn new(job: *mut swebench_job) -> Result<Self> {
        let job = NonNull::new(job)
            .ok_or_else(|| Error::take(sys::SWEBENCH_ERROR_INTERNAL, std::ptr::null_mut()))?;
        Ok(Self(Arc::new(Owned(job))))
    }

    /// Starts a run of a local model over a dataset, from a configuration of kind `run-llama`.
    pub fn run_llama(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_llama_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts a run of a service's model over a dataset, from a configuration of kind `run-api`.
    pub fn run_api(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_api_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts a run over issues as they are on GitHub now, from a configuration of kind `run-live`.
    pub fn live(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_live_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts making a dataset of prompts, from a configuration of kind `create-text-dataset`.
    pub fn text_dataset(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_text_dataset_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts tokenizing a dataset of prompts, from a configuration of kind `tokenize-dataset`.
    pub fn tokenize_dataset(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_tokenize_dataset_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts a search for the files that issues are about, from a configuration of kind `bm25-retrieval`.
    pub fn bm25_retrieval(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_bm25_retrieval_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts an evaluation of a dataset's retrieval, from a configuration of kind `eval-retrieval`.
    pub fn eval_retrieval(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_run_eval_retrieval_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts to validate, merge, convert or show predictions, from a configuration of kind `predictions`.
    pub fn predictions(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_predictions_start(super::lend(config_json), out, error)
        })?)
    }

    /// Starts a benchmark, from a configuration of kind `bench`.
    pub fn bench(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        Self::new(super::call_for_object(|out, error| unsafe {
            sys::swebench_bench_start(super::lend(config_json), out, error)
        })?)
    }

    /// What cancels this job from other threads.
    pub fn handle(&self) -> JobHandle {
        JobHandle(Arc::downgrade(&self.0))
    }

    /// The next event, or `None` at the end; `Pending` when `timeout` passed first.
    pub fn poll(&mut self, timeout: Duration) -> Result<Poll<Option<Event>>> {
        self.fetch(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))
    }

    fn fetch(&mut self, timeout_ms: i64) -> Result<Poll<Option<Event>>> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the job is alive, used by this thread alone (`&mut`), and the output lives during the call.
        let status = call(|error| unsafe {
            sys::swebench_job_next(self.0.0.as_ptr(), timeout_ms, &raw mut event, error)
        })?;
        Ok(match status {
            sys::SWEBENCH_WOULD_BLOCK => Poll::Pending,
            _ => Poll::Ready(NonNull::new(event).map(Event)),
        })
    }
}

impl Iterator for Job {
    type Item = Result<Event>;

    /// Waits for the next event; a failure of the job comes once, before the end.
    fn next(&mut self) -> Option<Self::Item> {
        match self.fetch(-1) {
            Ok(Poll::Ready(event)) => event.map(Ok),
            Ok(Poll::Pending) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// One report of a job.
pub struct Event(NonNull<swebench_event>);

// SAFETY: events are immutable and may be freed on any thread.
unsafe impl Send for Event {}
// SAFETY: events are immutable.
unsafe impl Sync for Event {}

impl Event {
    /// `SWEBENCH_EVENT_*`.
    pub fn kind(&self) -> i32 {
        // SAFETY: alive as long as `self`.
        unsafe { sys::swebench_event_kind(self.0.as_ptr()) }
    }

    /// The sample that the event is about.
    pub fn index(&self) -> u32 {
        // SAFETY: alive as long as `self`.
        unsafe { sys::swebench_event_index(self.0.as_ptr()) }
    }

    /// The text, or nothing.
    pub fn text(&self) -> &str {
        // SAFETY: the text lives as long as `self`.
        unsafe { borrow(sys::swebench_event_text(self.0.as_ptr())) }
    }

    /// The token ids, or none.
    pub fn token_ids(&self) -> &[u32] {
        let mut len = 0;
        // SAFETY: the ids live as long as `self`.
        unsafe {
            let ids = sys::swebench_event_token_ids(self.0.as_ptr(), &raw mut len);
            borrow_ids(ids, len)
        }
    }

    /// The details as JSON, or nothing.
    pub fn json(&self) -> &str {
        // SAFETY: the text lives as long as `self`.
        unsafe { borrow(sys::swebench_event_json(self.0.as_ptr())) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: from the library, freed once.
        unsafe { sys::swebench_event_free(self.0.as_ptr()) }
    }
}
