//! What one more row costs a step, learned from the steps themselves: what a guessed token has to be worth.

/// Weight of the newest step in the means.
const STEP_WEIGHT: f64 = 0.05;
/// The share of a step that a row takes until steps have told.
const PRIOR_SHARE: f64 = 0.1;
/// How many squared rows of variance that belief weighs as much as.
const PRIOR_WEIGHT: f64 = 0.5;
/// A step of so many times the usual duration was disturbed, and counts as this.
const LONGEST: f64 = 4.0;
/// Bounds of [`RowCost::min_chance`]: what is nearly certain is always guessed, which also keeps the cost up to date.
const CHANCES: (f64, f64) = (0.05, 0.5);

/// Exponentially weighted means over steps that only decode.
#[derive(Debug, Default)]
pub(super) struct RowCost {
    seconds: f64,
    tokens: f64,
    rows: f64,
    /// Variance of the rows, and their covariance with the seconds.
    variance: f64,
    covariance: f64,
}

impl RowCost {
    /// Takes note of a step: rows computed, tokens that came of it, its duration.
    pub(super) fn learn(&mut self, rows: usize, tokens: usize, seconds: f64) {
        let (rows, tokens) = (rows as f64, tokens as f64);
        if self.seconds == 0.0 {
            (self.seconds, self.tokens, self.rows) = (seconds, tokens, rows);
            return;
        }
        let seconds = seconds.min(LONGEST * self.seconds);
        let (more_rows, more_seconds) = (rows - self.rows, seconds - self.seconds);
        self.rows += STEP_WEIGHT * more_rows;
        self.seconds += STEP_WEIGHT * more_seconds;
        self.tokens += STEP_WEIGHT * (tokens - self.tokens);
        let keep = 1.0 - STEP_WEIGHT;
        self.variance = keep * (self.variance + STEP_WEIGHT * more_rows * more_rows);
        self.covariance = keep * (self.covariance + STEP_WEIGHT * more_rows * more_seconds);
    }

    /// The chance of being right from which a guessed token is worth its row: with fewer, the tokens that the row's time
    /// would give to other steps are more.
    pub(super) fn min_chance(&self) -> f32 {
        let share = if self.seconds > 0.0 {
            let prior = PRIOR_WEIGHT * PRIOR_SHARE * self.seconds;
            let row_seconds = (self.covariance + prior) / (self.variance + PRIOR_WEIGHT);
            row_seconds * self.tokens / self.seconds
        } else {
            PRIOR_SHARE
        };
        share.clamp(CHANCES.0, CHANCES.1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_follows_the_cost_of_a_row() {
        for (row_seconds, tokens, expected) in [
            // Of a step of 1 s, 3 rows in the mean: memory-bound, in between, a batch that computes, all computed.
            (0.0, 1, 0.05..0.06),
            (0.02, 1, 0.05..0.06),
            (0.15, 1, 0.1..0.16),
            (0.15, 3, 0.3..0.48),
            (0.3, 3, 0.5..0.51),
        ] {
            let mut cost = RowCost::default();
            for step in 0..200 {
                let rows = [1, 2, 4, 5, 3][step % 5];
                // Something else runs now and then.
                let disturbance = if step % 23 == 0 { 30.0 } else { 1.0 };
                cost.learn(rows, tokens, (1.0 + row_seconds * (rows as f64 - 3.0)) * disturbance);
            }
            let chance = cost.min_chance();
            assert!(expected.contains(&chance), "{row_seconds} s a row, {tokens} tokens: {chance}");
        }
    }

    #[test]
    fn steps_that_are_all_alike_say_nothing() {
        let mut cost = RowCost::default();
        assert_eq!(cost.min_chance(), 0.1);
        (0..100).for_each(|_| cost.learn(1, 1, 0.25));
        assert!((cost.min_chance() - 0.1).abs() < 1e-6, "{}", cost.min_chance());
    }
}
