//! A connection to one service: requests in, answers or failures out.

use std::borrow::Cow;
use std::sync::Once;

use reqwest::Response as HttpResponse;
use serde_json::Value;

use super::breaker::Breaker;
use super::config::ClientConfig;
use super::endpoint::{Endpoint, Lookup};
use super::protocol::{Answer, Form, Misread, Partial, Protocol, messages};
use super::retry::{Exchange, Fault, RetryPolicy, Success, Tries};
use super::sse::EventReader;
use super::transport::{Call, PaceObserver, Transport};
use super::{Choice, Failure, FailureKind, Money, Prices, Provider, Request, Response, Service, Usage};
use crate::error::{Error, Result};

/// Largest answer that is read whole, in bytes.
const MAX_BODY: usize = 64 << 20;

/// Where the text of a streamed answer goes as it comes.
pub type OnText<'a> = &'a mut (dyn FnMut(&str) + Send);

/// A service, ready for requests of any number of tasks at once: they share its connections, and what is found out about
/// its state.
pub struct Client {
    pub(super) endpoint: Endpoint,
    pub(super) transport: Transport,
    pub(super) retry: RetryPolicy,
    pub(super) breaker: Breaker,
    model: String,
    prices: Prices,
    stream: bool,
    sampling_dropped: Once,
}

impl Client {
    /// A client by its configuration and the process's environment. Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` for settings out of range, a model that does not tell its provider, a base URL that is none, and
    /// a missing key; `Io` and `NotFound` for the files of the key and of the prices.
    pub fn new(config: &ClientConfig) -> Result<Self> {
        Self::with_environment(config, &|name| std::env::var(name).ok())
    }

    /// As [`Client::new`], with the environment behind `lookup`.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_environment(config: &ClientConfig, lookup: Lookup<'_>) -> Result<Self> {
        config.validate()?;
        let endpoint = Endpoint::resolve(config, lookup)?;
        Ok(Self {
            transport: Transport::new(&endpoint, config.timeouts, config.ca_file.clone()),
            endpoint,
            retry: config.retry,
            breaker: Breaker::new(&config.breaker),
            model: config.model.clone(),
            prices: config.prices.as_deref().map_or_else(|| Ok(Prices::builtin()), Prices::with_file)?,
            stream: config.stream,
            sampling_dropped: Once::new(),
        })
    }

    /// Has every answer's rate-limit headers given to `observer`, those of failed tries too.
    #[must_use]
    pub fn with_pace_observer(mut self, observer: PaceObserver) -> Self {
        self.transport.observe(observer);
        self
    }

    /// Whose protocol is spoken.
    pub fn provider(&self) -> Provider {
        self.endpoint.provider
    }

    /// What is spoken to, for files that have to find it again: provider, interface and server.
    pub fn service(&self) -> String {
        let interface = match self.endpoint.protocol {
            Protocol::Responses => " responses",
            _ => "",
        };
        format!("{}{interface} at {}", self.endpoint.provider, self.endpoint.server())
    }

    /// Where the prices of models are.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// What an answer has cost; `None` where the price, or a part of the tokens, is not known.
    pub fn cost(&self, request: &Request, response: &Response) -> Option<Money> {
        let price = self.prices.of(self.provider(), &self.with_model(request).model)?;
        // Each try by itself, because tiers go by one prompt.
        let costs = response.attempts.iter().map(|attempt| price.cost(&attempt.usage, Service::Direct));
        (response.unmetered == 0).then(|| costs.sum())
    }

    /// Whether a key goes with every request.
    pub fn has_key(&self) -> bool {
        self.endpoint.key_origin.is_some()
    }

    /// Whether the provider has a service that counts tokens.
    pub fn counts_tokens(&self) -> bool {
        self.endpoint.protocol == Protocol::Messages
    }

    /// Asks for the request's answers. Dropping the future cancels it.
    ///
    /// The first answer's text goes to `on_text` as it comes. Once some has gone there, a stream that breaks is not tried
    /// again, as the text would come twice.
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn complete(
        &self,
        request: &Request,
        mut on_text: Option<OnText<'_>>,
    ) -> Result<Response, Failure> {
        let request = &self.with_model(request);
        let wanted = request.n.max(1) as usize;
        let stream = self.stream || on_text.is_some();
        let mut tries = Tries::new(&self.retry);
        let mut choices: Vec<Choice> = Vec::with_capacity(wanted.min(64));
        let mut model = None;
        // Providers that give one answer a request, and servers that ignore `n`, are asked again.
        while choices.len() < wanted {
            let form = Form {
                n: (wanted - choices.len()) as u32,
                stream,
                refuses_sampling: self.refuses_sampling(request),
            };
            let mut completion = Completion {
                transport: &self.transport,
                call: self.call(request, form)?,
                protocol: self.endpoint.protocol,
                stream,
                on_text: if choices.is_empty() { on_text.take() } else { None },
            };
            match tries.make(&self.retry, &self.breaker, &request.model, &mut completion).await {
                Ok(answer) => {
                    model = answer.model.or(model);
                    choices.extend(answer.choices);
                }
                Err(stopped) => return Err(tries.into_failure(stopped)),
            }
        }
        choices.truncate(wanted);
        let Tries { attempts, usage, unmetered, .. } = tries;
        Ok(Response { choices, model, usage, unmetered, attempts })
    }

    /// The prompt's tokens as the provider counts them, free of charge; `None` where it has no such service.
    ///
    /// # Errors
    /// The failure, with every try.
    pub async fn count_tokens(&self, request: &Request) -> Result<Option<u64>, Failure> {
        if !self.counts_tokens() {
            return Ok(None);
        }
        let request = self.with_model(request);
        let body = encode(&messages::prompt(&request).into())?;
        let url = self.endpoint.at(&["messages", "count_tokens"]);
        let mut count = Count { transport: &self.transport, call: Call::post_json(url, body) };
        let mut tries = Tries::new(&self.retry);
        match tries.make(&self.retry, &self.breaker, &request.model, &mut count).await {
            Ok(count) => Ok(count),
            Err(stopped) => Err(tries.into_failure(stopped)),
        }
    }

    /// The request with the client's model if it names none; prompts are long, and not copied for nothing.
    pub(super) fn with_model<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        match request.model.as_str() {
            "" => Cow::Owned(Request { model: self.model.clone(), ..request.clone() }),
            _ => Cow::Borrowed(request),
        }
    }

    fn call(&self, request: &Request, form: Form) -> Result<Call, Failure> {
        let body = self
            .endpoint
            .protocol
            .body(request, form)
            .map_err(|reason| Failure::unsent(FailureKind::Rejected, Error::invalid_argument(reason)))?;
        Ok(Call::post_json(self.endpoint.url(&request.model), encode(&body.into())?))
    }

    pub(super) fn refuses_sampling(&self, request: &Request) -> bool {
        let refuses = self.endpoint.refuses_sampling;
        if refuses && (request.sampling.temperature.is_some() || request.sampling.top_p.is_some()) {
            self.sampling_dropped.call_once(|| {
                log::warn!("this version of the interface refuses sampling parameters: none are sent");
            });
        }
        refuses
    }
}

