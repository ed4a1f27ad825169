//! Prompts through the engine, many at once, each to its line in the predictions file as soon as it ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::RunEvent;
use super::prompts::Prompt;
use crate::cancel::CancelToken;
use crate::engine::{Completion, Engine, Event, FinishReason, Generation, Request, Sampling, StopRules};
use crate::error::{Error, ErrorKind, Result};
use crate::patch::{Mode, model_patch};
use crate::run::predictions::{Prediction, PredictionsFile, TokenUsage};

/// How long to wait for an event of the oldest request before looking at the others and at the cancel token.
const POLL: Duration = Duration::from_millis(20);

/// Something that takes requests: the engine, or a script in tests.
pub(super) trait Generate {
    /// What a request becomes; dropping it cancels the request.
    type Stream: EventStream;

    /// As [`Engine::submit`].
    fn submit(&self, request: Request) -> Result<Self::Stream>;
}

/// The events of one request.
pub(super) trait EventStream {
    /// As [`Generation::next`].
    fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>>;
}

impl Generate for Engine {
    type Stream = Generation;

    fn submit(&self, request: Request) -> Result<Generation> {
        Engine::submit(self, request)
    }
}

impl EventStream for Generation {
    fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        Generation::next(self, timeout)
    }
}

/// What all requests of a run share.
#[derive(Debug, Clone)]
pub(super) struct GenerateOptions {
    /// The records' `model_name_or_path`.
    pub(super) recorded_model: String,
    pub(super) patch_mode: Mode,
    pub(super) sampling: Sampling,
    pub(super) stop: StopRules,
    /// Most requests submitted and not finished: what bounds the memory for them.
    pub(super) max_submitted: usize,
    /// Least time between two progress events.
    pub(super) progress_interval: Duration,
}

/// Counts of what was generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) finished: usize,
    pub(super) failed: usize,
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) interrupted: bool,
}

/// Generates for every prompt, in order of submission, and writes each prediction or failure record when it is known.
///
/// An instance that fails gets its record and the others go on. After `cancel` what has finished is written and the rest
/// dropped without a trace.
///
/// # Errors
/// When the file cannot be written, and when an error is not the instance's but the engine's: `Device`, `OutOfMemory`,
/// `Internal`. What had finished by then is in the file.
pub(super) fn generate_all<G: Generate>(
    generator: &G,
    prompts: Vec<Prompt>,
    options: &GenerateOptions,
    file: &mut PredictionsFile,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<Tally> {
    let mut prompts = prompts.into_iter();
    let mut work = Work {
        options,
        file,
        on_event,
        running: VecDeque::new(),
        tally: Tally::default(),
        last_progress: Instant::now(),
    };
    loop {
        while !cancel.is_cancelled() && work.running.len() < options.max_submitted {
            let Some(prompt) = prompts.next() else { break };
            work.submit(generator, prompt)?;
        }
        let is_cancelled = cancel.is_cancelled();
        work.poll(if is_cancelled { Duration::ZERO } else { POLL })?;
        let is_done = work.running.is_empty() && prompts.len() == 0;
        if is_done || is_cancelled {
            work.tally.interrupted = !is_done;
            return Ok(work.tally);
        }
        work.report_progress();
    }
}

struct Work<'a, S> {
    options: &'a GenerateOptions,
    file: &'a mut PredictionsFile,
    on_event: &'a mut dyn FnMut(RunEvent),
    /// Oldest first: the one that is most likely to have news.
    running: VecDeque<Running<S>>,
    tally: Tally,
    last_progress: Instant,
}

