//! Reads a price map in the format of LiteLLM's `model_prices_and_context_window.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{ModelPrice, Money, Rates, Tier};
use crate::error::{Error, Result};

/// The entry that describes the format in prose.
const SAMPLE: &str = "sample_spec";
/// Prices of a token above this are a slip in the unit: a dollar a token is a million dollars a million.
const MOST_DOLLARS: f64 = 1.0;

/// The models of the map that have a price for prompt and answer tokens; images, speech and embeddings are left out.
pub(super) fn read(json: &[u8]) -> Result<BTreeMap<String, ModelPrice>> {
    let entries: Map<String, Value> = serde_json::from_slice(json).map_err(|source| {
        Error::invalid_data("not a price map")
            .with_expected("a JSON object of models as LiteLLM publishes it", &source)
            .with_source(source)
    })?;
    let mut models = BTreeMap::new();
    for (model, entry) in entries {
        if model == SAMPLE {
            continue;
        }
        let Value::Object(members) = &entry else {
            return Err(Error::invalid_data(format!("the price of model `{model}` is malformed"))
                .with_expected("an object", shorten(&entry)));
        };
        if let Some(price) = (Entry { model: &model, members }).price()? {
            models.insert(model, price);
        }
    }
    Ok(models)
}

/// The rates' keys; a tier appends `_above_Nk_tokens`, a batch `_batches`.
const INPUT: &str = "input_cost_per_token";
const CACHED_INPUT: &str = "cache_read_input_token_cost";
const CACHE_WRITE: &str = "cache_creation_input_token_cost";
const OUTPUT: &str = "output_cost_per_token";
const REASONING: &str = "output_cost_per_reasoning_token";

/// One model's entry.
struct Entry<'a> {
    model: &'a str,
    members: &'a Map<String, Value>,
}

impl Entry<'_> {
    /// `None` when prompt or answer tokens have no price.
    fn price(&self) -> Result<Option<ModelPrice>> {
        let base = self.tier(0, "")?;
        let mut tiers = Vec::new();
        for thousands in self.thresholds() {
            let above = thousands.saturating_mul(1000);
            tiers.extend(self.tier(above, &format!("_above_{thousands}k_tokens"))?);
        }
        let max_input_tokens = self.tokens("max_input_tokens")?;
        let max_output_tokens = self.tokens("max_output_tokens")?;
        let supports_sampling = self.flag("supports_sampling_params")?;
        Ok(base.map(|base| ModelPrice {
            base,
            tiers,
            max_input_tokens,
            max_output_tokens,
            supports_sampling,
        }))
    }

    /// The prompt lengths, in thousands of tokens, above which the entry has other rates, ascending.
    fn thresholds(&self) -> BTreeSet<u64> {
        let threshold = |key: &str| {
            let (rate, condition) = key.split_once("_above_")?;
            let known = [INPUT, CACHED_INPUT, CACHE_WRITE, OUTPUT, REASONING].contains(&rate);
            let thousands = condition.trim_end_matches("_batches").strip_suffix("k_tokens")?;
            known.then(|| thousands.parse().ok())?
        };
        self.members.keys().filter_map(|key| threshold(key)).collect()
    }

    /// A tier's rates: what the tier does not name stays as it is without it.
    fn tier(&self, above: u64, suffix: &str) -> Result<Option<Tier>> {
        let rate = |key: &str| -> Result<Option<Money>> {
            Ok(self.dollars(&format!("{key}{suffix}"))?.or(self.dollars(key)?))
        };
        let (input, output) = (rate(INPUT)?, rate(OUTPUT)?);
        let (cached_input, cache_write, reasoning) =
            (rate(CACHED_INPUT)?, rate(CACHE_WRITE)?, rate(REASONING)?);
        let (Some(input), Some(output)) = (input, output) else { return Ok(None) };
        let direct = Rates {
            input,
            cached_input: cached_input.unwrap_or(input),
            cache_write: cache_write.unwrap_or(input),
            output,
            reasoning: reasoning.unwrap_or(output),
        };
        let batch = |key: &str| self.dollars(&format!("{key}{suffix}_batches"));
        let half = direct.half();
        let batch = Rates {
            input: batch(INPUT)?.unwrap_or(half.input),
            cached_input: batch(CACHED_INPUT)?.unwrap_or(half.cached_input),
            cache_write: batch(CACHE_WRITE)?.unwrap_or(half.cache_write),
            output: batch(OUTPUT)?.unwrap_or(half.output),
            reasoning: batch(REASONING)?.unwrap_or(half.reasoning),
        };
        Ok(Some(Tier { above, direct, batch }))
    }

    fn dollars(&self, key: &str) -> Result<Option<Money>> {
        self.member(key, "a number of dollars a token, at least 0 and at most 1", |value| {
            let dollars = value.as_f64().filter(|dollars| *dollars <= MOST_DOLLARS)?;
            Money::from_dollars(dollars)
        })
    }

    /// A number of tokens; 0 is how some entries say that they do not know.
    fn tokens(&self, key: &str) -> Result<Option<u64>> {
        let tokens = self.member(key, "a number of tokens", |value| {
            let whole = |number: f64| (number.fract() == 0.0 && number >= 0.0).then_some(number as u64);
            value.as_u64().or_else(|| value.as_f64().and_then(whole))
        })?;
        Ok(tokens.filter(|tokens| *tokens > 0))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.member(key, "true or false", Value::as_bool)
    }

    /// The member as `parse` understands it; `None` when it is missing or null.
    fn member<T>(&self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.members.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => parse(value).map(Some).ok_or_else(|| {
                Error::invalid_data(format!("`{key}` of model `{}` is malformed", self.model))
                    .with_expected(expected, shorten(value))
            }),
        }
    }
}

