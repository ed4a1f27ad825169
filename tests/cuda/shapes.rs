//! Shapes that real models have and the goldens do not: odd vocabularies, heads of every padding, one key/value head, and each block size.

use swebench_infer::backend::cuda::CudaBackend;
use swebench_infer::backend::reference::ReferenceBackend;
use swebench_infer::backend::{Backend, Batch, BatchEntry, DType, LogitsRows};
use swebench_infer::model::llama::{Limits, Llama};
use swebench_infer::model::{Decoder, ModelConfig, RandomWeights};

use crate::chip::Chip;
use crate::harness::rms_error;

/// `(architecture, heads, key/value heads, head_dim, vocabulary, tokens of a block)`.
const SHAPES: [(&str, usize, usize, usize, usize, usize); 5] = [
    ("LlamaForCausalLM", 6, 2, 20, 83, 16),
    ("Qwen2ForCausalLM", 16, 1, 64, 1003, 32),
    ("MistralForCausalLM", 4, 4, 80, 97, 64),
    ("LlamaForCausalLM", 5, 1, 100, 129, 128),
    ("Qwen3ForCausalLM", 2, 1, 200, 101, 64),
];

/// Root mean square of the error as a share of the logits' own: activations round to 8 bits some ten times on the way through two layers.
const TOLERANCE: f32 = 0.02;

fn load<B: Backend>(backend: B, config: &ModelConfig, block_size: usize) -> Box<dyn Decoder> {
    let limits = Limits { max_step_tokens: Some(100), max_context: None, block_size: Some(block_size) };
    let weights = RandomWeights::new(DType::BF16);
    let num_blocks = 3 * 128 / block_size;
    Box::new(Llama::load(backend, config.clone(), &weights, limits, |_, _| Ok(num_blocks)).unwrap())
}

/// Logits of a step of prompts, a step that decodes one sequence, drafts for another and begins a chunk of the third, and a step after it.
fn logits(decoder: &mut dyn Decoder) -> Vec<f32> {
    let block_size = decoder.kv_layout().block_size;
    let vocab_size = decoder.config().vocab_size as u32;
    let mut kv_lens = [0_usize; 3];
    let (mut batch, mut logits) = (Batch::default(), Vec::new());
    for query_lens in [[33, 17, 40], [1, 5, 30], [16, 1, 1]] {
        batch.clear();
        for (sequence, query_len) in query_lens.into_iter().enumerate() {
            let first = kv_lens[sequence];
            kv_lens[sequence] += query_len;
            let tokens: Vec<u32> = (first..kv_lens[sequence])
                .map(|position| (position * 37 + sequence * 11) as u32 % vocab_size)
                .collect();
            let blocks = kv_lens[sequence].div_ceil(block_size);
            let block_table: Vec<u32> = (0..blocks).map(|block| (block * 3 + sequence) as u32).collect();
            batch.push(BatchEntry {
                tokens: &tokens,
                kv_len: kv_lens[sequence],
                block_table: &block_table,
                prompt_len: 40,
                logits: LogitsRows::All,
            });
        }
        logits.extend_from_slice(decoder.step(&batch).unwrap());
    }
    logits
}

#[test]
fn shapes_of_real_models_agree_with_the_reference() {
    for (architecture, heads, kv_heads, head_dim, vocabulary, block_size) in SHAPES {
        let config = ModelConfig::parse(&format!(
            r#"{{"architectures": ["{architecture}"], "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 2,
                "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads}, "head_dim": {head_dim},
                "vocab_size": {vocabulary}, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}}"#
        ))
        .unwrap();
        let expected = logits(&mut *load(ReferenceBackend::new(DType::BF16), &config, block_size));
        let size = rms_error(&expected, &vec![0.0; expected.len()]);
        for (name, chip) in [("Hopper", Chip::hopper()), ("Ampere", Chip::ampere())] {
            let backend = CudaBackend::new(chip, DType::BF16).unwrap();
            let got = logits(&mut *load(backend, &config, block_size));
            let error = rms_error(&got, &expected) / size;
            assert!(error <= TOLERANCE, "{architecture} of head_dim {head_dim} on {name}: {error}");
        }
    }
}