impl<S: EventStream> Work<'_, S> {
    fn submit<G: Generate<Stream = S>>(&mut self, generator: &G, prompt: Prompt) -> Result<()> {
        let Prompt { instance_id, token_ids } = prompt;
        let stream = token_ids.and_then(|prompt| {
            generator.submit(Request {
                prompt,
                sampling: self.options.sampling.clone(),
                stop: self.options.stop.clone(),
                logprobs: None,
            })
        });
        match stream {
            Ok(stream) => {
                self.running.push_back(Running {
                    instance_id,
                    stream,
                    prompt_tokens: 0,
                    completion_tokens: 0,
                });
                Ok(())
            }
            Err(error) => self.fail(instance_id, error),
        }
    }

    /// Takes all events that are there, waiting at most `timeout` for the oldest request's first.
    fn poll(&mut self, mut timeout: Duration) -> Result<()> {
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            let ended = running.advance(timeout);
            timeout = Duration::ZERO;
            if matches!(ended, Ok(None)) {
                index += 1;
                continue;
            }
            let Some(Running { instance_id, .. }) = self.running.remove(index) else { break };
            match ended {
                Ok(Some(completion)) => self.finish(instance_id, completion)?,
                Ok(None) => {}
                Err(error) => self.fail(instance_id, error)?,
            }
        }
        Ok(())
    }

    fn finish(&mut self, instance_id: String, completion: Completion) -> Result<()> {
        let Completion { text, finish_reason, usage, .. } = completion;
        if finish_reason == FinishReason::Cancelled {
            // Only dropping a stream cancels a request, and this one was not dropped.
            return self.fail(instance_id, Error::internal("the engine cancelled a request by itself"));
        }
        self.file.append(&Prediction {
            instance_id: instance_id.clone(),
            model_name_or_path: self.options.recorded_model.clone(),
            model_patch: model_patch(&text, self.options.patch_mode),
            full_output: Some(text),
            finish_reason: Some(finish_reason.name().to_owned()),
            usage: Some(TokenUsage {
                prompt_tokens: usage.prompt_tokens,
                cached_tokens: usage.cached_tokens,
                completion_tokens: usage.completion_tokens,
                ..TokenUsage::default()
            }),
            latency_ms: Some(usage.prefill_ms + usage.decode_ms),
            ..Prediction::default()
        })?;
        self.tally.finished += 1;
        self.tally.prompt_tokens += usage.prompt_tokens;
        self.tally.completion_tokens += usage.completion_tokens;
        (self.on_event)(RunEvent::InstanceFinished {
            instance_id,
            finish_reason: Some(finish_reason.name()),
            completion_tokens: usage.completion_tokens,
            error: None,
        });
        Ok(())
    }

    fn fail(&mut self, instance_id: String, error: Error) -> Result<()> {
        if ends_the_run(error.kind()) {
            return Err(error.context(format!("the run ended at instance {instance_id}")));
        }
        let reason = error.to_line();
        log::warn!("{instance_id}: {reason}");
        self.file.append(&Prediction::failed(
            instance_id.clone(),
            self.options.recorded_model.clone(),
            reason.clone(),
        ))?;
        self.tally.failed += 1;
        (self.on_event)(RunEvent::InstanceFinished {
            instance_id,
            finish_reason: None,
            completion_tokens: 0,
            error: Some(reason),
        });
        Ok(())
    }

    fn report_progress(&mut self) {
        if self.last_progress.elapsed() < self.options.progress_interval {
            return;
        }
        self.last_progress = Instant::now();
        let prompt_tokens: usize = self.running.iter().map(|running| running.prompt_tokens).sum();
        let completion_tokens: usize = self.running.iter().map(|running| running.completion_tokens).sum();
        (self.on_event)(RunEvent::Progress {
            prompt_tokens: self.tally.prompt_tokens + prompt_tokens,
            completion_tokens: self.tally.completion_tokens + completion_tokens,
            running: self.running.len(),
        });
    }
}

/// A submitted request.
struct Running<S> {
    instance_id: String,
    stream: S,
    /// Prompt tokens computed so far.
    prompt_tokens: usize,
    /// Tokens generated so far.
    completion_tokens: usize,
}

impl<S: EventStream> Running<S> {
    /// Takes the events that are there; the completion when it is among them.
    fn advance(&mut self, mut timeout: Duration) -> Result<Option<Completion>> {
        while let Some(event) = self.stream.next(Some(timeout))? {
            timeout = Duration::ZERO;
            match event {
                Event::Prefill { done, .. } => self.prompt_tokens = done,
                Event::Delta { token_ids, .. } => self.completion_tokens += token_ids.len(),
                Event::Finished(completion) => return Ok(Some(*completion)),
            }
        }
        Ok(None)
    }
}

/// Whether an error of this kind would meet every other instance too.
fn ends_the_run(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Device | ErrorKind::OutOfMemory | ErrorKind::Internal | ErrorKind::Cancelled)
}
