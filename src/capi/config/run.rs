//! The configurations of runs are the runs' own; this is how they are checked when they come as JSON.

use super::Config;
use super::model::{check_device, check_dtype, positive};
use crate::backend::Quantization;
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

impl Config for RunLlamaConfig {
    const KIND: &'static str = "run-llama";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for RunApiConfig {
    const KIND: &'static str = "run-api";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for RunLiveConfig {
    const KIND: &'static str = "run-live";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for PredictionsConfig {
    const KIND: &'static str = "predictions";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for TextDatasetConfig {
    const KIND: &'static str = "create-text-dataset";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for TokenizeDatasetConfig {
    const KIND: &'static str = "tokenize-dataset";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for Bm25RetrievalConfig {
    const KIND: &'static str = "bm25-retrieval";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for EvalRetrievalConfig {
    const KIND: &'static str = "eval-retrieval";

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl Config for BenchConfig {
    const KIND: &'static str = "bench";

    fn check(&self) -> Result<()> {
        check_device(&self.device)?;
        check_dtype(&self.dtype)?;
        Quantization::parse(&self.quantize)?;
        positive("threads", self.threads)?;
        positive("repetitions", Some(self.repetitions))?;
        for (key, values) in [("prompt", &self.prompt), ("batch", &self.batch)] {
            values.iter().try_for_each(|value| positive(key, Some(*value)))?;
        }
        match (&self.model, &self.config) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) => Err(Error::invalid_argument("`model` and `config` exclude each other")),
            (None, None) => Err(Error::invalid_argument("a benchmark needs `model` or `config`")
                .with_hint("`config` is a config.json alone: the weights are random")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn a_benchmark_needs_exactly_one_model() {
        for (json, message) in [
            ("{}", "needs `model` or `config`"),
            (r#"{"model": "a", "config": "b"}"#, "exclude each other"),
            (r#"{"model": "a", "batch": [0]}"#, "`batch` is out of range"),
            (r#"{"model": "a", "device": "gpu"}"#, "unknown device"),
        ] {
            let error = parse::<BenchConfig>(json).unwrap_err();
            assert!(error.to_string().contains(message), "{json}: {error}");
        }
        assert!(parse::<BenchConfig>(r#"{"config": "config.json"}"#).is_ok());
    }

    #[test]
    fn a_run_names_the_nearest_key() {
        let error = parse::<RunLlamaConfig>(r#"{"dataset_name": "d"}"#).unwrap_err();
        assert_eq!(error.hint(), Some("did you mean `dataset_path`?"));
    }
}
