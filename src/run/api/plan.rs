//! A prompt's request: its parameters, its tokens, whether it fits, and what it may cost.

use super::config::RunApiConfig;
use super::model_args::ModelArgs;
use super::select::split_messages;
use crate::client::{
    Attempt, Count, Counter, Fit, ModelPrice, Money, OpenaiApi, Prices, Provider, Rates, Request, Sampling,
    Service, Usage,
};
use crate::error::{Error, Result};
use crate::patch::Mode;

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
    patch_mode: Mode,
    provider: Provider,
    counter: Counter,
    price: Option<ModelPrice>,
    /// The longest prompt of the model, where it is known.
    context: Option<u64>,
    sampling: Sampling,
    max_tokens: Option<u32>,
    n: u32,
    /// How often the service is asked for `n` answers.
    asked: u32,
    prompt_cache: bool,
    service: Service,
    extra: serde_json::Map<String, serde_json::Value>,
    warning: Option<String>,
}

/// What a request takes.
#[derive(Debug)]
pub(super) struct Plan {
    /// Whether the prompt and its answer are within the model's context.
    pub(super) fit: Fit,
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
        let listed = prices.of(provider, model).cloned();
        let default_max_tokens = match provider {
            Provider::Anthropic => Some(MESSAGES_MAX_TOKENS),
            Provider::AnthropicText => Some(COMPLETE_MAX_TOKENS),
            Provider::Openai | Provider::Azure => None,
        };
        let max_tokens = args.max_tokens.or(config.max_tokens).or(default_max_tokens);
        let (context, supports_sampling) = match &listed {
            Some(listed) => (listed.max_input_tokens, listed.supports_sampling),
            None => (None, None),
        };
        let repricing = args.repricing().filter(|_| listed.is_some());
        let price = listed.filter(|_| repricing.is_none());
        if config.max_cost.is_some() {
            check_bounded(model, price.as_ref(), max_tokens, repricing.as_deref())?;
        }
        let warning = repricing.map(|part| {
            format!(
                "costs are not known: `{}` changes the price of `{}`",
                part.escape_debug(),
                model.escape_debug()
            )
        });
        let mut sampling = args.sampling;
        if supports_sampling == Some(true) {
            let temperature = *sampling.temperature.get_or_insert(TEMPERATURE);
            sampling.top_p.get_or_insert(if temperature == 0.0 { 1.0 } else { TOP_P });
        }
        let gives_several =
            matches!(provider, Provider::Openai | Provider::Azure) && config.openai_api == OpenaiApi::Chat;
        Ok(Self {
            model: model.clone(),
            patch_mode: config.patch_mode,
            provider,
            counter: Counter::for_model(model),
            price,
            context,
            sampling,
            max_tokens,
            n: config.n.get(),
            asked: if gives_several { 1 } else { config.n.get() },
            prompt_cache: config.prompt_cache,
            service: config.service(),
            extra: args.extra,
            warning,
        })
    }

    /// How patches are found in answers.
    pub(super) fn patch_mode(&self) -> Mode {
        self.patch_mode
    }

    /// The model as the service names it.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// What the user should know about costs.
    pub(super) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The price, where it is known.
    pub(super) fn price(&self) -> Option<&ModelPrice> {
        self.price.as_ref()
    }

    /// The rates of prompts that no tier reprices, where they are known.
    pub(super) fn rates(&self) -> Option<&Rates> {
        self.price.as_ref().map(|price| price.base.rates(self.service))
    }

    /// The model's context, where it is known.
    pub(super) fn context(&self) -> Option<u64> {
        self.context
    }

    /// Whether the prompt goes by the name of OpenAI's protocol in records.
    pub(super) fn speaks_openai(&self) -> bool {
        matches!(self.provider, Provider::Openai | Provider::Azure)
    }

    /// The request for a prompt.
    ///
    /// # Errors
    /// `InvalidData` for an empty prompt.
    pub(super) fn request(&self, mut text: String) -> Result<Request> {
        if self.speaks_openai() {
            text.push_str("\n\n");
        }
        let (system, user) = split_messages(&text)?;
        Ok(Request {
            model: self.model.clone(),
            system: system.to_owned(),
            user: user.to_owned(),
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            stop: Vec::new(),
            n: self.n,
            prompt_cache: self.prompt_cache,
            extra: self.extra.clone(),
        })
    }

    /// The tokens of a request's prompt, counted or estimated here.
    pub(super) fn count(&self, request: &Request) -> Count {
        self.counter.request(request)
    }

    /// What the request with this count takes.
    pub(super) fn plan(&self, count: &Count) -> Plan {
        let room = self.max_tokens.map_or(ROOM_FOR_ANSWER, u64::from);
        let longest = self.longest_answer().unwrap_or(ROOM_FOR_ANSWER);
        let n = u64::from(self.n);
        Plan {
            fit: count.fit(room, self.context),
            tokens: count.tokens.saturating_add(room.saturating_mul(n)),
            worst_case: self
                .price
                .as_ref()
                .map(|price| price.worst_case(count.at_most, longest, self.service).times(n)),
        }
    }

    /// The most tokens of one answer, where they are known.
    pub(super) fn longest_answer(&self) -> Option<u64> {
        self.max_tokens.map(u64::from).or(self.price.as_ref()?.max_output_tokens)
    }

    /// What a request costs if all goes well: without any answer, and with the longest.
    pub(super) fn cost_range(&self, count: &Count) -> Option<(Money, Option<Money>)> {
        let price = self.price.as_ref()?;
        let cost = |input_tokens: u64, answers: u64| {
            let usage = |output_tokens| Usage { input_tokens, output_tokens, ..Usage::default() };
            let asked = u64::from(self.asked);
            price.cost(&usage(answers / asked), self.service).times(asked)
        };
        let longest = self.longest_answer().map(|longest| longest.saturating_mul(u64::from(self.n)));
        Some((cost(count.at_least, 0), longest.map(|longest| cost(count.tokens, longest))))
    }

    /// What one answer has cost.
    pub(super) fn cost_of(&self, usage: &Usage) -> Option<Money> {
        Some(self.price.as_ref()?.cost(usage, self.service))
    }

    /// What a request has cost, with tries that may have been billed without an account at their worst.
    pub(super) fn cost(
        &self,
        attempts: &[Attempt],
        unmetered: u32,
        worst_case: Option<Money>,
    ) -> Option<Money> {
        let known: Option<Money> = attempts.iter().map(|attempt| self.cost_of(&attempt.usage)).sum();
        Some(known? + worst_case?.times(u64::from(unmetered)))
    }
}

