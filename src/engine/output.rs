//! What one generation has produced: it takes sampled tokens and decides when to stop.

use std::time::Instant;

use super::mailbox::EventSender;
use super::prompt_lookup::{Answers, PromptLookup};
use super::random::system_seed;
use super::request::{Completion, FinishReason, Request, Sampling, TokenLogprob, Usage};
use super::sampler::Sampler;
use super::sequence::Sequence;
use super::stop::{Repetition, Scan, StopStrings};
use super::text::Detokenizer;
use crate::error::{Error, Result};

/// Moments from which [`Usage`] is made.
#[derive(Debug)]
struct Clock {
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// What the engine imposes on every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputLimits {
    /// Most tokens of a sequence, prompt and generated.
    pub(super) max_tokens: usize,
    /// Whether tokens are guessed by prompt lookup.
    pub(super) prompt_lookup: bool,
}

/// What a row of logits led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This token, and the sequence goes on.
    Token(u32),
    /// The end.
    End(FinishReason),
}

/// The output side of one request.
pub(super) struct Output {
    sender: EventSender,
    prompt_lookup: Option<PromptLookup>,
    sampling: Sampling,
    seed: u64,
    num_logprobs: Option<usize>,
    eos_token_ids: Vec<u32>,
    max_new_tokens: usize,
    prompt_tokens: usize,
    /// Prompt tokens last reported as computed.
    prefilled: usize,
    /// Prompt tokens that were found in the KV cache.
    cached: usize,
    detokenizer: Box<dyn Detokenizer>,
    stop_strings: StopStrings,
    repetition: Repetition,
    text: String,
    /// A stop string was found: what the detokenizer still holds is behind it.
    text_ended: bool,
    token_ids: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    /// Tokens sampled, EOS included: the number of the next draw.
    generated: usize,
    clock: Clock,
}

impl Output {
    /// An output without tokens.
    pub(super) fn new(
        request: &Request,
        limits: OutputLimits,
        detokenizer: Box<dyn Detokenizer>,
        sender: EventSender,
        submitted: Instant,
    ) -> Self {
        let Request { prompt, sampling, stop, logprobs } = request;
        Self {
            sender,
            prompt_lookup: limits.prompt_lookup.then(PromptLookup::new),
            sampling: sampling.clone(),
            seed: sampling.seed.unwrap_or_else(system_seed),
            num_logprobs: *logprobs,
            eos_token_ids: stop.eos_token_ids.clone(),
            max_new_tokens: stop.max_new_tokens.min(limits.max_tokens - prompt.len()),
            prompt_tokens: prompt.len(),
            prefilled: 0,
            cached: 0,
            detokenizer,
            stop_strings: StopStrings::new(&stop.stop_strings),
            repetition: Repetition::new(stop.repetition_distinct),
            text: String::new(),
            text_ended: false,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            generated: 0,
            clock: Clock { submitted, started: None, first_token: None, last_token: None },
        }
    }

    /// Whether the owner asked to stop or is gone.
    pub(super) fn is_cancelled(&self) -> bool {
        self.sender.is_cancelled()
    }

    /// Notes that a step, begun at `now`, works on the prompt.
    pub(super) fn start(&mut self, now: Instant) {
        self.clock.started.get_or_insert(now);
    }

    /// Reports how many tokens of the prompt are computed, and takes note of how many of them, in all, were found in the
    /// cache; what is computed again after a preemption is no news.
    pub(super) fn report_prefill(&mut self, computed: usize, cached: usize) {
        self.cached = cached;
        let done = computed.min(self.prompt_tokens);
        if done > self.prefilled {
            self.prefilled = done;
            self.sender.prefill(done, self.prompt_tokens);
        }
    }

    /// Writes a draft for the sequence of this output, when one is worth verifying.
    pub(super) fn propose(&mut self, answers: &Answers, sequence: &mut Sequence, min_chance: f32) {
        if let Some(lookup) = &mut self.prompt_lookup {
            // The last token of all is never followed by another, so there is no use in guessing it.
            let room = self.max_new_tokens - self.generated - 1;
            sequence.set_draft(|tokens| lookup.propose(answers, tokens, room, min_chance));
        }
    }

    /// Lets later outputs guess from this one.
    pub(super) fn teach(&self, answers: &mut Answers) {
        if self.prompt_lookup.is_some() {
            answers.push(&self.token_ids);
        }
    }