/// JSON as bytes.
pub(super) fn encode(value: &Value) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| {
        let error = Error::internal("the request cannot be written as JSON").with_source(error);
        Failure::unsent(FailureKind::Rejected, error)
    })
}

/// A request for answers.
struct Completion<'a, 'b> {
    transport: &'a Transport,
    call: Call,
    protocol: Protocol,
    stream: bool,
    on_text: Option<OnText<'b>>,
}

impl Exchange for Completion<'_, '_> {
    type Answer = Answer;

    async fn attempt(&mut self) -> Result<Success<Answer>, Fault> {
        let response = self.transport.send(&self.call).await?;
        let status = response.status().as_u16();
        let answer = if self.stream && !is_json(&response) {
            self.read_stream(response, status).await?
        } else {
            let body = self.transport.body(response, MAX_BODY).await?;
            let answer = self.protocol.answer(&body).map_err(|misread| self.fault(status, misread, false))?;
            if let (Some(on_text), Some(choice)) = (&mut self.on_text, answer.choices.first()) {
                on_text(&choice.text);
            }
            answer
        };
        Ok(Success {
            status,
            usage: answer.usage.unwrap_or_default(),
            unmetered: answer.usage.is_none(),
            answer,
        })
    }
}

impl Completion<'_, '_> {
    async fn read_stream(&mut self, mut response: HttpResponse, status: u16) -> Result<Answer, Fault> {
        let mut events = EventReader::default();
        let mut partial = Partial::default();
        let mut emitted = false;
        let broken = loop {
            let piece = match self.transport.piece(&mut response).await {
                Ok(Some(piece)) => piece,
                Ok(None) => match partial.take_finished() {
                    Some(answer) => return Ok(answer),
                    None => break self.transport.cut_off(status),
                },
                Err(fault) => break fault,
            };
            let on_text = &mut self.on_text;
            let mut emit = |text: &str| {
                if let Some(on_text) = on_text {
                    emitted = true;
                    on_text(text);
                }
            };
            let folded =
                events.push(&piece, |event| self.protocol.fold(&mut partial, &event.data, &mut emit));
            if let Err(misread) = folded {
                break self.fault(status, misread, partial.has_begun());
            }
            if partial.is_done() {
                match partial.take_finished() {
                    Some(answer) => return Ok(answer),
                    None => break self.transport.cut_off(status),
                }
            }
        };
        if broken.kind == FailureKind::Network {
            self.transport.observe_cut(status);
        }
        Err(Fault {
            usage: partial.answer.usage.unwrap_or_default(),
            transient: broken.transient && !emitted,
            ..broken
        })
    }

    fn fault(&self, status: u16, misread: Misread, unmetered: bool) -> Fault {
        match misread {
            Misread::Refused(refusal) => Fault { unmetered, ..self.transport.refused(status, &refusal) },
            Misread::Malformed(reason) => self.transport.malformed(status, &reason),
        }
    }
}

/// Whether a server that was asked for a stream sends a whole answer.
fn is_json(response: &HttpResponse) -> bool {
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// A request for the number of a prompt's tokens.
struct Count<'a> {
    transport: &'a Transport,
    call: Call,
}

impl Exchange for Count<'_> {
    type Answer = Option<u64>;

    async fn attempt(&mut self) -> Result<Success<Option<u64>>, Fault> {
        let success = |answer, status| Success { answer, status, usage: Usage::default(), unmetered: false };
        let response = match self.transport.send(&self.call).await {
            // A gateway that speaks the protocol need not have this part of it.
            Err(fault) if fault.kind == FailureKind::WrongAddress && fault.status.is_some() => {
                return Ok(success(None, fault.status.unwrap_or_default()));
            }
            response => response?,
        };
        let status = response.status().as_u16();
        let body = self.transport.body(response, MAX_BODY).await?;
        let count =
            serde_json::from_slice::<Value>(&body).ok().and_then(|value| value["input_tokens"].as_u64());
        match count {
            Some(count) => Ok(success(Some(count), status)),
            None => Err(Fault {
                unmetered: false,
                ..self.transport.malformed(status, "it holds no `input_tokens`")
            }),
        }
    }
}
