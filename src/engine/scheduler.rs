//! Decides what each step computes: decoding sequences first, then chunks of prompts, within a token budget.
//!
//! Plain data and no threads: the same calls always lead to the same batches.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;

use super::kv_cache::BlockPool;
use super::prefix_hash::BlockHash;
use super::sequence::{Sequence, SequenceId};
use super::waiting::{Order, Waiting};
use crate::backend::{Batch, BatchEntry, KvLayout, LogitsRows};
use crate::error::{Error, Result};

/// Least prompt tokens in a chunk while several prompts wait: a chunk reads its whole context, so tiny ones are dear.
const MIN_CHUNK: usize = 64;

/// What a step may hold, and who comes first.
#[derive(Debug, Clone)]
pub(super) struct SchedulerLimits {
    /// Most query tokens of a step.
    pub(super) max_step_tokens: usize,
    /// Most sequences that hold KV blocks; `None` lets the KV cache decide.
    pub(super) max_sequences: Option<usize>,
    /// Longest context to serve.
    pub(super) context_len: usize,
    /// Which waiting sequence starts next.
    pub(super) order: Order,
}

/// One sequence's part in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scheduled {
    /// Whose part it is.
    pub(super) id: SequenceId,
    /// Tokens that the step computes for it, a draft not included.
    pub(super) query_len: usize,
    /// Tokens of a draft that the step verifies behind them.
    pub(super) draft_len: usize,
    /// Its rows in the step's logits: one for the next token, when it can be sampled after the step, and one for the
    /// token behind each of the draft.
    pub(super) logits_rows: Range<usize>,
}

/// All sequences that are not finished.
///
/// When blocks run out, the sequence that started last gives up its own and is later computed again from its tokens,
/// before any other starts: so the one that started first can always finish.
///
/// Full blocks are shared. Of several sequences whose next blocks would hold the same, one computes and the others wait
/// for it, block by block, until they differ: so many samples of a prompt that arrive together compute it once.
#[derive(Debug)]
pub(super) struct Scheduler {
    max_step_tokens: usize,
    max_sequences: usize,
    max_tokens: usize,
    pool: BlockPool,
    /// Sequences that hold blocks, in the order in which they started.
    running: Vec<Sequence>,
    waiting: Waiting,
    /// The last sequence that got a chunk of its prompt computed: the round-robin goes on behind it.
    last_prefilled: Option<SequenceId>,
    preemptions: u64,
    cached_tokens: u64,
    /// Scratch: indices of the sequences whose prompts this step works on.
    prefilling: Vec<usize>,
    /// Scratch: the blocks that are somebody's to compute next.
    claimed: HashSet<BlockHash>,
    /// Scratch: a pending token and the draft behind it.
    query: Vec<u32>,
}

impl Scheduler {
    /// A scheduler without sequences.
    ///
    /// # Errors
    /// `InvalidArgument` when the limits or the layout leave no room for a single token.
    pub(super) fn new(limits: &SchedulerLimits, layout: &KvLayout) -> Result<Self> {
        for (name, value) in [
            ("max_step_tokens", limits.max_step_tokens),
            ("max_sequences", limits.max_sequences.unwrap_or(usize::MAX)),
            ("max_context", limits.context_len),
            ("block_size", layout.block_size),
            ("num_blocks", layout.num_blocks),
        ] {
            if value == 0 {
                return Err(Error::invalid_argument(format!("`{name}` leaves no room for a sequence"))
                    .with_expected("at least 1", value));
            }
        }
        // Decoding may fill half a step, so that prompts always advance.
        let fits_step = (limits.max_step_tokens / 2).max(1);
        Ok(Self {
            max_step_tokens: limits.max_step_tokens,
            max_sequences: limits.max_sequences.unwrap_or(usize::MAX).min(fits_step),
            max_tokens: limits.context_len.min(layout.num_blocks.saturating_mul(layout.block_size)),
            pool: BlockPool::new(layout.num_blocks, layout.block_size),
            running: Vec::new(),
            waiting: Waiting::new(limits.order),
            last_prefilled: None,
            preemptions: 0,
            cached_tokens: 0,
            prefilling: Vec::new(),
            claimed: HashSet::new(),
            query: Vec::new(),
        })
    }

