//! A prompt's request: its parameters, its tokens, whether it fits, and what it may cost.

use super::config::RunApiConfig;
use super::model_args::ModelArgs;
use super::select::split_messages;
use crate::client::{Counter, ModelPrice, Money, Prices, Provider, Request, Sampling, Service, Usage};
use crate::error::{Error, Result};

/// What the reference leaves for answers of Anthropic's models.
const MESSAGES_MAX_TOKENS: u32 = 4096;
const COMPLETE_MAX_TOKENS: u32 = 6000;
/// Room for an answer whose length is left to the service, in the check of the context and in rates of tokens.
const ROOM_FOR_ANSWER: u64 = 4096;
/// The reference's sampling, for models that are known to take it.
const TEMPERATURE: f64 = 0.2;
const TOP_P: f64 = 0.95;

/// What all requests of a run share.
#[derive(Debug)]
pub(super) struct Planner {
    model: String,
    provider: Provider,
    counter: Counter,
    price: Option<ModelPrice>,
    sampling: Sampling,
    max_tokens: Option<u32>,
    n: u32,
    prompt_cache: bool,
    service: Service,
    extra: serde_json::Map<String, serde_json::Value>,
}

/// A request that may be sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: Request,
    /// The prompt as it is sent, for the record.
    pub(super) text: String,
    /// Tokens of prompt and answers, for rates.
    pub(super) tokens: u64,
    /// The most that one try costs; `None` where the price is not known.
    pub(super) worst_case: Option<Money>,
}

impl Planner {
    /// Resolves the configuration for the provider's model.
    ///
    /// # Errors
    /// `InvalidArgument` for wrong `model_args`, and when `max_cost` is set and the price or the longest answer of the model
    /// is not known.
    pub(super) fn new(config: &RunApiConfig, provider: Provider, prices: &Prices) -> Result<Self> {
        let args = ModelArgs::parse(&config.model_args)?;
        let model = &config.model_name_or_path;
        let price = prices.of(provider, model).cloned();
        let default_max_tokens = match provider {
            Provider::Anthropic => Some(MESSAGES_MAX_TOKENS),
            Provider::AnthropicText => Some(COMPLETE_MAX_TOKENS),
            Provider::Openai | Provider::Azure => None,
        };
        let max_tokens = args.max_tokens.or(config.max_tokens).or(default_max_tokens);
        if config.max_cost.is_some() {
            let Some(price) = &price else {
                return Err(Error::invalid_argument(format!(
                    "the price of `{}` is not known, which `max_cost` needs",
                    model.escape_debug()
                ))
                .with_hint(format!(
                    "give one in a file for `prices`: {{\"{model}\": {{\"input_cost_per_token\": 2e-6, \
                     \"output_cost_per_token\": 8e-6}}}}"
                )));
            };
            if max_tokens.is_none() && price.max_output_tokens.is_none() {
                return Err(Error::invalid_argument(format!(
                    "the longest answer of `{}` is not known, which `max_cost` needs",
                    model.escape_debug()
                ))
                .with_hint("give `max_tokens`"));
            }
        }
        let mut sampling = args.sampling;
        if price.as_ref().and_then(|price| price.supports_sampling) == Some(true) {
            let temperature = *sampling.temperature.get_or_insert(TEMPERATURE);
            sampling.top_p.get_or_insert(if temperature == 0.0 { 1.0 } else { TOP_P });
        }
        Ok(Self {
            model: model.clone(),
            provider,
            counter: Counter::for_model(model),
            price,
            sampling,
            max_tokens,
            n: config.n.get(),
            prompt_cache: config.prompt_cache,
            service: config.service(),
            extra: args.extra,
        })
    }

    /// The model as the service names it.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Whether costs are known.
    pub(super) fn has_price(&self) -> bool {
        self.price.is_some()
    }

    /// Whether the prompt goes by the name of OpenAI's protocol in records.
    pub(super) fn speaks_openai(&self) -> bool {
        matches!(self.provider, Provider::Openai | Provider::Azure)
    }

