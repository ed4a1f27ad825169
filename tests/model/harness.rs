//! Loads a golden case on every backend, and runs sequences through paged steps.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use swebench_infer::Result;
use swebench_infer::backend::cpu::{CpuBackend, CpuOptions, Isa};
use swebench_infer::backend::reference::ReferenceBackend;
use swebench_infer::backend::{Backend, Batch, BatchEntry, DType, LogitsRows};
use swebench_infer::model::llama::{Limits, Llama};
use swebench_infer::model::lora::LoraAdapter;
use swebench_infer::model::weights::Checkpoint;
use swebench_infer::model::{Decoder, ModelConfig, WeightSource};

/// Tokens of one block, as the library loads models.
pub const BLOCK_SIZE: usize = 32;
/// Blocks that a sequence of a test may fill.
pub const BLOCKS_PER_SEQUENCE: usize = 4;
/// Sequences that a test may hold at once.
pub const MAX_SEQUENCES: usize = 6;

/// Every architecture and option of a model.
pub const CASES: [&str; 20] = [
    "codellama",
    "llama",
    "llama-attention-bias",
    "llama-bf16",
    "llama-f16",
    "llama-gqa-tied",
    "llama-mlp-bias",
    "llama-sharded",
    "mistral",
    "mistral-full",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "rope-dynamic",
    "rope-linear",
    "rope-llama3",
    "rope-yarn",
    "rope-yarn-attention-factor",
    "rope-yarn-mscale",
    "swe-llama-bin",
];

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/goldens")
}

/// One model on every backend that this machine has, by name.
pub fn decoders(base: &str, adapter: Option<&str>, dtype: DType) -> Vec<(String, Box<dyn Decoder>)> {
    let mut decoders: Vec<(String, Box<dyn Decoder>)> = Vec::new();
    decoders.push(("reference".into(), load(ReferenceBackend::new(dtype), base, adapter).unwrap()));
    for isa in Isa::supported() {
        let backend =
            CpuBackend::new(CpuOptions { dtype, threads: Some(2), isa: Some(isa), quantize: None }).unwrap();
        decoders.push((format!("cpu {isa:?}"), load(backend, base, adapter).unwrap()));
    }
    decoders
}

/// One model on a backend.
pub fn load<B: Backend>(backend: B, base: &str, adapter: Option<&str>) -> Result<Box<dyn Decoder>> {
    let dir = goldens().join(base);
    let config = ModelConfig::open(&dir)?;
    let checkpoint = Checkpoint::open(&dir)?;
    checkpoint.check(&config.tensors(), &|name| name.ends_with("rotary_emb.inv_freq"))?;
    let adapter = adapter.map(|adapter| LoraAdapter::open(&goldens().join(adapter))).transpose()?;
    let source = WeightSource::new(checkpoint, adapter)?;
    let num_blocks = BLOCKS_PER_SEQUENCE * MAX_SEQUENCES;
    let limits = Limits { max_step_tokens: Some(256), block_size: Some(BLOCK_SIZE), ..Limits::default() };
    Ok(Box::new(Llama::load(backend, config, &source, limits, |_, _| Ok(num_blocks))?))
}

/// What transformers computed for one sequence.
pub struct Golden {
    pub ids: Vec<u32>,
    /// Logits of the last positions, `[rows, vocab]`.
    pub logits: Vec<f32>,
    pub logits_bf16: Vec<f32>,
    /// Tokens that follow greedily, for the sequences that have them.
    pub greedy: Option<Vec<u32>>,
    /// Logits of the greedy steps, where they differ from those of a single pass.
    pub greedy_logits: Option<Vec<f32>>,
}

