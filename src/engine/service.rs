//! The engine without its tokenizer: starts and joins the thread, checks requests and hands them over.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::mailbox::{EventReceiver, mailbox};
use super::output::{Output, OutputLimits};
use super::request::Request;
use super::scheduler::{Scheduler, SchedulerLimits};
use super::stats::EngineStats;
use super::text::DetokenizerFactory;
use super::worker::{Shared, Submission, Worker};
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::model::Decoder;

/// A running engine's thread, seen from outside.
pub(super) struct Service {
    detokenizers: DetokenizerFactory,
    vocab_size: usize,
    limits: OutputLimits,
    shared: Arc<Shared>,
    /// `None` only while it is dropped: hanging up is what ends the thread.
    submissions: Option<Sender<Submission>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the thread.
    pub(super) fn start(
        decoder: Box<dyn Decoder>,
        detokenizers: DetokenizerFactory,
        options: &EngineOptions,
    ) -> Result<Self> {
        let scheduler_limits = SchedulerLimits {
            max_step_tokens: decoder.max_step_tokens(),
            max_sequences: options.max_sequences,
            context_len: decoder.max_context(),
            order: options.order,
        };
        let scheduler = Scheduler::new(&scheduler_limits, decoder.kv_layout())?;
        let vocab_size = decoder.config().vocab_size;
        let limits =
            OutputLimits { max_tokens: scheduler.max_tokens(), prompt_lookup: options.prompt_lookup };
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(decoder, scheduler, options.prefix_cache, Arc::clone(&shared));
        let (sender, receiver) = channel();
        let thread = thread::Builder::new()
            .name("swebench-engine".to_owned())
            .spawn(move || worker.run(receiver))
            .map_err(|source| Error::internal("cannot start the engine's thread").with_source(source))?;
        Ok(Self { detokenizers, vocab_size, limits, shared, submissions: Some(sender), thread: Some(thread) })
    }

    /// Queues a request.
    pub(super) fn submit(&self, request: Request) -> Result<EventReceiver> {
        self.shared.check_running()?;
        request.validate(self.vocab_size, self.limits.max_tokens)?;
        let (sender, receiver) = mailbox();
        let output = Output::new(&request, self.limits, (self.detokenizers)(), sender, Instant::now());
        let submission = Submission { prompt: request.prompt, output };
        // A submission that the thread does not take any more is dropped, and its receiver learns that it was.
        let sent = self.submissions.as_ref().is_some_and(|submissions| submissions.send(submission).is_ok());
        if !sent {
            self.shared.check_running()?;
        }
        Ok(receiver)
    }

    /// The counters as of the last step.
    pub(super) fn stats(&self) -> EngineStats {
        self.shared.stats()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches panics and reports them to the requests.
            let _ = thread.join();
        }
    }
}