    /// A dataset's `text` as it is sent.
    pub(super) fn sent_text(&self, text: &str) -> String {
        let end = if self.speaks_openai() { "\n\n" } else { "" };
        format!("{text}{end}")
    }

    /// The request for a prompt.
    ///
    /// # Errors
    /// `InvalidData` for an empty prompt, `InvalidArgument` for one that does not fit into the model's context.
    pub(super) fn plan(&self, text: &str) -> Result<Plan> {
        let text = self.sent_text(text);
        let (system, user) = split_messages(&text)?;
        let request = Request {
            model: self.model.clone(),
            system: system.to_owned(),
            user: user.to_owned(),
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            stop: Vec::new(),
            n: self.n,
            prompt_cache: self.prompt_cache,
            extra: self.extra.clone(),
        };
        let count = self.counter.request(&request);
        let room = self.max_tokens.map_or(ROOM_FOR_ANSWER, u64::from);
        let limit = self.price.as_ref().and_then(|price| price.max_input_tokens);
        count.check_fits(room, limit).map_err(|overflow| Error::invalid_argument(overflow.to_string()))?;
        let n = u64::from(self.n);
        let worst_case = self.price.as_ref().map(|price| {
            let longest =
                self.max_tokens.map(u64::from).or(price.max_output_tokens).unwrap_or(ROOM_FOR_ANSWER);
            price.worst_case(count.at_most, longest, self.service).times(n)
        });
        let tokens = count.tokens.saturating_add(room.saturating_mul(n));
        Ok(Plan { request, text, tokens, worst_case })
    }

    /// What a request has cost, with tries that may have been billed without an account at their worst.
    pub(super) fn cost(&self, usage: &Usage, unmetered: u32, worst_case: Option<Money>) -> Option<Money> {
        let known = self.price.as_ref()?.cost(usage, self.service);
        Some(known + worst_case?.times(u64::from(unmetered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planner(json: &str, provider: Provider) -> Result<Planner> {
        let mut config: RunApiConfig = serde_json::from_str(json).unwrap();
        config.dataset_name_or_path = "d".into();
        Planner::new(&config, provider, &Prices::builtin())
    }

    #[test]
    fn sampling_is_sent_when_asked_for_or_known_to_be_taken() {
        #[track_caller]
        fn check(json: &str, expected: (Option<f64>, Option<f64>)) {
            let plan = planner(json, Provider::Openai).unwrap().plan("a\nb").unwrap();
            assert_eq!((plan.request.sampling.temperature, plan.request.sampling.top_p), expected);
        }
        check(r#"{"model_name_or_path": "local"}"#, (None, None));
        check(r#"{"model_name_or_path": "local", "model_args": "temperature=0"}"#, (Some(0.0), None));
    }

    #[test]
    fn a_cap_needs_a_price_and_a_longest_answer() {
        let error =
            planner(r#"{"model_name_or_path": "local", "max_cost": 1}"#, Provider::Openai).unwrap_err();
        assert!(error.to_string().contains("the price of `local` is not known"), "{error}");
        assert!(error.hint().unwrap().contains("`prices`"));
    }

    #[test]
    fn prompts_that_do_not_fit_say_so() {
        let planner =
            planner(r#"{"model_name_or_path": "gpt-4-0613", "max_tokens": 8000}"#, Provider::Openai).unwrap();
        assert!(planner.plan("a\nb").is_ok());
        let error = planner.plan(&format!("a\n{}", "b ".repeat(20_000))).unwrap_err();
        assert!(error.to_string().contains("exceed the context"), "{error}");
    }

    #[test]
    fn each_protocol_has_the_references_text() {
        for (provider, text, tokens) in
            [(Provider::Openai, "s\nu\n\n", None), (Provider::Anthropic, "s\nu", Some(4096))]
        {
            let plan = planner(r#"{"model_name_or_path": "m"}"#, provider).unwrap().plan("s\nu").unwrap();
            assert_eq!((plan.text.as_str(), plan.request.max_tokens), (text, tokens));
            assert_eq!(plan.request.system, "s");
        }
    }
}
