//! A local model for runs that make their own prompts: one after the other.

use std::sync::Arc;
use std::time::Duration;

use super::config::RunLlamaConfig;
use super::ends_in_newlines;
use super::prompts::tokenize;
use super::sources::Sources;
use crate::cancel::CancelToken;
use crate::dataset::Instance;
use crate::engine::{Engine, EngineOptions, Event, FinishReason, Order, Request, Sampling, StopRules};
use crate::error::{Error, Result};
use crate::model;
use crate::run::predictions::{Prediction, TokenUsage};
use crate::tokenizer::Tokenizer;

/// How long to wait for an event before looking at the cancel token.
const POLL: Duration = Duration::from_millis(20);

/// A model that is loaded.
pub(in crate::run) struct Writer {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    recorded_model: String,
    sampling: Sampling,
    stop: StopRules,
    ends_in_newlines: bool,
}

impl Writer {
    /// Finds and loads the model of a configuration; its dataset is not looked at.
    ///
    /// # Errors
    /// As those of a run over a dataset.
    pub(in crate::run) fn load(config: &RunLlamaConfig, cancel: &CancelToken) -> Result<Self> {
        let sources = Sources::new(config, cancel);
        let model_dir = sources.model_dir(&config.model_name_or_path)?;
        let adapter_dir = config.peft_path.as_deref().map(|path| sources.model_dir(path)).transpose()?;
        let tokenizer = Arc::new(Tokenizer::open(&model_dir)?);
        cancel.check()?;
        let decoder = model::load(&model_dir, &config.load_options(adapter_dir)?)?;
        let stop = config.stop_rules(tokenizer.special_tokens().eos.clone());
        let options = EngineOptions {
            max_sequences: Some(1),
            prompt_lookup: config.prompt_lookup,
            prefix_cache: config.prefix_cache,
            order: Order::Arrival,
        };
        Ok(Self {
            engine: Engine::start(decoder, Arc::clone(&tokenizer), &options)?,
            tokenizer,
            recorded_model: config.name(None).recorded_model(),
            sampling: config.sampling(),
            stop,
            ends_in_newlines: ends_in_newlines(config),
        })
    }

    /// Generates the answer to a prompt: its record, without a patch.
    ///
    /// # Errors
    /// `InvalidArgument` for a prompt that the model has no room for, `Cancelled`, and what the engine gives.
    pub(in crate::run) fn write(
        &self,
        instance_id: &str,
        text: String,
        cancel: &CancelToken,
    ) -> Result<Prediction> {
        let instance =
            Instance { instance_id: instance_id.to_owned(), text: Some(text), ..Instance::default() };
        let encode = |text: &str| self.tokenizer.encode(text, true);
        let prompt = tokenize(vec![instance], &encode, self.ends_in_newlines, 1, cancel)?.pop();
        let prompt = prompt.ok_or_else(|| Error::internal("a prompt was lost"))?.token_ids?;
        let mut generation = self.engine.submit(Request {
            prompt,
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            logprobs: None,
        })?;
        let completion = loop {
            cancel.check()?;
            match generation.next(Some(POLL))? {
                Some(Event::Finished(completion)) => break completion,
                Some(Event::Prefill { .. } | Event::Delta { .. }) | None => {}
            }
        };
        if completion.finish_reason == FinishReason::Cancelled {
            return Err(Error::internal("the engine cancelled a request by itself"));
        }
        let usage = completion.usage;
        Ok(Prediction {
            instance_id: instance_id.to_owned(),
            model_name_or_path: self.recorded_model.clone(),
            full_output: Some(completion.text),
            finish_reason: Some(completion.finish_reason.name().to_owned()),
            usage: Some(TokenUsage {
                prompt_tokens: usage.prompt_tokens,
                cached_tokens: usage.cached_tokens,
                completion_tokens: usage.completion_tokens,
                ..TokenUsage::default()
            }),
            latency_ms: Some(usage.prefill_ms + usage.decode_ms),
            ..Prediction::default()
        })
    }
}
