//! Continuous batching over a [`Decoder`]: requests in, events out, many sequences at once.
//!
//! The engine owns a thread that runs the model; handles talk to it. It knows token ids, text and sampling, never HTTP
//! or datasets.

mod kv_cache;
mod mailbox;
mod output;
mod prefix_cache;
mod prefix_hash;
mod prompt_lookup;
mod random;
mod request;
mod row_cost;
mod sampler;
mod scheduler;
mod sequence;
mod service;
mod stats;
mod stop;
mod text;
mod waiting;
mod worker;

#[cfg(test)]
mod tests;

pub use request::{Completion, Event, FinishReason, Request, Sampling, StopRules, TokenLogprob, Usage};
pub use stats::EngineStats;
pub use waiting::Order;

use std::sync::Arc;
use std::time::Duration;

use mailbox::EventReceiver;
use service::Service;

use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::tokenizer::Tokenizer;

/// How an engine runs its requests.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Most sequences decoded at once; `None` lets the KV cache decide.
    pub max_sequences: Option<usize>,
    /// Guess tokens by copying from the prompt, the text so far and finished texts, and verify several in one step
    /// (prompt lookup decoding). Texts stay the same, sampled ones too: a guess only counts when it is the token that
    /// is drawn.
    pub prompt_lookup: bool,
    /// Keep the keys and values of prompts and texts after their end, as long as no other needs the memory, and start a
    /// prompt behind the longest beginning that is there, in whole KV blocks. Requests that run share such blocks, too.
    pub prefix_cache: bool,
    /// Which of the waiting requests starts next.
    pub order: Order,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_sequences: None, prompt_lookup: true, prefix_cache: true, order: Order::Arrival }
    }
}

/// A running model; any number of threads may submit. Dropping it cancels what runs and joins the thread.
///
/// A request's text depends on the request alone, not on what runs beside it, as far as the backend computes a token's
/// logits independently of the rest of the batch. A decoder that panics or fails ends all requests with its
/// error, and refuses later ones; other errors end only the requests of their step.
pub struct Engine {
    tokenizer: Arc<Tokenizer>,
    service: Service,
}

impl Engine {
    /// Starts the engine's thread.
    ///
    /// # Errors
    /// `InvalidArgument` for options, a KV cache or a step size that leave no room for a sequence.
    pub fn start(
        decoder: Box<dyn Decoder>,
        tokenizer: Arc<Tokenizer>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let detokenizers = text::detokenizers(Arc::clone(&tokenizer));
        Ok(Self { tokenizer, service: Service::start(decoder, detokenizers, options)? })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty prompt, ids outside the vocabulary, sampling parameters out of range, or a
    /// prompt that can never fit the context or the KV cache; the error that stopped the engine, if one did.
    pub fn submit(&self, request: Request) -> Result<Generation> {
        Ok(Generation { receiver: self.service.submit(request)? })
    }

    /// Submits and waits: the sugar over [`Engine::submit`].
    pub fn generate(&self, request: Request) -> Result<Completion> {
        self.submit(request)?.wait()
    }

    /// The tokenizer given at the start.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Counters as of the last step; a request whose end was delivered is in them.
    pub fn stats(&self) -> EngineStats {
        self.service.stats()
    }
}

/// A submitted request: a stream of events. Dropping it cancels the request.
#[derive(Debug)]
pub struct Generation {
    receiver: EventReceiver,
}

impl Generation {
    /// The next event, `Ok(None)` when `timeout` passed first; `None` waits as long as it takes.
    ///
    /// After [`Event::Finished`] or an error there are no more, and `Ok(None)` is returned at once. Text deltas that were
    /// not fetched in time are joined into one, so the queue is bounded; the deltas' texts join to the completion's.
    ///
    /// # Errors
    /// What ended the request: `InvalidData` for logits that are not finite, or the decoder's error.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        self.receiver.next(timeout)
    }

    /// Asks the engine to stop this request; it finishes with [`FinishReason::Cancelled`] and the text so far, after the
    /// step that runs.
    pub fn cancel(&self) {
        self.receiver.cancel();
    }

    /// Waits for the end and drops all other events.
    ///
    /// # Errors
    /// As [`Generation::next`].
    pub fn wait(mut self) -> Result<Completion> {
        loop {
            match self.next(None)? {
                Some(Event::Finished(completion)) => return Ok(*completion),
                Some(_) => {}
                None => return Err(Error::invalid_argument("the generation's end was fetched before")),
            }
        }
    }
}