    /// Most tokens of one sequence, prompt and generated: the context's length or what the KV cache holds.
    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Queues a sequence that is younger than all others and fits [`Scheduler::max_tokens`].
    pub(super) fn push(&mut self, sequence: Sequence) {
        assert!(sequence.tokens().len() < self.max_tokens, "a sequence that never fits");
        self.waiting.push(sequence);
    }

    /// Whether all sequences are finished.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.len() == 0
    }

    /// Sequences that hold blocks.
    pub(super) fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait for blocks.
    pub(super) fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Times that a sequence lost its blocks to one that had started before it.
    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Prompt tokens that were found in the KV cache.
    pub(super) fn cached_tokens(&self) -> u64 {
        self.cached_tokens
    }

    /// The KV blocks.
    pub(super) fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// A sequence that is part of the step.
    pub(super) fn sequence_mut(&mut self, id: SequenceId) -> &mut Sequence {
        let index = self.running.iter().position(|sequence| sequence.id() == id);
        assert!(index.is_some(), "sequence {id:?} does not run");
        &mut self.running[index.unwrap_or_default()]
    }

    /// The sequences of which the next step computes one token, unless it preempts them: those that may have drafts.
    pub(super) fn decoding_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.running.iter_mut().filter(|sequence| sequence.is_decoding())
    }

    /// Lets other sequences share what a finished step has computed for this one, of which `computed_before` tokens were
    /// computed before.
    pub(super) fn publish(&mut self, id: SequenceId, computed_before: usize) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id() == id) {
            sequence.publish(&mut self.pool, computed_before);
        }
    }

    /// Keeps others from sharing what was computed for a sequence, whose keys and values may not be numbers.
    pub(super) fn withdraw(&mut self, id: SequenceId) {
        if let Some(sequence) = self.running.iter().find(|sequence| sequence.id() == id) {
            sequence.withdraw(&mut self.pool);
        }
    }

    /// Forgets a sequence and frees its blocks.
    pub(super) fn remove(&mut self, id: SequenceId) {
        let running = self.running.iter().position(|sequence| sequence.id() == id);
        let sequence = match running {
            Some(index) => Some(self.running.remove(index)),
            None => self.waiting.remove(id),
        };
        assert!(sequence.is_some(), "sequence {id:?} is finished");
        if let Some(mut sequence) = sequence {
            sequence.evict(&mut self.pool);
        }
    }

    /// Fills `batch` with the next step, and `plan` with what is whose, in the batch's order.
    ///
    /// Neither is empty as long as there are sequences.
    pub(super) fn schedule(&mut self, batch: &mut Batch, plan: &mut Vec<Scheduled>) {
        batch.clear();
        plan.clear();
        self.schedule_decodes(batch, plan);
        let first_admitted = self.running.len();
        self.admit();
        self.schedule_prefills(first_admitted, batch, plan);
        assert!(self.is_empty() || !batch.is_empty(), "a step without work");
    }

    /// One token for every sequence that only waits for its next; the last to start make room when blocks run out.
    ///
    /// Drafts take what remains of the half of a step that decoding may fill, and never a block of another sequence.
    fn schedule_decodes(&mut self, batch: &mut Batch, plan: &mut Vec<Scheduled>) {
        let decoding = self.decoding_mut().count();
        let mut draft_budget = (self.max_step_tokens / 2).saturating_sub(decoding);
        let mut index = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            if sequence.is_decoding() {
                let tokens = sequence.tokens().len();
                if !sequence.reserve(&mut self.pool, tokens) {
                    self.preempt_last();
                    continue;
                }
                let draft_len = sequence.draft().len().min(draft_budget);
                let draft_fits = sequence.reserve(&mut self.pool, tokens + draft_len);
                sequence.truncate_draft(if draft_fits { draft_len } else { 0 });
                draft_budget -= sequence.draft().len();
                self.query.clear();
                self.query.extend_from_slice(sequence.pending());
                self.query.extend_from_slice(sequence.draft());
                push_query(sequence, &self.pool, &self.query, batch, plan);
            }
            index += 1;
        }
    }

    fn preempt_last(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            sequence.evict(&mut self.pool);
            self.waiting.push_preempted(sequence);
            self.preemptions += 1;
        }
    }

    /// Starts waiting sequences in order while blocks for all their tokens are free or can be shared.
    ///
    /// A block for each running sequence stays free, so that what is started is not soon preempted.
    fn admit(&mut self) {
        while self.running.len() < self.max_sequences
            && let Some(sequence) = self.waiting.next_mut()
        {
            let tokens = sequence.tokens().len();
            let (shareable, shareable_free) = sequence.count_shareable(&self.pool);
            let from_free = self.pool.blocks_for(tokens) - shareable + shareable_free;
            if from_free + self.running.len() > self.pool.num_free() {
                break;
            }
            self.cached_tokens += sequence.share(&mut self.pool) as u64;
            let reserved = sequence.reserve(&mut self.pool, tokens);
            assert!(reserved, "the blocks were counted");
            self.running.extend(self.waiting.take_next());
        }
    }

    /// Shares what is left of the step among the prompts that are not computed yet, equally, in turns.
    fn schedule_prefills(&mut self, first_admitted: usize, batch: &mut Batch, plan: &mut Vec<Scheduled>) {
        self.choose_prefilling(first_admitted);
        let mut budget = self.max_step_tokens - batch.len();
        let sequences = &self.running;
        let prefilling = &mut self.prefilling;
        prefilling.sort_unstable_by_key(|&index| sequences[index].id());
        let turn = prefilling.iter().position(|&index| Some(sequences[index].id()) > self.last_prefilled);
        prefilling.rotate_left(turn.unwrap_or(0));
        prefilling.truncate(budget.div_ceil(MIN_CHUNK));
        if let Some(&last) = prefilling.last() {
            self.last_prefilled = Some(sequences[last].id());
        }
        // Shortest first, so that what a short prompt leaves of its share goes to the longer ones.
        prefilling.sort_by_key(|&index| sequences[index].pending().len());
        for (taken, &index) in prefilling.iter().enumerate() {
            let share = budget.div_ceil(prefilling.len() - taken);
            let query_len = share.min(sequences[index].pending().len());
            let query = &sequences[index].pending()[..query_len];
            push_query(&sequences[index], &self.pool, query, batch, plan);
            budget -= query_len;
        }
    }

    /// Lists the sequences with tokens to compute in chunks, but for those that wait for a block of another.
    ///
    /// The first that waits for a block computes it, so somebody always advances.
    fn choose_prefilling(&mut self, first_admitted: usize) {
        let Self { running, pool, prefilling, claimed, cached_tokens, .. } = self;
        prefilling.clear();
        claimed.clear();
        for (index, sequence) in running.iter_mut().enumerate() {
            // Of the sequences that ran before, those with a single token left are in the step already.
            if index < first_admitted && sequence.is_decoding() {
                continue;
            }
            *cached_tokens += sequence.share(pool) as u64;
            if sequence.next_block(pool).is_none_or(|hash| claimed.insert(hash)) {
                prefilling.push(index);
            }
        }
    }
}

