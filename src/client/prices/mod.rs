//! Prices of models: a dated table that is built in, and price maps in LiteLLM's format.

mod model_price;
mod money;
mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use super::Provider;
use crate::error::{Error, Result};

pub use model_price::{ModelPrice, Rates, Service, Tier};
pub use money::Money;

/// The day as of which the prices of the built-in table hold.
pub const BUILTIN_DATE: &str = "2026-11-21";
/// LiteLLM's whole map has 3 MB; a file beyond this is not a price map.
const MOST_BYTES: u64 = 64 << 20;

static BUILTIN: LazyLock<BTreeMap<String, ModelPrice>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the table is part of the program and read by its tests")]
    read::read(include_bytes!("builtin.json")).expect("the built-in price table is valid")
});

/// Where prices are looked up: the user's file first, then the built-in table.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    user: BTreeMap<String, ModelPrice>,
}

/// A price and the name under which it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The entry's name, which may be less specific than the one that was asked for.
    pub name: &'a str,
    /// Its prices.
    pub price: &'a ModelPrice,
}

impl Prices {
    /// The built-in table alone, as of [`BUILTIN_DATE`].
    pub fn builtin() -> Self {
        Self::default()
    }

    /// The prices of a file in LiteLLM's format, before the built-in ones.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a price in it is not a number; the message names the file, the model and the key.
    pub fn with_file(path: &Path) -> Result<Self> {
        let mut json = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut json))
            .map_err(|source| Error::io("read the price file", path, source))?;
        if json.len() as u64 > MOST_BYTES {
            return Err(Error::invalid_data("the price file is too large")
                .with_expected(format_args!("at most {MOST_BYTES} bytes"), "more")
                .with_path(path));
        }
        let user = read::read(&json).map_err(|error| {
            error.with_path(path).with_hint(
                "give dollars a token as numbers, as in \
                 {\"MODEL\": {\"input_cost_per_token\": 2e-6, \"output_cost_per_token\": 8e-6}}",
            )
        })?;
        Ok(Self { user })
    }

    /// The price of `model` at `provider` (a LiteLLM name such as `openai`, `anthropic`, `azure`; empty for none).
    ///
    /// In the user's file, then in the built-in table, the first entry that is named: `provider/model`; `model`, with or
    /// without the provider's prefix; `model` without its date or `-latest`; `model` with the latest date. A name at
    /// `azure` is a deployment's, which says nothing about the model in it: only the first rule holds there.
    pub fn find(&self, provider: &str, model: &str) -> Option<Found<'_>> {
        [&self.user, &*BUILTIN].into_iter().find_map(|models| find(models, provider, model))
    }
}

impl Prices {
    /// [`Prices::find`] for a model that is asked through this provider's protocol.
    pub fn of(&self, provider: Provider, model: &str) -> Option<&ModelPrice> {
        let seller = match provider {
            Provider::AnthropicText => "anthropic",
            provider => provider.name(),
        };
        self.find(seller, model).map(|found| found.price)
    }
}

fn find<'a>(models: &'a BTreeMap<String, ModelPrice>, provider: &str, model: &str) -> Option<Found<'a>> {
    let exact = |name: &str| models.get_key_value(name).map(|(name, price)| Found { name, price });
    let bare = model.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model);
    let qualified = format!("{provider}/{bare}");
    if provider == "azure" {
        return exact(&qualified);
    }
    let latest = |prefix: &str| {
        models
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(name, _)| name.len() > prefix.len() && without_date(name) == Some(prefix))
            .last()
            .map(|(name, price)| Found { name, price })
    };
    exact(&qualified)
        .or_else(|| exact(model))
        .or_else(|| exact(bare))
        .or_else(|| without_date(bare).and_then(exact))
        .or_else(|| latest(bare))
}

