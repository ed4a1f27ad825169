//! Who starts next: the sequences that hold no KV blocks.

use std::collections::VecDeque;

use super::sequence::{Sequence, SequenceId};

/// Every so many starts, the request that has waited longest is next, whatever the order.
const ARRIVAL_TURN: u64 = 8;

/// Which of the waiting requests starts next.
///
/// An order by length would let a long (or short) request wait for ever while others keep coming. So every eighth start
/// goes to the oldest: a request with `n` older ones in front of it starts after at most `8 · (n + 1)` others. What runs
/// already is never stopped for the order's sake, and what was preempted comes before all that never ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    #[default]
    Arrival,
    /// The one with the shortest prompt: most requests finish early.
    ShortestFirst,
    /// The one with the longest prompt: a job's last steps are not left to a single long one.
    LongestFirst,
}

/// The sequences that wait for blocks.
#[derive(Debug)]
pub(super) struct Waiting {
    order: Order,
    /// Sequences that ran and lost their blocks, in the order in which they had started.
    preempted: VecDeque<Sequence>,
    /// Sequences that never ran, in order of arrival.
    new: VecDeque<Sequence>,
    /// How many of the latter were taken.
    starts: u64,
}

impl Waiting {
    /// Nobody waits.
    pub(super) fn new(order: Order) -> Self {
        Self { order, preempted: VecDeque::new(), new: VecDeque::new(), starts: 0 }
    }

    /// Sequences that wait.
    pub(super) fn len(&self) -> usize {
        self.preempted.len() + self.new.len()
    }

    /// Queues a sequence that is younger than all others.
    pub(super) fn push(&mut self, sequence: Sequence) {
        assert!(self.new.back().is_none_or(|last| last.id() < sequence.id()), "out of order");
        self.new.push_back(sequence);
    }

    /// Queues a sequence that started before all those that were preempted earlier.
    pub(super) fn push_preempted(&mut self, sequence: Sequence) {
        self.preempted.push_front(sequence);
    }

    /// The sequence that starts next.
    pub(super) fn next_mut(&mut self) -> Option<&mut Sequence> {
        if self.preempted.is_empty() {
            let next = self.next_new();
            self.new.get_mut(next)
        } else {
            self.preempted.front_mut()
        }
    }

    /// Takes the sequence that starts next.
    pub(super) fn take_next(&mut self) -> Option<Sequence> {
        self.preempted.pop_front().or_else(|| {
            let next = self.new.remove(self.next_new())?;
            self.starts += 1;
            Some(next)
        })
    }

    /// Takes a sequence out of its turn.
    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        [&mut self.preempted, &mut self.new].into_iter().find_map(|sequences| {
            let index = sequences.iter().position(|sequence| sequence.id() == id)?;
            sequences.remove(index)
        })
    }

    /// Index of the sequence that starts next among those that never ran; of equal ones the oldest.
    fn next_new(&self) -> usize {
        let lengths = self.new.iter().map(Sequence::prompt_len).enumerate();
        let best = match self.order {
            _ if self.starts % ARRIVAL_TURN == ARRIVAL_TURN - 1 => None,
            Order::Arrival => None,
            Order::ShortestFirst => lengths.min_by_key(|&(_, length)| length),
            // Of equal ones `max_by_key` takes the last.
            Order::LongestFirst => lengths.rev().max_by_key(|&(_, length)| length),
        };
        best.map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(id: u64, prompt_len: usize) -> Sequence {
        Sequence::new(SequenceId(id), vec![1; prompt_len])
    }

    fn waiting(order: Order, prompt_lens: &[usize]) -> Waiting {
        let mut waiting = Waiting::new(order);
        (0..).zip(prompt_lens).for_each(|(id, &prompt_len)| waiting.push(sequence(id, prompt_len)));
        waiting
    }

    fn ids(waiting: &mut Waiting) -> Vec<u64> {
        std::iter::from_fn(|| {
            let announced = waiting.next_mut().map(|sequence| sequence.id());
            let next = waiting.take_next().map(|sequence| sequence.id());
            assert_eq!(announced, next);
            next.map(|id| id.0)
        })
        .collect()
    }

    #[test]
    fn the_order_decides_who_starts_and_of_equals_the_oldest_does() {
        for (order, expected) in [
            (Order::Arrival, [0, 1, 2, 3, 4]),
            (Order::ShortestFirst, [1, 3, 0, 4, 2]),
            (Order::LongestFirst, [2, 0, 4, 1, 3]),
        ] {
            assert_eq!(ids(&mut waiting(order, &[5, 2, 9, 2, 5])), expected, "{order:?}");
        }
    }

    #[test]
    fn a_request_that_always_loses_starts_all_the_same() {
        for (order, loser, winner) in [(Order::ShortestFirst, 9, 1), (Order::LongestFirst, 1, 9)] {
            let mut waiting = waiting(order, &[loser, loser]);
            let mut started = Vec::new();
            for id in 2..30 {
                waiting.push(sequence(id, winner));
                started.extend(waiting.take_next().map(|sequence| sequence.id().0));
            }
            let losers: Vec<_> = (0..28).filter(|&start| started[start] < 2).collect();
            assert_eq!(losers, [7, 15], "{order:?}");
        }
    }

    #[test]
    fn what_was_preempted_comes_first_in_the_order_of_its_start() {
        let mut waiting = waiting(Order::ShortestFirst, &[1, 1]);
        waiting.push_preempted(sequence(8, 50));
        waiting.push_preempted(sequence(7, 60));
        assert_eq!(waiting.len(), 4);
        assert_eq!(waiting.remove(SequenceId(1)).map(|sequence| sequence.id()), Some(SequenceId(1)));
        assert!(waiting.remove(SequenceId(1)).is_none());
        assert_eq!(ids(&mut waiting), [7, 8, 0]);
    }
}
