//! Prefill and decode speed at given prompt lengths, depths and batch sizes, beside the machine's own limits.

mod measure;

use std::path::{Path, PathBuf};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::measure::{Bench, Measurement, Test};
use crate::backend::{DType, Device, PeakRates, Quantization, resident_memory};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::model::{Decoder, LoadOptions, ModelConfig, load, load_random};

/// What to measure.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BenchConfig {
    /// A model directory.
    pub model: Option<PathBuf>,
    /// A `config.json` instead: random weights, no other files.
    pub config: Option<PathBuf>,
    /// `auto`, `cpu`, `reference` or `cuda:N`.
    pub device: String,
    /// `auto`, `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Weights of linear layers: `none` (in `dtype`) or `int8`.
    pub quantize: String,
    /// Worker threads.
    pub threads: Option<usize>,
    /// Prompt lengths of the prefill tests.
    pub prompt: Vec<usize>,
    /// Tokens decoded in the decode tests; 0 leaves them out.
    #[serde(rename = "gen")]
    pub new_tokens: usize,
    /// Context before the decoded tokens.
    pub depth: Vec<usize>,
    /// Sequences decoded together.
    pub batch: Vec<usize>,
    /// Repetitions of every test; the median is reported.
    pub repetitions: usize,
}

impl Default for BenchConfig {
    fn default() -> Self {
        Self {
            model: None,
            config: None,
            device: "auto".into(),
            dtype: "auto".into(),
            quantize: "none".into(),
            threads: None,
            prompt: vec![512],
            new_tokens: 32,
            depth: vec![0],
            batch: vec![1],
            repetitions: 3,
        }
    }
}

/// One test's result.
#[derive(Debug, Clone, Serialize)]
pub struct BenchRow {
    /// `pp2048`, `tg32@2048`, with `x8` for eight sequences.
    pub test: String,
    /// Median rate over all sequences.
    pub tokens_per_second: f64,
    /// Slowest repetition.
    pub min: f64,
    /// Fastest repetition.
    pub max: f64,
    /// The rate that the machine allows: each step takes as long as reading what it reads at [`Roofline::read_gb_s`], or as
    /// computing what it computes at [`Roofline::matrix_gflop_s`], whichever is longer (see [`crate::model::StepCost`]).
    /// `None` while tests are running, and where the limits are unknown.
    pub limit: Option<f64>,
    /// Share of the limit that the median reaches; above 1 only when the caches hold what memory was to hold.
    pub share: Option<f64>,
}

/// The machine's limits, each the highest of all measurements: before the tests, between them and after them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Roofline {
    /// Gigabytes a second read from memory by all threads.
    pub read_gb_s: f64,
    /// Billions of operations a second of all threads on matrices of the weights' type, a multiply-add counting two.
    pub matrix_gflop_s: f64,
}

/// Bytes that the model takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Weights as they are packed.
    pub weights: usize,
    /// The KV cache, sized for the tests.
    pub kv_cache: usize,
    /// The process at its peak, while loading or testing; the limits' measurement, which no other command makes, is left
    /// out. `None` where the system does not say.
    pub peak: Option<u64>,
}

/// The whole result.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// Backend and instruction set.
    pub backend: String,
    /// Parameters of the model.
    pub parameters: usize,
    /// Element type of weights and cache.
    pub dtype: &'static str,
    /// Seconds to load or make the model.
    pub load_seconds: f64,
    /// The machine's limits; `None` for a backend that has none.
    pub roofline: Option<Roofline>,
    /// Memory in use.
    pub memory: Memory,
    /// One a test.
    pub rows: Vec<BenchRow>,
}