pub fn read_goldens(case: &str) -> Vec<Golden> {
    let bytes = std::fs::read(goldens().join(case).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ids = |name: &str| -> Option<Vec<u32>> {
        let data = tensors.tensor(name).ok()?.data();
        Some(data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect())
    };
    let floats = |name: &str| -> Option<Vec<f32>> {
        let data = tensors.tensor(name).ok()?.data();
        Some(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let bf16 = |name: &str| -> Option<Vec<f32>> {
        let data = tensors.tensor(name).ok()?.data();
        Some(data.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect())
    };
    let sequence = |n: usize| {
        Some(Golden {
            ids: ids(&format!("ids.{n}"))?,
            logits: floats(&format!("logits.{n}"))?,
            logits_bf16: bf16(&format!("logits_bf16.{n}"))?,
            greedy: ids(&format!("greedy.{n}")),
            greedy_logits: floats(&format!("greedy_logits.{n}")),
        })
    };
    let sequences: Vec<_> = (0..).map_while(sequence).collect();
    assert!(sequences.len() >= 3, "{case}: only {} sequences", sequences.len());
    sequences
}

/// A sequence in flight: its tokens, how many are in the cache, and its blocks.
pub struct Running {
    pub tokens: Vec<u32>,
    pub prompt_len: usize,
    pub cached: usize,
    pub blocks: Vec<u32>,
}

impl Running {
    /// A sequence in slot `slot`, whose physical blocks are scattered through the cache.
    pub fn new(ids: &[u32], slot: usize) -> Self {
        let blocks = (0..BLOCKS_PER_SEQUENCE).rev().map(|i| (i * MAX_SEQUENCES + slot) as u32).collect();
        Self { tokens: ids.to_vec(), prompt_len: ids.len(), cached: 0, blocks }
    }

    /// Adds the next `query_len` tokens to the batch.
    pub fn push(&mut self, batch: &mut Batch, query_len: usize) {
        let kv_len = self.cached + query_len;
        batch.push(BatchEntry {
            tokens: &self.tokens[self.cached..kv_len],
            kv_len,
            block_table: &self.blocks[..kv_len.div_ceil(BLOCK_SIZE)],
            prompt_len: self.prompt_len,
            logits: LogitsRows::All,
        });
        self.cached = kv_len;
    }
}

/// Runs a whole sequence in chunks of at most `chunk` tokens; returns the logits of all positions.
pub fn prefill(decoder: &mut dyn Decoder, sequence: &mut Running, chunk: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut batch = Batch::default();
    while sequence.cached < sequence.tokens.len() {
        batch.clear();
        let left = sequence.tokens.len() - sequence.cached;
        sequence.push(&mut batch, left.min(chunk));
        logits.extend_from_slice(decoder.step(&batch).unwrap());
    }
    logits
}

/// Decodes `count` tokens greedily after a finished prefill; returns the ids and the logits they came from.
pub fn greedy(
    decoder: &mut dyn Decoder,
    sequence: &mut Running,
    last: &[f32],
    count: usize,
) -> (Vec<u32>, Vec<f32>) {
    let (mut ids, mut all) = (Vec::new(), Vec::new());
    let mut logits = last.to_vec();
    let mut batch = Batch::default();
    for _ in 0..count {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        all.extend_from_slice(&logits);
        ids.push(best);
        sequence.tokens.push(best);
        batch.clear();
        sequence.push(&mut batch, 1);
        logits = decoder.step(&batch).unwrap().to_vec();
    }
    (ids, all)
}

pub fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, value| max.max(value.abs()))
}

pub fn max_error(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |max: f32, (a, b)| {
        let error = (a - b).abs();
        if error.is_nan() { f32::INFINITY } else { max.max(error) }
    })
}

pub fn rms_error(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / a.len() as f32).sqrt()
}

/// The bf16 rule: at most twice the error of transformers' own bf16 computation, in maximum and in root mean square,
/// plus half a bf16 step of the largest logit.
pub fn assert_bf16(what: &str, decoder: &mut dyn Decoder, goldens: &[Golden], chunk: usize) {
    for golden in goldens {
        let logits = prefill(decoder, &mut Running::new(&golden.ids, 4), chunk);
        let logits = &logits[logits.len() - golden.logits.len()..];
        let step = max_abs(&golden.logits) / 512.0;
        for (kind, error) in [("max", max_error as fn(&[f32], &[f32]) -> f32), ("rms", rms_error)] {
            let limit = 2.0 * error(&golden.logits_bf16, &golden.logits) + step;
            let error = error(logits, &golden.logits);
            assert!(error <= limit, "{what}, {} tokens: {kind} {error} above {limit}", golden.ids.len());
        }
    }
}

/// f16 has three more bits of mantissa than bf16, so it has to stay below bf16's own error.
pub fn assert_f16(what: &str, decoder: &mut dyn Decoder, goldens: &[Golden], chunk: usize) {
    for golden in goldens {
        let logits = prefill(decoder, &mut Running::new(&golden.ids, 5), chunk);
        let logits = &logits[logits.len() - golden.logits.len()..];
        let limit = max_error(&golden.logits_bf16, &golden.logits) + max_abs(&golden.logits) / 512.0;
        let error = max_error(logits, &golden.logits);
        assert!(error <= limit, "{what}, {} tokens: {error} above {limit}", golden.ids.len());
    }
}
