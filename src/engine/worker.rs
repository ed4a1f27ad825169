//! The engine's thread: takes submissions, runs steps, hands out tokens.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::output::{Next, Output};
use super::prompt_lookup::Answers;
use super::request::FinishReason;
use super::row_cost::RowCost;
use super::sampler::Sampler;
use super::scheduler::{Scheduled, Scheduler};
use super::sequence::{Sequence, SequenceId};
use super::stats::EngineStats;
use crate::backend::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Decoder;

/// A valid request on its way to the thread.
pub(super) struct Submission {
    pub(super) prompt: Vec<u32>,
    pub(super) output: Output,
}

/// What the thread tells the handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stats: Mutex<EngineStats>,
    /// Why the thread stopped by itself.
    failure: OnceLock<Failure>,
}

/// An error that is handed to many.
#[derive(Debug, Clone)]
struct Failure {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn to_error(&self) -> Error {
        let error = Error::new(self.kind, self.message.clone());
        match &self.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.to_line(), hint: error.hint().map(str::to_owned) }
    }
}

impl Shared {
    /// The counters as of the last step.
    pub(super) fn stats(&self) -> EngineStats {
        *self.lock_stats()
    }

    /// Refuses when the thread has stopped by itself; from before any request learns of it.
    pub(super) fn check_running(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(failure.to_error().context("the engine has stopped")),
            None => Ok(()),
        }
    }

    fn lock_stats(&self) -> MutexGuard<'_, EngineStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a request ends.
enum Ending {
    Finished(FinishReason),
    Failed(Error),
}

/// What the thread owns.
pub(super) struct Worker {
    decoder: Box<dyn Decoder>,
    scheduler: Scheduler,
    /// Whether sequences share KV blocks.
    prefix_cache: bool,
    outputs: HashMap<SequenceId, Output>,
    /// What was generated for requests that are over, to guess from.
    answers: Answers,
    row_cost: RowCost,
    sampler: Sampler,
    batch: Batch,
    plan: Vec<Scheduled>,
    /// Requests that end with the current step.
    endings: Vec<(SequenceId, Ending)>,
    stats: EngineStats,
    next_id: u64,
    shared: Arc<Shared>,
}

impl Worker {
    /// A worker without requests.
    pub(super) fn new(
        decoder: Box<dyn Decoder>,
        scheduler: Scheduler,
        prefix_cache: bool,
        shared: Arc<Shared>,
    ) -> Self {
        let mut worker = Self {
            decoder,
            scheduler,
            prefix_cache,
            outputs: HashMap::new(),
            answers: Answers::default(),
            row_cost: RowCost::default(),
            sampler: Sampler::default(),
            batch: Batch::default(),
            plan: Vec::new(),
            endings: Vec::new(),
            stats: EngineStats::default(),
            next_id: 0,
            shared,
        };
        worker.publish_stats();
        worker
    }