/// Runs every test, reporting each row as it is measured; limits and shares are in the report, when they are known.
///
/// # Errors
/// `InvalidArgument` without a model, or when a test does not fit the context; those of loading; `Cancelled`.
pub fn run(
    config: &BenchConfig,
    cancel: &CancelToken,
    on_row: &mut dyn FnMut(&BenchRow),
) -> Result<BenchReport> {
    let started = Instant::now();
    let mut decoder = open(config)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let mut peak = resident_memory().map(|memory| memory.peak);
    let sequences = config.batch.iter().copied().max().unwrap_or(1).max(1);
    let mut rates = decoder.peak_rates()?;
    let mut measured = Vec::new();
    for test in tests(config) {
        let measurement = Bench::new(&mut *decoder, cancel, sequences).run(test, config.repetitions)?;
        peak = peak.max(resident_memory().map(|memory| memory.now));
        // Anew after each test: what is fastest counts, and a neighbour may have been busy at the first one.
        rates = rates.zip(decoder.peak_rates()?).map(|(rates, again)| rates.max(again));
        on_row(&row(test, &measurement, None));
        measured.push((test, measurement));
    }
    let layout = decoder.kv_layout();
    let kv_elements = layout.elements_per_token() * layout.block_size * layout.num_blocks;
    Ok(BenchReport {
        backend: decoder.backend(),
        parameters: decoder.config().num_parameters(),
        dtype: decoder.dtype().name(),
        load_seconds,
        roofline: rates.map(|rates| Roofline {
            read_gb_s: rates.read_bandwidth / 1e9,
            matrix_gflop_s: rates.matrix_rate / 1e9,
        }),
        memory: Memory {
            weights: decoder.weight_bytes(),
            kv_cache: kv_elements * decoder.dtype().size(),
            peak,
        },
        rows: measured.iter().map(|(test, measurement)| row(*test, measurement, rates.as_ref())).collect(),
    })
}

/// All tests in the order of the report.
fn tests(config: &BenchConfig) -> Vec<Test> {
    let prefill = config.prompt.iter().map(|&len| Test::Prefill { len });
    let new_tokens = config.new_tokens;
    let depths = config.depth.iter().filter(|_| new_tokens > 0);
    let decode = depths.flat_map(|&depth| {
        config.batch.iter().map(move |&sequences| Test::Decode { depth, new_tokens, sequences })
    });
    prefill.chain(decode).filter(|test| test.tokens() > 0).collect()
}

fn row(test: Test, measurement: &Measurement, rates: Option<&PeakRates>) -> BenchRow {
    let tokens = test.tokens() as f64;
    let seconds = &measurement.seconds;
    let tokens_per_second = tokens / seconds[seconds.len() / 2];
    let limit = rates.map(|rates| tokens / measurement.least_seconds(rates));
    BenchRow {
        test: test.to_string(),
        tokens_per_second,
        min: tokens / seconds[seconds.len() - 1],
        max: tokens / seconds[0],
        limit,
        share: limit.map(|limit| tokens_per_second / limit),
    }
}

