//! Prefill and decode speed at given prompt lengths, depths and batch sizes, beside the machine's own memory rate.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::{Batch, BatchEntry, DType, Device, LogitsRows, Quantization};
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
    /// For decode tests, the rate at which weights and cache could be read once a step, from [`BenchReport::memory_gb_s`].
    pub limit: Option<f64>,
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
    /// Gigabytes a second at which memory was read in this run.
    pub memory_gb_s: f64,
    /// One a test.
    pub rows: Vec<BenchRow>,
}

/// Runs every test, reporting each row as it is measured.
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
    let memory_gb_s = read_rate(config.threads);
    let mut bench = Bench { decoder: &mut *decoder, cancel, batch: Batch::default() };
    let dtype = bench.dtype(config)?;
    let quantize = Quantization::parse(&config.quantize)?;
    let mut rows = Vec::new();
    for &len in &config.prompt {
        let seconds = repeat(config.repetitions, || bench.prefill(len))?;
        rows.push(row(format!("pp{len}"), len, &seconds, None));
        rows.last().into_iter().for_each(&mut *on_row);
    }
    for &depth in config.depth.iter().filter(|_| config.new_tokens > 0) {
        for &sequences in &config.batch {
            let seconds = repeat(config.repetitions, || bench.decode(depth, config.new_tokens, sequences))?;
            let bytes = bench.bytes_per_step(depth + config.new_tokens / 2, sequences, dtype, quantize);
            let limit = memory_gb_s * 1e9 / bytes as f64 * sequences as f64;
            let name = match sequences {
                1 => format!("tg{}@{depth}", config.new_tokens),
                _ => format!("tg{}@{depth}x{sequences}", config.new_tokens),
            };
            rows.push(row(name, config.new_tokens * sequences, &seconds, Some(limit)));
            rows.last().into_iter().for_each(&mut *on_row);
        }
    }
    Ok(BenchReport {
        backend: decoder.backend(),
        parameters: decoder.config().num_parameters(),
        dtype: dtype.name(),
        load_seconds,
        memory_gb_s,
        rows,
    })
}

fn open(config: &BenchConfig) -> Result<Box<dyn Decoder>> {
    let longest_prompt = config.prompt.iter().copied().max().unwrap_or(0);
    let deepest = config.depth.iter().copied().max().unwrap_or(0) + config.new_tokens;
    let context = longest_prompt.max(deepest).max(1);
    let sequences = config.batch.iter().copied().max().unwrap_or(1).max(1);
    let mut options = LoadOptions {
        device: config.device.parse::<Device>()?,
        dtype: if config.dtype == "auto" { None } else { Some(config.dtype.parse::<DType>()?) },
        quantize: Quantization::parse(&config.quantize)?,
        threads: config.threads,
        ..LoadOptions::default()
    };
    let (model, random) = match (&config.model, &config.config) {
        (Some(dir), None) => (ModelConfig::open(dir)?, false),
        (None, Some(path)) => (read_config(path)?, true),
        _ => return Err(Error::invalid_argument("a benchmark needs either a model or a configuration")),
    };
    if context > model.max_position_embeddings {
        return Err(Error::invalid_argument("a test is longer than the model's context")
            .with_expected(format_args!("at most {}", model.max_position_embeddings), context));
    }
    let dtype = options.dtype.or(model.dtype).unwrap_or(DType::BF16);
    let token_bytes = 2 * model.num_layers * model.num_kv_heads * model.head_dim * dtype.size();
    // One block more a sequence covers the rounding.
    options.kv_memory = Some((token_bytes * (context + 64) * sequences) as u64);
    match &config.model {
        Some(dir) if !random => load(dir, &options),
        _ => load_random(model, &options),
    }
}

fn read_config(path: &std::path::Path) -> Result<ModelConfig> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::io("read the configuration", path, source))?;
    ModelConfig::parse(&text).map_err(|error| error.with_path(path))
}

fn row(test: String, tokens: usize, seconds: &[f64], limit: Option<f64>) -> BenchRow {
    let rate = |seconds: f64| tokens as f64 / seconds;
    BenchRow {
        test,
        tokens_per_second: rate(seconds[seconds.len() / 2]),
        min: rate(seconds[seconds.len() - 1]),
        max: rate(seconds[0]),
        limit,
    }
}