    /// Serves until the engine hangs up (what runs is then cancelled) or the decoder fails.
    pub(super) fn run(mut self, submissions: Receiver<Submission>) {
        // After a panic the outputs are only told of it, and nothing else is used again.
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(&submissions))).unwrap_or_else(|panic| {
            Err(Error::internal(format!("the engine panicked: {}", panic_text(&*panic))))
        });
        if let Err(error) = served {
            log::error!("engine stopped: {}", error.to_line());
            let failure = Failure::from(&error);
            // Before any request learns of it, so that whoever submits next is refused.
            let failure = self.shared.failure.get_or_init(|| failure);
            for (_, output) in self.outputs.drain() {
                output.fail(failure.to_error());
            }
            for submission in submissions.try_iter() {
                submission.output.fail(failure.to_error());
            }
        }
    }

    fn serve(&mut self, submissions: &Receiver<Submission>) -> Result<()> {
        while self.receive(submissions) {
            self.end_cancelled();
            if !self.scheduler.is_empty() {
                self.step()?;
            }
        }
        for (_, output) in self.outputs.drain() {
            output.finish(FinishReason::Cancelled, Instant::now());
        }
        Ok(())
    }

    /// Takes all submissions, waiting for one when there is nothing else to do; false when the engine hung up.
    fn receive(&mut self, submissions: &Receiver<Submission>) -> bool {
        if self.scheduler.is_empty() {
            match submissions.recv() {
                Ok(submission) => self.enqueue(submission),
                Err(RecvError) => return false,
            }
        }
        loop {
            match submissions.try_recv() {
                Ok(submission) => self.enqueue(submission),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn enqueue(&mut self, submission: Submission) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.outputs.insert(id, submission.output);
        let rotation_class = self.decoder.config().rotation_class(submission.prompt.len());
        let mut sequence = Sequence::new(id, submission.prompt);
        if self.prefix_cache {
            sequence.share_blocks(rotation_class);
        }
        self.scheduler.push(sequence);
    }

    fn end_cancelled(&mut self) {
        let cancelled = self.outputs.iter().filter(|(_, output)| output.is_cancelled());
        self.endings.extend(cancelled.map(|(&id, _)| (id, Ending::Finished(FinishReason::Cancelled))));
        self.deliver_endings();
    }

    fn step(&mut self) -> Result<()> {
        let started = Instant::now();
        let min_chance = self.row_cost.min_chance();
        for sequence in self.scheduler.decoding_mut() {
            output_of(&mut self.outputs, sequence.id()).propose(&self.answers, sequence, min_chance);
        }
        self.scheduler.schedule(&mut self.batch, &mut self.plan);
        for part in &self.plan {
            output_of(&mut self.outputs, part.id).start(started);
        }
        let generated_before = self.stats.generated_tokens;
        if let Err(error) = self.compute() {
            if matches!(error.kind(), ErrorKind::Device | ErrorKind::OutOfMemory | ErrorKind::Internal) {
                return Err(error);
            }
            let failure = Failure::from(&error);
            let failed = self.plan.iter().map(|part| (part.id, Ending::Failed(failure.to_error())));
            self.endings.extend(failed);
        } else if self.plan.iter().all(|part| part.query_len == 1) {
            let rows = self.plan.iter().map(|part| 1 + part.draft_len).sum();
            let tokens = (self.stats.generated_tokens - generated_before) as usize;
            self.row_cost.learn(rows, tokens, started.elapsed().as_secs_f64());
        }
        self.stats.steps += 1;
        self.deliver_endings();
        Ok(())
    }

    /// Runs the decoder on the batch and gives every sequence its tokens.
    fn compute(&mut self) -> Result<()> {
        let Self { decoder, scheduler, outputs, sampler, batch, plan, endings, stats, .. } = self;
        let vocab_size = decoder.config().vocab_size;
        let logits = decoder.step(batch)?;
        let now = Instant::now();
        for part in plan {
            let sequence = scheduler.sequence_mut(part.id);
            let output = output_of(outputs, part.id);
            let computed_before = sequence.computed();
            stats.prompt_tokens += sequence.advance(part.query_len) as u64;
            output.report_prefill(sequence.computed(), sequence.cached());
            let mut accepted = 0;
            for row in part.logits_rows.clone() {
                let row = &logits[row * vocab_size..(row + 1) * vocab_size];
                stats.generated_tokens += 1;
                let token = match output.next_token(sampler, row, now) {
                    Ok(Next::Token(token)) => token,
                    Ok(Next::End(reason)) => {
                        endings.push((part.id, Ending::Finished(reason)));
                        break;
                    }
                    Err(error) => {
                        endings.push((part.id, Ending::Failed(error)));
                        break;
                    }
                };
                sequence.append(token);
                // The next row belongs to this token only if the draft guessed it; its keys and values are there then.
                if sequence.draft().get(accepted) != Some(&token) {
                    break;
                }
                sequence.advance(1);
                accepted += 1;
            }
            sequence.truncate_draft(0);
            scheduler.publish(part.id, computed_before);
            stats.drafted_tokens += part.draft_len as u64;
            stats.accepted_tokens += accepted as u64;
        }
        Ok(())
    }

    /// Ends requests; whoever learns of an end finds it in the counters.
    fn deliver_endings(&mut self) {
        for (id, ending) in &self.endings {
            if matches!(ending, Ending::Failed(_)) {
                self.scheduler.withdraw(*id);
            }
            self.scheduler.remove(*id);
        }
        self.publish_stats();
        for (id, ending) in self.endings.drain(..) {
            if let Some(output) = self.outputs.remove(&id) {
                match ending {
                    Ending::Finished(reason) => {
                        output.teach(&mut self.answers);
                        output.finish(reason, Instant::now());
                    }
                    Ending::Failed(error) => output.fail(error),
                }
            }
        }
    }

    fn publish_stats(&mut self) {
        let pool = self.scheduler.pool();
        self.stats.preemptions = self.scheduler.preemptions();
        self.stats.cached_tokens = self.scheduler.cached_tokens();
        self.stats.running = self.scheduler.num_running();
        self.stats.waiting = self.scheduler.num_waiting();
        self.stats.free_blocks = pool.num_free();
        self.stats.cached_blocks = pool.num_cached();
        self.stats.num_blocks = pool.num_blocks();
        *self.shared.lock_stats() = self.stats;
    }
}

/// The output of a sequence that is not finished.
fn output_of(outputs: &mut HashMap<SequenceId, Output>, id: SequenceId) -> &mut Output {
    match outputs.get_mut(&id) {
        Some(output) => output,
        None => unreachable!("sequence {id:?} has no output"),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