/// A cap needs a bound on what each request costs.
fn check_bounded(
    model: &str,
    price: Option<&ModelPrice>,
    max_tokens: Option<u32>,
    repricing: Option<&str>,
) -> Result<()> {
    let name = model.escape_debug();
    if let Some(part) = repricing {
        let part = part.escape_debug();
        return Err(Error::invalid_argument(format!(
            "what `{name}` costs with `{part}` is not known, which `max_cost` needs"
        ))
        .with_hint("leave that parameter or `max_cost` out; `service_tier=default` has the listed prices"));
    }
    let Some(price) = price else {
        return Err(Error::invalid_argument(format!(
            "the price of `{name}` is not known, which `max_cost` needs"
        ))
        .with_hint(format!(
            "give one in a file for `prices`: {{\"{model}\": {{\"input_cost_per_token\": 2e-6, \
             \"output_cost_per_token\": 8e-6}}}}"
        )));
    };
    if max_tokens.is_none() && price.max_output_tokens.is_none() {
        return Err(Error::invalid_argument(format!(
            "the longest answer of `{name}` is not known, which `max_cost` needs"
        ))
        .with_hint("give `max_tokens`"));
    }
    Ok(())
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
            let request = planner(json, Provider::Openai).unwrap().request("a\nb".into()).unwrap();
            assert_eq!((request.sampling.temperature, request.sampling.top_p), expected);
        }
        check(r#"{"model_name_or_path": "local"}"#, (None, None));
        check(r#"{"model_name_or_path": "local", "model_args": "temperature=0"}"#, (Some(0.0), None));
    }

    #[test]
    fn a_cap_needs_a_bound_on_every_request() {
        #[track_caller]
        fn check(json: &str, message: &str, hint: &str) {
            let error = planner(json, Provider::Openai).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
        }
        check(
            r#"{"model_name_or_path": "local", "max_cost": 1}"#,
            "the price of `local` is not known",
            "`prices`",
        );
        check(
            r#"{"model_name_or_path": "gpt-4o", "max_cost": 1, "model_args": "service_tier=priority"}"#,
            "what `gpt-4o` costs with `service_tier=",
            "service_tier=default",
        );
        let unbounded = r#"{"model_name_or_path": "gpt-4o", "model_args": "best_of=2"}"#;
        let unbounded = planner(unbounded, Provider::Openai).unwrap();
        assert!(unbounded.price().is_none() && unbounded.context().is_some());
        assert!(unbounded.warning().unwrap().contains("best_of=2"));
    }

    #[test]
    fn prompts_that_do_not_fit_say_so() {
        let planner =
            planner(r#"{"model_name_or_path": "gpt-4-0613", "max_tokens": 8000}"#, Provider::Openai).unwrap();
        let fit = |text: String| planner.plan(&planner.count(&planner.request(text).unwrap())).fit;
        assert_eq!(fit("a\nb".into()), Fit::Fits);
        let Fit::Overflows(overflow) = fit(format!("a\n{}", "b ".repeat(20_000))) else { panic!("it fits") };
        assert!(overflow.to_string().contains("exceed the context"), "{overflow}");
    }

    #[test]
    fn each_protocol_has_the_references_text() {
        for (provider, user, tokens) in
            [(Provider::Openai, "u\n\n", None), (Provider::Anthropic, "u", Some(4096))]
        {
            let planner = planner(r#"{"model_name_or_path": "m"}"#, provider).unwrap();
            let request = planner.request("s\nu".into()).unwrap();
            assert_eq!((request.system.as_str(), request.user.as_str()), ("s", user));
            assert_eq!(request.max_tokens, tokens);
        }
    }

    #[test]
    fn each_request_for_an_answer_has_a_tier_of_its_own() {
        let json = r#"{"model_name_or_path": "claude-haiku-5-5", "n": 3, "max_tokens": 1000}"#;
        let planner = planner(json, Provider::Anthropic).unwrap();
        let attempt = Attempt {
            status: Some(200),
            error: None,
            duration: Default::default(),
            wait: Default::default(),
            usage: Usage { input_tokens: 80_000, output_tokens: 1_000, ..Usage::default() },
        };
        // 240,000 tokens of one prompt would cost five times as much.
        let expected = Money::from_dollars(3.0 * (0.008 + 0.0005));
        assert_eq!(planner.cost(&vec![attempt; 3], 0, Some(Money::ZERO)), expected);
        let (least, most) = planner.cost_range(&Count::from_provider(80_000)).unwrap();
        assert_eq!((Some(least), most), (Money::from_dollars(0.024), expected));
    }
}
