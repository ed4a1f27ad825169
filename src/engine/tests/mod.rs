//! The engine as its callers see it, over a decoder that watches the scheduler.

mod bad_input;
mod failures;
mod fake;
mod llama;
mod outputs;
mod prefix;
mod stress;

use std::sync::mpsc::{Sender, channel};

use fake::{EOS, FakeDecoder, Language, Sizes, StepHook};

use super::service::Service;
use super::{Completion, EngineOptions, Event, Generation, Request, Sampling, StopRules};
use crate::error::{Error, Result};

fn start(sizes: Sizes, language: Language, hook: StepHook) -> Service {
    start_with(sizes, language, hook, &EngineOptions::default())
}

fn start_with(sizes: Sizes, language: Language, hook: StepHook, options: &EngineOptions) -> Service {
    let decoder = Box::new(FakeDecoder::new(sizes, language, hook));
    Service::start(decoder, fake::detokenizers(), options).unwrap()
}

fn no_hook() -> StepHook {
    Box::new(|_| Ok(()))
}

/// A hook that holds the first step until something is sent, so that what is submitted before runs together.
fn hold() -> (StepHook, Sender<()>) {
    let (release, released) = channel();
    let mut held = Some(released);
    let hook: StepHook = Box::new(move |_| {
        if let Some(released) = held.take() {
            released.recv().map_err(|_| Error::internal("the test is over"))?;
        }
        Ok(())
    });
    (hook, release)
}

/// A greedy request that stops at `EOS` or after `max_new_tokens`.
fn greedy(prompt: &[u32], max_new_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: Sampling::default(),
        stop: StopRules {
            max_new_tokens,
            eos_token_ids: vec![EOS],
            stop_strings: Vec::new(),
            repetition_distinct: 0,
        },
        logprobs: None,
    }
}

fn seeded(prompt: &[u32], max_new_tokens: usize, seed: u64) -> Request {
    let sampling = Sampling { temperature: 0.8, top_p: 0.9, top_k: 12, seed: Some(seed) };
    Request { sampling, ..greedy(prompt, max_new_tokens) }
}

fn submit(service: &Service, request: Request) -> Generation {
    Generation { receiver: service.submit(request).unwrap() }
}

fn generate(service: &Service, request: Request) -> Result<Completion> {
    Generation { receiver: service.submit(request)? }.wait()
}

/// The completion apart from its times, and from what others left in the cache for it.
fn without_times(mut completion: Completion) -> Completion {
    completion.usage.cached_tokens = 0;
    completion.usage.queue_ms = 0.0;
    completion.usage.prefill_ms = 0.0;
    completion.usage.decode_ms = 0.0;
    completion
}

/// What the request yields when it runs alone, token by token, with memory for everything.
fn alone(language: Language, request: &Request) -> Completion {
    let options = EngineOptions { prompt_lookup: false, prefix_cache: false, ..EngineOptions::default() };
    let service = start_with(Sizes::LARGE, language, no_hook(), &options);
    without_times(generate(&service, request.clone()).unwrap())
}

/// All events up to the end.
fn events(mut generation: Generation) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = generation.next(None).unwrap() {
        events.push(event);
    }
    events
}
