//! How often a forecast of each kind has been right.

/// Weight of the newest forecast in a rate, when there have been many.
const RATE_STEP: f32 = 0.05;
/// How many forecasts the first rate weighs as much as.
const PRIOR_WEIGHT: f32 = 5.0;

/// Who foretells a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// What followed the same tokens in the sequence.
    Text { contested: bool },
    /// What followed them in a finished answer.
    Answers { contested: bool },
    /// The copy in progress; `edited` when an edit of it is at work.
    Copy { edited: bool },
}

/// Forecasts that are right about equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    source: usize,
    agreement: usize,
}

const AGREEMENTS: usize = 7;
const SOURCES: usize = 6;

impl Class {
    /// The class of a token that `source` foretells after an agreement of so many tokens.
    pub(super) fn new(source: Source, agreement: usize) -> Self {
        let source = match source {
            Source::Text { contested: false } => 0,
            Source::Text { contested: true } => 1,
            Source::Answers { contested: false } => 2,
            Source::Answers { contested: true } => 3,
            Source::Copy { edited: false } => 4,
            Source::Copy { edited: true } => 5,
        };
        let agreement = match agreement {
            0..=1 => 0,
            2 => 1,
            3 => 2,
            4 => 3,
            5..=8 => 4,
            9..=16 => 5,
            _ => 6,
        };
        Self { source, agreement }
    }
}

/// The share of right forecasts in a class.
#[derive(Debug, Clone, Copy)]
struct Rate {
    share: f32,
    /// Weight of the next forecast: falls from that of a few to [`RATE_STEP`].
    step: f32,
}

impl Rate {
    fn new(share: f32) -> Self {
        Self { share, step: 1.0 / (PRIOR_WEIGHT + 1.0) }
    }

    fn learn(&mut self, right: bool) {
        self.share += self.step * (f32::from(u8::from(right)) - self.share);
        self.step = (self.step / (1.0 + self.step)).max(RATE_STEP);
    }
}

/// How often the forecasts of each class are right, which every token of a sequence tells.
#[derive(Debug)]
pub(super) struct Trust {
    rates: [[Rate; AGREEMENTS]; SOURCES],
}

impl Trust {
    /// What forecasts of patches are worth, about.
    pub(super) fn new() -> Self {
        let sole = [0.3, 0.55, 0.7, 0.8, 0.85, 0.85, 0.9];
        let contested = sole.map(|rate| 0.4 * rate);
        let (copy, edited) = ([0.8; AGREEMENTS], [0.5; AGREEMENTS]);
        Self { rates: [sole, contested, sole, contested, copy, edited].map(|rates| rates.map(Rate::new)) }
    }

    /// The chance that a forecast is right.
    pub(super) fn chance(&self, class: Class) -> f32 {
        self.rates[class.source][class.agreement].share
    }

    /// Takes note of whether one was.
    pub(super) fn learn(&mut self, class: Class, right: bool) {
        self.rates[class.source][class.agreement].learn(right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_learns_for_itself() {
        let sources = [false, true].map(|flag| {
            [
                Source::Text { contested: flag },
                Source::Answers { contested: flag },
                Source::Copy { edited: flag },
            ]
        });
        let classes = || {
            let sources = sources.into_iter().flatten();
            sources.flat_map(|source| [1, 2, 3, 4, 6, 12, 30].map(|agreement| Class::new(source, agreement)))
        };
        for class in classes() {
            let mut trust = Trust::new();
            for (right, expected) in [(true, 0.95..1.0), (false, 0.0..0.05)] {
                (0..100).for_each(|_| trust.learn(class, right));
                assert!(expected.contains(&trust.chance(class)), "{class:?}: {}", trust.chance(class));
            }
            let fresh = Trust::new();
            for other in classes().filter(|&other| other != class) {
                assert_eq!(
                    trust.chance(other).to_bits(),
                    fresh.chance(other).to_bits(),
                    "{class:?} {other:?}"
                );
            }
        }
    }
}
