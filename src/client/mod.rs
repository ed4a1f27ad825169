//! Text from the services that people run models on: OpenAI, Azure, Anthropic and every server that speaks one of their
//! protocols.

mod failure;
mod request;
mod response;
mod secret;
mod usage;

pub use failure::{Failure, FailureKind};
pub use request::{Request, Sampling};
pub use response::{Attempt, Choice, FinishReason, Response};
pub use secret::Secret;
pub use usage::Usage;
