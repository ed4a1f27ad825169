//! Continuous batching over a [`Decoder`]: requests in, events out, many sequences at once.
//!
//! The engine owns a thread that runs the model; handles talk to it. It knows token ids, text and sampling, never HTTP
//! or datasets.

mod request;

pub use request::{Completion, Event, FinishReason, Request, Sampling, StopRules, TokenLogprob, Usage};

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::model::Decoder;
use crate::tokenizer::Tokenizer;

/// Limits of the scheduler.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Most sequences decoded at once; `None` lets the KV cache decide.
    pub max_sequences: Option<usize>,
}

/// A running model; any number of threads may submit. Dropping it cancels what runs and joins the thread.
pub struct Engine {}

impl Engine {
    /// Starts the engine's thread.
    pub fn start(
        decoder: Box<dyn Decoder>,
        tokenizer: Arc<Tokenizer>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let _ = (decoder, tokenizer, options);
        todo!()
    }

    /// Queues a request.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty prompt, ids outside the vocabulary, sampling parameters out of range, or a
    /// prompt that can never fit the context or the KV cache.
    pub fn submit(&self, request: Request) -> Result<Generation> {
        let _ = request;
        todo!()
    }

    /// Submits and waits: the sugar over [`Engine::submit`].
    pub fn generate(&self, request: Request) -> Result<Completion> {
        let _ = request;
        todo!()
    }

    /// The tokenizer given at the start.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        todo!()
    }
}

/// A submitted request: a stream of events. Dropping it cancels the request.
pub struct Generation {}

impl Generation {
    /// The next event, `Ok(None)` when `timeout` passed first. After [`Event::Finished`] there are no more.
    ///
    /// Text deltas that were not fetched in time are joined into one, so the queue is bounded.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let _ = timeout;
        todo!()
    }

    /// Asks the engine to stop this request; it finishes with [`FinishReason::Cancelled`] and the text so far.
    pub fn cancel(&self) {}
}