/// Seconds of every repetition, ascending.
fn repeat(repetitions: usize, mut test: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    let mut seconds = (0..repetitions.max(1)).map(|_| test()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

struct Bench<'a> {
    decoder: &'a mut dyn Decoder,
    cancel: &'a CancelToken,
    batch: Batch,
}

impl Bench<'_> {
    fn dtype(&self, config: &BenchConfig) -> Result<DType> {
        if config.dtype != "auto" {
            return config.dtype.parse();
        }
        Ok(self.decoder.config().dtype.unwrap_or(DType::BF16))
    }

    /// Bytes that a decode step has to read: every weight once, and every sequence's cache.
    fn bytes_per_step(
        &self,
        depth: usize,
        sequences: usize,
        dtype: DType,
        quantize: Option<Quantization>,
    ) -> usize {
        let config = self.decoder.config();
        let embedding = if config.tie_word_embeddings { 0 } else { config.vocab_size * config.hidden_size };
        let cache = self.decoder.kv_layout().elements_per_token() * depth * sequences;
        let weights = config.num_parameters() - embedding;
        let weight_bytes = quantize.map_or(weights * dtype.size(), |quantize| quantize.weight_bytes(weights));
        weight_bytes + cache * dtype.size()
    }

    /// Seconds to compute a prompt of `len` tokens, in chunks, up to the first logits.
    fn prefill(&mut self, len: usize) -> Result<f64> {
        let started = Instant::now();
        self.fill(0, len)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds to decode `new_tokens` tokens of `sequences` sequences after `depth` tokens of context each.
    ///
    /// All sequences but the first read cache that no prefill wrote: zeros take as long as keys.
    fn decode(&mut self, depth: usize, new_tokens: usize, sequences: usize) -> Result<f64> {
        if depth > 0 {
            self.fill(0, depth)?;
        }
        let started = Instant::now();
        for token in 0..new_tokens {
            self.cancel.check()?;
            self.batch.clear();
            for sequence in 0..sequences {
                let kv_len = depth + token + 1;
                push(&mut self.batch, self.decoder, sequence, &[token_id(token, sequence)], kv_len);
            }
            black_box(self.decoder.step(&self.batch)?);
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn fill(&mut self, sequence: usize, len: usize) -> Result<()> {
        let chunk = self.decoder.max_step_tokens();
        let tokens: Vec<u32> = (0..len).map(|i| token_id(i, sequence)).collect();
        let mut done = 0;
        while done < len {
            self.cancel.check()?;
            let next = (done + chunk).min(len);
            self.batch.clear();
            push(&mut self.batch, self.decoder, sequence, &tokens[done..next], next);
            black_box(self.decoder.step(&self.batch)?);
            done = next;
        }
        Ok(())
    }
}

/// Small ids of no meaning, which every vocabulary has.
fn token_id(position: usize, sequence: usize) -> u32 {
    ((position * 7 + sequence * 13) % 61) as u32
}

/// Sequence `n` owns the `n`-th equal share of the blocks.
fn push(batch: &mut Batch, decoder: &dyn Decoder, sequence: usize, tokens: &[u32], kv_len: usize) {
    let blocks = kv_len.div_ceil(decoder.kv_layout().block_size);
    let first = (sequence * blocks) as u32;
    let block_table: Vec<u32> = (first..first + blocks as u32).collect();
    let entry = BatchEntry {
        tokens,
        kv_len,
        block_table: &block_table,
        prompt_len: kv_len,
        logits: LogitsRows::Last,
    };
    batch.push(entry);
}

/// Gigabytes a second at which all threads together read memory that no cache holds.
fn read_rate(threads: Option<usize>) -> f64 {
    const BYTES: usize = 512 << 20;
    let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let words = vec![1u64; BYTES / 8];
    let pass = || {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(move || black_box(part.iter().fold(0u64, |sum, word| sum ^ word)));
            }
        });
        started.elapsed().as_secs_f64()
    };
    let best = (0..5).map(|_| pass()).fold(f64::INFINITY, f64::min);
    BYTES as f64 / best / 1e9
}
