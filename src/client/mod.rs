//! Text from the services that people run models on: OpenAI, Azure, Anthropic and every server that speaks one of their
//! protocols.

mod failure;
mod github;
mod request;
mod response;
mod secret;
mod usage;

mod batch;
mod config;
mod driver;
mod endpoint;
mod provider;
mod service;

mod protocol;
mod refusal;
mod sse;

mod breaker;
mod rate_limit;
mod redact;
mod retry;
mod transport;

mod budget;
mod count;
mod limiter;
mod prices;

pub use batch::{BatchAnswer, BatchInput, BatchResult, BatchStatus, UploadedBatch};
pub use budget::{Budget, Refusal, Reservation};
pub use config::{BreakerPolicy, ClientConfig, Headers, KeySource, OpenaiApi, Timeouts};
pub use count::{Count, Counter, Fit, Method, Overflow};
pub use driver::Driver;
pub use failure::{Failure, FailureKind};
pub use github::{Github, Issue, IssueAddress};
pub use limiter::{Concurrency, Limiter, LimiterConfig, Permit};
pub use prices::{BUILTIN_DATE, Found, ModelPrice, Money, Prices, Rates, Service, Tier};
pub use provider::Provider;
pub use rate_limit::{Pace, Quota};
pub use request::{Request, Sampling};
pub use response::{Attempt, Choice, FinishReason, Response};
pub use retry::RetryPolicy;
pub use secret::Secret;
pub use service::{Client, OnText};
pub use transport::PaceObserver;
pub use usage::Usage;

#[cfg(test)]
mod tests;
