//! The next token from a row of logits: greedy, or drawn after temperature, top-k and top-p.

use std::cmp::Ordering;

use super::random::uniform;
use super::request::{Sampling, TokenLogprob};
use crate::error::{Error, Result};

/// How many candidates the first round of the nucleus search sorts; each later round sorts four times as many.
const FIRST_NUCLEUS_ROUND: usize = 64;

/// A token and its logit, or its weight once exponentiated.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    value: f32,
}

impl Candidate {
    /// Best first: larger values, then lower ids; total, so that a selection of the best is unique.
    fn rank(&self, other: &Self) -> Ordering {
        other.value.total_cmp(&self.value).then(self.token.cmp(&other.token))
    }
}

/// Chooses tokens; holds the memory for it, which is reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// The token of the draw number `index` of `seed` from one row of logits `[vocab_size]`.
    ///
    /// In the order of Hugging Face transformers: temperature, then top-k, then top-p. Of equal logits the lower id
    /// comes first. The result depends on nothing but the arguments.
    ///
    /// # Errors
    /// `InvalidData` when a logit is NaN or infinite, or all are minus infinity.
    pub(super) fn sample(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        seed: u64,
        index: u64,
    ) -> Result<u32> {
        let (best, max) = finite_maximum(logits)?;
        if sampling.temperature == 0.0 || sampling.top_k == 1 {
            return Ok(best);
        }
        self.fill(logits);
        if (1..self.candidates.len()).contains(&sampling.top_k) {
            self.candidates.select_nth_unstable_by(sampling.top_k - 1, Candidate::rank);
            self.candidates.truncate(sampling.top_k);
            self.candidates.sort_unstable_by(Candidate::rank);
        }
        // In f64, as a tiny temperature would overflow an f32.
        let scale = 1.0 / f64::from(sampling.temperature);
        let mut total = 0.0;
        for candidate in &mut self.candidates {
            candidate.value = ((f64::from(candidate.value) - f64::from(max)) * scale).exp() as f32;
            total += f64::from(candidate.value);
        }
        if sampling.top_p < 1.0 {
            total = self.keep_nucleus(f64::from(sampling.top_p) * total);
        }
        Ok(self.draw(uniform(seed, index) * total).unwrap_or(best))
    }

    /// Natural-log probabilities (temperature 1, nothing cut off) of `token` and of the `num_top` most probable tokens.
    pub(super) fn logprob(&mut self, logits: &[f32], token: u32, num_top: usize) -> Result<TokenLogprob> {
        let (_, max) = finite_maximum(logits)?;
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
        let log_sum = f64::from(max) + sum.ln();
        let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;
        let num_top = num_top.min(logits.len());
        let mut top = Vec::with_capacity(num_top);
        if num_top > 0 {
            self.fill(logits);
            self.candidates.select_nth_unstable_by(num_top - 1, Candidate::rank);
            self.candidates.truncate(num_top);
            self.candidates.sort_unstable_by(Candidate::rank);
            top.extend(self.candidates.iter().map(|candidate| (candidate.token, logprob(candidate.value))));
        }
        Ok(TokenLogprob { token_id: token, logprob: logprob(logits[token as usize]), top })
    }

    fn fill(&mut self, logits: &[f32]) {
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits).map(|(token, &value)| Candidate { token, value }));
    }

    /// Keeps the fewest best candidates whose weights sum to at least `mass`, and returns their sum.
    ///
    /// Sorts a small head first, as the nucleus of a language model is nearly always there.
    fn keep_nucleus(&mut self, mass: f64) -> f64 {
        let mut sum = 0.0;
        let mut start = 0;
        let mut round = FIRST_NUCLEUS_ROUND;
        while start < self.candidates.len() {
            let rest = &mut self.candidates[start..];
            let round_len = round.min(rest.len());
            if round_len < rest.len() {
                rest.select_nth_unstable_by(round_len, Candidate::rank);
            }
            let head = &mut rest[..round_len];
            head.sort_unstable_by(Candidate::rank);
            for (index, candidate) in head.iter().enumerate() {
                sum += f64::from(candidate.value);
                if sum >= mass {
                    self.candidates.truncate(start + index + 1);
                    return sum;
                }
            }
            start += round_len;
            round = round.saturating_mul(4);
        }
        sum
    }

    /// The candidate in whose share of the total weight `point` falls.
    fn draw(&self, mut point: f64) -> Option<u32> {
        for candidate in &self.candidates {
            point -= f64::from(candidate.value);
            if point < 0.0 {
                return Some(candidate.token);
            }
        }
        // Rounding may leave a remainder behind the last candidate.
        self.candidates.iter().rev().find(|candidate| candidate.value > 0.0).map(|candidate| candidate.token)
    }
}

