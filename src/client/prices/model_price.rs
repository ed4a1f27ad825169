//! What one model's tokens cost, and the cost of a request.

use super::Money;
use crate::client::Usage;

/// Dollars for one token of each sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// The prompt.
    pub input: Money,
    /// The part of it that was read from the provider's cache.
    pub cached_input: Money,
    /// The part of it that was written to the provider's cache.
    pub cache_write: Money,
    /// The answer.
    pub output: Money,
    /// The part of it that is reasoning.
    pub reasoning: Money,
}

impl Rates {
    /// The cost of these tokens.
    fn cost(&self, usage: &Usage) -> Money {
        let uncached =
            usage.input_tokens.saturating_sub(usage.cached_tokens).saturating_sub(usage.cache_write_tokens);
        let answer = usage.output_tokens.saturating_sub(usage.reasoning_tokens);
        self.input.times(uncached)
            + self.cached_input.times(usage.cached_tokens)
            + self.cache_write.times(usage.cache_write_tokens)
            + self.output.times(answer)
            + self.reasoning.times(usage.reasoning_tokens)
    }

    /// Half of every rate.
    pub(super) fn half(&self) -> Self {
        Self {
            input: self.input.half(),
            cached_input: self.cached_input.half(),
            cache_write: self.cache_write.half(),
            output: self.output.half(),
            reasoning: self.reasoning.half(),
        }
    }
}

/// How a request is sent, which decides which rates hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Answered at once.
    Direct,
    /// Through the provider's batch interface.
    Batch,
}

/// The rates of prompts longer than some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The tier holds for the whole request when its prompt, cached tokens included, has more tokens than this.
    pub above: u64,
    /// The rates when the request is answered at once.
    pub direct: Rates,
    /// The rates in a batch.
    pub batch: Rates,
}

impl Tier {
    /// The rates of requests that are sent like this.
    pub fn rates(&self, service: Service) -> &Rates {
        match service {
            Service::Direct => &self.direct,
            Service::Batch => &self.batch,
        }
    }
}

/// A model's prices and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPrice {
    /// For prompts that no tier reprices; its `above` is 0.
    pub base: Tier,
    /// For longer prompts, by ascending `above`.
    pub tiers: Vec<Tier>,
    /// The longest prompt, where it is known.
    pub max_input_tokens: Option<u64>,
    /// The longest answer, where it is known.
    pub max_output_tokens: Option<u64>,
    /// Whether the model takes temperature and top_p, where it is known.
    pub supports_sampling: Option<bool>,
}

impl ModelPrice {
    /// The cost of one request; a sum over requests would be put into too high a tier.
    pub fn cost(&self, usage: &Usage, service: Service) -> Money {
        let tier = self.tiers.iter().rfind(|tier| usage.input_tokens > tier.above).unwrap_or(&self.base);
        tier.rates(service).cost(usage)
    }

    /// The most that one request can cost with a prompt of at most `input_tokens` and answers of at most
    /// `output_tokens` in all, whatever is cached and whichever tier the prompt falls into.
    pub fn worst_case(&self, input_tokens: u64, output_tokens: u64, service: Service) -> Money {
        let reachable = self.tiers.iter().filter(|tier| input_tokens > tier.above);
        std::iter::once(&self.base)
            .chain(reachable)
            .map(|tier| {
                let rates = tier.rates(service);
                rates.input.max(rates.cached_input).max(rates.cache_write).times(input_tokens)
                    + rates.output.max(rates.reasoning).times(output_tokens)
            })
            .max()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::Prices;

    fn price(model: &str) -> ModelPrice {
        Prices::builtin().find("", model).unwrap().price.clone()
    }

    #[test]
    fn costs_follow_the_published_rates() {
        let check = |model: &str, service, [input, cached, write, output]: [u64; 4], dollars: f64| {
            let usage = Usage {
                input_tokens: input,
                cached_tokens: cached,
                cache_write_tokens: write,
                output_tokens: output,
                reasoning_tokens: output / 2,
            };
            let cost = price(model).cost(&usage, service);
            assert_eq!(cost, Money::from_dollars(dollars).unwrap(), "{model} {usage:?} {service:?}");
        };
        check("gpt-4o", Service::Direct, [1_000_000, 0, 0, 1_000_000], 12.5);
        check("gpt-4o", Service::Direct, [1_000, 400, 0, 10], 0.0021);
        check("gpt-4o", Service::Batch, [1_000, 400, 0, 10], 0.00105);
        check("claude-sonnet-5-5", Service::Direct, [1_000, 300, 200, 0], 0.00153);
        check("claude-haiku-5-5", Service::Direct, [100_000, 0, 0, 1_000], 0.0105);
        check("claude-haiku-5-5", Service::Direct, [100_001, 0, 0, 1_000], 0.052_500_5);
        check("gpt-6.1-sol", Service::Direct, [272_001, 272_001, 0, 1_000], 0.069_400_2);
        check("gpt-6.1-sol", Service::Batch, [272_001, 272_001, 0, 1_000], 0.034_700_1);
    }

    #[test]
    fn impossible_usage_is_not_negative() {
        let usage = Usage { input_tokens: 1, cached_tokens: 5, reasoning_tokens: 5, ..Usage::default() };
        assert!(price("gpt-4o").cost(&usage, Service::Direct) > Money::ZERO);
    }

    proptest! {
        #[test]
        fn no_cost_is_above_the_worst_case(
            model in prop::sample::select(vec!["gpt-6.1-sol", "gpt-4o", "claude-haiku-5-5", "claude-opus-5-5"]),
            batch in any::<bool>(),
            most_input in 0_u64..2_000_000,
            most_output in 0_u64..200_000,
            shares in prop::array::uniform5(0.0_f64..=1.0),
        ) {
            let share = |whole: u64, share: f64| (whole as f64 * share) as u64;
            let input_tokens = share(most_input, shares[0]);
            let cached_tokens = share(input_tokens, shares[1]);
            let output_tokens = share(most_output, shares[3]);
            let usage = Usage {
                input_tokens,
                cached_tokens,
                cache_write_tokens: share(input_tokens - cached_tokens, shares[2]),
                output_tokens,
                reasoning_tokens: share(output_tokens, shares[4]),
            };
            let service = if batch { Service::Batch } else { Service::Direct };
            let price = price(model);
            prop_assert!(price.cost(&usage, service) <= price.worst_case(most_input, most_output, service));
        }
    }
}
