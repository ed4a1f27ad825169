//! The flags that say which service is asked and how, the same for every run against one.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// A service, its key, and how often it is tried.
#[derive(Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct ServiceArgs {
    /// openai, azure, anthropic or anthropic-text [default: what the model's name tells]
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// The server [default: the provider's]
    #[arg(long, value_name = "URL", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    base_url: Option<String>,
    /// Azure's api-version or Anthropic's anthropic-version.
    #[arg(long, value_name = "VERSION", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
    /// chat or responses [default: chat]
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    openai_api: Option<String>,
    /// The environment variable of the key [default: the provider's]
    #[arg(long, value_name = "VARIABLE", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_env: Option<String>,
    /// A file that holds the key and nothing else.
    #[arg(long, value_name = "FILE", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    /// Certificate authorities to trust besides the system's.
    #[arg(long, value_name = "PEM", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    /// The most tries of a request [default: 10]
    #[arg(long, value_name = "N", help_heading = "Service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
}