/// The lowest id with the largest logit, and that logit.
fn finite_maximum(logits: &[f32]) -> Result<(u32, f32)> {
    // Two plain passes, which the compiler vectorises; `max` alone would skip over NaN.
    let mut max = f32::NEG_INFINITY;
    let mut has_nan = false;
    for &logit in logits {
        max = if logit > max { logit } else { max };
        has_nan |= logit.is_nan();
    }
    let best = logits.iter().position(|&logit| logit == max);
    match best {
        Some(best) if !has_nan && max.is_finite() => Ok((best as u32, max)),
        _ => Err(Error::invalid_data("the model's logits are not finite")
            .with_expected(
                "finite logits",
                if has_nan { "NaN".to_owned() } else { format!("a maximum of {max}") },
            )
            .with_hint("the weights may be corrupt, or the element type too narrow for this model: try f32")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_k: usize, top_p: f32) -> Sampling {
        Sampling { temperature, top_p, top_k, seed: None }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_logits() {
        let mut sampler = Sampler::default();
        for (logits, expected) in
            [(&[0.0, 2.0, 2.0, 1.0][..], 1), (&[-1.0][..], 0), (&[f32::NEG_INFINITY, -5.0][..], 1)]
        {
            for sampling in [sampling(0.0, 0, 1.0), sampling(0.7, 1, 1.0)] {
                assert_eq!(sampler.sample(logits, &sampling, 1, 2).unwrap(), expected, "{logits:?}");
            }
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        let mut sampler = Sampler::default();
        for logits in [&[0.0, f32::NAN][..], &[f32::NAN], &[1.0, f32::INFINITY], &[f32::NEG_INFINITY; 3], &[]]
        {
            for sampling in [sampling(0.0, 0, 1.0), sampling(1.0, 2, 0.5)] {
                assert!(sampler.sample(logits, &sampling, 0, 0).is_err(), "{logits:?}");
            }
        }
    }

    /// Hugging Face's warpers, written plainly: the probability of each token.
    fn oracle(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if sampling.top_k > 0 {
            order.truncate(sampling.top_k);
        }
        let weight = |&index: &usize| (f64::from(logits[index]) / f64::from(sampling.temperature)).exp();
        let total: f64 = order.iter().map(weight).sum();
        let mut sum = 0.0;
        let mut kept = 0;
        while kept < order.len() && (sum < f64::from(sampling.top_p) * total || kept == 0) {
            sum += weight(&order[kept]);
            kept += 1;
        }
        let mut probabilities = vec![0.0; logits.len()];
        for index in &order[..kept] {
            probabilities[*index] = weight(index) / sum;
        }
        probabilities
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits: Vec<f32> = (0..300).map(|index| ((index * 37 % 300) as f32 / 40.0).sin() * 3.0).collect();
        let mut sampler = Sampler::default();
        for (case, sampling) in
            [sampling(1.0, 0, 1.0), sampling(0.5, 0, 0.9), sampling(2.0, 5, 1.0), sampling(1.5, 200, 0.95)]
                .into_iter()
                .enumerate()
        {
            const DRAWS: usize = 20_000;
            let mut counts = vec![0usize; logits.len()];
            for index in 0..DRAWS {
                counts[sampler.sample(&logits, &sampling, case as u64, index as u64).unwrap() as usize] += 1;
            }
            let (mut chi_square, mut cells) = (0.0, 0.0);
            for (probability, count) in oracle(&logits, &sampling).into_iter().zip(counts) {
                if probability == 0.0 {
                    assert_eq!(count, 0, "a token outside the kept set, {sampling:?}");
                    continue;
                }
                let expected = probability * DRAWS as f64;
                chi_square += (count as f64 - expected).powi(2) / expected;
                cells += 1.0;
            }
            // Mean `cells - 1`, variance twice that; five standard deviations.
            let freedom: f64 = cells - 1.0;
            assert!(
                chi_square < freedom + 5.0 * (2.0 * freedom).sqrt(),
                "{chi_square} over {freedom}, {sampling:?}"
            );
        }
    }

    #[test]
    fn extreme_parameters_are_defined() {
        let logits = [1.0, 3.0, 2.0, f32::NEG_INFINITY];
        let mut sampler = Sampler::default();
        for (sampling, allowed) in [
            (sampling(1e-30, 0, 1.0), &[1][..]),
            (sampling(1.0, 0, 1e-6), &[1]),
            (sampling(1.0, 99, 1.0), &[0, 1, 2]),
            (sampling(1e30, 0, 1.0), &[0, 1, 2]),
        ] {
            for index in 0..200 {
                let token = sampler.sample(&logits, &sampling, 3, index).unwrap();
                assert!(allowed.contains(&token), "{token} with {sampling:?}");
            }
        }
    }

    #[test]
    fn logprobs_are_a_log_softmax() {
        let logits = [1.0f32, 3.0, 2.0, -1.0];
        let log_sum = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        let expected = |token: u32| (token, (f64::from(logits[token as usize]) - log_sum) as f32);
        let mut sampler = Sampler::default();
        for (num_top, top) in [(0, vec![]), (2, vec![1, 2]), (9, vec![1, 2, 0, 3])] {
            let logprob = sampler.logprob(&logits, 0, num_top).unwrap();
            assert_eq!((logprob.token_id, logprob.logprob), expected(0));
            assert_eq!(logprob.top, top.into_iter().map(expected).collect::<Vec<_>>());
        }
    }
}