/// The value as JSON, cut to what fits in a message.
fn shorten(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dollars(dollars: f64) -> Money {
        Money::from_dollars(dollars).unwrap()
    }

    fn one(entry: &str) -> Result<Option<ModelPrice>> {
        read(format!(r#"{{"m": {entry}}}"#).as_bytes()).map(|mut models| models.remove("m"))
    }

    #[test]
    fn what_an_entry_leaves_out_follows_from_the_rest() {
        let price = one(
            r#"{"input_cost_per_token": 4e-6, "output_cost_per_token": 8e-6, "cache_read_input_token_cost": 1e-6,
                "input_cost_per_token_above_200k_tokens": 6e-6, "output_cost_per_token_batches": 5e-6,
                "cache_creation_input_token_cost_above_1hr": 1, "input_cost_per_token_priority": "prose",
                "max_input_tokens": 200000.0, "max_output_tokens": 0, "supports_sampling_params": false}"#,
        )
        .unwrap()
        .unwrap();
        let rates = |input, cached_input, cache_write, output, reasoning| Rates {
            input: dollars(input),
            cached_input: dollars(cached_input),
            cache_write: dollars(cache_write),
            output: dollars(output),
            reasoning: dollars(reasoning),
        };
        let expected = ModelPrice {
            base: Tier {
                above: 0,
                direct: rates(4e-6, 1e-6, 4e-6, 8e-6, 8e-6),
                batch: rates(2e-6, 5e-7, 2e-6, 5e-6, 4e-6),
            },
            tiers: vec![Tier {
                above: 200_000,
                direct: rates(6e-6, 1e-6, 6e-6, 8e-6, 8e-6),
                batch: rates(3e-6, 5e-7, 3e-6, 4e-6, 4e-6),
            }],
            max_input_tokens: Some(200_000),
            max_output_tokens: None,
            supports_sampling: Some(false),
        };
        assert_eq!(price, expected);
    }

    #[test]
    fn prose_is_an_error_that_says_where() {
        let check = |entry: &str, message: &str, got: &str| {
            let error = one(entry).unwrap_err();
            assert_eq!((error.message(), error.got()), (message, Some(got)), "{entry}");
        };
        check(
            r#"{"input_cost_per_token": "two dollars"}"#,
            "`input_cost_per_token` of model `m` is malformed",
            "\"two dollars\"",
        );
        check(r#"{"output_cost_per_token": -1}"#, "`output_cost_per_token` of model `m` is malformed", "-1");
        check(r#"{"input_cost_per_token": 2.5}"#, "`input_cost_per_token` of model `m` is malformed", "2.5");
        check(
            r#"{"cache_read_input_token_cost_above_9k_tokens": []}"#,
            "`cache_read_input_token_cost_above_9k_tokens` of model `m` is malformed",
            "[]",
        );
        check(r#"{"max_input_tokens": "many"}"#, "`max_input_tokens` of model `m` is malformed", "\"many\"");
        check(
            r#"{"supports_sampling_params": 1}"#,
            "`supports_sampling_params` of model `m` is malformed",
            "1",
        );
        check("3", "the price of model `m` is malformed", "3");
    }

    #[test]
    fn the_sample_and_models_without_token_prices_are_left_out() {
        let models = read(
            br#"{"sample_spec": {"input_cost_per_token": "prose"}, "image": {"output_cost_per_image": 0.01},
                "embedding": {"input_cost_per_token": 1e-7}, "free": {"input_cost_per_token": 0, "output_cost_per_token": 0}}"#,
        )
        .unwrap();
        assert_eq!(models.keys().collect::<Vec<_>>(), ["free"]);
    }

    #[test]
    fn what_is_not_a_json_object_is_an_error() {
        for wrong in ["", "[]", "{", "prices: high", "\u{0}"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_entry_panics(
            key in "(input_cost_per_token|cache_read_input_token_cost|max_input_tokens)(_above_[0-9]{1,30}k_tokens)?(_batches)?",
            value in "(-?[0-9]{1,30}(\\.[0-9]{1,5})?(e-?[0-9]{1,2})?|true|null|\"[a-z]{0,80}\"|\\[\\]|\\{\\})",
        ) {
            let _ = one(&format!(r#"{{"output_cost_per_token": 1e-6, "{key}": {value}}}"#));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