/// The name without a final `-2024-08-06`, `-20240806`, `@20240806` or `-latest`; `None` when it has none of them.
fn without_date(name: &str) -> Option<&str> {
    if let Some(undated) = name.strip_suffix("-latest") {
        return Some(undated);
    }
    ["-dddd-dd-dd", "-dddddddd", "@dddddddd"].into_iter().find_map(|pattern| {
        let start = name.len().checked_sub(pattern.len()).filter(|start| name.is_char_boundary(*start))?;
        let (undated, date) = name.split_at(start);
        let matches = date.bytes().zip(pattern.bytes()).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            _ => byte == expected,
        });
        matches.then_some(undated)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_builtin_table_has_the_published_prices() {
        /// Dollars a million tokens of prompt, cached prompt and answer.
        const PUBLISHED: &[(&str, f64, f64, f64)] = &[
            ("gpt-6.1-sol", 2.0, 0.10, 10.0),
            ("gpt-6.1-terra", 1.0, 0.05, 5.0),
            ("gpt-6-luna", 0.10, 0.01, 0.50),
            ("gpt-6-astra", 10.0, 1.0, 50.0),
            ("gpt-5.5", 5.0, 0.5, 30.0),
            ("gpt-4o", 2.5, 1.25, 10.0),
            ("gpt-4.1", 2.0, 0.5, 8.0),
            ("claude-opus-5-5", 4.0, 0.20, 20.0),
            ("claude-sonnet-5-5", 2.0, 0.10, 10.0),
            ("claude-haiku-5-5", 0.10, 0.01, 0.50),
            ("claude-haiku-4-5", 1.0, 0.10, 5.0),
            ("claude-instant-1", 1.63, 1.63, 5.51),
            ("claude-2", 11.02, 11.02, 32.68),
            ("claude-3-opus", 15.0, 15.0, 75.0),
            ("claude-3-sonnet", 3.0, 3.0, 15.0),
            ("claude-3-haiku", 0.25, 0.25, 1.25),
            ("gpt-3.5-turbo-16k-0613", 1.5, 1.5, 2.0),
            ("gpt-3.5-turbo-1106", 1.0, 1.0, 2.0),
            ("gpt-4-0613", 30.0, 30.0, 60.0),
            ("gpt-4-32k-0613", 60.0, 60.0, 120.0),
            ("gpt-4-1106-preview", 10.0, 10.0, 30.0),
            ("gpt-4-0125-preview", 10.0, 10.0, 30.0),
        ];
        for &(model, input, cached_input, output) in PUBLISHED {
            let rates = BUILTIN[model].base.direct;
            let million = [rates.input, rates.cached_input, rates.output].map(|rate| rate.times(1_000_000));
            assert_eq!(
                million,
                [input, cached_input, output].map(|d| Money::from_dollars(d).unwrap()),
                "{model}"
            );
        }
        assert_eq!(BUILTIN.len(), PUBLISHED.len());
        let above = |model: &str| BUILTIN[model].tiers.iter().map(|tier| tier.above).collect::<Vec<_>>();
        assert_eq!(above("gpt-6.1-sol"), [272_000]);
        assert_eq!(above("claude-haiku-5-5"), [100_000]);
        assert!(above("gpt-4o").is_empty());
    }

    #[test]
    fn names_are_found_by_the_documented_rules() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let price = r#"{"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}"#;
        write!(
            file,
            r#"{{"azure/mine": {price}, "own-2026-01-01": {price}, "own-2026-02-01": {price}, "own-mini": {price},
                "gpt-4.1": {price}, "openai/qualified": {price}}}"#
        )
        .unwrap();
        let prices = Prices::with_file(file.path()).unwrap();
        let check = |provider: &str, model: &str, expected: Option<&str>| {
            assert_eq!(prices.find(provider, model).map(|found| found.name), expected, "{provider} {model}");
        };
        check("openai", "gpt-4o", Some("gpt-4o"));
        check("openai", "openai/gpt-4o", Some("gpt-4o"));
        check("", "openai/gpt-4o", None);
        check("openai", "gpt-4o-2024-08-06", Some("gpt-4o"));
        check("openai", "gpt-4o-latest", Some("gpt-4o"));
        check("anthropic", "claude-3-opus-20240229", Some("claude-3-opus"));
        check("anthropic", "claude-3-opus@20240229", Some("claude-3-opus"));
        check("openai", "qualified", Some("openai/qualified"));
        check("", "own", Some("own-2026-02-01"));
        check("", "own-2026-03-01", None);
        check("openai", "gpt-4o-mini", None);
        check("openai", "gpt-4", None);
        check("azure", "gpt-4o", None);
        check("azure", "mine", Some("azure/mine"));
        check("azure", "azure/mine", Some("azure/mine"));
        check("openai", "", None);
        let overridden = prices.find("openai", "gpt-4.1").unwrap().price.base.direct.input;
        assert_eq!(Some(overridden), Money::from_dollars(1e-6));
    }

    #[test]
    fn a_bad_file_is_named() {
        let missing = Prices::with_file(Path::new("no/such/prices.json")).unwrap_err();
        assert_eq!(missing.kind(), crate::ErrorKind::NotFound);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, r#"{{"m": {{"input_cost_per_token": "cheap"}}}}"#).unwrap();
        let error = Prices::with_file(file.path()).unwrap_err();
        assert_eq!(error.path(), Some(file.path()));
        assert!(error.hint().is_some());
    }

    proptest! {
        #[test]
        fn no_name_panics(provider in "[a-z]{0,6}", model in "\\PC{0,30}") {
            let _ = Prices::builtin().find(&provider, &model);
        }
    }
}