    /// Samples the next token from one row of logits `[vocab_size]`, reports it, and decides whether it is the last.
    ///
    /// # Errors
    /// `InvalidData` for logits that are not finite; the tokenizer's.
    pub(super) fn next_token(&mut self, sampler: &mut Sampler, logits: &[f32], now: Instant) -> Result<Next> {
        let token = sampler.sample(logits, &self.sampling, self.seed, self.generated as u64)?;
        self.generated += 1;
        self.clock.first_token.get_or_insert(now);
        self.clock.last_token = Some(now);
        if self.eos_token_ids.contains(&token) {
            return Ok(Next::End(FinishReason::Stop));
        }
        if let Some(num_top) = self.num_logprobs {
            self.logprobs.push(sampler.logprob(logits, token, num_top)?);
        }
        self.token_ids.push(token);
        let piece = self.detokenizer.push(token)?;
        let (text, found) = match self.stop_strings.push(&piece) {
            Scan::Text(text) => (text, false),
            Scan::Stop(text) => (text, true),
        };
        self.text.push_str(&text);
        self.sender.delta(&text, &[token]);
        if found {
            self.text_ended = true;
            return Ok(Next::End(FinishReason::Stop));
        }
        if self.repetition.push(token) {
            return Ok(Next::End(FinishReason::Repetition));
        }
        if self.generated == self.max_new_tokens {
            return Ok(Next::End(FinishReason::Length));
        }
        Ok(Next::Token(token))
    }

    /// Reports the end, with the text that was held back.
    pub(super) fn finish(mut self, reason: FinishReason, now: Instant) {
        let outcome = self.release_text().map(|()| {
            Box::new(Completion {
                usage: self.usage(now),
                text: std::mem::take(&mut self.text),
                token_ids: std::mem::take(&mut self.token_ids),
                finish_reason: reason,
                logprobs: std::mem::take(&mut self.logprobs),
            })
        });
        self.sender.finish(outcome);
    }

    /// Reports that the request failed.
    pub(super) fn fail(self, error: Error) {
        self.sender.finish(Err(error));
    }

    fn release_text(&mut self) -> Result<()> {
        if self.text_ended {
            return Ok(());
        }
        let rest = self.detokenizer.finish()?;
        let mut text = match self.stop_strings.push(&rest) {
            Scan::Text(text) | Scan::Stop(text) => text,
        };
        text.push_str(&self.stop_strings.finish());
        if !text.is_empty() {
            self.text.push_str(&text);
            self.sender.delta(&text, &[]);
        }
        Ok(())
    }

    fn usage(&self, now: Instant) -> Usage {
        let Clock { submitted, started, first_token, last_token } = self.clock;
        let milliseconds = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from).as_secs_f64() * 1e3,
            _ => 0.0,
        };
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached,
            completion_tokens: self.generated,
            queue_ms: milliseconds(Some(submitted), started.or(Some(now))),
            prefill_ms: milliseconds(started, first_token.or(Some(now))),
            decode_ms: milliseconds(first_token, last_token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mailbox::mailbox;
    use crate::engine::{Event, StopRules};

    struct NoText;

    impl Detokenizer for NoText {
        fn push(&mut self, _: u32) -> Result<String> {
            Ok(String::new())
        }

        fn finish(&mut self) -> Result<String> {
            Ok(String::new())
        }
    }

    #[test]
    fn what_a_preemption_repeats_is_not_reported_again() {
        let request = Request {
            prompt: vec![1; 10],
            sampling: Sampling::default(),
            stop: StopRules {
                max_new_tokens: 9,
                eos_token_ids: Vec::new(),
                stop_strings: Vec::new(),
                repetition_distinct: 0,
            },
            logprobs: None,
        };
        let (sender, receiver) = mailbox();
        let limits = OutputLimits { max_tokens: 99, prompt_lookup: true };
        let mut output = Output::new(&request, limits, Box::new(NoText), sender, Instant::now());
        for (computed, reported) in
            [(4, Some(4)), (2, None), (4, None), (9, Some(9)), (12, Some(10)), (14, None)]
        {
            output.report_prefill(computed, 0);
            let expected = reported.map(|done| Event::Prefill { done, total: 10 });
            assert_eq!(
                receiver.next(Some(std::time::Duration::ZERO)).unwrap(),
                expected,
                "{computed} computed"
            );
        }
    }
}
