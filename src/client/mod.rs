//! Text from the services that people run models on: OpenAI, Azure, Anthropic and every server that speaks one of their
//! protocols.

mod budget;
mod count;
mod failure;
mod limiter;
mod prices;
mod rate_limit;
mod request;
mod response;
mod secret;
mod usage;

pub use budget::{Budget, Refusal, Reservation};
pub use count::{Count, Counter, Method, Overflow};
pub use failure::{Failure, FailureKind};
pub use limiter::{Concurrency, Limiter, LimiterConfig, Permit};
pub use prices::{BUILTIN_DATE, Found, ModelPrice, Money, Prices, Rates, Service, Tier};
pub use rate_limit::{Quota, RateLimit};
pub use request::{Request, Sampling};
pub use response::{Attempt, Choice, FinishReason, Response};
pub use secret::Secret;
pub use usage::Usage;
