//! The request of a generation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::engine::{Request, Sampling, StopRules};
use crate::error::{Error, Result};

/// Most samples of one request.
const MAX_SAMPLES: u32 = 64;

/// What to generate, apart from token ids.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(in crate::capi) struct GenerateConfig {
    /// The prompt's text; leave it out when token ids are passed.
    pub prompt: Option<String>,
    /// Whether the prompt's text gets the BOS token and its like, as the model's rules say.
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
    /// Samples of the same prompt, 1 to 64; with a `seed`, sample i uses `seed + i`.
    #[serde(default = "one")]
    pub n: u32,
    /// The most tokens to generate.
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// 0 takes the most probable token each time; otherwise the divisor of the logits, up to 100.
    #[serde(default)]
    pub temperature: f32,
    /// Nucleus sampling: the smallest set of tokens whose probability reaches this; 1 keeps all.
    #[serde(default = "all")]
    pub top_p: f32,
    /// Only the k most probable tokens; 0 keeps all.
    #[serde(default)]
    pub top_k: usize,
    /// The same seed gives the same text, whatever else runs; by default a new one each time.
    pub seed: Option<u64>,
    /// Strings that end the text and are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Token ids that end the text and are not part of it; by default the model's own. `[]` never ends it that way.
    pub eos_token_ids: Option<Vec<u32>>,
    /// Stop when the last 100 generated tokens hold at most this many distinct ones; 0 never.
    #[serde(default)]
    pub repetition_distinct: usize,
    /// Record every token's logprob with this many alternatives.
    pub logprobs: Option<usize>,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn all() -> f32 {
    1.0
}

fn max_new_tokens() -> usize {
    1024
}

impl GenerateConfig {
    /// The engine's requests, one per sample, for a prompt of these ids; `model_eos` serves when no EOS ids are given.
    pub(in crate::capi) fn requests(&self, prompt: &[u32], model_eos: &[u32]) -> Vec<Request> {
        (0..self.n)
            .map(|index| Request {
                prompt: prompt.to_vec(),
                sampling: Sampling {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    seed: self.seed.map(|seed| seed.wrapping_add(u64::from(index))),
                },
                stop: StopRules {
                    max_new_tokens: self.max_new_tokens,
                    eos_token_ids: self.eos_token_ids.clone().unwrap_or_else(|| model_eos.to_vec()),
                    stop_strings: self.stop.clone(),
                    repetition_distinct: self.repetition_distinct,
                },
                logprobs: self.logprobs,
            })
            .collect()
    }
}

impl Config for GenerateConfig {
    const KIND: &'static str = "generate";

    fn check(&self) -> Result<()> {
        let range = |key: &str, expected: &str, got: String| {
            Err(Error::invalid_argument(format!("`{key}` is out of range")).with_expected(expected, got))
        };
        if !(1..=MAX_SAMPLES).contains(&self.n) {
            return range("n", "1 to 64", self.n.to_string());
        }
        if self.max_new_tokens == 0 {
            return range("max_new_tokens", "at least 1", "0".into());
        }
        if !(0.0..=100.0).contains(&self.temperature) {
            return range("temperature", "0 to 100", self.temperature.to_string());
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return range("top_p", "more than 0, at most 1", self.top_p.to_string());
        }
        if self.stop.iter().any(String::is_empty) {
            return range("stop", "strings that are not empty", "\"\"".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn samples_differ_by_their_seed_alone() {
        let config: GenerateConfig = parse("{\"n\": 2, \"seed\": 7, \"temperature\": 1}").unwrap();
        let requests = config.requests(&[1, 2], &[9]);
        assert_eq!(
            requests.iter().map(|request| request.sampling.seed).collect::<Vec<_>>(),
            [Some(7), Some(8)]
        );
        assert_eq!(requests[1].stop.eos_token_ids, [9]);
        assert_eq!(requests[0].stop, requests[1].stop);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let cases = [
            ("{\"n\": 0}", "`n`"),
            ("{\"n\": 65}", "`n`"),
            ("{\"max_new_tokens\": 0}", "`max_new_tokens`"),
            ("{\"temperature\": -1}", "`temperature`"),
            ("{\"temperature\": 1e39}", "`temperature`"),
            ("{\"top_p\": 0}", "`top_p`"),
            ("{\"top_p\": 1.5}", "`top_p`"),
            ("{\"stop\": [\"\"]}", "`stop`"),
        ];
        for (json, key) in cases {
            let error = parse::<GenerateConfig>(json).unwrap_err();
            assert!(error.message().contains(key), "{json}: {error}");
        }
    }
}
