//! How many requests may be in flight: a fixed number, or one that follows the server.

use std::num::NonZeroUsize;

/// Requests in flight before anything is known about the server.
const FIRST: usize = 4;

/// How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// Always this many.
    Fixed(NonZeroUsize),
    /// As many as the server takes, and never more than `most`.
    Adaptive {
        /// The upper end.
        most: NonZeroUsize,
    },
}

/// The current number: as in TCP it doubles each round trip at first, halves when the server refuses, and then grows by
/// one a round trip.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    most: usize,
    adaptive: bool,
    /// The size above which it grows slowly.
    slow_from: usize,
    /// Successes since it last grew slowly.
    successes: usize,
    /// How often it has shrunk: a refusal counts only when its request was sent after the last time.
    epoch: u64,
    /// Whether the server's headers say that there is little left.
    held: bool,
}

impl Window {
    pub(super) fn new(concurrency: Concurrency) -> Self {
        let (size, most, adaptive) = match concurrency {
            Concurrency::Fixed(number) => (number.get(), number.get(), false),
            Concurrency::Adaptive { most } => (FIRST.min(most.get()), most.get(), true),
        };
        Self { size, most, adaptive, slow_from: most, successes: 0, epoch: 0, held: false }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// A request succeeded that was in flight while the window was full.
    pub(super) fn grow(&mut self) {
        if !self.adaptive || self.held || self.size == self.most {
            return;
        }
        self.successes += 1;
        if self.size < self.slow_from || self.successes >= self.size {
            self.size += 1;
            self.successes = 0;
        }
    }

    /// One of `in_flight` requests, sent in `epoch`, was refused.
    pub(super) fn shrink(&mut self, epoch: u64, in_flight: usize) {
        if !self.adaptive || epoch != self.epoch {
            return;
        }
        self.size = (self.size.min(in_flight) / 2).max(1);
        self.slow_from = self.size;
        self.successes = 0;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    #[test]
    fn it_doubles_then_halves_then_grows_by_one_a_round() {
        let mut window = Window::new(Concurrency::Adaptive { most: number(20) });
        let mut sizes = vec![window.size()];
        for round in 0..8 {
            let (size, epoch) = (window.size(), window.epoch());
            for _ in 0..size {
                if round == 3 {
                    window.shrink(epoch, size);
                } else {
                    window.grow();
                }
            }
            sizes.push(window.size());
        }
        assert_eq!(sizes, [4, 8, 16, 20, 10, 11, 12, 13, 14]);
    }

    #[test]
    fn it_stays_between_one_and_the_most() {
        let mut window = Window::new(Concurrency::Adaptive { most: number(2) });
        for _ in 0..10 {
            window.grow();
        }
        assert_eq!(window.size(), 2);
        for _ in 0..10 {
            window.shrink(window.epoch(), 1);
        }
        assert_eq!(window.size(), 1);
    }

    #[test]
    fn it_does_not_grow_while_held() {
        let mut window = Window::new(Concurrency::Adaptive { most: number(20) });
        window.hold(true);
        window.grow();
        assert_eq!(window.size(), 4);
        window.hold(false);
        window.grow();
        assert_eq!(window.size(), 5);
    }

    #[test]
    fn a_fixed_one_never_changes() {
        let mut window = Window::new(Concurrency::Fixed(number(7)));
        window.grow();
        window.shrink(0, 7);
        assert_eq!(window.size(), 7);
    }
}