/// Adds the next tokens of a sequence to the step: `query` is some of the pending tokens, or all and the draft.
fn push_query(
    sequence: &Sequence,
    pool: &BlockPool,
    query: &[u32],
    batch: &mut Batch,
    plan: &mut Vec<Scheduled>,
) {
    let kv_len = sequence.computed() + query.len();
    let draft_len = kv_len.saturating_sub(sequence.tokens().len());
    let logits_rows = batch.push(BatchEntry {
        tokens: query,
        kv_len,
        block_table: sequence.block_table(pool, kv_len),
        prompt_len: sequence.prompt_len(),
        logits: match kv_len.cmp(&sequence.tokens().len()) {
            Ordering::Less => LogitsRows::None,
            Ordering::Equal => LogitsRows::Last,
            Ordering::Greater => LogitsRows::All,
        },
    });
    plan.push(Scheduled { id: sequence.id(), query_len: query.len() - draft_len, draft_len, logits_rows });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scheduler that is stepped by hand: every sampled token is 7.
    struct Harness {
        scheduler: Scheduler,
        batch: Batch,
        plan: Vec<Scheduled>,
        next_id: u64,
    }

    impl Harness {
        fn new(max_step_tokens: usize, num_blocks: usize) -> Self {
            let layout = KvLayout { num_layers: 1, num_kv_heads: 1, head_dim: 1, block_size: 16, num_blocks };
            let limits = SchedulerLimits {
                max_step_tokens,
                max_sequences: None,
                context_len: 200_000,
                order: Order::Arrival,
            };
            let scheduler = Scheduler::new(&limits, &layout).unwrap();
            Self { scheduler, batch: Batch::default(), plan: Vec::new(), next_id: 0 }
        }

        fn push(&mut self, prompt_len: usize) {
            self.scheduler.push(Sequence::new(SequenceId(self.next_id), vec![1; prompt_len]));
            self.next_id += 1;
        }

        /// Runs a step and returns `(id, query tokens, whether a token was sampled)` in the batch's order.
        fn step(&mut self) -> Vec<(u64, usize, bool)> {
            self.scheduler.schedule(&mut self.batch, &mut self.plan);
            let step = |part: &Scheduled| (part.id.0, part.query_len, !part.logits_rows.is_empty());
            let steps: Vec<_> = self.plan.iter().map(step).collect();
            for &(id, query_len, sampled) in &steps {
                let sequence = self.scheduler.sequence_mut(SequenceId(id));
                sequence.advance(query_len);
                if sampled {
                    sequence.append(7);
                }
            }
            steps
        }
    }

    #[test]
    fn decodes_come_first_and_prompts_share_the_rest() {
        let mut harness = Harness::new(256, 1000);
        harness.push(10);
        assert_eq!(harness.step(), [(0, 10, true)]);
        harness.push(300);
        harness.push(50);
        harness.push(300);
        // The short prompt leaves 35 of its share of 85 to the others.
        assert_eq!(harness.step(), [(0, 1, true), (2, 50, true), (1, 103, false), (3, 102, false)]);
        assert_eq!(harness.step(), [(0, 1, true), (2, 1, true), (1, 127, false), (3, 127, false)]);
        assert_eq!(harness.step(), [(0, 1, true), (2, 1, true), (1, 70, true), (3, 71, true)]);
        assert_eq!(harness.step(), [(0, 1, true), (1, 1, true), (2, 1, true), (3, 1, true)]);
    }

    #[test]
    fn a_huge_prompt_does_not_stall_short_ones() {
        let mut harness = Harness::new(512, 10_000);
        harness.push(100_000);
        harness.step();
        (0..20).for_each(|_| harness.push(100));
        let mut done = Vec::new();
        for _ in 0..6 {
            done.extend(harness.step().into_iter().filter(|part| part.2).map(|part| part.0));
        }
        done.sort_unstable();
        done.dedup();
        assert_eq!(done, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn more_prompts_than_chunks_take_turns() {
        let mut harness = Harness::new(128, 1000);
        (0..5).for_each(|_| harness.push(640));
        let turns: Vec<Vec<u64>> =
            (0..5).map(|_| harness.step().into_iter().map(|part| part.0).collect()).collect();
        assert_eq!(turns, [[0, 1], [2, 3], [0, 4], [1, 2], [3, 4]]);
    }

    #[test]
    fn sequences_start_in_order_when_their_blocks_are_free() {
        let mut harness = Harness::new(1024, 10);
        harness.push(5 * 16);
        harness.push(5 * 16);
        harness.push(1);
        // The second would leave no block to grow into, and the third does not overtake it.
        assert_eq!(harness.step(), [(0, 80, true)]);
        assert_eq!(harness.step(), [(0, 1, true)]);
        harness.scheduler.remove(SequenceId(0));
        assert_eq!(harness.step(), [(2, 1, true), (1, 80, true)]);
    }

    #[test]
    fn the_youngest_makes_room_and_is_computed_again() {
        let mut harness = Harness::new(1024, 5);
        harness.push(2 * 16);
        harness.push(16 - 1);
        harness.push(16 - 1);
        // The third waits for a block beside those that the first two may soon need.
        assert_eq!(harness.step(), [(1, 15, true), (0, 32, true)]);
        harness.scheduler.remove(SequenceId(2));
        harness.push(16 - 1);
        assert_eq!(harness.step(), [(0, 1, true), (1, 1, true)]);
        // The second takes the last block; when the first needs a fourth one, the second loses its two.
        for _ in 0..15 {
            assert_eq!(harness.step(), [(0, 1, true), (1, 1, true)]);
        }
        assert_eq!(harness.scheduler.preemptions(), 0);
        assert_eq!(harness.step(), [(0, 1, true)]);
        assert_eq!(harness.scheduler.preemptions(), 1);
        assert_eq!((harness.scheduler.num_running(), harness.scheduler.num_waiting()), (1, 2));
        harness.scheduler.remove(SequenceId(0));
        // It comes back before the younger one, with the 17 tokens that it had generated.
        assert_eq!(harness.step(), [(3, 15, true), (1, 32, true)]);
    }
}
