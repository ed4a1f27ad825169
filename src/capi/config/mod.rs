//! Configurations: their JSON Schemas, and what a configuration means once defaults are filled in.

mod client;
mod diff;
mod generate;
mod model;
mod run;
mod strict;

pub(super) use client::CompletionConfig;
pub(super) use diff::DiffConfig;
pub(super) use generate::GenerateConfig;
pub(super) use model::ModelConfig;
pub(super) use strict::parse;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::boundary::{OK, Out, enter};
use super::buf::Buf;
use super::error::ErrorObject;
use super::text::Str;
use crate::client::ClientConfig;
use crate::error::{Error, Result};
use crate::run::api::RunApiConfig;
use crate::run::bench::BenchConfig;
use crate::run::bm25_retrieval::Bm25RetrievalConfig;
use crate::run::eval_retrieval::EvalRetrievalConfig;
use crate::run::live::RunLiveConfig;
use crate::run::llama::RunLlamaConfig;
use crate::run::review::PredictionsConfig;
use crate::run::text_dataset::TextDatasetConfig;
use crate::run::tokenize_dataset::TokenizeDatasetConfig;

/// A configuration or request that crosses the boundary as JSON.
pub(super) trait Config: Serialize + DeserializeOwned + JsonSchema {
    /// Its name in [`swebench_config_schema`] and in messages.
    const KIND: &'static str;

    /// Refuses values that no type excludes, such as an unknown device.
    fn check(&self) -> Result<()>;
}

/// One kind of configuration without its type.
struct Kind {
    name: &'static str,
    schema: fn() -> Value,
    validate: fn(&str) -> Result<String>,
}

impl Kind {
    const fn of<T: Config>() -> Self {
        Self { name: T::KIND, schema: strict::schema::<T>, validate: effective::<T> }
    }

    fn find(name: &str) -> Result<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            Error::invalid_argument("unknown kind of configuration").with_expected(names.join(", "), name)
        })
    }
}

static KINDS: [Kind; 14] = [
    Kind::of::<ModelConfig>(),
    Kind::of::<GenerateConfig>(),
    Kind::of::<ClientConfig>(),
    Kind::of::<CompletionConfig>(),
    Kind::of::<RunLlamaConfig>(),
    Kind::of::<RunApiConfig>(),
    Kind::of::<RunLiveConfig>(),
    Kind::of::<TextDatasetConfig>(),
    Kind::of::<TokenizeDatasetConfig>(),
    Kind::of::<Bm25RetrievalConfig>(),
    Kind::of::<EvalRetrievalConfig>(),
    Kind::of::<BenchConfig>(),
    Kind::of::<DiffConfig>(),
    Kind::of::<PredictionsConfig>(),
];

fn effective<T: Config>(json: &str) -> Result<String> {
    let config: T = parse(json)?;
    serde_json::to_string_pretty(&config)
        .map_err(|source| Error::internal("cannot write the configuration").with_source(source))
}

/// The JSON Schema (draft 2020-12) of a kind of configuration: every key with its meaning, type and default.
///
/// `kind` is "model" (swebench_model_load), "generate" (swebench_generate_start), "client" (swebench_client_open),
/// "completion" (swebench_client_complete_start), "run-llama" (swebench_run_llama_start), "run-api"
/// (swebench_run_api_start), "run-live" (swebench_run_live_start), "create-text-dataset"
/// (swebench_run_text_dataset_start), "tokenize-dataset" (swebench_run_tokenize_dataset_start), "bm25-retrieval"
/// (swebench_run_bm25_retrieval_start), "eval-retrieval" (swebench_run_eval_retrieval_start), "bench"
/// (swebench_bench_start), "diff" (swebench_diff) or "predictions" (swebench_predictions_start). Free `out` with
/// swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_config_schema(
    kind: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: text and output are valid by contract.
        let (kind, out) = unsafe { (kind.get("kind")?, Out::new(out, "out")?) };
        let schema = (Kind::find(kind)?.schema)();
        out.write(Buf::new(format!("{schema:#}")));
        OK
    })
}

/// Checks a configuration without doing anything, and writes it with every default filled in as JSON.
///
/// An unknown key is SWEBENCH_ERROR_INVALID_ARGUMENT with a hint that names the nearest known one. Free `out` with
/// swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_config_validate(
    kind: Str,
    config_json: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: texts and output are valid by contract.
        let (kind, config_json, out) =
            unsafe { (kind.get("kind")?, config_json.get("config_json")?, Out::new(out, "out")?) };
        out.write(Buf::new((Kind::find(kind)?.validate)(config_json)?));
        OK
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_the_schema_is_closed() {
        for kind in &KINDS {
            let schema = (kind.schema)();
            assert_eq!(schema["additionalProperties"], Value::Bool(false), "{}", kind.name);
            for (key, property) in schema["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{}.{key}", kind.name);
            }
        }
    }

    #[test]
    fn an_unknown_kind_lists_the_known_ones() {
        let error = Kind::find("modle").map(|_| ()).unwrap_err();
        assert!(
            error.to_string().contains(
                "expected model, generate, client, completion, run-llama, run-api, run-live, create-text-dataset, \
                 tokenize-dataset, bm25-retrieval, eval-retrieval, bench, diff, predictions, got modle"
            ),
            "{error}"
        );
    }
}