fn open(config: &BenchConfig) -> Result<Box<dyn Decoder>> {
    let longest_prompt = config.prompt.iter().copied().max().unwrap_or(0);
    let deepest = config.depth.iter().copied().max().unwrap_or(0).saturating_add(config.new_tokens);
    let context = longest_prompt.max(deepest).max(1);
    let sequences = config.batch.iter().copied().max().unwrap_or(1).max(1);
    let mut options = LoadOptions {
        device: config.device.parse::<Device>()?,
        quantize: Quantization::parse(&config.quantize)?,
        dtype: if config.dtype == "auto" { None } else { Some(config.dtype.parse::<DType>()?) },
        threads: config.threads,
        ..LoadOptions::default()
    };
    let (model, dir) = match (&config.model, &config.config) {
        (Some(dir), None) => (ModelConfig::open(dir)?, Some(dir)),
        (None, Some(path)) => (read_config(path)?, None),
        _ => return Err(Error::invalid_argument("a benchmark needs either a model or a configuration")),
    };
    if context > model.context_len() {
        return Err(Error::invalid_argument("a test is longer than the model's context")
            .with_expected(format_args!("at most {}", model.context_len()), context));
    }
    let dtype = options.dtype.or(model.dtype).unwrap_or(DType::BF16);
    let token_bytes = 2 * model.num_layers * model.num_kv_heads * model.head_dim * dtype.size();
    // A block of at most 64 tokens more a sequence covers the rounding.
    let bytes = token_bytes.saturating_mul(context + 64).saturating_mul(sequences);
    options.kv_memory = Some(bytes as u64);
    match dir {
        Some(dir) => load(dir, &options),
        None => load_random(model, &options),
    }
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::io("read the configuration", path, source))?;
    ModelConfig::parse(&text).map_err(|error| error.with_path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of a model small enough for any machine.
    fn report(change: impl FnOnce(&mut BenchConfig)) -> Result<(BenchReport, Vec<BenchRow>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
                "max_position_embeddings": 1024, "torch_dtype": "bfloat16"}"#,
        )
        .unwrap();
        let mut config = BenchConfig { config: Some(path), threads: Some(1), ..BenchConfig::default() };
        change(&mut config);
        let mut seen = Vec::new();
        let report = run(&config, &CancelToken::default(), &mut |row| seen.push(row.clone()))?;
        Ok((report, seen))
    }

    #[test]
    fn every_test_has_a_row_with_its_limit() {
        let (report, seen) = report(|config| {
            config.prompt = vec![1, 600];
            config.depth = vec![0, 40];
            config.batch = vec![1, 3];
            config.new_tokens = 2;
        })
        .unwrap();
        let names = ["pp1", "pp600", "tg2@0", "tg2@0x3", "tg2@40", "tg2@40x3"];
        assert_eq!(report.rows.iter().map(|row| &*row.test).collect::<Vec<_>>(), names);
        assert_eq!(seen.iter().map(|row| &*row.test).collect::<Vec<_>>(), names);
        assert!(
            report.roofline.is_some_and(|roofline| roofline.read_gb_s > 0.0 && roofline.matrix_gflop_s > 0.0)
        );
        for row in &report.rows {
            let (limit, share) = (row.limit.unwrap(), row.share.unwrap());
            assert!(row.min <= row.tokens_per_second && row.tokens_per_second <= row.max, "{row:?}");
            assert!((share * limit / row.tokens_per_second - 1.0).abs() < 1e-9, "{row:?}");
        }
    }

    #[test]
    fn memory_is_that_of_the_model() {
        let (report, _) = report(|config| config.new_tokens = 0).unwrap();
        assert_eq!(report.dtype, "bf16");
        // Norms are not counted, and the output columns of a panel are padded to 32.
        let padded_head = (128 - 100) * 64;
        let norms = 5 * 64;
        assert_eq!(report.memory.weights, 2 * (report.parameters - norms + 2 * padded_head));
        assert!(report.memory.kv_cache >= 2 * (2 * 2 * 2 * 16) * 512, "{:?}", report.memory);
    }

    #[test]
    fn a_backend_without_limits_has_rows_all_the_same() {
        let (report, _) = report(|config| {
            config.device = "reference".to_owned();
            config.prompt = vec![3];
            config.new_tokens = 1;
        })
        .unwrap();
        assert!(report.roofline.is_none() && report.rows.len() == 2);
        assert!(report.rows.iter().all(|row| row.limit.is_none() && row.tokens_per_second > 0.0));
    }

    #[test]
    fn tests_that_cannot_run_are_refused() {
        let message = |change: fn(&mut BenchConfig)| report(change).unwrap_err().to_string();
        assert!(message(|config| config.prompt = vec![1025]).contains("longer than the model's context"));
        assert!(
            message(|config| config.depth = vec![usize::MAX]).contains("longer than the model's context")
        );
        assert!(message(|config| config.config = None).contains("either a model or a configuration"));
    }
}
