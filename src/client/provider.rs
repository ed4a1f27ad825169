//! Whose protocol a model is reached by, and what is customary there.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A service, or any server that speaks its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// OpenAI, and what speaks its protocol: vLLM, Ollama, llama.cpp's server, most gateways.
    Openai,
    /// OpenAI's models on Azure.
    Azure,
    /// Anthropic's Messages.
    Anthropic,
    /// Anthropic's former `/v1/complete`.
    AnthropicText,
}

impl Provider {
    /// The provider of a model that is named without one, as `gpt-4o` or `claude-3-opus`.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that no provider's models have.
    pub fn of_model(model: &str) -> Result<Self> {
        let name = model.strip_prefix("ft:").unwrap_or(model);
        if ["claude-1", "claude-2", "claude-v1", "claude-v2", "claude-instant"]
            .iter()
            .any(|old| name.starts_with(old))
        {
            return Ok(Self::AnthropicText);
        }
        if name.starts_with("claude") {
            return Ok(Self::Anthropic);
        }
        if is_reasoning_model(name) || ["gpt-", "chatgpt-", "codex-"].iter().any(|new| name.starts_with(new))
        {
            return Ok(Self::Openai);
        }
        Err(Error::invalid_argument(format!(
            "the model's name `{}` does not tell its provider",
            model.escape_debug()
        ))
        .with_hint(format!(
            "give the provider ({PROVIDERS}), and the base URL if it is not the provider's own server"
        )))
    }

    /// The name as options spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::AnthropicText => "anthropic-text",
        }
    }

    /// The server that is meant when none is given; Azure has none, each resource is a host of its own.
    pub(super) fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::Openai => Some("https://api.openai.com/v1"),
            Self::Azure => None,
            Self::Anthropic | Self::AnthropicText => Some("https://api.anthropic.com"),
        }
    }

    /// The environment variable of the base URL.
    pub(super) fn base_url_variable(self) -> &'static str {
        match self {
            Self::Openai => "OPENAI_BASE_URL",
            Self::Azure => "AZURE_OPENAI_ENDPOINT",
            Self::Anthropic | Self::AnthropicText => "ANTHROPIC_BASE_URL",
        }
    }

    /// The environment variable of the key.
    pub(super) fn key_variable(self) -> &'static str {
        match self {
            Self::Openai => "OPENAI_API_KEY",
            Self::Azure => "AZURE_OPENAI_API_KEY",
            Self::Anthropic | Self::AnthropicText => "ANTHROPIC_API_KEY",
        }
    }

    /// The environment variable of a token that goes into an `Authorization` header instead.
    pub(super) fn token_variable(self) -> Option<&'static str> {
        match self {
            Self::Openai => None,
            Self::Azure => Some("AZURE_OPENAI_AD_TOKEN"),
            Self::Anthropic | Self::AnthropicText => Some("ANTHROPIC_AUTH_TOKEN"),
        }
    }
}

/// Every provider's name, for messages.
const PROVIDERS: &str = "openai, azure, anthropic or anthropic-text";

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Provider {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Openai, Self::Azure, Self::Anthropic, Self::AnthropicText]
            .into_iter()
            .find(|provider| provider.name() == name)
            .ok_or_else(|| {
                Error::invalid_argument("unknown provider")
                    .with_expected(PROVIDERS, format!("`{}`", name.escape_debug()))
            })
    }
}

/// Whether OpenAI's `max_completion_tokens` is this model's limit: the o-series, and GPT from 5 on.
pub(super) fn is_reasoning_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("ft:").unwrap_or(name);
    if let Some(version) = name.strip_prefix("gpt-") {
        let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
        // Azure spells 3.5 as 35.
        return version[..digits].parse::<u32>().is_ok_and(|major| major >= 5 && major != 35);
    }
    let mut letters = name.chars();
    letters.next() == Some('o')
        && letters.next().is_some_and(|digit| digit.is_ascii_digit())
        && matches!(letters.next(), None | Some('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_tells_its_provider() {
        for (model, expected) in [
            ("gpt-4o", Some(Provider::Openai)),
            ("ft:gpt-4o:acme::1", Some(Provider::Openai)),
            ("o3-mini", Some(Provider::Openai)),
            ("claude-3-opus-20240229", Some(Provider::Anthropic)),
            ("claude-opus-5-5", Some(Provider::Anthropic)),
            ("claude-2", Some(Provider::AnthropicText)),
            ("claude-instant-1", Some(Provider::AnthropicText)),
            ("olmo-7b", None),
            ("meta-llama/Llama-3-8B", None),
            ("", None),
        ] {
            assert_eq!(Provider::of_model(model).ok(), expected, "{model}");
        }
    }

    #[test]
    fn reasoning_models_are_known_by_name() {
        for (model, expected) in [
            ("o1", true),
            ("o4-mini-2025-04-16", true),
            ("gpt-5.5", true),
            ("gpt-6.1-sol", true),
            ("openai/gpt-6-luna", true),
            ("gpt-10", true),
            ("gpt-4o", false),
            ("gpt-4.1", false),
            ("gpt-35-turbo", false),
            ("gpt-oss-120b", false),
            ("o1x", false),
            ("omni", false),
        ] {
            assert_eq!(is_reasoning_model(model), expected, "{model}");
        }
    }

    #[test]
    fn names_read_back() {
        for provider in [Provider::Openai, Provider::Azure, Provider::Anthropic, Provider::AnthropicText] {
            assert_eq!(provider.name().parse::<Provider>().unwrap(), provider);
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.name());
        }
        let error = "open-ai".parse::<Provider>().unwrap_err();
        assert_eq!(error.to_string(), format!("unknown provider: expected {PROVIDERS}, got `open-ai`"));
    }
}
